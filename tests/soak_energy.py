"""The comparison of the two backends: ``python -m tests.soak energy``, for hours if need be.

Random layers first, then every layer of SCALE-Sim's own tables at three dataflows. What the
simulator has finished is kept in the cache: the same call goes on after an interruption.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dynrt.energy.array import SimCounts, SystolicArray
from dynrt.energy.simulator import (
    VERSION,
    Outcome,
    Pair,
    UnfinishedError,
    installed_version,
    simulate_each,
)
from dynrt.energy.simulator_driver import place
from dynrt.energy.topologies import read_topology
from tests.energy_cases import ARRAYS, DATAFLOWS, KINDS, differences, draw, work

#: Of a random layer; about two seconds of the simulator.
MOST_WORK = 2_000_000
TABLE_ROWS, TABLE_COLS, TABLE_WORDS = 32, 32, 64 * 1024
#: Not tried: so many times the work of one of the same dataflow that was not done in time.
HOPELESS = 4
MEMORY_BYTES = 8_000_000_000


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was compared, and what came of it."""

    compared: int = 0
    refused: int = 0
    findings: list[str] = field(default_factory=list)
    omitted: list[str] = field(default_factory=list)
    marks: Counter[str] = field(default_factory=Counter)

    def compare(self, name: str, pair: Pair, outcome: Outcome) -> None:
        if isinstance(outcome, UnfinishedError):
            self.omitted.append(f"{name}: {outcome}")
            print(f"omitted {self.omitted[-1]}", file=sys.stderr, flush=True)
            return
        found = differences(pair, outcome)
        self.compared += 1
        if isinstance(outcome, SimCounts):
            self.marks.update(_marks(pair, outcome))
        else:
            self.refused += not found
        if found:
            self.findings.append(f"{name}: {place(*pair)}: {'; '.join(found)}")
            print(f"MISMATCH {self.findings[-1]}", file=sys.stderr, flush=True)


def _marks(pair: Pair, counts: SimCounts) -> list[str]:
    """What a case exercises, beyond being one."""
    array = pair[1]
    marks = {
        "ifmap buffer overflows": counts.ifmap_dram_reads > array.ifmap_words // 100 * 50,
        "filter buffer overflows": counts.filter_dram_reads > array.filter_words // 100 * 50,
        "ofmap buffer overflows": counts.ofmap_sram_writes > array.ofmap_words,
        "stalls": counts.stall_cycles > 0,
    }
    return [mark for mark, holds in marks.items() if holds]


def random_layers(count: int, seed: int, *, workers: int | None, timeout_s: float) -> Tally:
    """Compare on layers of the seeds from ``seed`` on."""
    tally = Tally()
    names: dict[Pair, str] = {}
    at = seed
    while len(names) < count:
        names.setdefault(draw(at, most_work=MOST_WORK), f"seed {at}")
        at += 1
    began = time.monotonic()
    each = simulate_each(
        list(names), workers=workers, timeout_s=timeout_s, memory_bytes=MEMORY_BYTES
    )
    for pair, outcome in each:
        tally.compare(names[pair], pair, outcome)
        if tally.compared % 100 == 0:
            _say(f"{tally.compared}/{count}, {len(tally.findings)} mismatches", began)
    print(
        f"energy, random: {count} distinct layers, seeds {seed}..{at - 1}, {len(ARRAYS)} array "
        f"shapes, {len(set(KINDS))} kinds, {_told(tally, began)}",
        flush=True,
    )
    _list_omitted(tally)
    return tally


