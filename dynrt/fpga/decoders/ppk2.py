"""Nordic's Power Profiler Kit II: its calibration as text, then 100,000 words of 4 bytes a second.

A word, little endian: bits 0-13 the converter's count, 14-16 the range (0 to 4), 18-23 a counter,
24-31 eight logic inputs. There is no checksum and no mark where a word begins. The counter is both:
a stream is in step while it goes up by one from word to word. A word is given out only when the
four after it agree, so that what stands next to a lost byte is lost too and never mistaken for a
current. What the counter cannot show is the loss of exactly 64 words, or a flipped bit within a
count: every sample is ``UNCHECKED``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynrt.fpga.samples import F64, DecodeCounts, Flag, Samples

WORD_BYTES = 4
WORDS_PER_S = 100_000
RANGES = 5
_COUNTER_WORDS = 64
#: The converter's full count is 14 bits; calibration is in units of a quarter count.
_FULL_COUNT = (1 << 14) - 1
_QUARTERS = 4
_AMPERE_OHM_PER_QUARTER = 1.8 / 163_840
#: A word is given out once so many after it are in step.
CONFIRM_WORDS = 4
#: A step is found where so many words follow one another.
STEP_WORDS = 8
_STEP_BYTES = STEP_WORDS * WORD_BYTES

_METADATA = re.compile(rb"Calibrated: [ -~\r\n]{20,4000}?END")
_FIELD = re.compile(rb"^\s*([A-Za-z]+)([0-4]?):\s*(-?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|nan))\s*$")
_MOST_TEXT_BYTES = 1 << 16

#: Ohms of the five ranges, of a kit that was never calibrated.
_USUAL_OHM = (1031.64, 101.65, 10.15, 0.94, 0.043)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a kit says of itself; each tuple has one value per range.

    Attributes:
        ohm: measuring resistors (R).
        gain_square, gain: of the current, second and first degree (GS, GI).
        zero_count: converter's count at no current, in quarter counts (O).
        per_volt, offset: amperes per volt of supply, and fixed (S, I).
        user_gain: what its owner has set (UG).
        supply_volts: its regulator (VDD).
        hardware: its hardware number (HW).
        calibrated: whether it was calibrated at the factory.
    """

    ohm: tuple[float, ...] = _USUAL_OHM
    gain_square: tuple[float, ...] = (1.0,) * RANGES
    gain: tuple[float, ...] = (1.0,) * RANGES
    zero_count: tuple[float, ...] = (0.0,) * RANGES
    per_volt: tuple[float, ...] = (0.0,) * RANGES
    offset: tuple[float, ...] = (0.0,) * RANGES
    user_gain: tuple[float, ...] = (1.0,) * RANGES
    supply_volts: float = math.nan
    hardware: str = ""
    calibrated: bool = False


_NAMES = {
    "R": "ohm",
    "GS": "gain_square",
    "GI": "gain",
    "O": "zero_count",
    "S": "per_volt",
    "I": "offset",
    "UG": "user_gain",
}


def parse_calibration(text: bytes) -> Calibration:
    """The calibration in a kit's answer; a value that it lacks (or gives as nan or 0) is the usual.

    Lines are ``R0: 1003.35``, ``VDD: 3700`` and the like; unknown ones are passed over.
    """
    usual = Calibration()
    columns = {name: list(getattr(usual, name)) for name in _NAMES.values()}
    plain: dict[str, float] = {}
    for line in text.splitlines():
        match = _FIELD.match(line)
        if match is None:
            continue
        key, value = match[1].decode("ascii").upper(), float(match[3])
        if match[2] and key in _NAMES:
            if math.isfinite(value) and value != 0:
                columns[_NAMES[key]][int(match[2])] = value
        else:
            plain[key] = value
    return Calibration(
        **{name: tuple(values) for name, values in columns.items()},
        supply_volts=plain.get("VDD", math.nan) / 1000,
        hardware=f"{plain['HW']:.0f}" if "HW" in plain else "",
        calibrated=plain.get("CALIBRATED", 0.0) == 1.0,
    )


def amperes_of(words: NDArray[np.uint32], kit: Calibration, supply_volts: float) -> F64:
    """Amperes of words that are in step."""
    at = ((words >> 14) & 7).astype(np.intp)

    def of_range(values: tuple[float, ...]) -> F64:
        return np.asarray(values, np.float64)[at]

    quarters = (words & _FULL_COUNT).astype(np.float64) * _QUARTERS
    raw = (quarters - of_range(kit.zero_count)) * (_AMPERE_OHM_PER_QUARTER / of_range(kit.ohm))
    curved = raw * (of_range(kit.gain_square) * raw + of_range(kit.gain))
    leak = of_range(kit.per_volt) * supply_volts + of_range(kit.offset)
    return of_range(kit.user_gain) * (curved + leak)


