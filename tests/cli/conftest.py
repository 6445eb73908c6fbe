"""Fixtures of the command line's tests: bundles, pictures, and two ways to call it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import dynrt.bundle.packaged
from dynrt.bundle import write_bundle
from dynrt.cli import main
from tests.cli.colours import colour_bundle, gated_bundle, paint, pair_bundle

Invoke = Callable[..., Result]
Ask = Callable[..., Mapping[str, Any]]


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colour network as a file."""
    path = tmp_path_factory.mktemp("bundles") / "colours.dynrt"
    write_bundle(colour_bundle(), path)
    return path


@pytest.fixture(scope="session")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gated network as a file."""
    path = tmp_path_factory.mktemp("bundles") / "gated.dynrt"
    write_bundle(gated_bundle(), path)
    return path


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network of two inputs as a file."""
    path = tmp_path_factory.mktemp("bundles") / "pair.dynrt"
    write_bundle(pair_bundle(), path)
    return path


@pytest.fixture
def packaged(monkeypatch: pytest.MonkeyPatch, colours: Path) -> Path:
    """The colour network as the only packaged bundle."""
    monkeypatch.setattr(dynrt.bundle.packaged, "_FOLDER", colours.parent)
    return colours


@pytest.fixture
def invoke() -> Invoke:
    """Runs the command line in this process."""

    def run(*args: object, stdin: str | None = None) -> Result:
        return CliRunner().invoke(main, [str(a) for a in args], input=stdin)

    return run


@pytest.fixture
def ask(invoke: Invoke) -> Ask:
    """Runs a command with ``--json`` and gives its object; nothing else may be on stdout."""

    def run(*args: object, stdin: str | None = None) -> Mapping[str, Any]:
        result = invoke(*args, "--json", stdin=stdin)
        assert result.exit_code == 0, result.stderr
        answer = json.loads(result.stdout)
        assert isinstance(answer, dict)
        return answer

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder: a clear red, a clear green, and a grayish blue that is hard."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    paint(folder / "a_red.png", (255, 0, 0), size=(20, 12))
    paint(folder / "b_green.png", (0, 255, 0))
    paint(folder / "c_hard.png", (120, 120, 140))
    return folder
