"""The build of the native kernels, and what happens where there are none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("dynrt", "runtime", "kernels")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree of nothing but the extension."""
    (tmp_path / FOLDER).mkdir(parents=True)
    shutil.copy(ROOT / "hatch_build.py", tmp_path)
    for source in (ROOT / FOLDER).glob("_native*.[ch]"):
        shutil.copy(source, tmp_path / FOLDER)
    return tmp_path


def build(tree: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, tree / "hatch_build.py"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def built(tree: Path) -> list[str]:
    return sorted(p.name for p in (tree / FOLDER).iterdir() if p.suffix not in (".c", ".h"))


def test_builds_in_place_without_a_warning(tree: Path) -> None:
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        if os.environ.get("CI"):
            pytest.fail("no C compiler, and CI must have one")
        pytest.skip("no C compiler")
    result = build(tree, CFLAGS="-Werror -O1")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    (name,) = built(tree)
    assert name.startswith("_native.")
    assert str(tree / FOLDER / name) == result.stdout.strip()


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"CC": "no-such-compiler"}, "no-such-compiler"),
        ({"CC": "false"}, "CalledProcessError"),
        ({"CFLAGS": "-DPyMODINIT_FUNC=1+"}, "error"),
        ({"DYNRT_NO_NATIVE": "1"}, ""),
    ],
)
def test_without_a_compiler_there_is_one_line(
    tree: Path, environment: dict[str, str], says: str
) -> None:
    result = build(tree, **environment)
    assert result.returncode == 1
    assert result.stderr.count("\n") == (1 if says else 0)
    assert says in result.stderr
    assert built(tree) == []


def test_environment_chooses_numpy() -> None:
    code = (
        "from dynrt.runtime.kernels import KERNELS, Hop, follow\n"
        "print(KERNELS.NAME, follow(Hop(), 0, [])[0])"
    )
    names = {}
    for choice in ("plain", ""):
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"DYNRT_KERNELS": choice, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        names[choice] = result.stdout.split()
    assert names["plain"] == ["plain", "0"]
    has_native = any((ROOT / FOLDER).glob("_native.*.so"))
    assert names[""] == ["native" if has_native else "plain", "0"]
