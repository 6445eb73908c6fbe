"""Puts a file or a folder in its place at once, so that a killed writer leaves the old one."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from dynrt.bundle.names import MANIFEST, NODES, TABLES
from dynrt.errors import BundleWriteError, OutputExistsError

_IS_BUNDLE = frozenset((MANIFEST, *TABLES, NODES))


def put_file(pieces: Iterable[bytes], target: Path, *, force: bool) -> None:
    """Write ``pieces`` to ``target``: all of them or nothing.

    The bytes go to a new file beside the target, are synced to the disk, and then take its name in
    one step of the file system.

    Raises:
        OutputExistsError: something is there, and ``force`` is not given.
        BundleWriteError: it cannot be written, or a folder is there.
    """
    _refuse_existing(target, force=force)
    temporary = _beside(target, "tmp")
    try:
        _write(temporary, pieces)
        if target.is_dir() and not target.is_symlink():
            raise BundleWriteError(f"{target}: is a folder; a file does not replace it")
        if force:
            temporary.replace(target)
        else:
            _claim(temporary, target)
        _sync_folder(target.parent)
    except OSError as exc:
        raise _write_error(target, exc) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def put_folder(files: Mapping[str, bytes], target: Path, *, force: bool) -> None:
    """Write ``files`` (relative path -> bytes) as the folder ``target``: all of them or nothing.

    A new target appears in one step. A bundle that is replaced is first renamed, so that between two
    renames nothing has the target's name; killed in between, the old bundle stands beside it, whole,
    as ``.NAME.HEX.old``.

    Raises:
        OutputExistsError: something is there, and ``force`` is not given.
        BundleWriteError: it cannot be written, or what is there is no folder of a bundle.
    """
    _refuse_existing(target, force=force)
    temporary, old = _beside(target, "tmp"), _beside(target, "old")
    try:
        temporary.mkdir()
        folders = sorted({(temporary / path).parent for path in files})
        for folder in folders:
            folder.mkdir(exist_ok=True)
        for path, data in files.items():
            _write(temporary / path, (data,))
        for folder in folders:
            _sync_folder(folder)
        if os.path.lexists(target):
            _refuse_existing(target, force=force)
            _refuse_other_folders(target)
            target.rename(old)
            try:
                temporary.rename(target)
            except BaseException:
                old.rename(target)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.rename(target)
        _sync_folder(target.parent)
    except OSError as exc:
        raise _write_error(target, exc) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(target: Path, suffix: str) -> Path:
    return target.parent / f".{target.name[:40]}.{secrets.token_hex(6)}.{suffix}"


def _refuse_existing(target: Path, *, force: bool) -> None:
    if not force and os.path.lexists(target):
        raise OutputExistsError(
            f"{target}: is there already, and may not be replaced without force"
        )


def _refuse_other_folders(target: Path) -> None:
    """Force replaces a bundle, never a folder with anything else in it."""
    if target.is_symlink() or not target.is_dir():
        raise BundleWriteError(f"{target}: is no folder; a folder does not replace it")
    inside = {entry.name for entry in target.iterdir()}
    if not inside <= _IS_BUNDLE:
        other = ascii(min(inside - _IS_BUNDLE))[:80]
        raise BundleWriteError(f"{target}: is no bundle, it holds {other}; it is not replaced")


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    """A new file, synced; permissions as the process's mask asks."""
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _claim(temporary: Path, target: Path) -> None:
    """Give the file its name unless something else has it by now."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise OutputExistsError(f"{target}: appeared meanwhile, and may not be replaced") from None
    except OSError:  # a file system without hard links
        _refuse_existing(target, force=False)
        temporary.replace(target)


def _sync_folder(folder: Path) -> None:
    """Make a rename last; systems that cannot open folders do not need it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _write_error(target: Path, exc: OSError) -> BundleWriteError:
    return BundleWriteError(f"{target}: cannot be written: {exc.strerror or exc}")
