"""What an import may load, and how long the command line takes to start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "onnx", "onnxruntime", "click", "matplotlib", "skimage", "PIL", "scipy"}


def _modules(code: str) -> set[str]:
    program = f"import sys; {code}; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize(
    "code", ["import dynrt", "import dynrt.runtime", "import dynrt.bundle", "import dynrt.ir"]
)
def test_importing_loads_nothing_heavy(code: str) -> None:
    assert HEAVY.isdisjoint(_modules(code))


def test_reading_a_bundle_loads_nothing_heavy(colours: Path) -> None:
    code = f"import dynrt; dynrt.read_bundle({str(colours)!r})"
    assert HEAVY.isdisjoint(_modules(code))


def test_loading_a_network_loads_onnxruntime_and_no_onnx(colours: Path) -> None:
    code = f"import dynrt; dynrt.load({str(colours)!r})"
    _modules(code)  # the first load on a device compiles, which takes onnx
    loaded = _modules(code)
    assert "onnxruntime" in loaded
    assert (HEAVY - {"onnxruntime"}).isdisjoint(loaded)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["models"], ["models", "--json"], ["run", "--help"]]
)
def test_light_commands_load_only_click(arguments: list[str]) -> None:
    code = f"from dynrt.cli import main; sys.argv[1:] = {arguments!r}\ntry: main()\nexcept SystemExit: pass\n"
    program = code + "print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", "import sys; " + program], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert (HEAVY - {"click"}).isdisjoint(loaded)
