"""What a compiled network depends on: the bundle, onnxruntime, the processor, the threads."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

#: Raised whenever ``dynrt.runtime.compile`` makes something else of the same bundle.
COMPILE_VERSION = 3
#: Which axes of the compiled graph are symbolic: the batch.
BATCH_SIGNATURE = "n"

_CPUINFO = Path("/proc/cpuinfo")
#: Lines of ``/proc/cpuinfo`` (x86, ARM, RISC-V, POWER) that tell one kind of processor from another;
#: the others count cores or change with the clock.
_CPU_FIELDS = frozenset(
    (
        "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
        "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features",
        "isa", "uarch", "mvendorid", "marchid", "mimpid", "cpu", "revision",
    )
)  # fmt: skip


def key_facts(sha256: str, *, threads: int) -> dict[str, str]:
    """All that decides what compiling the bundle of a hash here gives, as text."""
    import onnxruntime

    from dynrt import __version__
    from dynrt.runtime.kernels import KERNELS

    return {
        "bundle": sha256,
        "dynrt": f"{__version__}/{COMPILE_VERSION}",
        "onnxruntime": str(onnxruntime.__version__),
        "processor": processor(),
        "kernels": KERNELS.NAME,
        "threads": str(threads),
        "batch": BATCH_SIGNATURE,
    }


def key_of(facts: Mapping[str, str]) -> bytes:
    """32 bytes that differ where any fact does: no fact can run over into the next."""
    digest = hashlib.sha256()
    for name, value in sorted(facts.items()):
        for part in (name.encode(), value.encode()):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


@cache
def processor() -> str:
    """Kind of processor and the instruction sets that it offers; the same on each core."""
    found = np.show_config(mode="dicts")
    parts = [
        platform.system(),
        platform.machine(),
        os.environ.get("PROCESSOR_IDENTIFIER", ""),
        " ".join(found.get("SIMD Extensions", {}).get("found", ())),
        *_cpuinfo(),
    ]
    return "; ".join(part for part in parts if part)


def _cpuinfo() -> list[str]:
    """The telling lines of the first processor; nothing where there is no such file."""
    try:
        with _CPUINFO.open(encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 16)  # the first of many equal parts
    except OSError:
        return []
    lines = text.partition("\n\n")[0].splitlines()
    pairs = [(name.strip(), value.strip()) for name, _, value in (s.partition(":") for s in lines)]
    return [f"{name}={value}" for name, value in pairs if name in _CPU_FIELDS]
