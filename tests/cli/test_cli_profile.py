"""``dynrt profile``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dynrt.bundle import write_bundle
from tests.runtime.compiling import gated_chain


def test_tables_json_and_trace(invoke: Any, ask: Any, tmp_path: Path) -> None:
    path = tmp_path / "chain.dynrt"
    write_bundle(gated_chain(2, 16), path)
    shown = invoke("profile", path, "--rounds", "5")
    assert shown.exit_code == 0
    assert "of unsplit" in shown.stdout
    trace = tmp_path / "trace.json"
    told = ask("profile", path, "--rounds", "5", "--trace", trace)
    assert {"bundle", "threads", "paths", "parts"} == set(told)
    assert sum(p["runs"] for p in told["paths"]) == 8
    assert all(p["median_ns"] > 0 for p in told["parts"])
    assert json.loads(trace.read_text())["traceEvents"]


def test_wrong_use(invoke: Any, colours: Path) -> None:
    assert invoke("profile", colours, "--rounds", "1").exit_code == 2
    refused = invoke("profile", colours, "--budget", "5ms", "--rounds", "5")
    assert refused.exit_code == 1
    assert refused.stderr.count("\n") == 1
