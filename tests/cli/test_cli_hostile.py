"""Hostile bundles at the command line: one clear line, status 1, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from dynrt.cli import main
from tests.bundle.hostile import Hostile, hostile_bundles

KINDS = hostile_bundles()


@pytest.mark.parametrize("hostile", KINDS, ids=[h.kind.replace(" ", "-") for h in KINDS])
def test_hostile_bundle_is_one_line(hostile: Hostile, tmp_path: Path) -> None:
    path = hostile.build(tmp_path)
    result = CliRunner().invoke(main, ["inspect", str(path)])
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
