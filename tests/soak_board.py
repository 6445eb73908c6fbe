"""Sessions of an emulated board that must all come out the same: ``python -m tests.soak board``.

``--count`` sessions (100) of a small network, every second one over a line that flips, drops,
doubles and inserts bytes, then 3 sessions of the packaged network with 20 pictures: the first of
CIFAR-10's test pictures with ``--data cifar10:DIR``, or else the demo's (18). Outcomes bit by bit and
ticks are compared with the first session, and the first session with onnxruntime.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

from dynrt.calibrate.datasets import load_dataset
from dynrt.fpga.emulated.bench import EmulatedBench
from tests.fpga.emulated.board_runs import (
    BAD_LINE,
    Network,
    differences,
    packaged_network,
    session,
    small_network,
)

PICTURES = 20
PACKAGED_SESSIONS = 3


def sessions(bench: EmulatedBench, net: Network, count: int, *, seed: int, bad: bool) -> list[str]:
    """Findings of ``count`` sessions; every second one over a bad line if ``bad``."""
    first = session(bench, net)
    verified = net.verify(first)
    found = [] if verified.holds else list(verified.differences)
    if not verified.holds:
        found.append(f"answers differ from onnxruntime's by {verified.max_abs_error:.2g}")
    repeated = 0
    for i in range(1, count):
        line = dataclasses.replace(BAD_LINE, seed=seed + i) if bad and i % 2 else None
        repeated += line is not None
        found += [
            f"session {i}: {text}" for text in differences(session(bench, net, damage=line), first)
        ]
    print(
        f"board: {net.bundle.name}, {len(first)} inputs, {count} sessions ({repeated} over a bad"
        f" line), {len({r.exit for r in first})} exits, largest error {verified.max_abs_error:.2g},"
        f" {len(found)} findings"
    )
    return found


def run(arguments: list[str]) -> int:
    """Both parts; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak board", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="sessions of the small network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", help="such as cifar10:DIR")
    args = parser.parse_args(arguments)
    pictures = None
    if args.data is not None:
        pictures = next(load_dataset(args.data, split="test").first(PICTURES).batches(PICTURES))[0]
    began = time.monotonic()
    with EmulatedBench() as bench:
        found = sessions(bench, small_network(), args.count, seed=args.seed, bad=True)
        packaged = packaged_network(pictures)
        found += sessions(bench, packaged, PACKAGED_SESSIONS, seed=args.seed, bad=False)
    for line in found[:20]:
        print(line)
    print(f"board: {len(found)} findings, {time.monotonic() - began:.0f} s")
    return 1 if found else 0
