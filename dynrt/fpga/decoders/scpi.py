"""Readings of SCPI bench meters that see the voltage over a shunt: ``SD.DDDDDDDDESDD`` a line.

There is no checksum. What is left: a reading has a sign, one digit before the point, as many after
it as every other reading of this meter, and an exponent of two digits; and it cannot exceed the
range that was set. All that damage that keeps to this passes; hence ``UNCHECKED`` on every sample,
and the meter's own sums at the end of a run (``ScpiMeter.cross_check``).
"""

from __future__ import annotations

import math
import re
from collections import deque

from dynrt.fpga.decoders.lines import LineSplitter
from dynrt.fpga.samples import NOT_A_NUMBER, OVERLOAD, DecodeCounts, Flag, Samples

_READING = re.compile(rb"[+-]?\d\.(\d{4,9})[eE][+-]\d\d")
#: Answers to questions: an error, an identity, sums (``;`` between), a word or a small number.
_ERROR = re.compile(rb'([+-]?\d{1,4}),"([ -~]{0,200})"')
_IDENTITY = re.compile(rb"[A-Za-z][ -+\--~]{2,60},[ -+\--~]{1,40},[ -+\--~]{0,40},[ -~]{0,80}")
_SUMS = re.compile(rb"[+-]\d\.\d{4,9}[eE][+-]\d\d(?:;[+-]\d\.\d{4,9}[eE][+-]\d\d)+")
_WORD = re.compile(rb"[A-Z]{1,8}|\d{1,3}")
_LOCAL_ERROR = 550  # command not allowed in local
_MOST_BYTES = 512
#: So many lines of another width, one after the other, and the width has changed.
_NEW_WIDTH = 3
#: Meters measure up to a fifth beyond the range that they are set to.
_BEYOND = 1.2


class ScpiDecoder:
    """Shunt voltages, one a line, to amperes and watts.

    Args:
        shunt_ohm: the shunt; amperes are volts over it by this.
        supply_volts: stated supply voltage, for watts; ``None`` leaves watts and volts missing.
        range_volts: the range that is set: nothing larger than 1.2 of it can be a reading.
    """

    def __init__(self, *, shunt_ohm: float, supply_volts: float | None, range_volts: float) -> None:
        self._shunt_ohm, self._supply_volts = shunt_ohm, supply_volts
        self._most_volts = range_volts * _BEYOND
        self._lines = LineSplitter(_MOST_BYTES)
        self._places = 0
        self._strange = (0, 0)  # another width, and how often in a row
        self._pending = Flag(0)
        self._accepted = self._damaged = self._discarded = self._answered = 0
        self.replies: deque[str] = deque(maxlen=64)
        self.sum_volts = 0.0  # of all readings given out, and how many they are
        self.sum_count = 0

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
        """The samples that ``data`` completes; answers to questions go to ``replies``."""
        volts: list[float] = []
        flags: list[int] = []
        for line in self._lines.feed(data):
            if line is not None and self._is_reply(line):
                continue
            read = None if line is None else self._readings(line)
            if read is None:
                self._refuse(line)
                continue
            for value, flag in read:
                volts.append(value)
                flags.append(int(flag | self._pending))
                self._pending = Flag(0)
        if not volts:
            return Samples.empty()
        self._accepted += len(volts)
        finite = [v for v in volts if v == v]
        self.sum_volts += sum(finite)
        self.sum_count += len(finite)
        amperes = [v / self._shunt_ohm for v in volts]
        supply = math.nan if self._supply_volts is None else self._supply_volts
        return Samples.of(
            host_s=[host_s] * len(volts),
            volts=[supply if v == v else math.nan for v in volts],
            amperes=amperes,
            flags=flags,
        )

    def _is_reply(self, line: bytes) -> bool:
        error = _ERROR.fullmatch(line)
        if error is not None and int(error[1]) == _LOCAL_ERROR:
            self._pending |= Flag.LOCAL_MODE | Flag.GAP_BEFORE
        elif error is None and not any(p.fullmatch(line) for p in (_IDENTITY, _SUMS, _WORD)):
            return False
        self._answered += 1
        self.replies.append(line.decode("ascii"))
        return True

    def _readings(self, line: bytes) -> list[tuple[float, Flag]] | None:
        """The values of a line of one or more readings; ``None`` if any cannot be one."""
        values: list[tuple[float, Flag]] = []
        for text in line.strip(b" ").split(b","):
            match = _READING.fullmatch(text)
            if match is None:
                return None
            value, flag = reading(float(text))
            if abs(value) > self._most_volts or not self._usual_width(len(match[1])):
                return None
            values.append((value, flag | self._assumed()))
        return values

    def _assumed(self) -> Flag:
        return Flag.UNCHECKED if self._supply_volts is None else _UNCHECKED_ASSUMED

    def _usual_width(self, places: int) -> bool:
        """Whether a reading has as many decimal places as the others have."""
        if places == self._places or not self._places:
            self._places, self._strange = places, (0, 0)
            return True
        before, times = self._strange
        self._strange = (places, times + 1 if before == places else 1)
        if self._strange[1] < _NEW_WIDTH:
            return False
        self._places, self._strange = places, (0, 0)
        return True

    def _refuse(self, line: bytes | None) -> None:
        self._discarded += len(line or b"")
        self._damaged += 1
        self._pending |= Flag.MALFORMED_BEFORE | Flag.GAP_BEFORE


_UNCHECKED_ASSUMED = Flag.UNCHECKED | Flag.ASSUMED_VOLTS


def reading(value: float) -> tuple[float, Flag]:
    """A number as an instrument says it: overload and "not a number" are NaN with their flag."""
    if math.isnan(value) or abs(value) == NOT_A_NUMBER:
        return math.nan, Flag.NAN
    if abs(value) >= OVERLOAD:
        return math.nan, Flag.OVERLOAD
    return value, Flag(0)
