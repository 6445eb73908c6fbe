"""Which range of a tensor its 256 integers cover: histograms, and the clipping of least error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynrt.errors import ExportError
from dynrt.ir.graph import Array

_LEVELS = 255
#: Bins on either side of zero; an even number, so that pairs can be merged.
_HALF_BINS = 4096
#: Shares of the observed range that are tried.
_SHARES = np.linspace(1.0, 0.3, 71)


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """How uint8 stands for numbers: ``value = scale * (stored - zero)``; zero is always exact.

    Attributes:
        scale: above zero, exactly a float32.
        zero: 0..255.
    """

    scale: float
    zero: int

    @classmethod
    def covering(cls, low: float, high: float) -> Affine:
        """The finest one that covers ``low..high`` and zero."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = float(np.float32((high - low) / _LEVELS))
        if not scale >= float(np.finfo(np.float32).tiny):
            return cls(scale=1.0, zero=0)
        return cls(scale=scale, zero=min(max(round(-low / scale), 0), _LEVELS))

    def store(self, values: Array) -> npt.NDArray[np.uint8]:
        """``values`` as ONNX's ``QuantizeLinear`` stores them."""
        steps = np.rint(np.asarray(values, np.float32) / np.float32(self.scale))
        stored: npt.NDArray[np.uint8] = np.clip(steps + self.zero, 0, _LEVELS).astype(np.uint8)
        return stored


class ValueHistogram:
    """How often which values come, in one pass, whatever their range.

    Zeros are not counted: they are exact in any case.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(2 * _HALF_BINS, np.int64)
        self._reach = 0.0
        self._low = self._high = 0.0

    @property
    def empty(self) -> bool:
        """Whether nothing but zeros came."""
        return not self._reach

    def add(self, values: Array, *, place: str) -> None:
        """Count ``values``.

        Raises:
            ExportError: one is not finite; ``place`` names the tensor.
        """
        flat = np.asarray(values, np.float64).reshape(-1)
        flat = flat[flat != 0]
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not math.isfinite(low) or not math.isfinite(high):
            raise ExportError(f"{place}: a value is not finite on the calibration data")
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._widen(max(-low, high))
        width = self._reach / _HALF_BINS
        bins = np.floor(flat / width).astype(np.int64) + _HALF_BINS
        self._counts += np.bincount(np.clip(bins, 0, 2 * _HALF_BINS - 1), minlength=2 * _HALF_BINS)

    def _widen(self, largest: float) -> None:
        """Let the bins reach ``largest``; the reach is a power of two."""
        if not self._reach:
            self._reach = 2.0 ** math.ceil(math.log2(largest))
        while largest > self._reach:
            merged = self._counts.reshape(_HALF_BINS, 2).sum(axis=1)
            self._counts = np.zeros(2 * _HALF_BINS, np.int64)
            self._counts[_HALF_BINS // 2 : _HALF_BINS // 2 + _HALF_BINS] = merged
            self._reach *= 2

    def affine(self) -> Affine:
        """The one of least squared error: finer steps against clipped ends."""
        if self.empty:
            return Affine(scale=1.0, zero=0)
        used = np.flatnonzero(self._counts)
        width = self._reach / _HALF_BINS
        centres = (used - _HALF_BINS + 0.5) * width
        counts = self._counts[used]
        best = (math.inf, 1.0)
        for share in _SHARES:
            low, high = self._low * share, self._high * share
            beyond = centres - np.clip(centres, low, high)
            step = (high - low) / _LEVELS
            error = float((counts * np.where(beyond == 0, step * step / 12, beyond**2)).sum())
            best = min(best, (error, float(share)), key=lambda pair: pair[0])
        return Affine.covering(self._low * best[1], self._high * best[1])
