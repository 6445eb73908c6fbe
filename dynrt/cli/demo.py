"""The demo pictures: a cat and a horse from scikit-image, made harder step by step.

The photographs come with scikit-image and are read from its folder, so nothing is downloaded. Every
change is deterministic.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dynrt.calibrate.pictures import decode_picture, fit
from dynrt.errors import DataError, MissingExtraError

Picture = npt.NDArray[np.uint8]
Change = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]

_SIDE = 32
_SEED = 0
_GRAY = 127.5


def pictures() -> Iterator[tuple[str, Picture]]:
    """Each demo picture with its name: ``(32, 32, 3)``, uint8.

    Raises:
        MissingExtraError: scikit-image or Pillow is not installed.
        DataError: scikit-image does not carry a photograph.
    """
    folder = _folder()
    for name, file, cut in (("cat", "chelsea.png", _face), ("horse", "horse.png", _whole)):
        path = folder / file
        if not path.is_file():
            raise DataError(f"{file} is not in this scikit-image; give inputs of your own")
        square = fit(cut(decode_picture(path))[None], _SIDE, _SIDE)[0]
        for label, change in CHANGES:
            changed = np.clip(np.rint(change(square)), 0, 255).astype(np.uint8)
            yield f"{name}{label and ', '}{label}", changed


def _face(photograph: Picture) -> Picture:
    """The cat's face, cut close."""
    return photograph[120:300, 75:255]


def _whole(photograph: Picture) -> Picture:
    """The horse on a square of more white, turned to face left."""
    wide = np.pad(photograph, ((66, 66), (100, 100), (0, 0)), constant_values=255)
    return wide[60:400, 140:480][:, ::-1]


def _folder() -> Path:
    """scikit-image's pictures, without importing it."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("skimage", "demo")
    return Path(spec.submodule_search_locations[0]) / "data"


def small(pixels: int) -> Change:
    """Reduced to ``pixels`` on a side and enlarged again."""

    def change(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        reduced = np.rint(fit(x.astype(np.uint8)[None], pixels, pixels)).astype(np.uint8)
        enlarged: npt.NDArray[np.float32] = fit(reduced, _SIDE, _SIDE)[0]
        return enlarged

    return change


def blurred(sigma: float) -> Change:
    """A Gaussian blur, ``sigma`` in pixels of the 32."""
    reach = np.arange(-_SIDE, _SIDE + 1)
    kernel = np.exp(-((reach / sigma) ** 2) / 2)
    kernel = kernel / kernel.sum()

    def change(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        soft: npt.NDArray[Any] = np.pad(x, ((_SIDE, _SIDE), (_SIDE, _SIDE), (0, 0)), mode="edge")
        for axis in (0, 1):
            soft = np.lib.stride_tricks.sliding_window_view(soft, len(kernel), axis=axis) @ kernel
        return soft.astype(np.float32)

    return change


def noisy(sigma: float) -> Change:
    """Gaussian noise, ``sigma`` in levels of 255; the same noise every time."""

    def change(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        noise = np.random.default_rng(_SEED).normal(0.0, sigma, x.shape)
        return (x + noise).astype(np.float32)

    return change


def covered(share: float) -> Change:
    """Gray over ``share`` of the picture, from its lower edge."""

    def change(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        out = x.copy()
        out[round(_SIDE * (1 - share)) :] = _GRAY
        return out

    return change


def _same(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return x


#: Each kind of change from easy to hard.
CHANGES: tuple[tuple[str, Change], ...] = (
    ("", _same),
    ("touched", covered(0.2)),
    ("covered", covered(0.4)),
    ("half covered", covered(0.5)),
    ("soft", blurred(0.4)),
    ("blurred", blurred(0.8)),
    ("small", small(26)),
    ("smaller", small(16)),
    ("noisy", noisy(20.0)),
)
