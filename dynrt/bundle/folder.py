"""The folder form: the same members as files. Links and devices are refused before they are opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from dynrt.bundle.limits import Limits, bound
from dynrt.bundle.names import NODES, check_member_path, check_member_paths, shown
from dynrt.errors import BundleMemberError, BundleNotFoundError

#: Never wait for a pipe, never keep the file open in a child process.
FILE_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
#: And never follow a link.
_MEMBER_FLAGS = FILE_FLAGS | getattr(os, "O_NOFOLLOW", 0)


class FolderMembers:
    """The members of a folder; each is read once.

    Args:
        root: the folder; may itself be a link.
        limits: what is accepted.

    Raises:
        BundleMemberError: a link, folder, pipe or device where a file should be, or a file where no
            member is.
        BundlePathError: a name that is not portable.
        BundleSizeError: more or larger members than ``limits`` allow.
    """

    def __init__(self, root: Path, *, limits: Limits) -> None:
        self._root = root
        sizes: dict[str, int] = {}
        total = 0
        for path, size in self._walk():
            bound("members", len(sizes) + 1, limits.members, "members")
            bound(shown(path), size, limits.member_bytes)
            total += size
            bound("members together", total, limits.bundle_bytes)
            sizes[path] = size
        check_member_paths(sizes)
        self.sizes: Mapping[str, int] = sizes

    def _walk(self) -> Iterator[tuple[str, int]]:
        for entry in _listed(self._root):
            if entry.name == NODES:
                mode = _stat(entry).st_mode
                if not stat.S_ISDIR(mode):
                    raise BundleMemberError(f"{NODES}: is {_kind(mode)}, not a folder")
                for inner in _listed(self._root / NODES):
                    yield from _file(f"{NODES}/{inner.name}", inner)
            else:
                check_member_path(entry.name)
                yield from _file(entry.name, entry)

    def read(self, path: str) -> bytes:
        """The bytes of a member.

        Raises:
            BundleMemberError: it is no plain file any more, or changed its size.
        """
        place, size = f"member {shown(path)}", self.sizes[path]
        try:
            handle = os.open(self._root / path, _MEMBER_FLAGS)
        except OSError as exc:
            raise BundleMemberError(f"{place}: cannot be opened: {exc.strerror}") from None
        with os.fdopen(handle, "rb") as file:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                raise BundleMemberError(f"{place}: is {_kind(mode)}, not a file")
            data = file.read(size + 1)
        if len(data) != size:
            raise BundleMemberError(f"{place}: had {size} bytes, and changed while it was read")
        return data


def _listed(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as exc:
        raise BundleNotFoundError(
            f"folder {shown(folder.name)} cannot be listed: {exc.strerror}"
        ) from None


def _stat(entry: os.DirEntry[str]) -> os.stat_result:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError as exc:
        raise BundleMemberError(
            f"{shown(entry.name)}: cannot be looked at: {exc.strerror}"
        ) from None


def _file(path: str, entry: os.DirEntry[str]) -> Iterator[tuple[str, int]]:
    info = _stat(entry)
    if not stat.S_ISREG(info.st_mode):
        raise BundleMemberError(f"member {shown(path)}: is {_kind(info.st_mode)}, not a file")
    yield path, info.st_size


def _kind(mode: int) -> str:
    for test, words in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISREG, "a file"),
    ):
        if test(mode):
            return words
    return "a device"
