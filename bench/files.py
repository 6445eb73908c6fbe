"""Where the measured networks are kept: outside the repository, made when they are first wanted.

A bundle's file name holds a hash of the code that makes it, so that a changed exporter or
architecture makes a new one. Another process makes it, so that measuring starts from the file.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

from dynrt.bundle import Bundle, read_bundle

ROOT = Path(__file__).parent.parent
#: What a bundle's bytes hang on.
MAKERS = (
    "bench/networks.py", "dynrt/errors.py", "dynrt/bundle", "dynrt/exporters", "dynrt/ir",
    "dynrt/zoo",
)  # fmt: skip
_PACKAGES = ("onnx", "onnxruntime", "torch")


def folder() -> Path:
    """The folder: ``$DYNRT_BENCH_CACHE``, or one in the user's cache."""
    if chosen := os.environ.get("DYNRT_BENCH_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dynrt-bench"


def content_version(root: Path = ROOT) -> str:
    """Hash of the sources that make the bundles, and of the packages' versions."""
    digest = hashlib.sha256(" ".join(map(version, _PACKAGES)).encode())
    for maker in MAKERS:
        path = root / maker
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            name = file.relative_to(root).as_posix().encode()
            digest.update(name + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


@cache
def path_of(name: str) -> Path:
    """The file of a network's bundle; made if it is not there."""
    file = folder() / f"{name}-{content_version()}.dynrt"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "bench.networks", name, str(file)]
        subprocess.run(command, cwd=ROOT, check=True)
    return file


@cache
def bundle_of(name: str) -> Bundle:
    """A network's bundle, read from its file."""
    return read_bundle(path_of(name))
