"""The large counts: ``python -m tests.soak [graphs|budgets|joules|compiled|bundles|cache|all] [--count N] [--seed S]``
and ``python -m tests.soak pictures --data cifar10:DIR``.

With options of their own (``--help`` lists them): ``energy`` (counts against the simulator),
``decoders`` (meters' bytes), ``board`` (the emulated board), ``frames`` (the board's protocol),
``sessions`` (simulated measurements), ``kills`` (of emulated sessions).

Each soak prints one line with its count, seeds and findings, and exits with 1 if there are any.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor

from tests import (
    soak_board,
    soak_bundles,
    soak_cache,
    soak_decoders,
    soak_energy,
    soak_frames,
    soak_joules,
    soak_kills,
    soak_pictures,
    soak_sessions,
)
from tests.oracle import compare, hard_budget
from tests.soak_compiled import compare_compiled

CHUNK = 100
COUNTS = {
    "graphs": 10_000,
    "budgets": 100_000,
    "joules": 100_000,
    "compiled": 10_000,
    "bundles": 200_000,
    "cache": 1_000,
}


def _graphs(seed: int) -> tuple[int, list[str]]:
    found: list[str] = []
    for s in range(seed, seed + CHUNK):
        found += compare(s)
    return CHUNK, found


def _budgets(seed: int) -> tuple[int, list[str]]:
    cases, found = 0, list[str]()
    for s in range(seed, seed + CHUNK):
        n, wrong = hard_budget(s)
        cases, found = cases + n, found + wrong
    return cases, found


def _compiled(seed: int) -> tuple[int, list[str]]:
    found: list[str] = []
    for s in range(seed, seed + CHUNK):
        found += compare_compiled(s).findings
    return CHUNK, found


RUNS = {"graphs": _graphs, "budgets": _budgets, "compiled": _compiled}


def soak(name: str, run: Callable[[int], tuple[int, list[str]]], count: int, seed: int) -> int:
    """Run chunks of seeds on all cores until ``count`` cases are done; the number of findings."""
    began, done, found, at = time.monotonic(), 0, 0, seed
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        while done < count:
            starts = [at + i * CHUNK for i in range(4 * (os.cpu_count() or 1))]
            at = starts[-1] + CHUNK
            for cases, wrong in pool.map(run, starts):
                done, found = done + cases, found + len(wrong)
                for line in wrong[:5]:
                    print(line, file=sys.stderr)
            if sys.stderr.isatty():
                print(f"\r{name}: {done}/{count}", end="", file=sys.stderr)
    seconds = time.monotonic() - began
    print(f"{name}: {done} cases, seeds {seed}..{at - 1}, {found} findings, {seconds:.0f} s")
    return found


#: Soaks with command lines of their own.
OWN_OPTIONS: Mapping[str, Callable[[list[str]], int]] = {
    "energy": soak_energy.run,
    "decoders": soak_decoders.run,
    "board": soak_board.run,
    "frames": soak_frames.run,
    "sessions": soak_sessions.run,
    "kills": soak_kills.run,
}


def main() -> int:
    """Run the soaks that the command line names."""
    own = OWN_OPTIONS.get(sys.argv[1] if len(sys.argv) > 1 else "")
    if own is not None:
        return own(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=[*COUNTS, "pictures", "all"])
    parser.add_argument("--count", type=int, help="cases instead of the usual count")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", help="for pictures: a data set, such as cifar10:DIR")
    args = parser.parse_args()
    if args.what == "pictures":
        if args.data is None:
            parser.error("pictures needs --data")
        tally = soak_pictures.main(args.data, args.count or 10_000)
        print(
            f"pictures: {tally.runs} runs, {tally.references} by the reference, "
            f"{tally.near_ties} near ties, {len(tally.findings)} findings, "
            f"answers differ by at most {tally.worst:.2g} of the largest logit"
        )
        for line in tally.findings[:20]:
            print(line, file=sys.stderr)
        return 1 if tally.findings else 0
    names = list(COUNTS) if args.what == "all" else [args.what]
    found = 0
    for name in names:
        count = args.count or COUNTS[name]
        if name == "cache":
            told = soak_cache.race(rounds=count, seed=args.seed)
            lived = f"{told.loads} loads, {told.kills} kills"
            print(f"cache: {count} rounds, {lived}, {len(told.findings)} findings")
            found += len(told.findings)
        elif name == "joules":
            spent = soak_joules.main(count, args.seed)
            print(
                f"joules: {spent.runs} runs on the packaged network, {spent.refused} refused, "
                f"exits {spent.exits}, {len(spent.findings)} findings"
            )
            for line in spent.findings[:5]:
                print(line, file=sys.stderr)
            found += len(spent.findings)
        elif name == "bundles":
            summary = soak_bundles.main(count, args.seed)
            print(f"bundles: {summary}")
            found += len(summary.failures)
        else:
            found += soak(name, RUNS[name], count, args.seed)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
