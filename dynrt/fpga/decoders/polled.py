"""What Linux knows of itself, as lines that this program writes when it polls: RAPL and hwmon.

``ns,energy_uj,range_uj*CRC32`` and ``ns,millivolts,milliamperes,microwatts*CRC32``, a value that
could not be read left out. The line is what a session stores, so that it replays like any meter.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence

from dynrt.fpga.decoders.lines import LineSplitter
from dynrt.fpga.samples import DecodeCounts, Flag, Samples

_LINE = re.compile(rb"(\d{1,20})((?:,-?\d{0,20}){1,4})\*([0-9A-F]{8})")
_MOST_BYTES = 160
#: A processor that seems to draw more has not: its counter was reset.
_MOST_WATTS = 5_000.0
#: No processor package runs through its counter's range at more than this.
_SUSTAINED_WATTS = 500.0


def encode_poll(ns: int, values: Sequence[int | None]) -> bytes:
    """One line of values read at ``ns``."""
    told = ",".join("" if v is None else str(v) for v in values)
    body = f"{ns},{told}".encode("ascii")
    return body + b"*%08X\n" % zlib.crc32(body)


class _PollDecoder:
    """Lines of so many values; subclasses make samples of them."""

    _columns: int

    def __init__(self) -> None:
        self._lines = LineSplitter(_MOST_BYTES)
        self._pending = Flag(0)
        self._last_s = -math.inf
        self._last_line = b""
        self._duplicates = 0
        self._accepted = self._damaged = self._discarded = self._resets = 0

    @property
    def counts(self) -> DecodeCounts:
        """What was met so far."""
        return DecodeCounts(
            accepted=self._accepted,
            damaged=self._damaged,
            duplicates=self._duplicates,
            resets=self._resets,
            discarded_bytes=self._discarded + self._lines.overlong_bytes,
        )

    def feed(self, data: bytes, host_s: float) -> Samples:
        """The samples that ``data`` completes."""
        rows: list[tuple[float, float, float, float, int]] = []
        for line in self._lines.feed(data):
            match = None if line is None else _LINE.fullmatch(line)
            if (
                line is None
                or match is None
                or match[2].count(b",") != self._columns
                or zlib.crc32(line[:-9]) != int(match[3], 16)
            ):
                self._damaged += 1
                self._discarded += len(line or b"")
                self._pending |= Flag.MALFORMED_BEFORE
                continue
            if line == self._last_line:
                self._duplicates += 1
                self._pending |= Flag.DUPLICATE
                continue
            self._last_line = line
            values = [int(v) if v.strip(b"-") else None for v in match[2][1:].split(b",")]
            row = self._row(int(match[1]) / 1e9, values)
            if row is None:
                continue
            at_s, volts, amperes, watts, flags = row
            if at_s <= self._last_s:
                flags |= Flag.BACKWARD
            self._last_s = at_s
            rows.append((at_s, volts, amperes, watts, int(flags | self._pending)))
            self._pending = Flag(0)
        if not rows:
            return Samples.empty()
        self._accepted += len(rows)
        meter_s, volts_, amperes_, watts_, flags_ = zip(*rows, strict=True)
        return Samples.of(
            meter_s=meter_s,
            host_s=[host_s] * len(rows),
            volts=volts_,
            amperes=amperes_,
            watts=watts_,
            flags=flags_,
        )

    def _row(
        self, at_s: float, values: list[int | None]
    ) -> tuple[float, float, float, float, Flag] | None:
        raise NotImplementedError


class PowercapDecoder(_PollDecoder):
    """An energy counter that wraps: each sample is the mean power since the line before."""

    _columns = 2

    def __init__(self) -> None:
        super().__init__()
        self._before: tuple[float, int] | None = None

    def _row(
        self, at_s: float, values: list[int | None]
    ) -> tuple[float, float, float, float, Flag] | None:
        energy_uj, range_uj = values
        if energy_uj is None or range_uj is None:
            self._pending |= Flag.NAN | Flag.GAP_BEFORE
            return None
        before, self._before = self._before, (at_s, energy_uj)
        if before is None:
            return None
        span_s, spent_uj = at_s - before[0], energy_uj - before[1]
        flags = Flag(0)
        if spent_uj < 0:
            spent_uj += range_uj
        watts = spent_uj / 1e6 / span_s if span_s > 0 else math.nan
        if watts > _MOST_WATTS or spent_uj < 0:
            self._resets += 1
            watts, flags = math.nan, Flag.RESET
        elif span_s > range_uj / 1e6 / _SUSTAINED_WATTS:
            watts, flags = math.nan, Flag.GAP_BEFORE  # the counter may have wrapped more than once
        return at_s, math.nan, math.nan, watts, flags


class HwmonDecoder(_PollDecoder):
    """Millivolts, milliamperes and microwatts of one sensor channel."""

    _columns = 3

    def _row(
        self, at_s: float, values: list[int | None]
    ) -> tuple[float, float, float, float, Flag] | None:
        millivolts, milliamperes, microwatts = values
        volts = math.nan if millivolts is None else millivolts / 1e3
        amperes = math.nan if milliamperes is None else milliamperes / 1e3
        watts = volts * amperes if microwatts is None else microwatts / 1e6
        return at_s, volts, amperes, watts, Flag.NAN if math.isnan(watts) else Flag(0)
