"""Builds the board's agent: for a ZedBoard, for QEMU's Zynq, or for this machine.

All three are made of the same C (``dynrt/fpga/firmware``). The agent for this machine speaks the
wire protocol on its standard input and output; it is what quick tests of lowered networks run on.

``python -m dynrt.fpga.firmware_build {qemu,zedboard,host} [FOLDER]`` builds one and says where it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dynrt.errors import MeasureError

Target = Literal["qemu", "zedboard", "host"]

#: Where the sources lie.
SOURCES = Path(__file__).parent / "firmware"
CROSS_COMPILER = "arm-linux-gnueabihf-gcc-12"
CROSS_PACKAGE = "gcc-12-arm-linux-gnueabihf"
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror")
#: Every build multiplies, then adds, as NEON does: host and board agree to the last bit.
LANGUAGE = ("-std=c99", "-O3", "-ffp-contract=off", "-fno-math-errno", *WARNINGS)
TIMEOUT_S = 120.0

_CPU = ("-marm", "-mcpu=cortex-a9", "-mfloat-abi=hard")
_BARE = (
    *LANGUAGE,
    *_CPU,
    "-mfpu=neon",
    "-ffreestanding",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-fno-pie",
    "-ffunction-sections",
    "-DDYNRT_BARE",
)
#: Files that are compiled with other flags as well.
_FLAGS_OF: Mapping[str, tuple[str, ...]] = {
    "memory.c": ("-fno-tree-loop-distribute-patterns",),  # memset's loop is no memset
    "zynq.c": ("-mgeneral-regs-only",),  # its interrupt saves no floating-point registers
}
#: What runs only on the board, and only on a PC.
BOARD_FILES = ("main.c", "memory.c", "zynq.c", "zynq_cache.c", "zynq_units.c")
HOST_FILES = ("host.c",)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """What differs between the emulated board and the real one."""

    ticks_per_s: int
    ddr_bytes: int
    weights_bytes: int
    arena_bytes: int
    inputs_bytes: int
    flags: tuple[str, ...] = ()


_MACHINES: Mapping[str, _Machine] = {
    # Nanoseconds of QEMU's virtual clock.
    "qemu": _Machine(
        ticks_per_s=1_000_000_000,
        ddr_bytes=128 << 20,
        weights_bytes=32 << 20,
        arena_bytes=24 << 20,
        inputs_bytes=16 << 20,
        flags=("-DDYNRT_EMULATED",),
    ),
    # 666.67 MHz by two; 512 MiB.
    "zedboard": _Machine(
        ticks_per_s=333_333_333,
        ddr_bytes=512 << 20,
        weights_bytes=192 << 20,
        arena_bytes=128 << 20,
        inputs_bytes=64 << 20,
    ),
}


def build(target: Target = "qemu", folder: Path | None = None) -> Path:
    """Compile the agent, unless the same sources were compiled before.

    Args:
        target: ``qemu`` and ``zedboard`` give an ELF file; ``host`` gives a program.
        folder: where it goes (default: ``$XDG_CACHE_HOME/dynrt/firmware``).

    Returns:
        Path of ``agent-TARGET-HASH.elf`` (``host``: without a suffix).

    Raises:
        MeasureError: there is no compiler (the message names the package), or it fails.
    """
    compiler = _compiler(target)
    version = _run([*compiler, "--version"]).splitlines()[0]
    stamp = _stamp(target, version)
    folder = _cache() if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    suffix = "" if target == "host" else ".elf"
    made = folder / f"agent-{target}-{stamp}{suffix}"
    if made.is_file():
        return made
    work = folder / f".build-{target}-{stamp}-{os.getpid()}"
    work.mkdir(exist_ok=True)
    try:
        fresh = work / "agent"
        if target == "host":
            _build_host(compiler, work, fresh, stamp)
        else:
            _build_bare(compiler, _MACHINES[target], work, fresh, stamp)
        fresh.replace(made)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return made


def source_files(target: Target) -> list[Path]:
    """The C files of a target, sorted."""
    absent = BOARD_FILES if target == "host" else HOST_FILES
    return sorted(p for p in SOURCES.glob("*.c") if p.name not in absent)


def _build_host(compiler: Sequence[str], work: Path, out: Path, stamp: str) -> None:
    flags = [*LANGUAGE, f'-DDYNRT_BUILD="{stamp}"']
    objects = _compiled(compiler, work, [(file, flags) for file in source_files("host")])
    _run([*compiler, *LANGUAGE, *objects, "-o", str(out)])


def _compiled(
    compiler: Sequence[str], work: Path, files: Sequence[tuple[Path, Sequence[str]]]
) -> list[str]:
    """Object files of ``files``, each with its flags; as many at a time as there are processors."""

    def one(file: Path, flags: Sequence[str]) -> str:
        made = str(work / f"{file.stem}.o")
        _run([*compiler, *flags, "-c", str(file), "-o", made])
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, *zip(*files, strict=True)))


def _build_bare(
    compiler: Sequence[str], machine: _Machine, work: Path, out: Path, stamp: str
) -> None:
    defines = (
        f"-DTICKS_PER_S={machine.ticks_per_s}u",
        f"-DDDR_BYTES={machine.ddr_bytes}u",
        f"-DWEIGHTS_CAP={machine.weights_bytes}u",
        f"-DARENA_CAP={machine.arena_bytes}u",
        f"-DINPUTS_CAP={machine.inputs_bytes}u",
        f'-DDYNRT_BUILD="{stamp}"',
        *machine.flags,
    )
    files = []
    for file in [SOURCES / "start.S", *source_files("qemu")]:
        flags = [*_BARE, *_FLAGS_OF.get(file.name, ()), *defines]
        if file.name == "zynq.c":
            flags.remove("-mfpu=neon")
        files.append((file, flags))
    objects = _compiled(compiler, work, files)
    _run(
        [
            *compiler,
            *_CPU,
            "-nostdlib",
            "-nostartfiles",
            "-static",
            "-no-pie",
            "-Wl,--build-id=none,--gc-sections,--no-warn-rwx-segments",
            f"-Wl,--defsym=DDR_BYTES={machine.ddr_bytes}",
            f"-Wl,-T,{SOURCES / 'zynq.ld'}",
            *objects,
            "-lgcc",
            "-o",
            str(out),
        ]
    )


def _compiler(target: Target) -> list[str]:
    """The compiler's command, or a ``MeasureError`` that says what to install."""
    names = ("cc", "gcc", "clang") if target == "host" else (CROSS_COMPILER,)
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        package = "gcc" if target == "host" else CROSS_PACKAGE
        raise MeasureError(
            f"no {names[0]} to build the agent for {target}: apt-get install {package}"
        )
    return [found]