def tables(
    folder: Path, *, workers: int | None, timeout_s: float, total_s: float, rows: int, cols: int
) -> Tally:
    """Compare on every layer of the tables in a folder, the quickest first."""
    named: dict[Pair, list[str]] = {}
    layers = 0
    for path in sorted(folder.glob("*.csv")):
        for name, layer in read_topology(path):
            layers += 1
            for dataflow in DATAFLOWS:
                array = SystolicArray(
                    rows=rows,
                    cols=cols,
                    dataflow=dataflow,
                    ifmap_words=TABLE_WORDS,
                    filter_words=TABLE_WORDS,
                    ofmap_words=TABLE_WORDS,
                )
                named.setdefault((layer, array), []).append(f"{path.stem}/{name}/{dataflow}")
    tally = Tally()
    began = time.monotonic()
    hopeless: dict[str, int] = {}
    waiting = sorted(named, key=lambda pair: work(*pair))
    while waiting:
        left_s = total_s - (time.monotonic() - began)
        batch, waiting = _batch(waiting, hopeless, tally, named, left_s, timeout_s)
        each = simulate_each(batch, workers=workers, timeout_s=timeout_s, memory_bytes=MEMORY_BYTES)
        with contextlib.closing(each):
            for pair, outcome in each:
                tally.compare(", ".join(named[pair]), pair, outcome)
                if isinstance(outcome, UnfinishedError):
                    dataflow = pair[1].dataflow
                    hopeless[dataflow] = min(work(*pair), hopeless.get(dataflow, sys.maxsize))
        _say(f"{tally.compared}/{len(named)}, {len(tally.findings)} mismatches", began)
    print(
        f"energy, tables: {layers} layers x {len(DATAFLOWS)} dataflows on {rows}x{cols}, "
        f"{len(named)} distinct, {_told(tally, began)}",
        flush=True,
    )
    _list_omitted(tally)
    return tally


def _batch(
    waiting: list[Pair],
    hopeless: Mapping[str, int],
    tally: Tally,
    named: Mapping[Pair, list[str]],
    left_s: float,
    timeout_s: float,
) -> tuple[list[Pair], list[Pair]]:
    """The next few to simulate and the rest; those that are not to be tried are listed."""
    batch: list[Pair] = []
    for at, pair in enumerate(waiting):
        if len(batch) == 8:
            return batch, waiting[at:]
        names, dataflow = ", ".join(named[pair]), pair[1].dataflow
        if left_s <= 0:
            tally.omitted.append(f"{names}: the time for all was up")
        elif work(*pair) > HOPELESS * hopeless.get(dataflow, sys.maxsize):
            said = f"not tried: {HOPELESS} times the work of one not done in {timeout_s:g} s"
            tally.omitted.append(f"{names}: {said}")
        else:
            batch.append(pair)
    return batch, []


def _told(tally: Tally, began: float) -> str:
    marks = ", ".join(f"{mark} {n}" for mark, n in sorted(tally.marks.items())) or "no overflow"
    return (
        f"{tally.compared} compared, {tally.refused} refused by both, {len(tally.omitted)} omitted; "
        f"{marks}; {len(tally.findings)} mismatches, {time.monotonic() - began:.0f} s"
    )


def _list_omitted(tally: Tally) -> None:
    for line in tally.omitted:
        print(f"  omitted: {line}", flush=True)


def _say(text: str, began: float) -> None:
    print(f"{time.monotonic() - began:7.0f} s  {text}", file=sys.stderr, flush=True)


def run(argv: list[str]) -> int:
    """Compare as the arguments say; 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="tests.soak energy", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="random layers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--topologies", type=Path, help="folder of SCALE-Sim's tables")
    parser.add_argument("--per-layer-s", type=float, default=60.0)
    parser.add_argument("--total-s", type=float, default=3600.0, help="for all tables")
    parser.add_argument("--rows", type=int, default=TABLE_ROWS, help="of the array for tables")
    parser.add_argument("--cols", type=int, default=TABLE_COLS)
    parser.add_argument("--workers", type=int)
    args = parser.parse_args(argv)
    print(f"energy: analytic against {installed_version()} (reference {VERSION})", flush=True)
    found = 0
    if args.count:
        tally = random_layers(
            args.count, args.seed, workers=args.workers, timeout_s=args.per_layer_s
        )
        found += len(tally.findings)
    if args.topologies is not None:
        tally = tables(
            args.topologies,
            workers=args.workers,
            timeout_s=args.per_layer_s,
            total_s=args.total_s,
            rows=args.rows,
            cols=args.cols,
        )
        found += len(tally.findings)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
