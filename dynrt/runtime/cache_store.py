"""The folder of compiled networks: nobody else's, bounded in size, whole whatever happens.

Everything inside is reached through the folder's handle where the system allows it, so that swapping
the folder for another one after it was checked changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from dynrt.errors import CacheError

_ENTRY = re.compile(r"([0-9a-f]{64})\.dynrtc")
_TEMPORARY = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{12}\.tmp")
#: A writer's file is older than this and not locked: the writer was killed.
ABANDONED_SECONDS = 10.0
#: The same where files cannot be locked.
ABANDONED_UNLOCKED_SECONDS = 3600.0

_BY_HANDLE = {os.open, os.unlink, os.rename, os.stat} <= os.supports_dir_fd and (
    os.scandir in os.supports_fd and hasattr(os, "O_DIRECTORY")
)
_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _SAFE
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An entry in the folder.

    Attributes:
        key: its name, 64 hexadecimal digits.
        size_bytes: of the file.
        used_ns: when it was last read or written, since 1970.
    """

    key: str
    size_bytes: int
    used_ns: int


class Store:
    """An open cache folder; a context manager.

    Args:
        folder: where.
        create: make it, and the folders above it, if it is not there.

    Raises:
        CacheError: it is a link, no folder, somebody else's, open to others for writing, or cannot
            be made or opened.
        FileNotFoundError: it is not there, and ``create`` is not given.
    """

    def __init__(self, folder: Path, *, create: bool) -> None:
        self.folder = folder
        self._handle: int | None = None
        try:
            if create:
                folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
            info = folder.lstat()
            _require_folder(folder, info)
            if _BY_HANDLE:
                self._handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _SAFE)
                info = os.fstat(self._handle)
            _require_ours(folder, info)
        except BaseException as exc:
            self.close()
            if isinstance(exc, OSError) and (create or not isinstance(exc, FileNotFoundError)):
                raise CacheError(f"{folder}: {_reason(exc)}") from None
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the folder go."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    @contextlib.contextmanager
    def read(self, key: str, *, use: bool = True) -> Iterator[tuple[BinaryIO, int] | None]:
        """The file of ``key`` and its size, or ``None``; with ``use`` it counts as used now.

        Only a plain file of this user's, that nobody else can write, is there at all.
        """
        handle = self._opened(_name(key))
        if handle is None:
            yield None
            return
        with os.fdopen(handle, "rb") as file:
            if use and os.utime in os.supports_fd:
                with contextlib.suppress(OSError):  # a folder that may only be read
                    now = time.time_ns()
                    os.utime(handle, ns=(now, now))
            yield file, os.fstat(handle).st_size

    def _opened(self, name: str) -> int | None:
        try:
            handle = os.open(self._at(name), _READ, dir_fd=self._handle)
        except OSError:
            return None
        info = os.fstat(handle)
        if stat.S_ISREG(info.st_mode) and not _foreign(info):
            return handle
        os.close(handle)
        return None

    def write(self, key: str, pieces: Iterable[bytes], *, limit_bytes: int) -> None:
        """Put an entry in its place at once, and make room for it: least recently used goes first.

        Raises:
            CacheError: it cannot be written, or is larger than ``limit_bytes``; what was there
                before is still there.
        """
        parts = tuple(pieces)
        size = sum(map(len, parts))
        if size > limit_bytes:
            raise CacheError(f"{self.folder}: an entry of {size} bytes; the limit is {limit_bytes}")
        temporary = f".{key}.{secrets.token_hex(6)}.tmp"
        try:
            self.sweep()
            self.trim(limit_bytes - size, keep=key)
            try:
                self._write(temporary, parts, _name(key))
            except BaseException:
                self._remove(temporary)
                raise
            self._sync()
            self.trim(limit_bytes - size, keep=key)  # others may have written meanwhile
        except OSError as exc:
            raise CacheError(f"{self.folder}: {_reason(exc)}") from None

    def _write(self, temporary: str, parts: Iterable[bytes], name: str) -> None:
        """A new file, synced; it is locked until it has its name."""
        handle = os.open(self._at(temporary), _CREATE, 0o600, dir_fd=self._handle)
        with os.fdopen(handle, "wb") as file:
            _lock(handle)
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(handle)
            if _BY_HANDLE:
                self._rename(temporary, name)
        if not _BY_HANDLE:  # where open files cannot be renamed
            self._rename(temporary, name)

    def _rename(self, source: str, target: str) -> None:
        os.replace(
            self._at(source), self._at(target), src_dir_fd=self._handle, dst_dir_fd=self._handle
        )

    def found(self) -> tuple[Found, ...]:
        """All entries, the least recently used first.

        Raises:
            OSError: the folder cannot be listed.
        """
        found = [
            Found(key=match[1], size_bytes=info.st_size, used_ns=info.st_mtime_ns)
            for name, info in self._files()
            if (match := _ENTRY.fullmatch(name))
        ]
        return tuple(sorted(found, key=lambda entry: (entry.used_ns, entry.key)))

    def trim(self, limit_bytes: int, *, keep: str) -> None:
        """Remove the least recently used entries, never ``keep``, until the others fit.

        Entries that other processes are reading stay readable to them.
        """
        entries = [entry for entry in self.found() if entry.key != keep]
        total = sum(e.size_bytes for e in entries)
        for entry in entries:
            if total <= limit_bytes:
                break
            self._remove(_name(entry.key))
            total -= entry.size_bytes

    def empty(self) -> tuple[Found, ...]:
        """Remove all entries.

        Raises:
            OSError: one cannot be removed; the others are gone.
        """
        removed, failure = [], None
        for entry in self.found():
            try:
                os.unlink(self._at(_name(entry.key)), dir_fd=self._handle)
                removed.append(entry)
            except FileNotFoundError:
                continue  # another process was quicker
            except OSError as exc:
                failure = exc
        if failure is not None:
            raise failure
        return tuple(removed)

    def sweep(self, *, now: float | None = None) -> None:
        """Remove what killed writers left."""
        now = time.time() if now is None else now
        for name, info in list(self._files()):
            age = now - info.st_mtime
            if _TEMPORARY.fullmatch(name) and age > ABANDONED_SECONDS and self._dead(name, age):
                self._remove(name)

    def _dead(self, name: str, age: float) -> bool:
        try:
            handle = os.open(self._at(name), os.O_RDWR | _SAFE, dir_fd=self._handle)
        except OSError:
            return age > ABANDONED_UNLOCKED_SECONDS
        try:
            locked = _lock(handle)
            return age > ABANDONED_UNLOCKED_SECONDS if locked is None else locked
        finally:
            os.close(handle)

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(self.folder if self._handle is None else self._handle) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # another process was quicker
                    yield entry.name, entry.stat(follow_symlinks=False)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):  # another process was quicker, or the disk is broken
            os.unlink(self._at(name), dir_fd=self._handle)

    def _sync(self) -> None:
        """Make the rename last; systems that cannot do that do not need it."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._handle)

    def _at(self, name: str) -> str:
        return name if self._handle is not None else str(self.folder / name)


def _name(key: str) -> str:
    return f"{key}.dynrtc"


def _foreign(info: os.stat_result) -> bool:
    """Whether another user owns it or could write it."""
    if not hasattr(os, "geteuid"):
        return False
    return info.st_uid != os.geteuid() or bool(info.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _require_folder(folder: Path, info: os.stat_result) -> None:
    if not stat.S_ISDIR(info.st_mode):  # a link is none, wherever it leads
        raise CacheError(f"{folder}: is a link or a file; a cache is a folder")


def _require_ours(folder: Path, info: os.stat_result) -> None:
    if _foreign(info):
        raise CacheError(
            f"{folder}: belongs to user {info.st_uid} with mode {stat.S_IMODE(info.st_mode):o}; "
            "a cache belongs to its user, and nobody else may write in it (chmod 700)"
        )


def _lock(handle: int) -> bool | None:
    """Lock a file without waiting: whether it worked, ``None`` where files cannot be locked."""
    try:
        import fcntl
    except ImportError:
        return None
    flock: Any = fcntl.flock
    try:
        flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _reason(exc: OSError) -> str:
    text = exc.strerror or str(exc)
    return f"no space left ({text})" if exc.errno in (errno.ENOSPC, errno.EDQUOT) else text
