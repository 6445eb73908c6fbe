"""The page on exporting shows code that runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import dynrt

PAGE = Path(__file__).parents[2] / "docs" / "exporting.md"


def test_the_code_of_the_page_writes_a_bundle_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(PAGE), "exec"), {"__name__": "page"})  # noqa: S102
    with dynrt.load(tmp_path / "tiny.dynrt") as network:
        result = network.run(np.zeros((3, 16, 16), np.float32), budget="200K")
        assert network.graph.exits == ("exit1", "final")
    assert result.label in ("a", "b", "c", "d")
    assert result.flops <= 200_000
