"""Reads ``.npy`` and ``.npz`` files of strangers: sizes are checked before anything is allocated."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from dynrt.errors import DataError

_LIMIT_BYTES = 1 << 32
_LIMIT_MEMBERS = 64
_LIMIT_HEADER = 10_000
#: The header as numpy writes it; element types with fields, which no picture needs, do not match.
_HEADER = re.compile(
    rb"\{'descr': '(?P<descr>[<>|=]?[a-zA-Z][0-9]{0,6})', 'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>(?:[0-9]{1,18}(?:, ?|(?=\))))*)\),? ?\}[ \n]*"
)
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    NotImplementedError,
    OverflowError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


def read_arrays(path: Path, *, limit_bytes: int = _LIMIT_BYTES) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an ``.npz`` file by name, or the one of an ``.npy`` file under the name "".

    Args:
        path: the file; a ``.npy`` file is told by its first bytes.
        limit_bytes: how much may be read and unpacked in all.

    Raises:
        DataError: the file is missing, empty, damaged, too large, or holds Python objects.
    """
    try:
        length = path.stat().st_size
        if length == 0:
            raise DataError(f"{path}: the file is empty")
        if length > limit_bytes:
            raise DataError(f"{path}: {length} bytes; the limit is {limit_bytes}")
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if raw.startswith(b"\x93NUMPY"):
        return {"": _array(path, "", io.BytesIO(raw), len(raw))}
    if not raw.startswith(b"PK"):
        raise DataError(f"{path}: this is neither an .npy nor an .npz file")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            return _members(path, archive, limit_bytes)
    except DataError:
        raise
    except _DAMAGED as error:
        raise DataError(f"{path}: the .npz file is damaged or cut short") from error


def _members(path: Path, archive: zipfile.ZipFile, limit_bytes: int) -> dict[str, npt.NDArray[Any]]:
    infos = archive.infolist()
    if len(infos) > _LIMIT_MEMBERS:
        raise DataError(f"{path}: {len(infos)} arrays; the limit is {_LIMIT_MEMBERS}")
    total = sum(i.file_size for i in infos)
    if total > limit_bytes:
        raise DataError(f"{path}: {total} bytes unpacked; the limit is {limit_bytes}")
    out: dict[str, npt.NDArray[Any]] = {}
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name in out:
            raise DataError(f"{path}: it holds two arrays named {name!r}")
        with archive.open(info) as stream:
            out[name] = _array(path, name, stream, info.file_size)
    return out


def _array(path: Path, name: str, stream: IO[bytes], length: int) -> npt.NDArray[Any]:
    """One array; its header must promise exactly the bytes that follow."""
    what = f"{path}: array {name!r}" if name else str(path)
    try:
        shape, fortran, descr = _header(stream)
        dtype = np.dtype(descr)
    except _DAMAGED as error:
        raise DataError(f"{what}: damaged, cut short, or of an unknown npy version") from error
    if dtype.hasobject:
        raise DataError(f"{what}: it holds Python objects, which are never read")
    count = 1
    for n in shape:
        count *= n
    wanted = count * dtype.itemsize
    # The header is not believed beyond the declared length, which bounds what is read.
    if wanted > length or count > max(length, 1):
        raise DataError(f"{what}: {dtype} {shape} needs {wanted} bytes, but it holds {length}")
    try:
        body = stream.read(wanted + 1)
    except _DAMAGED as error:
        raise DataError(f"{what}: damaged or cut short") from error
    if len(body) != wanted:
        held = "more" if len(body) > wanted else len(body)
        raise DataError(f"{what}: {dtype} {shape} needs {wanted} bytes, but it holds {held}")
    if not wanted:
        return np.zeros(shape, dtype)
    flat: npt.NDArray[Any] = np.frombuffer(body, dtype, count=count)
    return flat.reshape(shape, order="F" if fortran else "C")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, str]:
    """Shape, order and element type. Read by pattern: numpy's own reader evaluates the text."""
    start = stream.read(8)
    size = {b"\x93NUMPY\x01\x00": "<H", b"\x93NUMPY\x02\x00": "<I"}[start]
    (length,) = struct.unpack(size, stream.read(struct.calcsize(size)))
    if length > _LIMIT_HEADER:
        raise ValueError(length)
    match = _HEADER.fullmatch(stream.read(length))
    if match is None:
        raise ValueError(start)
    shape = tuple(int(n) for n in match["shape"].split(b",") if n.strip())
    return shape, match["fortran"] == b"True", match["descr"].decode("ascii")
