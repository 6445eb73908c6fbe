"""Pictures to network inputs: decoding, centre crop, antialiased resize, normalisation."""

from __future__ import annotations

import logging
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dynrt.calibrate.arrays import read_arrays
from dynrt.errors import DataError, InputError, MissingExtraError

if TYPE_CHECKING:
    from PIL import Image

    from dynrt.bundle import Preprocessing

Float32 = npt.NDArray[np.float32]
Uint8 = npt.NDArray[np.uint8]

PICTURE_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".gif",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
)
ARRAY_SUFFIXES = (".npy", ".npz")
# Formats whose decoders are plain; EPS would start a program, others are seldom tested.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
#: More pixels than any camera gives; a small file may claim many more.
LIMIT_PIXELS = 64_000_000
_LIMIT_BYTES = 1 << 28
# Pillow logs what it then raises; without any handler Python would print it.
_QUIET = logging.NullHandler()
#: ITU-R 601, as Pillow's mode L.
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)


def prepare(pictures: Uint8, preprocessing: Preprocessing) -> Float32:
    """Bring pictures to the form that a network takes.

    Colours become gray or gray becomes three equal channels, the centre is cropped to the wanted
    aspect, the size is changed with an antialiased triangle filter (Pillow's ``BILINEAR``, without
    its rounding), and values become ``(x / 255 - mean) / std``.

    Args:
        pictures: ``(n, height, width, channels)``, uint8, 1 or 3 channels.
        preprocessing: of the bundle.

    Returns:
        ``(n, channels, height, width)``, float32.

    Raises:
        InputError: another shape or type.
    """
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] not in (1, 3):
        raise InputError(
            f"pictures are {pictures.dtype} {pictures.shape}; uint8 (n, height, width, 1 or 3) "
            "is needed"
        )
    if 0 in pictures.shape[1:]:
        raise InputError(f"pictures of {pictures.shape[1]}x{pictures.shape[2]} pixels are empty")
    x = fit(pictures, preprocessing.height, preprocessing.width)
    if preprocessing.channels == 1 and x.shape[3] == 3:
        x = (x @ _LUMA)[..., None]
    elif preprocessing.channels == 3 and x.shape[3] == 1:
        x = np.repeat(x, 3, axis=3)
    elif preprocessing.channels != x.shape[3]:
        raise InputError(
            f"the network takes {preprocessing.channels} channels; pictures have 1 or 3"
        )
    mean = np.array(preprocessing.mean, np.float32)
    std = np.array(preprocessing.std, np.float32)
    scaled = (x / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)


