"""Labelled pictures from disk: CIFAR-10, MNIST, a folder per class, or arrays.

Nothing is downloaded and nothing in a file is trusted: sizes are bounded before they are believed,
pickles are decoded without running them, arrays are read with ``allow_pickle=False``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dynrt.calibrate.arrays import read_arrays
from dynrt.calibrate.pickled import read_pickled_dict
from dynrt.calibrate.pictures import PICTURE_SUFFIXES, decode_picture, fit
from dynrt.errors import DataError

Split = Literal["train", "validation", "test"]
Pictures = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

FORMS = "cifar10:DIR, mnist:DIR, imagefolder:DIR or npz:FILE"
_FILE_BYTES = 1 << 30
_PICTURE_BYTES = 1 << 33
_CIFAR_SIDE = 32
#: Validation is the end of the training pictures: 5,000 of CIFAR-10's 50,000, of MNIST's 60,000.
_CIFAR_VALIDATION = 10
_MNIST_VALIDATION = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Labelled pictures.

    Attributes:
        pictures: ``(n, height, width, channels)``, uint8, 1 or 3 channels.
        labels: ``(n,)``, int64, each an index into ``names``.
        names: of the classes.
        source: what was read and which part of it, without the folder: ``cifar10 test``.
    """

    pictures: Pictures
    labels: Labels
    names: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        shape = self.pictures.shape
        if self.pictures.dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3):
            raise DataError(
                f"{self.source}: pictures are {self.pictures.dtype} {shape}; "
                "uint8 (n, height, width, 1 or 3) is needed"
            )
        if self.labels.dtype != np.int64 or self.labels.shape != shape[:1]:
            raise DataError(
                f"{self.source}: labels are {self.labels.dtype} {self.labels.shape}; "
                f"int64 ({shape[0]},) is needed"
            )
        if 0 in shape:
            raise DataError(f"{self.source}: there are no pictures in it (shape {shape})")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.names):
            raise DataError(
                f"{self.source}: labels run from {low} to {high}, but there are "
                f"{len(self.names)} classes"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int = 250) -> Iterator[tuple[Pictures, Labels]]:
        """Pictures and labels in order, ``size`` at a time; the last batch may be smaller.

        Raises:
            DataError: ``size`` is not above zero.
        """
        if size < 1:
            raise DataError(f"a batch of {size} pictures; at least 1 is needed")
        for start in range(0, len(self), size):
            yield self.pictures[start : start + size], self.labels[start : start + size]

    def first(self, count: int) -> Dataset:
        """The first ``count`` pictures (all of them, if there are fewer)."""
        return Dataset(
            pictures=self.pictures[:count],
            labels=self.labels[:count],
            names=self.names,
            source=f"{self.source} (first {count})" if count < len(self) else self.source,
        )


def load_dataset(
    spec: str, *, split: Split = "test", size: tuple[int, int] | None = None
) -> Dataset:
    """Read labelled pictures.

    Args:
        spec: ``cifar10:DIR`` (DIR holds ``cifar-10-batches-py``), ``mnist:DIR`` (the four idx files
            in DIR or DIR/MNIST/raw), ``imagefolder:DIR`` (one folder per class), or ``npz:FILE``
            (arrays ``pictures`` or ``x``, and ``labels`` or ``y``; ``names`` if there are any).
        split: which part. Validation is the end of the training pictures (CIFAR-10: the last 5,000
            of 50,000). A folder per class has parts where DIR holds folders of these names; else,
            and for arrays, what is named is what is read, whichever part is asked for.
        size: height and width that the pictures of a folder are brought to; without it they must
            all be of one size.

    Raises:
        DataError: anything is missing, cut short, empty or of the wrong shape.
        MissingExtraError: a folder of pictures without Pillow.
    """
    kind, colon, place = spec.partition(":")
    readers = {"cifar10": _cifar10, "mnist": _mnist, "npz": _npz}
    if not colon or not place or kind not in (*readers, "imagefolder"):
        raise DataError(f"{spec!r} is no data set: write {FORMS}")
    if split not in ("train", "validation", "test"):
        raise DataError(f"{split!r} is no part of a data set: train, validation or test")
    path = Path(place).expanduser()
    if "\0" in place or not path.exists():
        raise DataError(f"{spec}: there is no such {'file' if kind == 'npz' else 'folder'}")
    if kind == "imagefolder":
        return _imagefolder(path, split, size)
    return readers[kind](path, split)


def _bytes_of(path: Path) -> bytes:
    try:
        length = path.stat().st_size
        if length > _FILE_BYTES:
            raise DataError(f"{path}: {length} bytes; the limit is {_FILE_BYTES}")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _last_part(
    pictures: Pictures, labels: Labels, split: Split, parts: int
) -> tuple[Pictures, Labels]:
    """Cut training pictures into training and validation: one of ``parts``, at the end."""
    kept = len(labels) - len(labels) // parts
    part = slice(kept, None) if split == "validation" else slice(None, kept)
    return pictures[part], labels[part]


def _cifar10(path: Path, split: Split) -> Dataset:
    inner = path / "cifar-10-batches-py"
    folder = inner if inner.is_dir() else path
    names = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
    batches = [_cifar_batch(folder / name) for name in names]
    pictures = np.concatenate([b[0] for b in batches])
    labels = np.concatenate([b[1] for b in batches])
    if split != "test":
        pictures, labels = _last_part(pictures, labels, split, _CIFAR_VALIDATION)
    return Dataset(
        pictures=pictures,
        labels=labels,
        names=_cifar_names(folder / "batches.meta"),
        source=f"cifar10 {split}",
    )


