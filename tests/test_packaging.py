"""The repository's own promises: what the wheel holds, what the README says, what CI runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")


def _between(readme: str, marker: str) -> list[str]:
    """Lines of the code block after a marker."""
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```\n<!-- end -->", readme, re.DOTALL)
    assert found is not None, marker
    return found[1].splitlines()


def test_wheel_holds_the_package_and_its_data_and_nothing_else(tmp_path: Path) -> None:
    # Of a copy: building puts the compiled kernels beside the sources, under other running tests.
    tree, built = tmp_path / "tree", tmp_path / "built"
    shutil.copytree(ROOT / "dynrt", tree / "dynrt", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", built],
        cwd=tree,
        check=True,
        capture_output=True,
    )
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"dynrt"}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.py", "*.toml", "*.dynrt", "*.json")
        for path in (ROOT / "dynrt").rglob(pattern)
    }
    assert wanted <= names
    assert any(name.startswith("dynrt/train/recipes/") for name in names)
    assert any(name.startswith("dynrt/bundle/packaged/") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_first_command_installs_without_torch(project: dict[str, Any]) -> None:
    base = project["project"]["dependencies"]
    demo = project["project"]["optional-dependencies"]["demo"]
    assert sorted(re.split(r"[>=~]", d)[0] for d in base) == [
        "click", "numpy", "onnx", "onnxruntime",
    ]  # fmt: skip
    assert not [d for d in (*base, *demo) if "torch" in d]


def test_each_dependency_says_why(project: dict[str, Any]) -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    extras = project["project"]["optional-dependencies"]
    for name in (*project["project"]["dependencies"], *(d for e in extras.values() for d in e)):
        line = next(line for line in text.splitlines() if line.strip().startswith(f'"{name}",'))
        assert re.search(r"# \w", line), line


def test_readme_opens_with_the_two_commands(readme: str) -> None:
    head = readme[: readme.index("<!-- demo-output -->")]
    assert "pip install '.[demo]' && dynrt run --budget 100M" in head
    (test,) = _between(readme, "test-command")
    assert test == "pip install -e '.[dev]' && pytest -n auto --dist loadfile --cov"


def test_ci_runs_the_readmes_own_test_command(readme: str, tmp_path: Path) -> None:
    """What CI extracts is what the README shows, also after the README changes."""
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    (extract,) = re.findall(r"^command=(.*)$", script, re.MULTILINE)
    changed = readme.replace("pytest -n auto", "something new")
    for text in (readme, changed):
        (tmp_path / "README.md").write_text(text, "utf-8")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"command={extract}\nprintf '%s' \"$command\""],  # noqa: S607
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines() == _between(text, "test-command")
    assert '-c "$command"' in script


def test_readme_shows_a_real_run_within_the_budget(readme: str) -> None:
    lines = _between(readme, "demo-output")
    start = next(i for i, line in enumerate(lines) if line.startswith("input "))
    column = lines[start].index("MFLOPs")
    rows = [line for line in lines[start + 1 :] if re.match(r"(cat|horse)\b", line)]
    assert len(rows) >= 12
    assert all(float(row[column - 2 : column + 6]) <= 100 for row in rows)


def test_readme_links_lead_somewhere(readme: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_readme_lists_every_command(readme: str) -> None:
    from dynrt.cli import COMMANDS

    for name in COMMANDS:
        assert f"`dynrt {name}" in readme, name
