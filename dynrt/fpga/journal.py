"""The journal of a session: append-only records that any prefix of the file still holds.

A file is a magic and records; a record is::

    sync 4 | payload bytes u32 | number u32 | host seconds f64 | kind u8 | source u8 | 0 u16 |
    payload | CRC-32 of all but the sync

little endian. Nothing is ever rewritten: a session that is resumed goes on in a new file. A process
killed at any byte leaves whole records and at most one torn one at the end, which a reader reports
and leaves out. Damage before the end is no torn tail and is refused.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, Self

from dynrt.errors import SessionError

Source = Literal["emulated", "hardware"]

MAGIC = b"DRJ1\r\n\x1a\n"
SYNC = b"\xd7rec"
_HEAD = struct.Struct("<IIdBBH")
_CRC = struct.Struct("<I")
_SOURCES: tuple[Source, ...] = ("emulated", "hardware")
_SMALLEST = len(SYNC) + _HEAD.size + _CRC.size
#: More than any record that is written; a larger length is damage.
MOST_PAYLOAD_BYTES = 1 << 24


class Kind(IntEnum):
    """What a record holds."""

    EVENT = 1  # a JSON object with the key "event"
    METER_IN = 2  # bytes from the meter, as read
    METER_OUT = 3  # bytes to the meter
    BOARD_IN = 4  # bytes from the board
    BOARD_OUT = 5  # bytes to the board
    BOARD_OUT_DIGEST = 6  # of a long write: length u32 and CRC-32 of the bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record.

    Attributes:
        kind: what it holds.
        source: whether emulated or hardware, as the whole session.
        host_s: monotonic host seconds.
        payload: the bytes.
        number: its place in its file, from 0.
    """

    kind: Kind
    source: Source
    host_s: float
    payload: bytes
    number: int = 0

    @property
    def event(self) -> dict[str, Any]:
        """The object of an ``EVENT``.

        Raises:
            SessionError: it is none.
        """
        try:
            value = json.loads(self.payload)
        except ValueError as exc:
            raise SessionError(f"record {self.number}: no JSON: {exc}") from None
        if self.kind is not Kind.EVENT or not isinstance(value, dict) or "event" not in value:
            raise SessionError(f"record {self.number}: no event")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What a file holds.

    Attributes:
        records: whole ones, in order.
        torn_bytes: after the last whole record; 0 in a file that was closed.
    """

    records: tuple[Record, ...]
    torn_bytes: int


def encode(record: Record) -> bytes:
    """The bytes of a record."""
    head = _HEAD.pack(
        len(record.payload),
        record.number,
        record.host_s,
        record.kind,
        _SOURCES.index(record.source),
        0,
    )
    crc = zlib.crc32(record.payload, zlib.crc32(head))
    return b"".join((SYNC, head, record.payload, _CRC.pack(crc)))


def scan(data: bytes, *, place: str = "journal") -> Scan:
    """The records in the bytes of a file.

    Raises:
        SessionError: it is no journal, or bytes before its end are damaged.
    """
    if data[: len(MAGIC)] != MAGIC:
        if MAGIC.startswith(data):
            return Scan(records=(), torn_bytes=len(data))
        raise SessionError(f"{place}: no journal of a session")
    at, records = len(MAGIC), list[Record]()
    while at < len(data):
        found = _record_at(data, at)
        if found is None or found[0].number != len(records):
            _refuse_damage(data, at, place)
            break
        record, at = found
        records.append(record)
    return Scan(records=tuple(records), torn_bytes=len(data) - at)


def _record_at(data: bytes, at: int) -> tuple[Record, int] | None:
    """The record that starts at ``at`` and where the next one does; ``None`` if there is none."""
    body = at + len(SYNC) + _HEAD.size
    if data[at : at + len(SYNC)] != SYNC or body > len(data):
        return None
    head = data[at + len(SYNC) : body]
    length, number, host_s, kind, source, zero = _HEAD.unpack(head)
    end = body + length + _CRC.size
    if length > MOST_PAYLOAD_BYTES or end > len(data) or source >= len(_SOURCES) or zero:
        return None
    payload = data[body : body + length]
    if zlib.crc32(payload, zlib.crc32(head)) != _CRC.unpack_from(data, body + length)[0]:
        return None
    try:
        own = Kind(kind)
    except ValueError:
        return None
    record = Record(
        kind=own, source=_SOURCES[source], host_s=host_s, payload=payload, number=number
    )
    return record, end


def _refuse_damage(data: bytes, at: int, place: str) -> None:
    """Whole records after a bad one mean damage, not a kill.

    Raises:
        SessionError: there are.
    """
    after = data.find(SYNC, at + 1)
    while after >= 0:
        if _record_at(data, after) is not None:
            raise SessionError(
                f"{place}: damaged at byte {at}: whole records stand after it, from byte {after}"
            )
        after = data.find(SYNC, after + 1)


def read_journal(path: Path) -> Scan:
    """The records of a file.

    Raises:
        SessionError: it cannot be read, is no journal, or is damaged before its end.
    """
    try:
        return scan(path.read_bytes(), place=str(path))
    except OSError as exc:
        raise SessionError(f"{path}: {exc.strerror or exc}") from exc


class Journal:
    """A new file to which records are added; each is handed to the system whole, unbuffered.

    Args:
        path: must not exist yet.
        source: of every record.

    Raises:
        SessionError: it exists, or cannot be written.
    """

    def __init__(self, path: Path, *, source: Source) -> None:
        self.path, self.source = path, source
        self._number = 0
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            self._handle: int | None = os.open(path, flags, 0o666)
            self._write(MAGIC)
        except OSError as exc:
            raise SessionError(f"{path}: {exc.strerror or exc}") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, kind: Kind, payload: bytes, *, host_s: float) -> Record:
        """Add one record; it survives the death of this process once this returns.

        Raises:
            SessionError: the file is closed, or the system does not take the bytes.
        """
        record = Record(
            kind=kind, source=self.source, host_s=host_s, payload=payload, number=self._number
        )
        self._write(encode(record))
        self._number += 1
        return record

    def event(self, name: str, fields: Mapping[str, object], *, host_s: float) -> Record:
        """Add an event, and have it on the disk before returning."""
        text = json.dumps({"event": name, **fields}, allow_nan=False, separators=(",", ":"))
        record = self.append(Kind.EVENT, text.encode(), host_s=host_s)
        self.sync()
        return record

    def sync(self) -> None:
        """Wait until all that was added is on the disk."""
        if self._handle is not None:
            os.fsync(self._handle)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)

    def _write(self, data: bytes) -> None:
        if self._handle is None:
            raise SessionError(f"{self.path}: the journal is closed")
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError as exc:
            raise SessionError(f"{self.path}: {exc.strerror or exc}") from exc
