"""Our own line of a current sensor behind a microcontroller: ``seq,us,volts,amperes,marker*CRC16``.

``seq`` is a u32 that counts samples, ``us`` microseconds since the meter's reset, the marker 0 or
1, and the CRC-16/CCITT-FALSE of what stands before the asterisk four hexadecimal digits. Volts and
amperes are decimals, each with the same number of places in every line: a digit lost or doubled in
transit then shows even in the one case of 65,536 in which the CRC does not.
"""

from __future__ import annotations

import binascii
import math
import re
from collections import OrderedDict
from dataclasses import dataclass

from dynrt.fpga.decoders.lines import LineSplitter
from dynrt.fpga.samples import NOT_A_NUMBER, OVERLOAD, DecodeCounts, Flag, Samples

_NUMBER = rb"[+-]?\d{1,9}(?:\.\d{1,12})?(?:[eE][+-]?\d{1,2})?|[+-]?[nN][aA][nN]"
_LINE = re.compile(
    rb"(\d{1,10}),(\d{1,20}),(" + _NUMBER + rb"),(" + _NUMBER + rb"),([01])\*([0-9A-F]{4})"
)
_DIGITS = re.compile(rb"\d")
_MOST_BYTES = 128
_SEQUENCES = 1 << 32
#: A meter that counts microseconds in 32 bits starts again after 71.6 minutes.
_WRAP_US = 1 << 32
#: A line that is word for word one of so many before it is a repetition (a USB packet sent twice).
#: Of more, a reset would look like one: a steady supply gives the same first lines again.
_REMEMBERED = 16
#: A step of the meter's clock of more periods per sample than this is a leap; over a gap in the
#: sequence so is one of fewer than its inverse.
_LEAP = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Last:
    sequence: int
    raw_us: int
    us: int  # unwrapped
    shape: tuple[bytes, bytes]


def encode_line(sequence: int, us: int, volts: float, amperes: float, marker: int) -> bytes:
    """One line as the reference meter writes it: volts with 4 places, amperes with 6."""
    body = f"{sequence % _SEQUENCES},{us},{volts:.4f},{amperes:.6f},{int(marker)}".encode("ascii")
    return body + b"*%04X\r\n" % binascii.crc_hqx(body, 0xFFFF)


