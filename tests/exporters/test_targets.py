"""What ``package.module:OBJECT`` finds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynrt.errors import ExportError
from dynrt.exporters.spec import NetworkSpec
from dynrt.exporters.targets import load_target

SOURCE = """
from torch import nn
from dynrt.exporters import NetworkBuilder

builder = NetworkBuilder("net")
builder.exit("final", nn.Linear(4, 2), {"x": builder.input("x", (4,))})
spec = builder.build()
number = 3

def make():
    return spec

def fail():
    raise RuntimeError("first line\\nsecond line")

class Inner:
    spec = spec
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "my_targets.py").write_text(SOURCE)
    (tmp_path / "broken_targets.py").write_text("import not_there_at_all\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield "my_targets"
    assert sys.path == before
    for name in ("my_targets", "broken_targets"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["spec", "builder", "make", "Inner.spec"])
def test_found(module: str, name: str) -> None:
    spec = load_target(f"{module}:{name}")
    assert isinstance(spec, NetworkSpec)
    assert spec.name == "net"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("my_targets", "'my_targets' is no target; write package.module:OBJECT"),
        ("my_targets:", "is no target"),
        ("my-targets:spec", "is no target"),
        (":spec", "is no target"),
        ("my_targets:spc", "my_targets has no 'spc'; did you mean spec"),
        ("my_targets:number", "my_targets:number is a int, not a NetworkSpec"),
        ("my_targets:Inner", "my_targets:Inner is a type, not a NetworkSpec"),
        ("my_targets:fail", "the function fails: RuntimeError: first line$"),
        ("nowhere_at_all:spec", "cannot import nowhere_at_all: ModuleNotFoundError"),
        ("broken_targets:spec", "cannot import broken_targets: ModuleNotFoundError: .*not_there"),
    ],
)
def test_not_found(module: str, text: str, says: str) -> None:
    with pytest.raises(ExportError, match=says):
        load_target(text)
