"""Damaged frames through every decoder: ``python -m tests.soak decoders [--count N] [--only FORMAT] [--json FILE]``.

A chunk is one stream of frames, three in four damaged by one to four faults; the truth is known, so
every sample that comes out is right, wrong and flagged, or *silently wrong*. In formats with a
checksum the last is a finding. Of formats without, its rate is published, fault by fault: the JSON
has, per format and fault, how many frames suffered that one fault and how many of them gave a
silently wrong sample.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from dynrt.fpga.decoders.ina_line import InaLineDecoder, encode_line
from dynrt.fpga.decoders.polled import HwmonDecoder, PowercapDecoder, encode_poll
from dynrt.fpga.decoders.scpi import ScpiDecoder
from dynrt.fpga.decoders.wt310 import Wt310Decoder
from dynrt.fpga.emulated.bench_instruments import yokogawa
from dynrt.fpga.emulated.faults import BYTE_FAULTS, LINE_ENDS, ByteFault, damage
from dynrt.fpga.samples import Decoder, Flag, Samples
from tests.soak_ppk2 import Ppk2Tally, ppk2_chunk

CHUNK = 10_000
#: Share of the frames that are damaged, and how far back a sample's frame may lie.
DAMAGED = 0.75
NEAR = 40
USUAL_COUNT = 1_000_000
#: A sample with one of these has not passed for good.
TOLD = Flag.ODD | Flag.RESET | Flag.BACKWARD | Flag.CLOCK_JUMP | Flag.NAN | Flag.OVERLOAD

#: What a right sample is known by: sequence, meter time, volts, amperes, watts, marker.
Row = tuple[float, ...]


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the frames of one format."""

    frames: int = 0
    fuzzed: int = 0
    accepted: int = 0
    wrong_told: int = 0
    silent: int = 0
    single: Counter[str] = field(default_factory=Counter)
    single_silent: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count ``other`` too."""
        for name in ("frames", "fuzzed", "accepted", "wrong_told", "silent"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.single.update(other.single)
        self.single_silent.update(other.single_silent)
        self.findings += other.findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One format under test.

    Attributes:
        decoder: makes a decoder.
        frame: frame number ``i`` of a stream, without its line end.
        checksummed: whether silent damage is a finding.
    """

    decoder: Callable[[], Decoder]
    frame: Callable[[int, random.Random], bytes]
    checksummed: bool


def _ina(i: int, rng: random.Random) -> bytes:
    line = encode_line(
        4_294_960_000 + i,  # the sequence wraps within a chunk
        1_000_000 + i * 1000 + rng.randrange(-20, 20),
        rng.gauss(12, 0.02),
        rng.gauss(0.2133, 0.02),
        i // 100 % 2,
    )
    return line.removesuffix(b"\r\n")


def _shunt_volts(i: int, rng: random.Random) -> float:
    return 0.002133 + 0.0003 * math.sin(i / 50) + rng.gauss(0, 0.00002)


def _agilent(i: int, rng: random.Random) -> bytes:
    return b"%+.8E" % _shunt_volts(i, rng)


def _keithley(i: int, rng: random.Random) -> bytes:
    return b"%+.6E" % _shunt_volts(i, rng)


def _wt310(i: int, rng: random.Random) -> bytes:
    volts, amperes = rng.gauss(12, 0.01), rng.gauss(0.2133, 0.02)
    values = (volts, amperes, volts * amperes, 1e-6 + i * 7.1e-5)
    return b"1;" + ",".join(map(yokogawa, values)).encode()


def _powercap(i: int, rng: random.Random) -> bytes:
    energy = int(262_143_000_000 + i * 150_000 + rng.randrange(20_000)) % 262_143_328_850
    return encode_poll(10**12 + i * 10**7, [energy, 262_143_328_850]).rstrip(b"\n")


def _hwmon(i: int, rng: random.Random) -> bytes:
    values = [
        12_000 + rng.randrange(50),
        213 + rng.randrange(30),
        2_560_000 + rng.randrange(9) * 25,
    ]
    return encode_poll(10**12 + i * 10**7, values).rstrip(b"\n")


