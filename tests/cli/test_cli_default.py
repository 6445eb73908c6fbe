"""A bundle that is left out is the packaged default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dynrt.cli.bundles import DEFAULT
from tests.cli.conftest import Ask


@pytest.fixture
def gray(tmp_path: Path) -> str:
    """Thirty gray pictures of the default network's size, ten classes."""
    path = tmp_path / "gray.npz"
    pictures = np.full((30, 32, 32, 3), 128, np.uint8)
    np.savez(path, pictures=pictures, labels=np.arange(30) % 10)
    return f"npz:{path}"


def test_inspect_and_eval_take_the_default(ask: Ask, gray: str) -> None:
    assert ask("inspect")["name"] == DEFAULT
    got = ask("eval", "--data", gray, "--budgets", "41M,170M")
    assert got["n"] == 30
    assert [p["max_flops"] <= p["budget"]["flops"] for p in got["points"]] == [True, True]


def test_calibrate_takes_the_default(ask: Ask, gray: str, tmp_path: Path) -> None:
    out = tmp_path / "cheap.json"
    told = ask(
        "calibrate", "--data", gray, "--split", "test", "--budget", "100M", "-o", out, "--policy"
    )
    assert told["bundle"]["name"] == DEFAULT
    assert out.exists()