class InaLineDecoder:
    """Decodes the checksummed line; ``settings``-free, since the line says all."""

    def __init__(self) -> None:
        self._lines = LineSplitter(_MOST_BYTES)
        self._last: _Last | None = None
        self._period_us = math.nan
        self._wraps_us = 0
        self._pending = Flag(0)
        self._recent: OrderedDict[int, bytes] = OrderedDict()
        self._accepted = self._damaged = self._duplicates = 0
        self._missing = self._resets = self._discarded = 0

    @property
    def counts(self) -> DecodeCounts:
        """What was met so far."""
        return DecodeCounts(
            accepted=self._accepted,
            damaged=self._damaged,
            duplicates=self._duplicates,
            missing=self._missing,
            resets=self._resets,
            discarded_bytes=self._discarded + self._lines.overlong_bytes,
        )

    def feed(self, data: bytes, host_s: float) -> Samples:
        """The samples that ``data`` completes; see ``Decoder``."""
        rows: list[tuple[float, float, float, int, int, int]] = []
        for line in self._lines.feed(data):
            match = None if line is None else _LINE.fullmatch(line)
            if (
                line is None
                or match is None
                or binascii.crc_hqx(line[:-5], 0xFFFF) != int(match[6], 16)
                or int(match[1]) >= _SEQUENCES
            ):
                self._refuse(line)
                continue
            sequence = int(match[1])
            if self._recent.get(sequence) == line:
                self._duplicates += 1
                self._pending |= Flag.DUPLICATE
                continue
            volts, volts_flag = _value(match[3])
            amperes, amperes_flag = _value(match[4])
            shape = (_DIGITS.sub(b"0", match[3]), _DIGITS.sub(b"0", match[4]))
            flags, us = self._place(sequence, int(match[2]), shape)
            flags |= volts_flag | amperes_flag | self._pending
            self._pending = Flag(0)
            self._accepted += 1
            self._recent[sequence] = line
            if len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)
            rows.append((us / 1e6, volts, amperes, match[5] == b"1", int(flags), sequence))
        if not rows:
            return Samples.empty()
        meter_s, volts_, amperes_, marker, flags_, sequence_ = zip(*rows, strict=True)
        return Samples.of(
            meter_s=meter_s,
            host_s=[host_s] * len(rows),
            volts=volts_,
            amperes=amperes_,
            marker=marker,
            flags=flags_,
            sequence=sequence_,
        )

    def _refuse(self, line: bytes | None) -> None:
        self._discarded += len(line or b"")
        if self._last is not None:  # before the first good line it is boot text or half a line
            self._damaged += 1
            self._pending |= Flag.MALFORMED_BEFORE

    def _place(self, sequence: int, raw_us: int, shape: tuple[bytes, bytes]) -> tuple[Flag, int]:
        """Where a line stands against the one before: its flags, and its unwrapped microseconds."""
        last, flags = self._last, Flag(0)
        step = 1 if last is None else (sequence - last.sequence) % _SEQUENCES
        if last is None:
            us = raw_us
        elif step == 0 or step >= _SEQUENCES // 2:
            flags |= Flag.RESET
            self._resets += 1
            self._wraps_us, us = 0, raw_us
            self._period_us = math.nan
            self._recent.clear()
        else:
            if step > 1:
                flags |= Flag.GAP_BEFORE
                self._missing += step - 1
            us = self._unwrap(raw_us, last, step)
            flags |= self._judge_clock(us - last.us, step)
        if last is not None and shape != last.shape:
            flags |= _odd(shape, last.shape)
        self._last = _Last(sequence=sequence, raw_us=raw_us, us=us, shape=shape)
        return flags, us

    def _unwrap(self, raw_us: int, last: _Last, step: int) -> int:
        if raw_us < last.raw_us < _WRAP_US:
            ahead_us = raw_us + _WRAP_US - last.raw_us
            usual_us = step * self._period_us  # NaN, and nothing wraps, while it is unknown
            if usual_us / _LEAP <= ahead_us <= usual_us * _LEAP:
                self._wraps_us += _WRAP_US
        return raw_us + self._wraps_us

    def _judge_clock(self, ahead_us: int, step: int) -> Flag:
        if ahead_us <= 0:
            return Flag.BACKWARD
        per_sample_us = ahead_us / step
        if per_sample_us > _LEAP * self._period_us:
            return Flag.CLOCK_JUMP
        if step > 1 and per_sample_us < self._period_us / _LEAP:
            return Flag.CLOCK_JUMP  # more samples missing than there was time for
        if math.isnan(self._period_us):
            self._period_us = per_sample_us
        self._period_us += (per_sample_us - self._period_us) / 16
        return Flag(0)


def _value(text: bytes) -> tuple[float, Flag]:
    """A number as a float; overload and "not a number" are NaN with the flag that says so."""
    value = float(text)
    if math.isnan(value) or abs(value) == NOT_A_NUMBER:
        return math.nan, Flag.NAN
    if abs(value) >= OVERLOAD:
        return math.nan, Flag.OVERLOAD
    return value, Flag(0)


def _odd(shape: tuple[bytes, bytes], before: tuple[bytes, bytes]) -> Flag:
    """Odd unless each number has as many places as before, and as many digits before the point."""
    for now, then in zip(shape, before, strict=True):
        plain = b"." in now and b"." in then and b"e" not in now + then
        if now.lstrip(b"+-") != then.lstrip(b"+-") and plain:
            return Flag.ODD
    return Flag(0)
