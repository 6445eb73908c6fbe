"""What another process may do to a bundle while it is read is refused, not believed."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dynrt.bundle import folder, read_bundle, reader, write_bundle
from dynrt.bundle.archive import ArchiveMembers
from dynrt.bundle.folder import FolderMembers
from dynrt.bundle.limits import DEFAULT_LIMITS
from dynrt.errors import (
    BundleArchiveError,
    BundleError,
    BundleHashError,
    BundleMemberError,
    BundleNotFoundError,
)
from tests.bundle.hostile import good_file
from tests.bundle.samples import picture_bundle

MEMBER = "nodes/final.onnx"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A bundle as a folder."""
    write_bundle(picture_bundle(), tmp_path / "a", folder=True)
    return tmp_path / "a"


def _link(path: Path) -> None:
    path.rename(path.parent.parent.parent / "moved")
    path.symlink_to(path.parent.parent.parent / "moved")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (Path.unlink, "cannot be opened: No such file"),
        (_link, "cannot be opened: "),
        (_pipe, "is a pipe, not a file"),
        (lambda p: p.write_bytes(p.read_bytes() + b"x"), "changed while it was read"),
        (lambda p: os.truncate(p, 3), "changed while it was read"),
    ],
    ids=["gone", "link", "pipe", "longer", "shorter"],
)
def test_members_that_change_after_the_listing(
    root: Path, change: Callable[[Path], object], text: str
) -> None:
    members = FolderMembers(root, limits=DEFAULT_LIMITS)
    change(root / MEMBER)
    with pytest.raises(BundleMemberError) as caught:
        members.read(MEMBER)
    assert text in str(caught.value)


def test_other_bytes_of_the_same_size(root: Path) -> None:
    members = FolderMembers(root, limits=DEFAULT_LIMITS)
    size = members.sizes[MEMBER]
    (root / MEMBER).write_bytes(bytes(size))
    with pytest.raises(BundleHashError, match="SHA-256"):
        reader.read_members(members)


def test_an_entry_that_goes_while_it_is_listed(root: Path) -> None:
    with os.scandir(root / "nodes") as entries:
        entry = next(entries)
    (root / MEMBER).unlink()
    with pytest.raises(BundleMemberError, match="cannot be looked at: No such file"):
        folder._stat(entry)


def test_a_folder_that_may_not_be_listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(BundleNotFoundError, match="folder 'a' cannot be listed: Permission denied"):
        read_bundle(root)


def test_a_device_in_a_folder_is_named() -> None:
    assert folder._kind(Path("/dev/null").stat().st_mode) == "a device"


def test_a_file_cut_while_it_is_read() -> None:
    stream = io.BytesIO(good_file())
    members = ArchiveMembers(stream, len(good_file()), limits=DEFAULT_LIMITS)
    stream.truncate(100)
    with pytest.raises(BundleArchiveError, match="ends within the 252 bytes"):
        members.read("nodes/stem.onnx")


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(5, "I/O error")]
)
def test_a_file_that_may_not_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    write_bundle(picture_bundle(), tmp_path / "a.dynrt")

    def refuse(*_: object) -> int:
        raise error

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BundleNotFoundError) as caught:
        read_bundle(tmp_path / "a.dynrt")
    assert str(caught.value) == f"{tmp_path / 'a.dynrt'}: cannot be read: {error.strerror}"


def test_a_file_that_becomes_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(picture_bundle(), tmp_path / "a.dynrt")
    os.mkfifo(tmp_path / "pipe")
    real = os.open
    monkeypatch.setattr(os, "open", lambda _, flags: real(tmp_path / "pipe", flags))
    with pytest.raises(BundleArchiveError, match="neither a file nor a folder"):
        read_bundle(tmp_path / "a.dynrt")


def test_unprintable_paths_are_shown_escaped(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        read_bundle(tmp_path / "\x1b[2J")
    assert str(caught.value).isprintable()
    assert "x1b" in str(caught.value)
