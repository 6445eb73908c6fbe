"""Names and paths, and what importing the package costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dynrt.bundle import packaged, packaged_models, read_bundle, resolve, write_bundle
from dynrt.errors import BundleNotFoundError
from tests.bundle.samples import picture_bundle, skip_bundle

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A packaged folder with two bundles; the working folder is another."""
    shelf, work = tmp_path / "packaged", tmp_path / "work"
    shelf.mkdir()
    work.mkdir()
    write_bundle(picture_bundle(), shelf / "pictures.dynrt")
    write_bundle(skip_bundle(), shelf / "blocks.dynrt")
    (shelf / "README.md").write_text("no bundle")
    monkeypatch.setattr(packaged, "_FOLDER", shelf)
    monkeypatch.chdir(work)
    return shelf


def test_packaged_models_are_listed(shelf: Path) -> None:
    blocks, pictures = packaged_models()
    assert (blocks.name, pictures.name) == ("blocks", "pictures")
    assert pictures.path == shelf / "pictures.dynrt"
    assert pictures.size_bytes == pictures.path.stat().st_size


def test_what_comes_with_dynrt_can_be_read() -> None:
    for model in packaged_models():
        assert read_bundle(model.path).name


def test_names_come_before_paths(shelf: Path) -> None:
    assert resolve("blocks") == shelf / "blocks.dynrt"
    write_bundle(skip_bundle(), "blocks", folder=True)
    assert resolve("blocks") == shelf / "blocks.dynrt"
    assert resolve("./blocks") == Path("blocks")
    assert resolve(Path("blocks")) == Path("blocks")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("block", "block: no such file, folder or packaged bundle; do you mean blocks?"),
        ("zzz", "zzz: no such file, folder or packaged bundle; packaged are: blocks, pictures"),
        ("no/where.dynrt", "no/where.dynrt: no such file or folder"),
        ("a\0b", r"'a\x00b': "),
        ("a" * 5000, "cannot be a file"),
        ("\x1b[2J", r"'\x1b[2J': no such file or folder"),
        ("", ": no such file or folder"),
    ],
)
def test_unknown_names(shelf: Path, text: str, message: str) -> None:
    with pytest.raises(BundleNotFoundError) as caught:
        resolve(text)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["a\0b", "absent", "a" * 5000, "x/y"])
def test_reading_unknown_paths(shelf: Path, text: str) -> None:
    with pytest.raises(BundleNotFoundError) as caught:
        read_bundle(text)
    assert str(caught.value).isprintable()


def test_reading_imports_nothing_heavy(tmp_path: Path) -> None:
    write_bundle(skip_bundle(), tmp_path / "a.dynrt")
    code = "import sys, dynrt.bundle; dynrt.bundle.read_bundle(sys.argv[1]); print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.dynrt")],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = {"torch", "onnx", "onnxruntime", "google.protobuf", "zipfile", "pickle", "tempfile"}
    assert heavy.isdisjoint(set(run.stdout.split()) - _with_numpy())


def _with_numpy() -> set[str]:
    """What numpy brings by itself is not ours."""
    code = "import sys, numpy; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())
