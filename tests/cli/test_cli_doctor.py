"""``dynrt doctor``: it must notice what is missing and what is broken."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest

from dynrt.cli.doctor import PACKAGES
from dynrt.runtime import Network, Result
from tests.cli.conftest import Ask, Invoke


def test_a_sound_installation(ask: Ask, invoke: Invoke, packaged: Path) -> None:
    told = ask("doctor")
    assert [p["name"] for p in told["packages"]] == [name for name, _, _ in PACKAGES]
    assert told["packages"][0]["version"] == importlib.metadata.version("numpy")
    assert [(c["name"], c["ok"]) for c in told["checks"]] == [
        ("bundles", True), ("run", True), ("demo", True),
    ]  # fmt: skip
    page = invoke("doctor")
    assert page.exit_code == 0
    assert "run: works: colours: loaded in" in page.stdout
    assert "missing" not in page.stdout


def test_a_missing_extra_is_named(
    invoke: Invoke, packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "scikit-image":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = invoke("doctor")
    assert result.exit_code == 0
    assert "pip install 'dynrt[demo]'" in result.stdout
    assert "demo: not here: skimage is missing" in result.stdout


def test_a_runtime_that_answers_wrongly_is_found(
    invoke: Invoke, packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    real = Network.run

    def wrong(self: Network, *args: object, **extra: object) -> Result:
        result: Result = real(self, *args, **extra)  # type: ignore[arg-type]
        return replace(result, answer=result.answer + 1)

    monkeypatch.setattr(Network, "run", wrong)
    result = invoke("doctor", "--json")
    assert result.exit_code == 1
    checks = {c["name"]: c for c in json.loads(result.stdout)["checks"]}
    assert checks["run"]["ok"] is False
    assert "otherwise than the reference" in checks["run"]["detail"]
    assert checks["run"]["mend"]


def test_no_bundle_or_a_damaged_one_is_found(
    invoke: Invoke, packaged: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("dynrt.bundle.packaged._FOLDER", tmp_path)
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "bundles: FAILS" in result.stdout
    (tmp_path / "cut.dynrt").write_bytes(packaged.read_bytes()[:300])
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "cut.dynrt" in result.stdout
