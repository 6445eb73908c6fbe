"""Writes a file whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO

from dynrt.errors import DataError, OutputExistsError


def write_whole(path: Path, write: Callable[[IO[bytes]], None], *, force: bool = False) -> None:
    """Let ``write`` fill a new file beside ``path``, then put it in its place.

    Raises:
        OutputExistsError: ``path`` exists and ``force`` is not set.
        DataError: it cannot be written; what stood there before still stands.
    """
    if path.is_dir():
        raise DataError(f"{path}: this is a folder; a file is to be written")
    if path.exists() and not force:
        raise OutputExistsError(f"{path} exists; it is replaced only with --force")
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        try:
            with new.open("xb") as stream:
                write(stream)
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DataError(f"{path}: it cannot be written ({error.strerror or error})") from error


def write_text(path: Path, text: str, *, force: bool = False) -> None:
    """Write ``text`` as UTF-8; see :func:`write_whole`."""

    def write(stream: IO[bytes]) -> None:
        stream.write(text.encode())

    write_whole(path, write, force=force)
