"""Lost and damaged bytes in streams of PPK2 words; part of ``python -m tests.soak decoders``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynrt.fpga.decoders.ppk2 import WORD_BYTES, Calibration, Ppk2Decoder, amperes_of
from dynrt.fpga.emulated.instruments import calibration_text
from dynrt.fpga.samples import Flag, Samples

WORDS = 60_000
#: Faults are so far apart that what each does is known by itself.
SPACING_WORDS = 96
KIT = Calibration(supply_volts=3.3, hardware="9173", calibrated=True)
VOLTS = 3.3
NOTED = int(Flag.GAP_BEFORE | Flag.RESYNC)


class Fault(NamedTuple):
    """One fault: where in the undamaged stream, what, and how many bytes."""

    at_byte: int
    kind: str
    n: int


@dataclass(slots=True, kw_only=True)
class Ppk2Tally:
    """What became of the faults."""

    frames: int = 0
    fuzzed: int = 0
    accepted: int = 0
    silent: int = 0
    drops: int = 0
    drops_detected: int = 0
    worst_words: int = 0
    single: Counter[str] = field(default_factory=Counter)
    single_silent: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def add(self, other: Ppk2Tally) -> None:
        """Count ``other`` too."""
        for name in ("frames", "fuzzed", "accepted", "silent", "drops", "drops_detected"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.worst_words = max(self.worst_words, other.worst_words)
        self.single.update(other.single)
        self.single_silent.update(other.single_silent)
        self.findings += other.findings

    def entry(self) -> dict[str, object]:
        """For the JSON."""
        return {
            "checksummed": False,
            "frames": self.frames,
            "fuzzed_frames": self.fuzzed,
            "accepted_samples": self.accepted,
            "silently_wrong_samples": self.silent,
            "silently_wrong_of_accepted": self.silent / max(1, self.accepted),
            "drops": self.drops,
            "drops_detected": self.drops_detected,
            "drops_detected_share": self.drops_detected / max(1, self.drops),
            "worst_words_to_step": self.worst_words,
            "never_noticed": "the loss of exactly 64 words (256 bytes) or a multiple of it",
            "one_fault": {
                kind: {
                    "frames": n,
                    "undetected": self.single_silent[kind],
                    "rate": self.single_silent[kind] / n,
                }
                for kind, n in sorted(self.single.items())
            },
            "findings": len(self.findings),
        }


def stream(rng: np.random.Generator, n: int) -> NDArray[np.uint32]:
    """Words of a current that wanders, steps and rests, with two logic inputs in use."""
    steps = np.repeat(rng.integers(200, 15_000, n // 500 + 1), 500)[:n]
    noise = rng.integers(-40, 40, n) * np.repeat(rng.integers(0, 2, n // 2000 + 1), 2000)[:n]
    ranges = np.repeat(rng.integers(0, 5, n // 700 + 1), 700)[:n]
    logic = 0xFC | np.repeat(rng.integers(0, 4, n // 300 + 1), 300)[:n]
    first = int(rng.integers(64))
    counters = (first + np.arange(n)) % 64
    words = np.clip(steps + noise, 0, 16_382) | ranges << 14 | counters << 18 | logic << 24
    made: NDArray[np.uint32] = words.astype("<u4")
    return made


def draw_faults(rng: np.random.Generator, words: int) -> list[Fault]:
    """Faults all over the stream, far apart; half of them lost bytes, up to 252 at once."""
    faults = []
    for word in range(SPACING_WORDS, words - 2 * SPACING_WORDS, 2 * SPACING_WORDS):
        at = word * WORD_BYTES + int(rng.integers(4 * WORD_BYTES))
        if rng.random() < 0.5:
            n = int(rng.integers(1, 5)) if rng.random() < 0.7 else int(rng.integers(5, 253))
            faults.append(Fault(at, "drop", n))
        else:
            kind = ("flip", "double", "garble")[int(rng.integers(3))]
            faults.append(Fault(at, kind, 1))
    return faults


def apply(data: bytes, faults: list[Fault], rng: np.random.Generator) -> bytes:
    """``data`` with ``faults`` done to it."""
    out, done = bytearray(), 0
    for at, kind, n in faults:
        out += data[done:at]
        done = at
        if kind == "drop":
            done += n
        elif kind == "double":
            out.append(data[at])
        else:
            other = data[at] ^ (1 << int(rng.integers(8)) if kind == "flip" else _not_zero(rng))
            out.append(other)
            done += 1
    return bytes(out + data[done:])


def _not_zero(rng: np.random.Generator) -> int:
    return int(rng.integers(1, 256))


def decode(data: bytes, rng: np.random.Generator) -> tuple[Samples, Ppk2Decoder]:
    """All samples of a stream that comes in random pieces."""
    decoder = Ppk2Decoder(volts=VOLTS, marker_input=0)
    blocks, at = [decoder.feed(calibration_text(KIT), 0.0)], 0
    while at < len(data):
        n = int(rng.integers(1, 6000))
        blocks.append(decoder.feed(data[at : at + n], at / 4e5))
        at += n
    return Samples.join(blocks), decoder


def ppk2_chunk(seed: int, n: int = WORDS) -> Ppk2Tally:
    """One stream with faults; each must be noticed, or change no sample."""
    rng = np.random.default_rng(seed)
    words = stream(rng, n)
    faults = draw_faults(rng, n)
    got, _ = decode(apply(words.tobytes(), faults, rng), rng)
    tally = Ppk2Tally(frames=n, accepted=len(got))
    first = int(words[0] >> 18 & 63)
    index = got.sequence - first
    inside = (index >= 0) & (index < n)
    if not inside.all():
        tally.findings.append(
            f"seed {seed}: {int((~inside).sum())} sequence numbers that never were"
        )
        return tally
    right = _right(words, got, index)
    noted = np.flatnonzero(got.flags & NOTED)
    noted_index = index[noted]
    for fault in faults:
        tally.fuzzed += max(1, -(-fault.n // WORD_BYTES))
        _judge(tally, fault, index, right, noted_index)
    tally.silent = int((~right).sum())
    if tally.worst_words > 64:
        tally.findings.append(f"seed {seed}: {tally.worst_words} words until in step")
    return tally


def _right(words: NDArray[np.uint32], got: Samples, index: NDArray[np.int64]) -> NDArray[np.bool_]:
    true = words[index]
    amperes = amperes_of(true, KIT, VOLTS)
    same: NDArray[np.bool_] = (got.amperes == amperes) & (got.marker == (true >> 24 & 1))
    return same


def _judge(
    tally: Ppk2Tally,
    fault: Fault,
    index: NDArray[np.int64],
    right: NDArray[np.bool_],
    noted_index: NDArray[np.int64],
) -> None:
    word = fault.at_byte // WORD_BYTES
    lost = -(-fault.n // WORD_BYTES) if fault.kind == "drop" else 1
    begin, end = word - 8, word + lost + SPACING_WORDS - 8
    near = slice(*np.searchsorted(index, [begin, end]))
    noticed = bool(((noted_index >= begin) & (noted_index < end)).any())
    wrong = int((~right[near]).sum())
    if fault.kind == "drop":
        tally.drops += 1
        tally.drops_detected += noticed
        # In step again: the first right sample at or after the place of the fault.
        after = index[near][(index[near] >= word + lost) & right[near]]
        gap = int(after[0]) - (word + lost) if len(after) else SPACING_WORDS
        tally.worst_words = max(tally.worst_words, gap)
        if wrong:
            tally.findings.append(f"a drop of {fault.n} bytes gave {wrong} wrong samples")
        if not noticed:
            tally.findings.append(f"a drop of {fault.n} bytes at {fault.at_byte} was not noticed")
    tally.single[fault.kind] += 1
    tally.single_silent[fault.kind] += bool(wrong) and not noticed
