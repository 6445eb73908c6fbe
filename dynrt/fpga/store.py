"""A session's folder: journals that only grow, and at the end a report that they alone determine."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from dynrt.calibrate.files import write_text
from dynrt.errors import DataError, SessionError
from dynrt.fpga.journal import Journal, Kind, Record, Source, read_journal

_JOURNALS = "journal-*.drj"
_LOCK = "lock"
REPORT = "report.json"


class Store:
    """A session's folder, held by this process alone until it is closed.

    Args:
        folder: of the session.
        journal: the new part to which records are added.
    """

    def __init__(self, folder: Path, journal: Journal, lock: int) -> None:
        self.folder, self.journal = folder, journal
        self._lock: int | None = lock

    @classmethod
    def create(cls, folder: Path, *, source: Source) -> Self:
        """A new session.

        Raises:
            SessionError: the folder holds something already, or cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise SessionError(f"{folder}: not empty; a session takes a folder of its own")
        except OSError as exc:
            raise SessionError(f"{folder}: {exc.strerror or exc}") from exc
        return cls._open(folder, source)

    @classmethod
    def resume(cls, folder: Path, *, source: Source) -> Self:
        """Go on with a session, in a new part.

        Raises:
            SessionError: there is none, it is damaged, of another source, or held by a process.
        """
        parts = read_parts(folder)
        held = next((record.source for part in parts for record in part), source)
        if held != source:
            raise SessionError(f"{folder}: this session is {held}; it is not resumed {source}")
        return cls._open(folder, source)

    @classmethod
    def _open(cls, folder: Path, source: Source) -> Self:
        lock = _take_lock(folder)
        number = 1 + max((_number(path) for path in folder.glob(_JOURNALS)), default=0)
        try:
            journal = Journal(folder / f"journal-{number:04}.drj", source=source)
        except BaseException:
            os.close(lock)
            raise
        return cls(folder, journal, lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the journal and let go of the folder; a second call does nothing."""
        self.journal.close()
        if self._lock is not None:
            lock, self._lock = self._lock, None
            os.close(lock)

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Put the report beside the journals; a replay makes the same again.

        Raises:
            SessionError: it cannot be written.
        """
        try:
            write_text(
                self.folder / REPORT, json.dumps(report, indent=1, allow_nan=False), force=True
            )
        except DataError as exc:
            raise SessionError(str(exc)) from exc


def read_parts(folder: Path) -> list[tuple[Record, ...]]:
    """The records of each part of a session, in order; torn tails are left out.

    Raises:
        SessionError: there is no session, a part is missing or damaged, or its records do not agree
            on whether they are emulated.
    """
    paths = sorted(folder.glob(_JOURNALS))
    if not paths:
        raise SessionError(f"{folder}: no session (it holds no journal)")
    if [_number(path) for path in paths] != list(range(1, len(paths) + 1)):
        raise SessionError(f"{folder}: a part is missing; there are {paths[-1].name} and before")
    parts = [read_journal(path).records for path in paths]
    if len({record.source for part in parts for record in part}) > 1:
        raise SessionError(f"{folder}: some records are emulated and some hardware")
    return parts


def torn_bytes(folder: Path) -> int:
    """Bytes after the last whole record of each part, added up: what a kill tore."""
    return sum(read_journal(path).torn_bytes for path in sorted(folder.glob(_JOURNALS)))


def sessions_in(root: Path) -> list[Path]:
    """Folders of sessions at or directly below ``root``, by name."""
    if not root.is_dir():
        return []
    folders = [root, *sorted(p for p in root.iterdir() if p.is_dir())]
    return [folder for folder in folders if any(folder.glob(_JOURNALS))]


def events_of(parts: list[tuple[Record, ...]], name: str) -> Iterator[dict[str, Any]]:
    """The events of that name, in order."""
    for part in parts:
        for record in part:
            if record.kind is Kind.EVENT:
                event = record.event
                if event["event"] == name:
                    yield event


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("journal-")
    return int(digits) if digits.isascii() and digits.isdigit() else -1


def _take_lock(folder: Path) -> int:
    """A lock that the system gives back when this process ends, however it ends.

    Raises:
        SessionError: another process has it.
    """
    try:
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as exc:
        raise SessionError(f"{folder}: {exc.strerror or exc}") from exc
    with contextlib.suppress(ModuleNotFoundError):  # a system without such locks
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(handle)
            raise SessionError(f"{folder}: another process works on this session") from exc
    return handle
