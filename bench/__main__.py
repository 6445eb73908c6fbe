"""``python -m bench SUITE [--json FILE] [--rounds N]``: figures with their spread, and the machine."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from bench import startup
from bench.row import Row

SUITES: dict[str, Callable[[int], list[Row]]] = {"startup": startup.rows}


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    model = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = (line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        model = next((value.strip() for key, value in lines if key.strip() == "model name"), "")
    return {"system": platform.platform(), "cpu": model, "cores": os.cpu_count()}


def versions() -> dict[str, str]:
    """Versions of Python and of what the figures depend on."""
    names = ("dynrt", "numpy", "onnxruntime")
    return {"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in names}


def main() -> int:
    """Run one suite and print its rows."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("suite", choices=sorted(SUITES))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    rows = SUITES[args.suite](args.rounds)
    for row in rows:
        spread = f"[{row.low:.4g}, {row.high:.4g}]"
        print(f"{row.name:28} {row.value:10.4g} {spread:22} {row.unit:6} {row.note}")
    if args.json is not None:
        record = {
            "machine": machine(),
            "versions": versions(),
            "rows": [row.to_json() for row in rows],
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
