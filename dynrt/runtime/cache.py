"""Compiled networks are kept on the device, so that only the first load compiles.

An entry is used only if everything that it depends on is as it was, and every byte is as it was
written; otherwise the bundle is compiled again. The cache never makes an answer wrong, nor a load
fail: what goes wrong with it is one warning.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dynrt.bundle import Bundle
from dynrt.errors import CacheError, CompileError
from dynrt.runtime.cache_file import read_entry, read_text, write_entry
from dynrt.runtime.cache_key import key_facts, key_of
from dynrt.runtime.cache_store import Store
from dynrt.runtime.compiled import Compiled

FOLDER_VARIABLE = "DYNRT_CACHE"
LIMIT_VARIABLE = "DYNRT_CACHE_MB"
DEFAULT_LIMIT_BYTES = 512_000_000

_warned: set[str] = set()


class DynrtWarning(UserWarning):
    """Something is slower than it could be; the answers are right all the same."""


class Compile(Protocol):
    """Makes a bundle fast on this device; ``dynrt.runtime.compile.compile_bundle``."""

    def __call__(self, bundle: Bundle, *, threads: int) -> Compiled:
        """``bundle``, compiled.

        Raises:
            CompileError: it cannot be.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One compiled network in the cache.

    Attributes:
        key: name of its file, without the suffix.
        network: name of the bundle; ``None`` if the file is damaged.
        size_bytes: of the file.
        used_ns: when it was last read or written, since 1970.
    """

    key: str
    network: str | None
    size_bytes: int
    used_ns: int


def compiled_for(
    bundle: Bundle, *, threads: int, folder: Path | None = None, compile: Compile | None = None
) -> Compiled | None:
    """``bundle`` compiled for this device: from the cache, or compiled now and then kept.

    Args:
        bundle: what to compile.
        threads: that one call may use.
        folder: of the cache; :func:`cache_folder` if not given.
        compile: compiles; :func:`dynrt.runtime.compile.compile_bundle` if not given.

    Returns:
        ``None`` if it cannot be compiled here; a :class:`DynrtWarning` has said why, once.
    """
    facts = key_facts(bundle.sha256, threads=threads)
    key = key_of(facts)
    trouble = None
    try:
        folder = cache_folder() if folder is None else folder
        kept = _kept(folder, key, bundle)
        if kept is not None:
            return kept
    except CacheError as exc:
        trouble = str(exc)
    try:
        fresh = _compile(bundle, threads, compile)
    except CompileError as exc:
        _warn_once(f"{bundle.name} is not compiled, and runs in portable mode: {exc}")
        return None
    limit_bytes = cache_limit_bytes()
    if limit_bytes and trouble is None and folder is not None:
        try:
            pieces = write_entry(fresh, key=key, network=bundle.name, facts=facts)
            with Store(folder, create=True) as store:
                store.write(key.hex(), pieces, limit_bytes=limit_bytes)
        except CacheError as exc:
            trouble = str(exc)
    if limit_bytes and trouble is not None:
        _warn_once(f"compiled networks are not kept, so each load compiles again: {trouble}")
    return fresh


def is_kept(sha256: str, *, threads: int, folder: Path | None = None) -> bool:
    """Whether there is an entry for the bundle of a hash; it may yet turn out to be damaged.

    There is one only if that bundle was read in full, and compiled, on this device.
    """
    key = key_of(key_facts(sha256, threads=threads))
    try:
        where = cache_folder() if folder is None else folder
        with Store(where, create=False) as store, store.read(key.hex(), use=False) as found:
            return found is not None
    except (CacheError, OSError):
        return False


def _kept(folder: Path, key: bytes, bundle: Bundle) -> Compiled | None:
    """The entry of ``key``; ``None`` if there is none, or none that can be trusted.

    Raises:
        CacheError: the folder is not to be used.
    """
    try:
        store = Store(folder, create=False)
    except FileNotFoundError:
        return None
    with store, store.read(key.hex()) as found:
        if found is None:
            return None
        file, size = found
        try:
            return read_entry(file, key=key, size=size, graph=bundle.graph)
        except (CacheError, OSError):
            return None  # it is written anew


def _compile(bundle: Bundle, threads: int, compile: Compile | None) -> Compiled:
    if compile is None:
        try:
            from dynrt.runtime.compile import compile_bundle
        except ImportError as exc:
            raise CompileError(f"{exc.name or exc} is missing") from None
        compile = compile_bundle
    return compile(bundle, threads=threads)


def cache_folder() -> Path:
    """Where compiled networks are kept: ``$DYNRT_CACHE``, or the platform's place for caches.

    Raises:
        CacheError: this user has no home.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named).absolute()
    try:
        return _platform_folder(sys.platform, Path.home)
    except RuntimeError:
        raise CacheError(f"this user has no home; set {FOLDER_VARIABLE} to a folder") from None


def _platform_folder(system: str, home: Callable[[], Path]) -> Path:
    if system == "win32":
        local = os.environ.get("LOCALAPPDATA", "")
        return (Path(local) if local else home() / "AppData" / "Local") / "dynrt" / "cache"
    if system == "darwin":
        return home() / "Library" / "Caches" / "dynrt"
    named = os.environ.get("XDG_CACHE_HOME", "")
    absolute = named.startswith("/")  # the specification ignores others
    return (Path(named) if absolute else home() / ".cache") / "dynrt"


def cache_limit_bytes() -> int:
    """What the cache may hold: ``$DYNRT_CACHE_MB`` megabytes (0: keep nothing), or 512."""
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return DEFAULT_LIMIT_BYTES
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        _warn_once(f"{LIMIT_VARIABLE}={text[:40]!r} is no number of megabytes; it is ignored")
        return DEFAULT_LIMIT_BYTES
    return int(text) * 1_000_000


def entries(folder: Path | None = None) -> tuple[Entry, ...]:
    """What the cache holds, the least recently used first; not changed by looking.

    Raises:
        CacheError: the folder is not to be used, or cannot be listed.
    """
    folder = cache_folder() if folder is None else folder
    try:
        with Store(folder, create=False) as store:
            return tuple(
                Entry(
                    key=found.key,
                    network=_network(store, found.key),
                    size_bytes=found.size_bytes,
                    used_ns=found.used_ns,
                )
                for found in store.found()
            )
    except FileNotFoundError:
        return ()
    except OSError as exc:
        raise CacheError(f"{folder}: {exc.strerror or exc}") from None


def clear(folder: Path | None = None) -> tuple[int, int]:
    """Remove every entry, and what killed writers left; nothing else that is in the folder.

    Returns:
        How many entries are gone, and their bytes.

    Raises:
        CacheError: the folder is not to be used, or an entry cannot be removed.
    """
    folder = cache_folder() if folder is None else folder
    try:
        with Store(folder, create=False) as store:
            store.sweep()
            gone = store.empty()
    except FileNotFoundError:
        return 0, 0
    except OSError as exc:
        raise CacheError(f"{folder}: {exc.strerror or exc}") from None
    return len(gone), sum(entry.size_bytes for entry in gone)


def _network(store: Store, key: str) -> str | None:
    with store.read(key, use=False) as found:
        if found is None:
            return None
        file, size = found
        try:
            return read_text(file, key=bytes.fromhex(key), size=size).network
        except (CacheError, OSError):
            return None


def _warn_once(message: str) -> None:
    """One warning per process and reason, shown at whoever loads the network."""
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, DynrtWarning, stacklevel=4)
