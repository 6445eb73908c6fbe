"""``dynrt doctor``: it must notice what is missing and what is broken."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dynrt
from dynrt.bundle import Bundle, read_bundle, replace_parts, resolve, write_bundle
from dynrt.cli.doctor import PACKAGES
from dynrt.ir.graph import ComputeNode
from dynrt.runtime import Network, Result, cache
from tests.cli.colours import gated_bundle
from tests.cli.conftest import Ask, Invoke
from tests.runtime.cache_samples import CountingCompile

#: Whether this machine has what an emulated board takes; CI must (tests/fpga/conftest.py).
EMULATES = all(map(shutil.which, ("qemu-system-arm", "arm-linux-gnueabihf-gcc-12")))


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setattr(cache, "_warned", set())
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_a_sound_installation(ask: Ask, invoke: Invoke, packaged: Path) -> None:
    told = ask("doctor")
    assert [p["name"] for p in told["packages"]] == [name for name, _, _ in PACKAGES]
    assert told["packages"][0]["version"] == importlib.metadata.version("numpy")
    assert [(c["name"], c["ok"]) for c in told["checks"]] == [
        ("bundles", True), ("run", True), ("cache", True), ("energy", False),
        ("demo", True), ("board", EMULATES),
    ]  # fmt: skip
    page = invoke("doctor")
    assert page.exit_code == 0
    assert "run: works: colours: compiled, loaded in" in page.stdout
    assert "missing" not in page.stdout
    assert "energy: not here: colours carries no access counts" in page.stdout


def test_energies_are_counted_and_priced_again(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = read_bundle(resolve("resnet38-ddi"))
    monkeypatch.setattr(dynrt.bundle.packaged, "_FOLDER", tmp_path)

    def told(changed: Bundle) -> str:
        write_bundle(changed, tmp_path / "resnet38-ddi.dynrt", force=True)
        check = next(c for c in ask("doctor")["checks"] if c["name"] == "energy")
        return f"{check['ok']}: {check['detail']}"

    assert told(bundle).startswith("True: resnet38-ddi: counted and priced again")
    counts = bundle.counts
    assert counts is not None
    other = replace(counts, policy="scalesim")  # says so, and was counted under another
    assert told(replace_parts(bundle, counts=other)).startswith(
        "False: resnet38-ddi: its counts are not those"
    )
    stem = next(n for n in bundle.graph.nodes if n.name == "stem")
    assert isinstance(stem, ComputeNode)
    assert stem.cost.femtojoules is not None
    cheap = replace(stem, cost=replace(stem.cost, femtojoules=stem.cost.femtojoules - 1))
    nodes = tuple(cheap if n.name == "stem" else n for n in bundle.graph.nodes)
    graph = replace(bundle.graph, nodes=nodes)
    assert told(replace_parts(bundle, graph=graph)).startswith(
        "False: resnet38-ddi: its energies are not"
    )


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


@pytest.mark.parametrize(
    ("mode", "change"),
    [
        ("portable", lambda r: replace(r, answer=r.answer * np.float32(1 + 1e-6))),
        ("compiled", lambda r: replace(r, answer=r.answer * np.float32(1 + 3e-3))),
        ("compiled", lambda r: replace(r, answer=r.answer * np.float32("nan"))),
        ("compiled", lambda r: replace(r, exit="exit1")),
    ],
)
def test_a_runtime_that_answers_wrongly_is_found(
    invoke: Invoke,
    packaged: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    change: Callable[[Result], Result],
) -> None:
    real = Network.run

    def wrong(self: Network, *args: object, **extra: object) -> Result:
        result: Result = real(self, *args, **extra)  # type: ignore[arg-type]
        return change(result) if self.mode == mode else result

    monkeypatch.setattr(Network, "run", wrong)
    result = invoke("doctor", "--json")
    assert result.exit_code == 1
    checks = {c["name"]: c for c in json.loads(result.stdout)["checks"]}
    assert checks["run"]["ok"] is False
    assert f"the {mode} mode answers otherwise than the reference" in checks["run"]["detail"]
    assert checks["run"]["mend"]


def test_rounding_of_the_compiled_mode_is_no_fault(
    ask: Ask, packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Network.run

    def rounded(self: Network, *args: object, **extra: object) -> Result:
        result: Result = real(self, *args, **extra)  # type: ignore[arg-type]
        factor = np.float32(1 + 1e-4) if self.mode == "compiled" else np.float32(1)
        return replace(result, answer=result.answer * factor)

    monkeypatch.setattr(Network, "run", rounded)
    checks = {c["name"]: c for c in ask("doctor")["checks"]}
    assert checks["run"]["detail"].startswith("colours: compiled, loaded in ")


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


def test_the_cache_is_shown(
    ask: Ask, invoke: Invoke, packaged: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.LIMIT_VARIABLE, "64")
    bundle = gated_bundle()
    cache.compiled_for(bundle, threads=1, folder=kept, compile=CountingCompile())
    cache.compiled_for(bundle, threads=2, folder=kept, compile=CountingCompile())
    size = sum(path.stat().st_size for path in kept.iterdir())
    told = ask("doctor")["cache"]
    assert told["folder"] == str(kept)
    assert told["limit_bytes"] == 64_000_000
    mine = [entry for entry in told["entries"] if entry["network"] == bundle.name]
    assert [len(entry["key"]) for entry in mine] == [64, 64]
    assert sum(entry["size_bytes"] for entry in mine) == size
    page = invoke("doctor").stdout
    assert f"cache: works: {kept}: " in page
    assert bundle.name in page
    assert " of 64 MB" in page


def test_the_cache_is_cleared(ask: Ask, invoke: Invoke, kept: Path) -> None:
    cache.compiled_for(gated_bundle(), threads=1, folder=kept, compile=CountingCompile())
    size = next(kept.iterdir()).stat().st_size
    told = ask("doctor", "--clear-cache")
    assert told == {"folder": str(kept), "removed": 1, "freed_bytes": size}
    assert list(kept.iterdir()) == []
    assert (
        invoke("doctor", "--clear-cache").stdout == f"{kept}: removed 0 compiled networks, 0.0 MB\n"
    )


def test_a_cache_that_is_not_to_be_used(invoke: Invoke, packaged: Path, kept: Path) -> None:
    kept.mkdir()
    kept.chmod(0o777)
    result = invoke("doctor", "--json")
    assert result.exit_code == 0  # networks run all the same
    told = json.loads(result.stdout)
    checks = {c["name"]: c for c in told["checks"]}
    assert checks["run"]["ok"]
    assert not checks["cache"]["ok"]
    assert "with mode 777" in checks["cache"]["detail"]
    assert "DYNRT_CACHE" in checks["cache"]["mend"]
    assert told["cache"] is None
    result = invoke("doctor", "--clear-cache")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {kept}: belongs to user ")


def test_what_is_slower_than_it_could_be_is_said(
    ask: Ask, packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dynrt.errors import CompileError

    def fails(*_: object, **__: object) -> None:
        raise CompileError("operator Foo cannot be cut")

    monkeypatch.setattr(cache, "_compile", fails)
    checks = {c["name"]: c for c in ask("doctor")["checks"]}
    assert checks["run"]["ok"]
    assert "portable mode: operator Foo cannot be cut" in checks["run"]["detail"]
