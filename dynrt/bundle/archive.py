"""The file form: a ZIP of stored members and nothing else, written and read by these few lines.

The reader takes only what the writer writes (no compression, no encryption, no comments, no extra
fields, no gaps), so that there is one way to read a file and every other tool sees the same members.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from dynrt.bundle.limits import Limits, bound
from dynrt.bundle.names import check_member_paths, shown
from dynrt.errors import BundleArchiveError, BundleHashError, BundleMemberError, BundlePathError

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCAL_SIGNATURE, _CENTRAL_SIGNATURE, _END_SIGNATURE = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"

_STORED = 0
_MADE_BY = 3 << 8 | 20  # Unix, version 2.0
_NEEDED = 20
_TIME, _DATE = 0, 1 << 5 | 1  # 1980-01-01 00:00:00, the first that ZIP can say
_MODE = 0o100644 << 16
_UTF8, _ENCRYPTED = 1 << 11, 1 | 1 << 6
_FILE_TYPE, _REGULAR, _LINK, _DOS_FOLDER = 0o170000, 0o100000, 0o120000, 0x10

_NAME_BYTES = 256
_ZIP64_LONG, _ZIP64_SHORT = 0xFFFFFFFF, 0xFFFF
_MAX_FILE_BYTES = _ZIP64_LONG - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One member as the central directory describes it; ``data`` is where its bytes start."""

    crc: int
    size: int
    data: int


def encode_archive(members: Mapping[str, bytes]) -> list[bytes]:
    """The bytes of a file with ``members``, in pieces; the same members always give the same bytes.

    Raises:
        BundleSizeError: the file would need ZIP64.
    """
    pieces: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for path in sorted(members):
        data, name = members[path], path.encode("ascii")
        common = (0, _STORED, _TIME, _DATE, zlib.crc32(data), len(data), len(data), len(name), 0)
        size = _LOCAL.size + len(name) + len(data)
        bound("archive", offset + size, _MAX_FILE_BYTES)
        pieces += [_LOCAL.pack(_LOCAL_SIGNATURE, _NEEDED, *common), name, data]
        head = (_CENTRAL_SIGNATURE, _MADE_BY, _NEEDED, *common, 0, 0, 0, _MODE, offset)
        directory += [_CENTRAL.pack(*head), name]
        offset += size
    size = sum(map(len, directory))
    count = len(members)
    end = _END.pack(_END_SIGNATURE, 0, 0, count, count, size, offset, 0)
    return [*pieces, *directory, end]


