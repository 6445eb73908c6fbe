"""Meters that speak without being asked: a link and a decoder, no commands."""

from __future__ import annotations

import time

import numpy as np

from dynrt.errors import MeterError
from dynrt.fpga.links import Link, heard_s
from dynrt.fpga.meters.protocol import CrossCheck, MeterIdentity, MeterSettings, source_of
from dynrt.fpga.samples import DecodeCounts, Decoder, Samples

#: Identified by its first good lines: so many, within so long.
_LINES = 16
_PATIENCE_S = 3.0


class StreamMeter:
    """A meter that sends samples from the moment it has power.

    Everything it sends goes through one decoder, from ``open`` on, and comes out of ``read``: what
    is stored of the link decodes to the same samples.

    Args:
        link: where it speaks.
        decoder: of its format.
        maker, model: what it is, since it cannot say so.
        checksummed: whether the format has a checksum.
        has_marker: whether its samples carry the marker line.
        lag_s: see ``MeterIdentity``.
        patience_s: how long it may take to be heard.
    """

    def __init__(
        self,
        link: Link,
        decoder: Decoder,
        *,
        maker: str,
        model: str,
        checksummed: bool,
        has_marker: bool,
        lag_s: float = 0.0,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._link = link
        self._decoder = decoder
        self._maker, self._model, self._checksummed = maker, model, checksummed
        self._has_marker, self._lag_s = has_marker, lag_s
        self._patience_s = patience_s
        self._ahead: list[Samples] = []

    @property
    def counts(self) -> DecodeCounts:
        """What the decoder has met."""
        return self._decoder.counts

    @property
    def cross_check(self) -> CrossCheck | None:
        """``None``: such a meter keeps no sums."""
        return None

    def open(self) -> None:
        """Nothing to wake."""

    def identify(self) -> MeterIdentity:
        """Wait for some good samples, and take the rate from them.

        Raises:
            MeterError: silence, or bytes that are not this meter's.
        """
        deadline_s = time.monotonic() + self._patience_s
        heard, counted = 0, 0
        while counted < _LINES and (left_s := deadline_s - time.monotonic()) > 0:
            data = self._link.read(min(left_s, 0.25))
            heard += len(data)
            if data and len(block := self._decoder.feed(data, heard_s(self._link))):
                self._ahead.append(block)
                counted += len(block)
        if not counted:
            what = f"{heard} bytes, none of them a sample" if heard else "silence"
            raise MeterError(
                f"{self._link.name}: no {self._model} ({what} in {self._patience_s:g} s)"
            )
        return MeterIdentity(
            maker=self._maker,
            model=self._model,
            serial="",
            checksummed=self._checksummed,
            rate_hz=_rate_hz(Samples.join(self._ahead)),
            has_marker=self._has_marker,
            lag_s=self._lag_s,
            source=source_of(self._link.emulated),
        )

    def configure(self, settings: MeterSettings) -> None:
        """Nothing can be set over the line."""

    def start(self) -> None:
        """It has been sampling all along."""

    def read(self, timeout_s: float) -> Samples:
        """What came; see ``Meter``."""
        if self._ahead:
            block, self._ahead = Samples.join(self._ahead), []
            return block
        data = self._link.read(timeout_s)
        return self._decoder.feed(data, heard_s(self._link)) if data else Samples.empty()

    def stop(self) -> None:
        """It cannot be stopped."""

    def close(self) -> None:
        """Close the link."""
        self._link.close()


def _rate_hz(block: Samples) -> float:
    """Samples per second of the meter's clock, by its sequence if any; NaN if too few say."""
    if len(block) < 2:
        return float("nan")
    counted = bool((block.sequence >= 0).all())
    spans_s = np.diff(block.meter_s)
    steps = np.diff(block.sequence) if counted else np.ones(len(spans_s), np.int64)
    whole = (steps > 0) & (spans_s > 0)
    return float(np.median(steps[whole] / spans_s[whole])) if whole.any() else float("nan")
