"""``python -m bench SUITE [--json FILE] [--rounds N] [--plot FILE]``: figures with their spread."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.bars import verdict
from bench.row import Measurement, MissingError, Request, Row, UnfairError

#: Module of each suite; it holds ``MEASUREMENTS``.
SUITES = {
    "dispatch": "bench.dispatch",
    "energy": "bench.energy",
    "peers": "bench.peers",
    "startup": "bench.startup",
}
_PACKAGES = (
    "dynrt",
    "numpy",
    "onnx",
    "onnxruntime",
    "torch",
    "openvino",
    "ncnn",
    "pnnx",
    "scalesim",
)


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    facts: dict[str, str] = {}
    if info.exists():
        pairs = (line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        facts = {key.strip(): value.strip() for key, value in pairs}
    return {
        "system": platform.platform(),
        "cpu": facts.get("model name", ""),
        "simd": [f for f in facts.get("flags", "").split() if f.startswith(("avx", "amx"))],
        "cores": os.cpu_count(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def measure(
    measurements: Sequence[Measurement], request: Request, only: frozenset[str]
) -> tuple[list[Row], dict[str, str], dict[str, str]]:
    """Rows; why others are missing; and which would not have been fair. Printed as they come."""
    rows: list[Row] = []
    missing: dict[str, str] = {}
    unfair: dict[str, str] = {}
    for item in measurements:
        if only and not only.intersection(item.names):
            continue
        try:
            found = item.rows(request)
        except MissingError as exc:
            _leave_out(item, f"missing: {exc}", missing)
        except UnfairError as exc:
            _leave_out(item, f"UNFAIR: {exc}", unfair)
        else:
            for row in found:
                print(line_of(row), flush=True)
            rows += found
    return rows, missing, unfair


def _leave_out(item: Measurement, reason: str, into: dict[str, str]) -> None:
    for name in item.names:
        into[name] = reason.partition(": ")[2]
        print(f"{name:20} {reason}", flush=True)


def line_of(row: Row) -> str:
    """A row as one line: value, quartiles, whether it reaches its bar, and what it is."""
    spread = f"[{row.low:.4g}, {row.high:.4g}]"
    return f"{row.name:20} {row.value:8.4g} {row.unit:6} {spread:18} {verdict(row):16} {row.note}"


def main(arguments: list[str] | None = None) -> int:
    """Run one suite, print its rows, write record and plot; 1 if a comparison was not fair."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("suite", choices=sorted(SUITES))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="svg, png or pdf")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--data", help="pictures for real decisions: cifar10:DIR")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this row")
    args = parser.parse_args(arguments)
    if args.rounds < 2:
        parser.error("--rounds: a spread needs at least 2")
    measurements: tuple[Measurement, ...] = importlib.import_module(SUITES[args.suite]).MEASUREMENTS
    known = {name for item in measurements for name in item.names}
    if unknown := sorted(set(args.only) - known):
        parser.error(f"--only {unknown[0]}: {args.suite} has {', '.join(sorted(known))}")
    request = Request(rounds=args.rounds, data=args.data)
    rows, missing, unfair = measure(measurements, request, frozenset(args.only))
    record = {
        "suite": args.suite,
        "rounds": args.rounds,
        "machine": machine(),
        "versions": versions(),
        "rows": [row.to_json() for row in rows],
        "missing": missing,
        "unfair": unfair,
    }
    if args.json is not None:
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    if args.plot is not None:
        from bench.plot import plot_rows

        plot_rows(rows, {**missing, **unfair}, args.plot)
    return 1 if unfair else 0


if __name__ == "__main__":
    sys.exit(main())