def _cifar_batch(path: Path) -> tuple[Pictures, Labels]:
    content = _pickled(path)
    data, labels = content.get(b"data"), content.get(b"labels")
    row = 3 * _CIFAR_SIDE * _CIFAR_SIDE
    if not isinstance(data, np.ndarray) or data.shape[1] != row:
        raise DataError(f"{path}: no table 'data' of {row} bytes a row, as CIFAR-10 has")
    if not isinstance(labels, list) or any(type(v) is not int for v in labels):
        raise DataError(f"{path}: no list 'labels' of whole numbers, as CIFAR-10 has")
    if len(labels) != len(data):
        raise DataError(f"{path}: {len(data)} pictures, but {len(labels)} labels")
    chw = data.reshape(-1, 3, _CIFAR_SIDE, _CIFAR_SIDE)
    return np.ascontiguousarray(chw.transpose(0, 2, 3, 1)), np.array(labels, np.int64)


def _cifar_names(path: Path) -> tuple[str, ...]:
    names = _pickled(path).get(b"label_names")
    if not isinstance(names, list) or not all(isinstance(n, bytes) for n in names):
        raise DataError(f"{path}: no list 'label_names', as CIFAR-10 has")
    return tuple(n.decode("latin-1") for n in names)


def _pickled(path: Path) -> dict[bytes, Any]:
    try:
        return read_pickled_dict(_bytes_of(path))
    except DataError as error:
        text = str(error)
        raise DataError(text if text.startswith(str(path)) else f"{path}: {text}") from error


def _mnist(path: Path, split: Split) -> Dataset:
    folder = next((f for f in (path / "MNIST" / "raw", path / "raw") if f.is_dir()), path)
    stem = "t10k" if split == "test" else "train"
    images = _idx(folder / f"{stem}-images-idx3-ubyte", axes=3)
    labels = _idx(folder / f"{stem}-labels-idx1-ubyte", axes=1).astype(np.int64)
    if len(images) != len(labels):
        raise DataError(f"{folder}: {len(images)} {stem} pictures, but {len(labels)} labels")
    pictures = images[..., None]
    if split != "test":
        pictures, labels = _last_part(pictures, labels, split, _MNIST_VALIDATION)
    return Dataset(
        pictures=pictures,
        labels=labels,
        names=tuple("0123456789"),
        source=f"mnist {split}",
    )


def _idx(path: Path, *, axes: int) -> Pictures:
    """One idx file of unsigned bytes: magic, one big-endian length per axis, the bytes."""
    raw = _bytes_of(path)
    head = 4 + 4 * axes
    if len(raw) < head or raw[:4] != bytes((0, 0, 8, axes)):
        raise DataError(f"{path}: this is no idx file of bytes in {axes} axes")
    shape = struct.unpack(f">{axes}I", raw[4:head])
    wanted = 1
    for length in shape:
        wanted *= length
    if wanted != len(raw) - head:
        raise DataError(f"{path}: {shape} needs {wanted} bytes, but it holds {len(raw) - head}")
    return np.frombuffer(raw, np.uint8, offset=head).reshape(shape)


def _npz(path: Path, split: Split) -> Dataset:
    arrays = read_arrays(path)
    pictures = _one_of(path, arrays, "pictures", "x")
    labels = _one_of(path, arrays, "labels", "y")
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: labels are {labels.dtype}; whole numbers are needed")
    if pictures.ndim == 3:
        pictures = pictures[..., None]
    names = arrays.get("names")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise DataError(f"{path}: names are {names.dtype} {names.shape}; a list of text is needed")
    classes = int(labels.max()) + 1 if labels.size else 0
    if names is None and classes > 1_000_000:
        raise DataError(f"{path}: a label of {classes - 1} in a set without names")
    return Dataset(
        pictures=pictures,
        labels=labels.astype(np.int64),
        names=tuple(map(str, names if names is not None else range(classes))),
        source=f"{path.name} {split}",
    )


def _one_of(path: Path, arrays: dict[str, npt.NDArray[Any]], *names: str) -> npt.NDArray[Any]:
    found = [n for n in names if n in arrays]
    if len(found) != 1:
        raise DataError(
            f"{path}: one array named {' or '.join(names)} is needed; it holds "
            f"{', '.join(sorted(arrays)) or 'nothing'}"
        )
    return arrays[found[0]]


def _imagefolder(path: Path, split: Split, size: tuple[int, int] | None) -> Dataset:
    root = path / split if _folders(path / split) else path
    classes = _folders(root)
    files = [(f, i) for i, folder in enumerate(classes) for f in _picture_files(folder)]
    if not files:
        raise DataError(f"{path}: no pictures; one folder per class is needed")
    shape = decode_picture(files[0][0]).shape if size is None else (*size, 3)
    if len(files) * math.prod(shape) > _PICTURE_BYTES:
        raise DataError(f"{path}: {len(files)} pictures of {shape} do not fit memory")
    pictures = np.empty((len(files), *shape), np.uint8)
    for at, (file, _) in enumerate(files):
        picture = decode_picture(file)
        if size is not None:
            picture = np.rint(fit(picture[None], *size)[0]).astype(np.uint8)
        elif picture.shape != shape:
            raise DataError(
                f"{file}: {picture.shape} where others are {shape}; say which size they should be "
                "brought to"
            )
        pictures[at] = picture
    return Dataset(
        pictures=pictures,
        labels=np.array([label for _, label in files], np.int64),
        names=tuple(folder.name for folder in classes),
        source=f"{path.name} {split}",
    )


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _picture_files(folder: Path) -> list[Path]:
    try:
        return sorted(f for f in folder.iterdir() if f.suffix.lower() in PICTURE_SUFFIXES)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from error
