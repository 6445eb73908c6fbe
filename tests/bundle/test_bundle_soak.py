"""The soak itself, in small: ``python -m tests.soak_bundles`` runs the large counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from dynrt.bundle import reader
from tests import soak_bundles

ROOT = Path(__file__).parents[2]


def test_damaged_bundles_are_refused_or_read() -> None:
    summary = soak_bundles.main(count=3000, seed=11, processes=1)
    assert summary.cases == 3000
    assert summary.failures == []
    wanted = {"read", "ManifestError", "BundleModelError", "BundleArchiveError", "GraphError"}
    assert wanted <= set(summary.outcomes)
    assert len(summary.kinds) == 9


def test_command_and_processes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak_bundles", "--count", "600", "--seed", "5"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("bundles: 600 damaged, 0 failures, ")


def test_a_crash_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> NoReturn:
        raise KeyError("surprise")

    monkeypatch.setattr(reader, "decode_manifest", broken)
    summary = soak_bundles.main(count=40, processes=1)
    assert summary.outcomes["crash"] == len(summary.failures) > 0
    assert "KeyError: 'surprise'" in summary.failures[0]


def test_a_slow_or_hungry_case_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak_bundles, "CASE_SECONDS", 0.0)
    monkeypatch.setattr(soak_bundles, "CASE_BYTES", 1)
    summary = soak_bundles.main(count=3, processes=1)
    assert len(summary.failures) == 3
    assert "allocated" in summary.failures[0]
    assert "took" in summary.failures[1]


def test_time_runs_out() -> None:
    assert soak_bundles.main(count=10**6, seconds=0.2, processes=1).cases < 10**5
