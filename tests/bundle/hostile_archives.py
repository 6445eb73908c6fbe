"""Hostile kinds of the container: ZIP features, names, sizes, hashes."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from dynrt.errors import (
    BundleArchiveError,
    BundleHashError,
    BundleMemberError,
    BundlePathError,
    BundleSizeError,
)
from tests.bundle.hostile import (
    MANIFEST,
    Hostile,
    Json,
    Members,
    by_file,
    by_folder,
    by_manifest,
    by_members,
    drop,
    good_file,
    good_members,
    zip_of,
)

STEM = "nodes/stem.onnx"
END_BYTES = 22


def _patched(offset: int, form: str, value: int, *, where: str = "end") -> Callable[[], bytes]:
    """The good file with one number changed, in the end record, the first entry or first header."""

    def make() -> bytes:
        data = bytearray(good_file())
        start = {
            "end": len(data) - END_BYTES,
            "entry": struct.unpack_from("<L", data, len(data) - END_BYTES + 16)[0],
            "header": 0,
        }[where]
        struct.pack_into(form, data, start + offset, value)
        return bytes(data)

    return make


def _both(offset_entry: int, offset_header: int, form: str, value: int) -> Callable[[], bytes]:
    """The good file with one number of the first member changed, in both places."""

    def make() -> bytes:
        data = bytearray(_patched(offset_entry, form, value, where="entry")())
        struct.pack_into(form, data, offset_header, value)
        return bytes(data)

    return make


def _renamed(new: str) -> Callable[[], bytes]:
    """The good file with a member more, of this name."""
    return lambda: zip_of([*sorted(good_members().items()), (new, b"x")])


def _with_info(change: Callable[[zipfile.ZipInfo], None]) -> Callable[[], bytes]:
    """The good file with changed entries."""
    return lambda: zip_of(sorted(good_members().items()), change=change)


def _mode(mode: int) -> Callable[[zipfile.ZipInfo], None]:
    def change(info: zipfile.ZipInfo) -> None:
        if info.filename == STEM:
            info.external_attr = mode << 16

    return change


def _extra(info: zipfile.ZipInfo) -> None:
    info.extra = struct.pack("<HHQ", 0xCAFE, 8, 1)


def _comment(info: zipfile.ZipInfo) -> None:
    info.comment = b"hello"


def _dos_folder(info: zipfile.ZipInfo) -> None:
    info.external_attr = 0x10


def _with(change: Callable[[Members], None]) -> Callable[[], bytes]:
    def make() -> bytes:
        members = good_members()
        change(members)
        return zip_of(sorted(members.items()))

    return make


def _listed_too(path: str) -> Callable[[Json], None]:
    """A change of the manifest: a member more, of this name."""

    def change(value: Json) -> None:
        value["members"][path] = value["members"][STEM]

    return change


def _twice() -> bytes:
    return zip_of([*sorted(good_members().items()), (STEM, good_members()[STEM])])


def _overlap() -> bytes:
    """Two entries for one range of bytes: the second's header offset is the first's."""
    data = bytearray(good_file())
    directory = struct.unpack_from("<L", data, len(data) - END_BYTES + 16)[0]
    second = directory + 46 + len(MANIFEST)
    struct.pack_into("<L", data, second + 42, 0)
    return bytes(data)


def _gap() -> bytes:
    """Bytes between the last member and the directory that belong to nobody."""
    data = good_file()
    start = struct.unpack_from("<L", data, len(data) - END_BYTES + 16)[0]
    out = bytearray(data[:start] + b"hidden" + data[start:])
    struct.pack_into("<L", out, len(out) - END_BYTES + 16, start + 6)
    return bytes(out)


def _flipped(members: Members) -> None:
    raw = bytearray(members[STEM])
    raw[len(raw) // 2] ^= 1
    members[STEM] = bytes(raw)


def _damaged() -> bytes:
    """One bit of a member flipped in the file, its checksum as it was."""
    data = bytearray(good_file())
    data[data.index(b"stem.onnx") + 60] ^= 4
    return bytes(data)


def _sparse_file(folder: Path) -> Path:
    path = folder / "large.dynrt"
    path.touch()
    os.truncate(path, (1 << 30) + 1)
    return path


def _many(members: Members) -> None:
    for i in range(4100):
        members[f"nodes/n{i}.onnx"] = b""


def _device(folder: Path) -> Path:
    return Path("/dev/zero")


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.dynrt")
    return folder / "pipe.dynrt"


def _three_large(root: Path) -> None:
    for node in ("stem", "gate", "block"):
        os.truncate(root / "nodes" / f"{node}.onnx", 1 << 29)


def _counted(count: int) -> bytes:
    """The good file (8 members) with another count in its end record."""
    data = bytearray(good_file())
    struct.pack_into("<2H", data, len(data) - END_BYTES + 8, count, count)
    return bytes(data)


def _nul() -> bytes:
    return zip_of([*sorted(good_members().items()), ("nodes/aXb.onnx", b"x")]).replace(
        b"aXb", b"a\0b"
    )


def _pop(members: Members, path: str) -> None:
    del members[path]


def _touch(path: Path) -> None:
    path.write_bytes(b"")


ESCAPES = {
    "climbs": ("nodes/../../etc/passwd", "leaves the bundle"),
    "climbs at once": ("../manifest.json", "leaves the bundle"),
    "dot": ("./manifest.json", "leaves the bundle"),
    "absolute": ("/nodes/a.onnx", "is absolute"),
    "backslash": ("nodes\\a.onnx", "backslash"),
    "drive": ("C:nodes/a.onnx", "names a drive"),
    "empty": ("", "expected manifest.json"),
    "deep": ("nodes/a/b.onnx", "expected manifest.json"),
    "elsewhere": ("README.md", "expected manifest.json"),
    "folder entry": ("nodes/", "expected manifest.json"),
    "stream": ("nodes/a.onnx:hidden", "expected manifest.json"),
    "blank": ("nodes/a b.onnx", "A-Z a-z 0-9"),
    "dots": ("nodes/a.b.onnx", "A-Z a-z 0-9"),
    "reserved": ("nodes/CON.onnx", "device's name"),
    "reserved printer": ("nodes/lpt1.onnx", "device's name"),
    "long": (f"nodes/{'a' * 101}.onnx", "A-Z a-z 0-9"),
    "control": ("nodes/a\nb.onnx", "A-Z a-z 0-9"),
}

ARCHIVES: list[Hostile] = [
    by_file("empty", BundleArchiveError, "too few", lambda: b""),
    by_file("no zip", BundleArchiveError, "does not end as a ZIP", lambda: b"hello world\n" * 99),
    by_file("truncated", BundleArchiveError, "truncated", lambda: good_file()[:-1]),
    by_file("half", BundleArchiveError, "truncated", lambda: good_file()[: len(good_file()) // 2]),
    by_file("trailing bytes", BundleArchiveError, "bytes were added", lambda: good_file() + b"\0"),
    by_file("leading bytes", BundleArchiveError, "its directory says", lambda: b"#!" + good_file()),
    by_file(
        "another archive behind", BundleArchiveError, "its directory says", lambda: good_file() * 2
    ),
    by_file("archive comment", BundleArchiveError, "comment", _patched(20, "<H", 3)),
    by_file("several disks", BundleArchiveError, "several disks", _patched(4, "<H", 1)),
    by_file("a disk's share", BundleArchiveError, "several disks", _patched(8, "<H", 2)),
    by_file(
        "member on a disk", BundleArchiveError, "on disk 7", _patched(34, "<H", 7, where="entry")
    ),
    by_file("zip64 directory", BundleArchiveError, "ZIP64", _patched(16, "<L", 0xFFFFFFFF)),
    by_file("zip64 count", BundleArchiveError, "ZIP64", _patched(10, "<H", 0xFFFF)),
    by_file(
        "zip64 member", BundleArchiveError, "ZIP64", _patched(42, "<L", 0xFFFFFFFF, where="entry")
    ),
    by_file(
        "fewer members than entries",
        BundleArchiveError,
        "bytes more than its 7 members",
        lambda: _counted(7),
    ),
    by_file(
        "more members than entries", BundleArchiveError, "ends within an entry", lambda: _counted(9)
    ),
    by_file("no entry", BundleArchiveError, "no entry", _patched(0, "<L", 0, where="entry")),
    by_file(
        "endless name",
        BundleArchiveError,
        "within a name",
        _patched(28, "<H", 60000, where="entry"),
    ),
    by_file(
        "compressed",
        BundleArchiveError,
        "is compressed (method 8)",
        lambda: zip_of(sorted(good_members().items()), method=zipfile.ZIP_DEFLATED),
    ),
    by_file(
        "a bomb",
        BundleArchiveError,
        "is compressed",
        lambda: zip_of([(MANIFEST, b" " * (1 << 24))], method=zipfile.ZIP_DEFLATED),
    ),
    by_file(
        "lzma",
        BundleArchiveError,
        "method 14",
        lambda: zip_of(sorted(good_members().items()), method=zipfile.ZIP_LZMA),
    ),
    by_file("encrypted", BundleArchiveError, "encrypted", _both(8, 6, "<H", 1)),
    by_file("data descriptor", BundleArchiveError, "flags 0x0008", _both(8, 6, "<H", 8)),
    by_file("newer zip", BundleArchiveError, "version 63", _both(6, 4, "<H", 63)),
    by_file(
        "sizes of a bomb",
        BundleArchiveError,
        "bytes hold",
        _patched(24, "<L", 1 << 25, where="entry"),
    ),
    by_file("extra field", BundleArchiveError, "extra fields", _with_info(_extra)),
    by_file("member comment", BundleArchiveError, "comment", _with_info(_comment)),
    by_file(
        "header has another checksum",
        BundleArchiveError,
        "not the directory's",
        _patched(14, "<L", 7, where="header"),
    ),
    by_file(
        "header has another size",
        BundleArchiveError,
        "not the directory's",
        _patched(18, "<L", 7, where="header"),
    ),
    by_file(
        "header has another name",
        BundleArchiveError,
        "not the directory's",
        _patched(30, "<B", ord("M"), where="header"),
    ),
    by_file("overlap", BundleArchiveError, "overlap", _overlap),
    by_file("hidden bytes", BundleArchiveError, "6 bytes before the directory", _gap),
    by_file("link", BundleMemberError, "symbolic link", _with_info(_mode(0o120777))),
    by_file("device entry", BundleMemberError, "no plain file", _with_info(_mode(0o060600))),
    by_file("folder by attribute", BundleMemberError, "no plain file", _with_info(_dos_folder)),
    by_file("duplicate member", BundleMemberError, "there twice", _twice),
    by_file("case collision", BundlePathError, "differ only in case", _renamed("nodes/STEM.onnx")),
    by_file("name not ascii", BundlePathError, "not ASCII", _renamed("nodes/é.onnx")),
    by_file("nul in a name", BundlePathError, "NUL", lambda: _nul()),
    *(
        by_file(f"path {kind}", BundlePathError, text, _renamed(path))
        for kind, (path, text) in ESCAPES.items()
    ),
    *(
        hostile
        for kind, (path, text) in ESCAPES.items()
        for hostile in by_manifest(
            f"manifest lists path {kind}", BundlePathError, text, _listed_too(path)
        )
    ),
    by_folder(
        "a file more", BundlePathError, "expected manifest.json", lambda r: _touch(r / ".DS_Store")
    ),
    by_folder(
        "case collision",
        BundlePathError,
        "differ only in case",
        lambda r: _touch(r / "nodes" / "Stem.onnx"),
    ),
    by_folder(
        "a name of other bytes",
        BundlePathError,
        "A-Z a-z 0-9",
        lambda r: _touch(r / "nodes" / os.fsdecode(b"\xff\xfe.onnx")),
    ),
    *by_members("damaged", BundleHashError, "SHA-256 is not the manifest's", _flipped),
    by_file("bit rot", BundleHashError, "CRC-32", _damaged),
    *by_members(
        "another size",
        BundleHashError,
        "the manifest says",
        lambda m: m.update({STEM: m[STEM] + b"\0"}),
    ),
    *by_members(
        "no manifest", BundleMemberError, "manifest.json is missing", lambda m: _pop(m, MANIFEST)
    ),
    *by_members("missing member", BundleMemberError, "not there", lambda m: _pop(m, STEM)),
    *by_members(
        "unlisted member",
        BundleMemberError,
        "not in the manifest",
        lambda m: m.update({"nodes/more.onnx": b"x"}),
    ),
    *by_manifest(
        "a node's member is not listed", BundleMemberError, "is not listed", drop("members", STEM)
    ),
    *by_manifest(
        "a member of no node",
        BundleMemberError,
        "belongs to no",
        lambda m: m["members"].update({"nodes/more.onnx": m["members"][STEM]}),
    ),
    by_file("many members", BundleSizeError, "members; the limit is 4099", _with(_many)),
    by_file(
        "manifest of 5 MB",
        BundleSizeError,
        "manifest.json: ",
        _with(lambda m: m.update({MANIFEST: m[MANIFEST] + b" " * 5_000_000})),
    ),
    by_folder(
        "member of 1 GB",
        BundleSizeError,
        "the limit is 536870912 bytes",
        lambda r: os.truncate(r / STEM, 1 << 30),
    ),
    by_folder(
        "members of 1.5 GB",
        BundleSizeError,
        "members together",
        _three_large,
    ),
    Hostile(
        kind="file of 1 GB", error=BundleSizeError, text="file: 1073741825", build=_sparse_file
    ),
    Hostile(
        kind="a device", error=BundleArchiveError, text="neither a file nor a folder", build=_device
    ),
    Hostile(
        kind="a pipe", error=BundleArchiveError, text="neither a file nor a folder", build=_pipe
    ),
    Hostile(
        kind="an empty folder",
        error=BundleMemberError,
        text="manifest.json is missing",
        build=lambda folder: folder,
    ),
]