def _scpi() -> ScpiDecoder:
    return ScpiDecoder(shunt_ohm=0.01, supply_volts=12.0, range_volts=0.1)


FORMATS = {
    "ina-line": Format(decoder=InaLineDecoder, frame=_ina, checksummed=True),
    "powercap": Format(decoder=PowercapDecoder, frame=_powercap, checksummed=True),
    "hwmon": Format(decoder=HwmonDecoder, frame=_hwmon, checksummed=True),
    "34401a": Format(decoder=_scpi, frame=_agilent, checksummed=False),
    "keithley-2000": Format(decoder=_scpi, frame=_keithley, checksummed=False),
    "dm3058": Format(decoder=_scpi, frame=_agilent, checksummed=False),
    "wt310": Format(decoder=Wt310Decoder, frame=_wt310, checksummed=False),
}


def rows(block: Samples) -> Iterator[tuple[Row, Flag]]:
    """What each sample of a block says, and its flags."""
    columns = (block.sequence, block.meter_s, block.volts, block.amperes, block.watts, block.marker)
    told = [tuple(-1.0 if v != v else float(v) for v in row) for row in zip(*columns, strict=True)]
    return zip(told, (Flag(int(f)) for f in block.flags), strict=True)


def chunk(name: str, seed: int, frames: int = CHUNK) -> Tally:
    """One stream of ``frames`` frames of the format ``name``, cut into random pieces."""
    form, rng = FORMATS[name], random.Random(f"{name} {seed}")  # noqa: S311
    lines = [form.frame(i, rng) for i in range(frames)]
    truth = _truth(form, lines)
    tally, decoder = Tally(), form.decoder()
    pending = b""
    for at, line in enumerate(lines):
        tally.frames += 1
        faults = rng.choices(BYTE_FAULTS, k=rng.randint(1, 4)) if rng.random() < DAMAGED else []
        sent = line + (rng.choice(LINE_ENDS) if rng.random() < 0.1 else b"\r\n")
        for fault in faults:
            sent = damage(sent, fault, rng)
        tally.fuzzed += bool(faults)
        if rng.random() < 0.01:
            sent += rng.randbytes(rng.randrange(300))
        pending += sent
        whole = at % 20 == 19  # no frame is kept back for so long that its truth is forgotten
        if whole or rng.random() < 0.3:
            cut = len(pending) if whole else rng.randrange(len(pending) + 1)
            _judge(tally, form, decoder.feed(pending[:cut], float(at)), truth, at)
            pending = pending[cut:]
    _judge(tally, form, decoder.feed(pending, float(frames)), truth, frames)
    _singles(tally, form, rng, frames // 20)
    if form.checksummed and tally.silent:
        tally.findings.append(f"{name}, seed {seed}: {tally.silent} samples silently wrong")
    return tally


def _truth(form: Format, lines: list[bytes]) -> list[Row]:
    """What undamaged ``lines`` give."""
    return [row for row, _ in rows(form.decoder().feed(b"\n".join([*lines, b""]), 0.0))]


def _judge(tally: Tally, form: Format, block: Samples, truth: list[Row], at: int) -> None:
    """Count the samples of ``block``, which came of frames up to number ``at``."""
    near = set(truth[max(0, at - NEAR) : at + 1])
    for row, flag in rows(block):
        tally.accepted += 1
        if row in near or _known_by_parts(form, row, near):
            continue
        if flag & TOLD:
            tally.wrong_told += 1
        else:
            tally.silent += 1


def _known_by_parts(form: Format, row: Row, near: set[Row]) -> bool:
    """A RAPL sample after a lost line is the mean of two intervals: right, though never seen."""
    if form.decoder is not PowercapDecoder:
        return False
    watts = [r[4] for r in near if r[4] > 0]
    return any(r[1] == row[1] for r in near) and min(watts) <= row[4] <= max(watts)


def _singles(tally: Tally, form: Format, rng: random.Random, n: int) -> None:
    """Exactly one fault in one frame between good ones, fault by fault."""
    for i in range(n):
        lines = [form.frame(i + k, rng) for k in range(4)]
        expected = set(_truth(form, lines))
        fault: ByteFault = BYTE_FAULTS[i % len(BYTE_FAULTS)]
        sent = damage(lines[2] + b"\r\n", fault, rng)
        if sent == lines[2] + b"\r\n":
            continue
        decoder = form.decoder()
        stream = b"".join(line + b"\r\n" for line in lines[:2]) + sent + lines[3] + b"\r\n"
        tally.single[fault] += 1
        got = list(rows(decoder.feed(stream, 0.0)))
        silent = [
            row
            for row, flag in got
            if row not in expected and not flag & TOLD and not _known_by_parts(form, row, expected)
        ]
        # A repeated line is a sample too many; where the line says nothing of its place, silently.
        if fault == "repeat" and len(got) > len(expected):
            silent.append(got[-1][0])
        tally.single_silent[fault] += bool(silent)
        if silent and form.checksummed:
            tally.findings.append(f"single {fault}: {sent!r} gave {silent[0]}")


def _run_chunk(job: tuple[str, int, int]) -> Tally | Ppk2Tally:
    name, seed, frames = job
    return ppk2_chunk(seed) if name == "ppk2" else chunk(name, seed, frames)


def run(arguments: list[str]) -> int:
    """The soak; exit status 1 if there are findings."""
    parser = argparse.ArgumentParser(prog="tests.soak decoders", description=__doc__)
    parser.add_argument("--count", type=int, default=USUAL_COUNT, help="fuzzed frames per decoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[*FORMATS, "ppk2"], help="one format")
    parser.add_argument("--json", type=Path, help="write the rates there")
    args = parser.parse_args(arguments)
    frames = min(CHUNK, 2 * args.count)
    told: dict[str, object] = {}
    found: list[str] = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for name in [args.only] if args.only else [*FORMATS, "ppk2"]:
            began = time.monotonic()
            total: Tally | Ppk2Tally = Ppk2Tally() if name == "ppk2" else Tally()
            seed = args.seed
            while total.fuzzed < args.count:
                need = max(1, min(16, round((args.count - total.fuzzed) / (DAMAGED * frames))))
                jobs = [(name, seed + k, frames) for k in range(need)]
                for part in pool.map(_run_chunk, jobs):
                    total.add(part)  # type: ignore[arg-type]
                seed += need
            seconds = time.monotonic() - began
            entry = total.entry() if isinstance(total, Ppk2Tally) else _entry(name, total)
            told[name] = {**entry, "seeds": [args.seed, seed - 1], "seconds": round(seconds, 1)}
            print(f"decoders: {name}: {_line(entry)}, {seconds:.0f} s", flush=True)
            found += [f"{name}: {text}" for text in total.findings]
    for text in found[:20]:
        print(text, file=sys.stderr)
    if args.json is not None:
        args.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 1 if found else 0


def _entry(name: str, tally: Tally) -> dict[str, object]:
    return {
        "checksummed": FORMATS[name].checksummed,
        "frames": tally.frames,
        "fuzzed_frames": tally.fuzzed,
        "accepted_samples": tally.accepted,
        "silently_wrong_samples": tally.silent,
        "silently_wrong_of_accepted": tally.silent / max(1, tally.accepted),
        "wrong_but_flagged_samples": tally.wrong_told,
        "one_fault": {
            fault: {
                "frames": tally.single[fault],
                "undetected": tally.single_silent[fault],
                "rate": tally.single_silent[fault] / max(1, tally.single[fault]),
            }
            for fault in BYTE_FAULTS
        },
        "findings": len(tally.findings),
    }


def _line(entry: dict[str, object]) -> str:
    shown = ("fuzzed_frames", "accepted_samples", "silently_wrong_samples", "findings")
    more = ("drops", "drops_detected", "worst_words_to_step")
    return ", ".join(f"{k.replace('_', ' ')} {entry[k]}" for k in (*shown, *more) if k in entry)
