"""What every meter gives: blocks of samples with two clocks, a marker, and what is known against them.

A decoder turns bytes into such blocks and nothing else: it has no clock and reads no port, so a
stored capture decodes to the same samples years later. Its output does not depend on how the bytes
were cut, but for the host time, which is that of the piece that completed a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntFlag
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I8 = NDArray[np.int8]
U16 = NDArray[np.uint16]

#: SCPI instruments say overload by this number, of either sign.
OVERLOAD = 9.9e37
#: And "not a number" by this one.
NOT_A_NUMBER = 9.91e37


class Flag(IntFlag):
    """What is known against one sample."""

    OVERLOAD = 1 << 0  # the meter was over its range: values are NaN
    GAP_BEFORE = 1 << 1  # samples are missing between the one before and this
    DUPLICATE = 1 << 2  # a repetition stood before this sample and was left out
    BACKWARD = 1 << 3  # the meter's clock went back, its sequence did not
    RESET = 1 << 4  # the meter started anew: sequence and clock begin again
    UNCHECKED = 1 << 5  # the format has no checksum: damage may have passed as a value
    MALFORMED_BEFORE = 1 << 6  # damaged bytes stood before this sample and were left out
    LOCAL_MODE = 1 << 7  # the meter had been set to local at its front panel
    NAN = 1 << 8  # the meter said "not a number"
    CLOCK_JUMP = 1 << 9  # the meter's clock leapt forward, its sequence did not
    ODD = 1 << 10  # a cross-check within the sample, or with the one before, fails
    ASSUMED_VOLTS = 1 << 11  # watts are amperes times a supply voltage that was stated, not metered
    RESYNC = 1 << 12  # a binary stream had lost step before this sample


#: Any of these in a window and the run is invalid (the board note's rule 8).
INVALIDATING = Flag.OVERLOAD | Flag.RESET | Flag.BACKWARD | Flag.CLOCK_JUMP


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """One block of samples; all arrays are one-dimensional and of one length.

    Attributes:
        meter_s: the meter's own clock in seconds, unwrapped; NaN where it has none.
        host_s: monotonic host seconds at which the sample's last byte was read.
        volts: supply voltage; NaN where it is missing or not metered, never 0.
        amperes: current; NaN where it is missing.
        watts: the product, or what the meter itself measured; NaN where missing.
        marker: 1 inside a measured window, 0 outside, -1 where the meter has no such line.
        flags: bits of ``Flag``.
        sequence: the meter's running number; -1 where it has none.
    """

    meter_s: F64
    host_s: F64
    volts: F64
    amperes: F64
    watts: F64
    marker: I8
    flags: U16
    sequence: I64

    def __post_init__(self) -> None:
        shapes = {getattr(self, name).shape for name in COLUMNS}
        if len(shapes) != 1 or len(self.host_s.shape) != 1:
            told = ", ".join(f"{n} {getattr(self, n).shape}" for n in COLUMNS)
            raise ValueError(f"columns of one block differ in shape: {told}")

    def __len__(self) -> int:
        return len(self.host_s)

    @classmethod
    def empty(cls) -> Self:
        """No samples."""
        return cls.of(host_s=np.empty(0))

    @classmethod
    def of(
        cls,
        *,
        host_s: Sequence[float] | F64,
        meter_s: Sequence[float] | F64 | None = None,
        volts: Sequence[float] | F64 | None = None,
        amperes: Sequence[float] | F64 | None = None,
        watts: Sequence[float] | F64 | None = None,
        marker: Sequence[int] | I8 | None = None,
        flags: Sequence[int] | U16 | None = None,
        sequence: Sequence[int] | I64 | None = None,
    ) -> Self:
        """A block of what there is: columns left out are missing (NaN, -1, no flag).

        ``watts`` left out is the product of volts and amperes.
        """
        host = np.asarray(host_s, np.float64)
        n = len(host)

        def column(values: Sequence[float] | F64 | None) -> F64:
            return np.full(n, np.nan) if values is None else np.asarray(values, np.float64)

        volt, ampere = column(volts), column(amperes)
        return cls(
            meter_s=column(meter_s),
            host_s=host,
            volts=volt,
            amperes=ampere,
            watts=volt * ampere if watts is None else column(watts),
            marker=np.full(n, -1, np.int8) if marker is None else np.asarray(marker, np.int8),
            flags=np.zeros(n, np.uint16) if flags is None else np.asarray(flags, np.uint16),
            sequence=np.full(n, -1, np.int64)
            if sequence is None
            else np.asarray(sequence, np.int64),
        )

    @staticmethod
    def join(blocks: Sequence[Samples]) -> Samples:
        """All samples of ``blocks``, in their order."""
        if len(blocks) == 1:
            return blocks[0]
        if not blocks:
            return Samples.empty()
        return Samples(**{n: np.concatenate([getattr(b, n) for b in blocks]) for n in COLUMNS})

    def take(self, which: slice | NDArray[np.bool_] | I64) -> Samples:
        """The samples that ``which`` selects, as numpy indexing does."""
        return Samples(**{n: getattr(self, n)[which] for n in COLUMNS})

    def flagged(self, bits: Flag) -> NDArray[np.bool_]:
        """Of each sample whether any of ``bits`` is set."""
        hit: NDArray[np.bool_] = (self.flags & np.uint16(bits)) != 0
        return hit


#: Names of the columns, in the order in which they are stored.
COLUMNS = tuple(f.name for f in fields(Samples))


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeCounts:
    """What a decoder has met since it was made.

    Attributes:
        accepted: samples given out.
        damaged: frames refused: grammar, checksum or length.
        duplicates: repetitions left out.
        missing: samples that the sequence says were lost.
        resets: how often the meter started anew.
        discarded_bytes: bytes that became part of no sample and no known reply.
        replies: lines that are no readings but answers to questions (identity, errors, sums).
    """

    accepted: int = 0
    damaged: int = 0
    duplicates: int = 0
    missing: int = 0
    resets: int = 0
    discarded_bytes: int = 0
    replies: int = 0


class Decoder(Protocol):
    """Bytes to samples; pure."""

    def feed(self, data: bytes, host_s: float) -> Samples:
        """The samples that ``data`` completes; ``host_s`` is when it was read."""
        ...

    @property
    def counts(self) -> DecodeCounts:
        """What was met so far."""
        ...