def _stamp(target: Target, version: str) -> str:
    """Fifteen digits that name the sources, their flags and the compiler (HELLO's build)."""
    digest = hashlib.sha256(version.encode())
    digest.update(repr((target, LANGUAGE, _BARE, _FLAGS_OF, _MACHINES.get(target))).encode())
    for file in sorted(SOURCES.iterdir()):
        if file.suffix in (".c", ".h", ".S", ".ld"):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:15]


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "dynrt" / "firmware"


def _run(command: Sequence[str]) -> str:
    """Run a compiler; what it printed."""
    try:
        done = subprocess.run(  # noqa: S603 - compilers found on the path, with our own arguments
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise MeasureError(f"cannot build the agent: {exc}") from exc
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        line = next((ln for ln in said if "error" in ln), said[0] if said else "no message")
        raise MeasureError(f"cannot build the agent: {line[:300]}")
    return done.stdout


def _main(arguments: Sequence[str]) -> int:
    targets: tuple[Target, ...] = ("qemu", "zedboard", "host")
    target = next((t for t in targets if arguments[:1] == [t]), None)
    if target is None or len(arguments) > 2:
        sys.stderr.write(
            f"usage: python -m dynrt.fpga.firmware_build {{{','.join(targets)}}} [FOLDER]\n"
        )
        return 2
    try:
        made = build(target, Path(arguments[1]) if len(arguments) == 2 else None)
    except MeasureError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 1
    sys.stdout.write(f"{made}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
