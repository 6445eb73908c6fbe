"""Results of the simulator on disk: one small file each, believed only if every byte is as written.

A result is a matter of the layer, the array and the simulator's release alone, so an entry never
goes out of date. Deleting the folder is always safe.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

from dynrt.energy.array import SimCounts, SimLayer, SystolicArray
from dynrt.errors import CacheError

#: Names the folder that this library caches in; simulations are in its sub-folder ``energy``.
FOLDER_VARIABLE = "DYNRT_CACHE"
#: Megabytes of all that is cached; here only 0 matters: keep nothing.
LIMIT_VARIABLE = "DYNRT_CACHE_MB"
FORMAT_VERSION = 1
#: More entries than this, and the oldest tenth goes when the folder is opened.
MAX_ENTRIES = 50_000

_LIMIT_BYTES = 4096  # of one file; a real one has about 700
_ABANDONED_SECONDS = 3600.0
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_TYPES = get_type_hints(SimCounts)


def default_folder() -> Path | None:
    """``$DYNRT_CACHE/energy``, or ``energy`` in the platform's place for caches.

    ``None`` where ``$DYNRT_CACHE_MB`` is 0 or this user has no home.
    """
    if os.environ.get(LIMIT_VARIABLE, "").strip() == "0":
        return None
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named).absolute() / "energy"
    try:
        return _platform_folder(sys.platform, Path.home) / "energy"
    except RuntimeError:
        return None


def _platform_folder(system: str, home: Callable[[], Path]) -> Path:
    if system == "win32":
        local = os.environ.get("LOCALAPPDATA", "")
        return (Path(local) if local else home() / "AppData" / "Local") / "dynrt" / "cache"
    if system == "darwin":
        return home() / "Library" / "Caches" / "dynrt"
    named = os.environ.get("XDG_CACHE_HOME", "")
    absolute = named.startswith("/")  # the specification ignores others
    return (Path(named) if absolute else home() / ".cache") / "dynrt"


class SimulationCache:
    """A folder of results of one release of the simulator.

    Args:
        folder: where; made, with those above it, if it is not there.
        simulator: ``scalesim X.Y.Z``.

    Raises:
        CacheError: the folder is a link or no folder, another user's or open to others for
            writing, or cannot be made.
    """

    def __init__(self, folder: Path, *, simulator: str) -> None:
        self.folder = folder
        self._simulator = simulator
        try:
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # the library's own cache
            folder.mkdir(mode=0o700, exist_ok=True)
            info = folder.lstat()
        except OSError as exc:
            raise CacheError(f"{folder}: {exc.strerror or exc}") from None
        if not stat.S_ISDIR(info.st_mode):
            raise CacheError(f"{folder}: is a link or a file; a cache is a folder")
        if _foreign(info):
            raise CacheError(
                f"{folder}: belongs to user {info.st_uid} with mode {stat.S_IMODE(info.st_mode):o};"
                " a cache belongs to its user, and nobody else may write in it (chmod 700)"
            )
        self._tidy()

    def path(self, layer: SimLayer, array: SystolicArray) -> Path:
        """The file of a result, whether it is there or not."""
        key = {"format": FORMAT_VERSION, **self._subject(layer, array)}
        return self.folder / f"{_digest(key)}.json"

    def read(self, layer: SimLayer, array: SystolicArray) -> SimCounts | None:
        """What was written; ``None`` if nothing was, or if anything about it is not as written."""
        raw = _read_own(self.path(layer, array))
        if raw is None:
            return None
        try:
            entry = json.loads(raw.decode("ascii"))
        except (ValueError, RecursionError):
            return None
        if not isinstance(entry, dict):
            return None
        claimed = entry.pop("sha256", None)
        counts = entry.get("counts")
        if claimed != _digest(entry) or entry != {**self._subject(layer, array), "counts": counts}:
            return None
        return _counts(counts)

    def write(self, layer: SimLayer, array: SystolicArray, counts: SimCounts) -> None:
        """Put a result in its place, whole or not at all.

        Raises:
            CacheError: it cannot be written; what was there before is still there.
        """
        entry: dict[str, object] = {**self._subject(layer, array), "counts": asdict(counts)}
        entry["sha256"] = _digest(entry)
        target = self.path(layer, array)
        temporary = target.with_name(f".{target.stem}.{secrets.token_hex(6)}.tmp")
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(json.dumps(entry).encode("ascii"))
                    file.flush()
                    os.fsync(handle)
                temporary.replace(target)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise
        except OSError as exc:
            raise CacheError(f"{self.folder}: {exc.strerror or exc}") from None

    def _subject(self, layer: SimLayer, array: SystolicArray) -> dict[str, object]:
        return {"simulator": self._simulator, "layer": asdict(layer), "array": asdict(array)}

    def _tidy(self) -> None:
        """Remove what killed writers left, and the oldest entries of very many."""
        now, entries = time.time(), []
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                if path.name.endswith(".tmp") and path.name.startswith("."):
                    with contextlib.suppress(OSError):
                        if now - path.lstat().st_mtime > _ABANDONED_SECONDS:
                            path.unlink()
                elif path.suffix == ".json":
                    entries.append(path)
        if len(entries) > MAX_ENTRIES:
            for path in sorted(entries, key=_modified)[: -MAX_ENTRIES + MAX_ENTRIES // 10]:
                with contextlib.suppress(OSError):
                    path.unlink()


def _read_own(path: Path) -> bytes | None:
    """The bytes of a plain, small file that is this user's and that nobody else can write."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _FLAGS)
    except OSError:
        return None
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode) or _foreign(info) or info.st_size > _LIMIT_BYTES:
            return None
        return os.read(handle, _LIMIT_BYTES)
    except OSError:
        return None
    finally:
        os.close(handle)


def _counts(values: Any) -> SimCounts | None:
    """Counts from JSON: every field there, of its type, and possible."""
    if not isinstance(values, dict) or values.keys() != _TYPES.keys():
        return None
    for name, value in values.items():
        if type(value) is not _TYPES[name] or not 0 <= value < 2**63:
            return None
    return SimCounts(**values)


def _foreign(info: os.stat_result) -> bool:
    """Whether another user owns it or could write it."""
    if not hasattr(os, "geteuid"):
        return False
    return info.st_uid != os.geteuid() or bool(info.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:  # another process was quicker
        return 0.0


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