def fit(pictures: Uint8, height: int, width: int) -> Float32:
    """Crop the centre to the aspect of ``height`` by ``width``, then resize.

    Args:
        pictures: ``(n, h, w, channels)``.
        height: wanted, in pixels.
        width: wanted, in pixels.

    Returns:
        ``(n, height, width, channels)``, float32, 0 to 255, not rounded.
    """
    _, h, w, _ = pictures.shape
    if w * height > h * width:
        w = max(1, h * width // height)
    else:
        h = max(1, w * height // width)
    top, left = (pictures.shape[1] - h) // 2, (pictures.shape[2] - w) // 2
    x = pictures[:, top : top + h, left : left + w].astype(np.float32)
    if h != height:
        x = np.moveaxis(np.tensordot(_weights(h, height), x, axes=(1, 1)), 0, 1)
    if w != width:
        x = np.moveaxis(np.tensordot(_weights(w, width), x, axes=(1, 2)), 0, 2)
    return x


def _weights(old: int, new: int) -> Float32:
    """``(new, old)``: each row a triangle filter as wide as the reduction, summing to one."""
    scale = old / new
    reach = max(scale, 1.0)
    centre = (np.arange(new) + 0.5) * scale
    distance = np.abs(np.arange(old) + 0.5 - centre[:, None]) / reach
    weights = np.maximum(0.0, 1.0 - distance)
    out: Float32 = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return out


def read_picture(path: Path, preprocessing: Preprocessing) -> Float32:
    """Read one input: a picture file, or an array in ``.npy`` or ``.npz``.

    An array of unsigned bytes, ``(h, w)`` or ``(h, w, 1 or 3)``, is a picture and is prepared as
    one; an array of floats ``(channels, height, width)`` is taken as it is, already prepared.

    Args:
        path: the file. An ``.npz`` file holds one array, or one named ``picture`` or ``x``.
        preprocessing: of the bundle.

    Returns:
        ``(channels, height, width)``, float32.

    Raises:
        DataError: missing, empty, damaged, too large, or no picture.
        InputError: an array of another shape or type, or with NaN or infinity.
        MissingExtraError: a picture file without Pillow.
    """
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return _from_array(path, read_array(path), preprocessing)
    x: Float32 = prepare(decode_picture(path)[None], preprocessing)[0]
    return x


def read_array(path: Path) -> npt.NDArray[Any]:
    """The array of an ``.npy`` file, or of an ``.npz`` file with one (or one ``picture`` or ``x``).

    Raises:
        DataError: missing, empty, damaged or ambiguous.
    """
    arrays = read_arrays(path)
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    named = [n for n in ("picture", "x") if n in arrays]
    if len(named) != 1:
        raise DataError(
            f"{path}: one array named picture or x is needed; it holds "
            f"{', '.join(sorted(arrays)) or 'nothing'}"
        )
    return arrays[named[0]]


def _from_array(path: Path, array: npt.NDArray[Any], preprocessing: Preprocessing) -> Float32:
    wanted = (preprocessing.channels, preprocessing.height, preprocessing.width)
    if array.dtype == np.uint8 and array.ndim in (2, 3):
        picture = array[None, ..., None] if array.ndim == 2 else array[None]
        try:
            one: Float32 = prepare(picture, preprocessing)[0]
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        return one
    if array.dtype.kind != "f" or array.shape not in (wanted, (1, *wanted)):
        raise InputError(
            f"{path}: the array is {array.dtype} {array.shape}; floats {wanted}, or uint8 "
            "(height, width, 1 or 3), are needed"
        )
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(array.reshape(wanted), np.float32)
    bad = int(np.count_nonzero(~np.isfinite(x)))
    if bad:
        raise InputError(f"{path}: {bad} of {x.size} values are NaN or infinite (as float32)")
    return x


def decode_picture(path: Path) -> Uint8:
    """Decode a picture file to RGB, turned upright, transparency laid over white.

    Returns:
        ``(height, width, 3)``, uint8.

    Raises:
        DataError: missing, empty, no picture, damaged, or more than 64 million pixels.
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise MissingExtraError("PIL", "demo") from error
    logging.getLogger("PIL").addHandler(_QUIET)
    try:
        length = path.stat().st_size
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if path.is_dir():
        raise DataError(f"{path}: this is a folder, not a picture")
    if not 0 < length <= _LIMIT_BYTES:
        raise DataError(f"{path}: {length} bytes; 1 to {_LIMIT_BYTES} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is refused or repaired here
            with Image.open(path, formats=_FORMATS) as image:
                _check_size(path, image)
                image.load()
                return _rgb(ImageOps.exif_transpose(image))
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: this is no picture that can be read here") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: more than {LIMIT_PIXELS} pixels") from error
    except (
        OSError,
        EOFError,
        SyntaxError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        MemoryError,
        RuntimeError,
        ZeroDivisionError,
        AssertionError,
        struct.error,
    ) as error:  # what Pillow's decoders have been seen to raise on damaged files
        raise DataError(f"{path}: the picture is damaged or cut short") from error


def _check_size(path: Path, image: Image.Image) -> None:
    if image.width * image.height > LIMIT_PIXELS:
        raise DataError(f"{path}: {image.width}x{image.height} pixels; the limit is {LIMIT_PIXELS}")


def _rgb(image: Image.Image) -> Uint8:
    """``(height, width, 3)``; 16 and 32 bit gray is scaled, not clipped."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        gray = np.asarray(image, np.float64)
        top = 65535.0 if image.mode.startswith("I") else max(1.0, float(np.nanmax(gray)))
        levels = np.nan_to_num(np.clip(gray / top, 0, 1)) * 255
        return np.repeat(np.rint(levels).astype(np.uint8)[..., None], 3, axis=2)
    if "A" in image.getbands() or "transparency" in image.info:
        over = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(over, image.convert("RGBA"))
    return np.array(image.convert("RGB"), np.uint8)
