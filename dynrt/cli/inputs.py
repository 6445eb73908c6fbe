"""From what a person names on the command line to samples that a network takes."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dynrt.bundle import Bundle
from dynrt.calibrate.arrays import read_arrays
from dynrt.calibrate.pictures import (
    ARRAY_SUFFIXES,
    PICTURE_SUFFIXES,
    decode_picture,
    prepare,
)
from dynrt.errors import DataError, DynrtError, InputError
from dynrt.ir.graph import InputNode

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample.

    Attributes:
        name: what people call it.
        values: tensors by input node, without the batch axis.
    """

    name: str
    values: Mapping[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """An input that gave no sample, and why."""

    name: str
    error: DynrtError


def samples(
    names: Iterable[str], bundle: Bundle, *, expand: bool = True
) -> Iterator[Sample | Unreadable]:
    """Each input in turn; a bad one is reported and does not stop the others.

    Args:
        names: paths of pictures, ``.npy`` or ``.npz`` files, and folders of them.
        bundle: says what its network takes.
        expand: whether folders are looked into.
    """
    reader = _Reader(bundle)
    for name in names:
        try:
            path = Path(name)
            paths = folder_files(path) if _is_folder(path) and expand else [path]
        except DynrtError as error:
            yield Unreadable(name=name, error=error)
            continue
        for path in paths:
            try:
                yield from reader.read(path)
            except (DataError, InputError) as error:
                yield Unreadable(name=str(path), error=error)


def _is_folder(path: Path) -> bool:
    """Whether it is a folder that is there.

    Raises:
        DataError: nothing can have such a name (it is too long, or holds a NUL).
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    except (OSError, ValueError) as exc:
        raise DataError(f"cannot be a file: {getattr(exc, 'strerror', None) or exc}") from exc


def picture_samples(
    pictures: Iterable[tuple[str, npt.NDArray[np.uint8]]], bundle: Bundle
) -> Iterator[Sample]:
    """Named pictures, ``(height, width, channels)`` uint8, as samples."""
    reader = _Reader(bundle)
    for name, pixels in pictures:
        yield reader.picture(name, pixels)


def folder_files(folder: Path) -> list[Path]:
    """Pictures and arrays directly in ``folder``, by name.

    Raises:
        DataError: it cannot be read, or there are none.
    """
    wanted = (*PICTURE_SUFFIXES, *ARRAY_SUFFIXES)
    try:
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in wanted and p.is_file())
    except OSError as exc:
        raise DataError(f"{folder}: {exc.strerror or exc}") from exc
    if not found:
        raise DataError(f"{folder}: no pictures, .npy or .npz files in this folder")
    return found


def stream_lines(lines: Iterable[str]) -> Iterator[str]:
    """Paths from a stream, one a line; empty lines do not count."""
    for line in lines:
        if path := line.rstrip("\r\n"):
            yield path


class _Reader:
    """Reads files for one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._inputs = tuple(n for n in bundle.graph.inputs() if n.param is None)

    def read(self, path: Path) -> Iterator[Sample]:
        """The samples of one file: one of a picture, one or many of arrays."""
        if path.suffix.lower() not in ARRAY_SUFFIXES:
            yield self.picture(str(path), decode_picture(path))
            return
        arrays = read_arrays(path)
        names = [node.name for node in self._inputs]
        if len(arrays) == 1 and len(names) == 1:
            arrays = {names[0]: next(iter(arrays.values()))}
        if missing := [name for name in names if name not in arrays]:
            raise InputError(
                f"{path}: no array named {missing[0]!r}; the network takes {', '.join(names)}, "
                f"the file holds {', '.join(sorted(filter(None, arrays))) or 'one array'}"
            )
        split = [self._split(path, node, arrays[node.name]) for node in self._inputs]
        counts = {len(part) for part in split}
        if len(counts) > 1:
            raise InputError(f"{path}: its arrays hold {sorted(counts)} samples")
        for i, values in enumerate(zip(*split, strict=True)):
            name = str(path) if len(split[0]) == 1 else f"{path}[{i}]"
            yield Sample(name=name, values=dict(zip(names, values, strict=True)))

    def picture(self, name: str, pixels: npt.NDArray[np.uint8]) -> Sample:
        """One picture, brought to the form that the network takes."""
        rule = self._bundle.preprocessing
        if rule is None or len(self._inputs) != 1:
            raise InputError(
                f"{name}: bundle {self._bundle.name!r} does not say how pictures become its "
                "input; give arrays (.npy, .npz)"
            )
        values = {self._inputs[0].name: prepare(pixels[None], rule)[0]}
        return Sample(name=name, values=values)

    def _split(self, path: Path, node: InputNode, array: Array) -> Sequence[Array]:
        """The samples in one array, in the type that ``node`` takes."""
        rule = self._bundle.preprocessing
        if rule is not None and array.dtype == np.uint8 and node.type.dtype != "uint8":
            return self._pictures(path, array)
        wanted = node.type
        if array.shape == wanted.shape:
            array = array[None]
        if array.shape[1:] != wanted.shape or not _fits(array.dtype, np.dtype(wanted.dtype)):
            raise InputError(
                f"{path}: {array.dtype} {array.shape} is not what input {node.name!r} takes: "
                f"{wanted.dtype} {wanted.shape}, or several of them along a first axis"
            )
        if len(array) == 0:
            raise InputError(f"{path}: it holds no samples, its shape is {array.shape}")
        with np.errstate(over="ignore"):  # the runtime refuses what is not finite
            return list(array.astype(wanted.dtype))

    def _pictures(self, path: Path, array: npt.NDArray[np.uint8]) -> Sequence[Array]:
        """Arrays of bytes are pictures: (h, w), (h, w, c) or (n, h, w, c)."""
        rule = self._bundle.preprocessing
        shaped = {2: array[None, ..., None], 3: array[None], 4: array}.get(array.ndim)
        if rule is None or shaped is None or len(shaped) == 0:
            raise InputError(
                f"{path}: uint8 {array.shape} is no picture: (h, w), (h, w, 1 or 3) or "
                "(n, h, w, 1 or 3)"
            )
        try:
            return list(prepare(shaped, rule))
        except InputError as exc:
            raise InputError(f"{path}: {exc}") from exc


def _fits(have: np.dtype[Any], want: np.dtype[Any]) -> bool:
    """Whether values may be converted: float to float, whole to whole without loss."""
    return (have.kind == "f" and want.kind == "f") or np.can_cast(have, want, "safe")