class Ppk2Decoder:
    """The kit's text, then its words; see the module.

    Args:
        volts: supply of what is metered; ``None`` leaves volts and watts missing.
        marker_input: logic input of the marker line; ``None`` if it is not wired.
        calibration: if known from elsewhere; then no text is waited for.
    """

    def __init__(
        self,
        *,
        volts: float | None,
        marker_input: int | None,
        calibration: Calibration | None = None,
    ) -> None:
        self._volts, self._marker_input = volts, marker_input
        self._buffer = b""
        self._in_step = False
        self._sequence = -1  # of the last word given out
        self._dropped_bytes = 0  # since then
        self._pending = Flag(0)
        self._accepted = self._damaged = self._missing = self._discarded = 0
        self.calibration = calibration

    @property
    def counts(self) -> DecodeCounts:
        """What was met so far; ``damaged`` counts how often the stream fell out of step."""
        return DecodeCounts(
            accepted=self._accepted,
            damaged=self._damaged,
            missing=self._missing,
            discarded_bytes=self._discarded,
        )

    def feed(self, data: bytes, host_s: float) -> Samples:
        """The samples that ``data`` completes; the last four words wait for their successors."""
        self._buffer += data
        if self.calibration is None and not self._read_calibration():
            return Samples.empty()
        blocks: list[Samples] = []
        while self._in_step or self._find_step():
            words = np.frombuffer(self._buffer, "<u4", len(self._buffer) // WORD_BYTES)
            good = _run_length(words)
            if good < len(words):
                self._in_step = False
                self._damaged += 1
            confirmed = max(0, good - CONFIRM_WORDS)
            if confirmed:
                blocks.append(self._give(words[:confirmed], host_s))
            self._buffer = self._buffer[confirmed * WORD_BYTES :]
            if self._in_step:
                break
            # The unconfirmed words before the break go too: a lost byte may lie in any of them.
            self._drop((good - confirmed) * WORD_BYTES)
        return Samples.join(blocks)

    def _read_calibration(self) -> bool:
        match = _METADATA.search(self._buffer)
        if match is None:
            spare = len(self._buffer) - _MOST_TEXT_BYTES
            if spare > 0:
                self._discarded += spare
                self._buffer = self._buffer[spare:]
            return False
        self.calibration = parse_calibration(match[0])
        self._discarded += match.start()
        self._buffer = self._buffer[match.end() :]
        return True

    def _find_step(self) -> bool:
        """Drop bytes until words follow one another; whether they do."""
        data, at = self._buffer, 0
        while at + _STEP_BYTES <= len(data):
            if _follows(data, at) and _run_length(_words(data, at)) == STEP_WORDS:
                # The first of them may be the front of one word and the back of another.
                first = self._sequence < 0
                self._drop(at if first else at + WORD_BYTES)
                if first:
                    self._dropped_bytes = 0
                self._in_step = True
                if not first:
                    self._pending |= Flag.RESYNC | Flag.GAP_BEFORE | Flag.MALFORMED_BEFORE
                return True
            at += 1
        self._drop(at)
        return False

    def _drop(self, n_bytes: int) -> None:
        self._discarded += n_bytes
        self._dropped_bytes += n_bytes
        self._buffer = self._buffer[n_bytes:]

    def _give(self, words: NDArray[np.uint32], host_s: float) -> Samples:
        kit = self.calibration or Calibration()
        n = len(words)
        counter = int(words[0] >> 18) & (_COUNTER_WORDS - 1)
        if self._sequence < 0:
            first = counter
        else:
            # What was dropped here did come; up to 63 words more may have been lost on the way.
            least = self._sequence + 1 + self._dropped_bytes // WORD_BYTES
            first = least + (counter - least) % _COUNTER_WORDS
            self._missing += first - self._sequence - 1
        self._dropped_bytes = 0
        sequence = np.arange(first, first + n, dtype=np.int64)
        self._sequence = first + n - 1
        flags = np.full(n, Flag.UNCHECKED, np.uint16)
        supply = kit.supply_volts if self._volts is None else self._volts
        amperes = amperes_of(words, kit, 0.0 if math.isnan(supply) else supply)
        over = (words & 0x1FFFF) == ((RANGES - 1) << 14 | _FULL_COUNT)
        amperes[over] = np.nan
        flags[over] |= np.uint16(Flag.OVERLOAD)
        if self._volts is not None:
            flags |= np.uint16(Flag.ASSUMED_VOLTS)
        flags[0] |= np.uint16(self._pending)
        self._pending = Flag(0)
        self._accepted += n
        volts = np.full(n, np.nan if self._volts is None else self._volts)
        volts[over] = np.nan
        return Samples.of(
            meter_s=sequence / WORDS_PER_S,
            host_s=np.full(n, host_s),
            volts=volts,
            amperes=amperes,
            marker=None if self._marker_input is None else _bit(words, 24 + self._marker_input),
            flags=flags,
            sequence=sequence,
        )


def _bit(words: NDArray[np.uint32], at: int) -> NDArray[np.int8]:
    return ((words >> at) & 1).astype(np.int8)


def _words(data: bytes, at: int) -> NDArray[np.uint32]:
    return np.frombuffer(data, "<u4", STEP_WORDS, at)


def _follows(data: bytes, at: int) -> bool:
    """Whether the words at ``at`` and after it have counters in sequence: a quick look."""
    return (data[at + 6] >> 2) == ((data[at + 2] >> 2) + 1) % _COUNTER_WORDS


def _run_length(words: NDArray[np.uint32]) -> int:
    """How many words from the first on count up by one and have a range that exists."""
    if not len(words):
        return 0
    counters = (words >> 18) & (_COUNTER_WORDS - 1)
    wanted = (int(counters[0]) + np.arange(len(words))) % _COUNTER_WORDS
    wrong = (counters != wanted) | (((words >> 14) & 7) >= RANGES)
    return int(wrong.argmax()) if wrong.any() else len(words)