class ArchiveMembers:
    """The members of an open file; each is read once.

    Args:
        stream: the file; it must stay open.
        size: its size in bytes.
        limits: what is accepted.

    Raises:
        BundleArchiveError: no ZIP, or one that uses what bundles do not use.
        BundleMemberError: a link, folder or device, or a name twice.
        BundlePathError: a name that escapes or is not portable.
        BundleSizeError: more or larger members than ``limits`` allow.
    """

    def __init__(self, stream: BinaryIO, size: int, *, limits: Limits) -> None:
        self._stream = stream
        bound("file", size, min(limits.bundle_bytes, _MAX_FILE_BYTES))
        entries = self._directory(size, limits)
        self._entries = entries
        self.sizes: Mapping[str, int] = {path: e.size for path, e in entries.items()}

    def read(self, path: str) -> bytes:
        """The bytes of a member.

        Raises:
            BundleHashError: they do not match the archive's checksum.
            BundleArchiveError: the file became shorter.
        """
        entry = self._entries[path]
        data = self._at(entry.data, entry.size)
        if zlib.crc32(data) != entry.crc:
            raise BundleHashError(f"member {shown(path)}: damaged, its CRC-32 does not match")
        return data

    def _at(self, offset: int, size: int) -> bytes:
        self._stream.seek(offset)
        data = self._stream.read(size)
        if len(data) != size:
            raise BundleArchiveError(f"ends within the {size} bytes that start at byte {offset}")
        return data

    def _directory(self, size: int, limits: Limits) -> dict[str, _Entry]:
        start, count = self._end(size, limits)
        raw = self._at(start, size - _END.size - start)
        names: list[str] = []
        found: list[_Entry] = []
        at = following = 0
        for _ in range(count):
            name, entry, at, following = self._entry(raw, at, following, limits)
            names.append(name)
            found.append(entry)
        if at != len(raw):
            raise BundleArchiveError(
                f"the directory holds {len(raw) - at} bytes more than its {count} members"
            )
        if following != start:
            raise BundleArchiveError(
                f"{start - following} bytes before the directory belong to no member"
            )
        check_member_paths(names)
        bound("members together", sum(e.size for e in found), limits.bundle_bytes)
        return dict(zip(names, found, strict=True))

    def _end(self, size: int, limits: Limits) -> tuple[int, int]:
        """Where the directory starts, and how many members it has."""
        if size < _END.size:
            raise BundleArchiveError(f"{size} bytes are too few for a ZIP archive")
        fields = _END.unpack(self._at(size - _END.size, _END.size))
        signature, disk, first_disk, here, count, length, start, comment = fields
        if signature != _END_SIGNATURE:
            raise BundleArchiveError(
                "does not end as a ZIP archive without comment ends: truncated, no ZIP, or bytes "
                "were added"
            )
        if _ZIP64_LONG in (length, start) or _ZIP64_SHORT in (here, count):
            raise BundleArchiveError("is a ZIP64 archive; bundles are below 4 GiB")
        if disk or first_disk or here != count:
            raise BundleArchiveError("is one part of an archive on several disks")
        if comment:
            raise BundleArchiveError(f"has a comment of {comment} bytes")
        bound("members", count, limits.members, "members")
        if start + length + _END.size != size:
            raise BundleArchiveError(
                f"has {size} bytes, and its directory says {start + length + _END.size}"
            )
        bound("directory", length, count * (_CENTRAL.size + _NAME_BYTES))
        return start, count

    def _entry(
        self, raw: bytes, at: int, expected: int, limits: Limits
    ) -> tuple[str, _Entry, int, int]:
        """The entry at ``at``: its name, itself, where the next is, where the next's header is."""
        if len(raw) - at < _CENTRAL.size:
            raise BundleArchiveError("the directory ends within an entry")
        fields = _CENTRAL.unpack_from(raw, at)
        signature, made_by, needed, flags, method, time, date, crc, packed, size = fields[:10]
        name_size, extra, comment, disk, _, attributes, offset = fields[10:]
        if signature != _CENTRAL_SIGNATURE:
            raise BundleArchiveError(f"the directory has no entry at its byte {at}")
        name_at = at + _CENTRAL.size
        name_raw = raw[name_at : name_at + name_size]
        if len(name_raw) != name_size:
            raise BundleArchiveError("the directory ends within a name")
        bound("a member's name", name_size, _NAME_BYTES)
        try:
            name = name_raw.decode("ascii")
        except UnicodeDecodeError:
            raise BundlePathError(
                f"member {shown(repr(name_raw))}: its name is not ASCII"
            ) from None
        place = f"member {shown(name)}"
        _check_features(place, needed=needed, flags=flags, method=method, disk=disk)
        if packed != size:
            raise BundleArchiveError(f"{place}: stored, but {packed} bytes hold {size}")
        if _ZIP64_LONG in (size, offset):
            raise BundleArchiveError(f"{place}: uses ZIP64")
        if extra or comment:
            raise BundleArchiveError(
                f"{place}: has {extra + comment} bytes of extra fields or comment"
            )
        _check_attributes(place, made_by=made_by, attributes=attributes)
        bound(name, size, limits.member_bytes)
        if offset != expected:
            raise BundleArchiveError(
                f"{place}: starts at byte {offset}, not where the one before it ends ({expected}): "
                "members overlap, are out of order, or hide bytes"
            )
        local = _LOCAL.pack(
            _LOCAL_SIGNATURE, needed, flags, method, time, date, crc, packed, size, name_size, 0
        )
        data = offset + len(local) + name_size
        if self._at(offset, len(local) + name_size) != local + name_raw:
            raise BundleArchiveError(f"{place}: its header at byte {offset} is not the directory's")
        return name, _Entry(crc=crc, size=size, data=data), name_at + name_size, data + size


def _check_features(place: str, *, needed: int, flags: int, method: int, disk: int) -> None:
    if flags & _ENCRYPTED:
        raise BundleArchiveError(f"{place}: is encrypted")
    if method != _STORED:
        raise BundleArchiveError(
            f"{place}: is compressed (method {method}); bundles are stored, so that no few bytes "
            "become many"
        )
    if flags & ~_UTF8:
        raise BundleArchiveError(f"{place}: has the flags {flags:#06x}; bundles use none but UTF-8")
    if needed > _NEEDED:
        raise BundleArchiveError(
            f"{place}: needs ZIP version {needed}; bundles need {_NEEDED} at most"
        )
    if disk:
        raise BundleArchiveError(f"{place}: is on disk {disk} of an archive on several disks")


def _check_attributes(place: str, *, made_by: int, attributes: int) -> None:
    kind = attributes >> 16 & _FILE_TYPE
    if kind == _LINK:
        raise BundleMemberError(f"{place}: is a symbolic link")
    if kind not in (0, _REGULAR) or attributes & _DOS_FOLDER:
        raise BundleMemberError(
            f"{place}: is no plain file (made by {made_by:#06x}, attributes {attributes:#010x})"
        )
