"""Builds the firmware's C tests for this machine, under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from dynrt.fpga.firmware_build import HOST_FILES, LANGUAGE, SOURCES, source_files

FOLDER = Path(__file__).parent / "fpga" / "firmware"
SANITIZERS = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SHARED = ("bench.c", "platform_double.c")
METER = SOURCES / "meter_mcu"
TIMEOUT_S = 600


def compiler() -> str | None:
    """Path of a C compiler."""
    return shutil.which("gcc") or shutil.which("cc")


def build_test(name: str, folder: Path) -> Path:
    """Compile ``tests/fpga/firmware/NAME.c`` with what it tests; object files in ``folder`` are kept."""
    if name == "test_meter":
        files, include = [METER / "meter.c"], METER
    else:
        agent = [p for p in source_files("host") if p.name not in HOST_FILES]
        files, include = [*(FOLDER / f for f in SHARED), *agent], SOURCES
    out = folder / name
    objects = [_object(f, folder, include) for f in [FOLDER / f"{name}.c", *files]]
    _compile([*SANITIZERS, *map(str, objects), "-lm", "-o", str(out)])
    return out


def _object(file: Path, folder: Path, include: Path) -> Path:
    # The tests compare with libm in double on purpose: no -Wconversion for them.
    flags = [f for f in LANGUAGE if f not in ("-O3", "-Wconversion", "-Wshadow")]
    out = folder / f"{file.stem}.o"
    if not out.exists():
        places = [f"-I{include}", f"-I{FOLDER}", "-D_GNU_SOURCE"]
        _compile([*flags, *SANITIZERS, *places, "-c", str(file), "-o", str(out)])
    return out


def _compile(arguments: list[str]) -> None:
    found = compiler()
    assert found is not None
    done = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr[:4000]


def run_test(program: Path, *arguments: str) -> str:
    """Run a test program; what it printed."""
    done = subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[:4000]}"
    return done.stdout
