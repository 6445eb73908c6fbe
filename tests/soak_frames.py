"""Damaged and hostile frames into the board's agent: ``python -m tests.soak frames [--count N] [--seed S]``.

The agent is the firmware's own C, compiled for this machine under the address and
undefined-behaviour sanitizers. Frames are of every type with likely and hostile fields, three in ten
with bytes flipped, dropped or put in. A fault is a sanitizer's report, an unsound frame in reply, or
an agent that does not answer in the end.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.firmware_programs import build_test, run_test

USUAL_COUNT = 1_000_000


def run(arguments: list[str]) -> int:
    """Fuzz as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak frames", description=__doc__)
    parser.add_argument("--count", type=int, default=USUAL_COUNT)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="dynrt-frames-") as folder:
        program = build_test("test_agent", Path(folder))
        began = time.monotonic()
        try:
            said = run_test(program, str(args.count), str(args.seed))
        except AssertionError as exc:
            print(f"frames: seed {args.seed}: {exc}")
            return 1
    print(f"frames: {said.strip()}, seed {args.seed}, no fault, {time.monotonic() - began:.0f} s")
    return 0
