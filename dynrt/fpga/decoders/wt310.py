"""Readings of a Yokogawa WT310 set to ASCII: event register, then volts, amperes, watts, watt-hours.

``1;12.031E+00,213.31E-03,2.5663E+00,0.7124E-03``. There is no checksum, but three of the values
hang together: of a direct current, watts are volts times amperes. A sample of which they are not
is ``ODD``, and so is one that has more or fewer digits than the one before. "NAN" is what the meter does not have, "INF" what is over the range.
"""

from __future__ import annotations

import math
import re
from collections import deque

from dynrt.fpga.decoders.lines import LineSplitter
from dynrt.fpga.decoders.scpi import reading
from dynrt.fpga.samples import DecodeCounts, Flag, Samples

_VALUE = rb"([+-]?\d{1,3}\.\d{1,6}E[+-]\d\d|NAN|[+-]?INF)"
_LINE = re.compile(rb"\d{1,5};" + rb",".join([_VALUE] * 4))
_REPLY = re.compile(rb'[+-]?\d{1,4}(?:,"[ -~]{0,200}")?|[A-Z]{2,20},[ -~]{0,160}')
_MOST_BYTES = 256
#: Watts may differ from volts times amperes by this share: ripple, and the digits shown.
_TOLERANCE = 0.01
_FLOOR_WATTS = 0.002


class Wt310Decoder:
    """Lines of four values to samples; ``watt_hours`` is the meter's own sum, as last heard."""

    def __init__(self) -> None:
        self._lines = LineSplitter(_MOST_BYTES)
        self._pending = Flag(0)
        self._digits: list[int] = []
        self._accepted = self._damaged = self._discarded = self._answered = 0
        self.replies: deque[str] = deque(maxlen=64)
        self.watt_hours = math.nan

    @property
    def counts(self) -> DecodeCounts:
        """What was met so far."""
        return DecodeCounts(
            accepted=self._accepted,
            damaged=self._damaged,
            discarded_bytes=self._discarded + self._lines.overlong_bytes,
            replies=self._answered,
        )

    def feed(self, data: bytes, host_s: float) -> Samples:
        """The samples that ``data`` completes; other answers go to ``replies``."""
        rows: list[tuple[float, float, float, int]] = []
        for line in self._lines.feed(data):
            match = None if line is None else _LINE.fullmatch(line)
            if match is not None:
                rows.append(self._row(match))
            elif line is not None and _REPLY.fullmatch(line):
                self._answered += 1
                self.replies.append(line.decode("ascii"))
            else:
                self._damaged += 1
                self._discarded += len(line or b"")
                self._pending |= Flag.MALFORMED_BEFORE | Flag.GAP_BEFORE
        if not rows:
            return Samples.empty()
        self._accepted += len(rows)
        volts, amperes, watts, flags = zip(*rows, strict=True)
        return Samples.of(
            host_s=[host_s] * len(rows), volts=volts, amperes=amperes, watts=watts, flags=flags
        )

    def _row(self, match: re.Match[bytes]) -> tuple[float, float, float, int]:
        flags = Flag.UNCHECKED | self._pending
        self._pending = Flag(0)
        values: list[float] = []
        for text in match.groups()[:3]:
            if text.endswith(b"INF"):
                value, flag = math.nan, Flag.OVERLOAD
            else:
                value, flag = reading(float(text))
            values.append(value)
            flags |= flag
        volts, amperes, watts = values
        digits = [sum(c in b"0123456789" for c in text) for text in match.groups()[:3]]
        if any(a and b and a != b for a, b in zip(digits, self._digits, strict=False)):
            flags |= Flag.ODD
        self._digits = digits
        if abs(watts - volts * amperes) > max(_TOLERANCE * abs(watts), _FLOOR_WATTS):
            flags |= Flag.ODD
        if b"N" not in match[4]:  # neither NAN nor INF
            self.watt_hours = float(match[4])
        return volts, amperes, watts, int(flags)
