"""A grid of pictures with what a network said of each underneath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dynrt.errors import DataError
from dynrt.report.figures import BLUE, FAINT, INK, check_format, figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MEGA = 1e6
# In inches: a cell holds a name, a square picture and the result under it.
_CELL_WIDTH, _CELL_HEIGHT = 2.0, 2.75
_SIDE, _TEXT_HEIGHT = 1.8, 0.72


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """One picture and its result.

    Attributes:
        picture: ``(height, width, 1 or 3)`` or ``(height, width)``, uint8.
        name: of the picture, above it.
        label: what the network said.
        score: its softmax probability.
        exit: where the run ended.
        flops: what it spent.
        stopped: the exit's rule had not accepted the answer; the budget stopped the run.
    """

    picture: npt.NDArray[np.uint8]
    name: str
    label: str
    score: float
    exit: str
    flops: int
    stopped: bool = False


def plot_gallery(
    shown: Sequence[Shown],
    path: Path,
    *,
    columns: int = 4,
    budget_flops: int | None = None,
    title: str = "",
    force: bool = False,
) -> None:
    """Draw pictures in rows, each with label, score, exit and MFLOPs and a bar of its cost.

    Args:
        shown: pictures and results, row by row.
        path: ``.png``, ``.svg`` or ``.pdf``.
        columns: pictures in a row.
        budget_flops: hard budget; the bars are drawn against it (else against the dearest).
        title: above the grid.
        force: replace an existing file.

    Raises:
        DataError: no pictures, wrong shapes, or the file cannot be written.
        OutputExistsError: ``path`` exists and ``force`` is not set.
        MissingExtraError: matplotlib is not installed.
    """
    if not shown or columns < 1:
        raise DataError(f"{len(shown)} pictures in {columns} columns: nothing to draw")
    for item in shown:
        shape = item.picture.shape
        plain = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
        if item.picture.dtype != np.uint8 or not plain or 0 in shape:
            raise DataError(
                f"{item.name}: the picture is {item.picture.dtype} {shape}; uint8 "
                "(height, width, 1 or 3) is needed"
            )
    check_format(path)
    rows = -(-len(shown) // columns)
    most = budget_flops or max(1, *(s.flops for s in shown))
    top, bottom = (0.5 if title else 0.1), (0.35 if budget_flops is not None else 0.05)
    width, height = columns * _CELL_WIDTH + 0.1, top + rows * _CELL_HEIGHT + bottom
    with figure(width, height, placed=True) as made:
        if title:
            made.text(0.15 / width, 1 - 0.3 / height, title, fontsize=12, fontweight="bold")
        for i, item in enumerate(shown):
            row, column = divmod(i, columns)
            x = 0.1 + column * _CELL_WIDTH
            y = height - top - (row + 1) * _CELL_HEIGHT
            box = (x / width, (y + _TEXT_HEIGHT) / height, _SIDE / width, _SIDE / height)
            _cell(made.add_axes(box), item, most)
        if budget_flops is not None:
            says = f"blue: FLOPs spent, of a hard budget of {budget_flops / _MEGA:.4g} MFLOPs"
            made.text(0.15 / width, 0.12 / height, says, fontsize=8.5, color=FAINT)
        save(made, path, force=force)


def _cell(axes: Axes, item: Shown, most: int) -> None:
    """One picture in a square of ``_SIDE`` inches, its name above, its result below."""
    axes.set_axis_off()
    picture = item.picture[..., 0] if item.picture.shape[2:] == (1,) else item.picture
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_anchor("S")
    axes.set_title(item.name, fontsize=8.5, fontweight="normal", color=INK, loc="center", pad=4)
    how = " (stopped)" if item.stopped else ""
    lines = (
        (0.05, f"{item.label}  {item.score:.2f}", 10.5, "bold"),
        (0.19, f"{item.exit}{how} · {item.flops / _MEGA:.1f} MFLOPs", 8.5, "normal"),
    )
    for below, text, size, weight in lines:
        axes.annotate(
            text,
            (0.5, 0),
            xytext=(0, -72 * _SIDE * below),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=size,
            fontweight=weight,
            ha="center",
            va="top",
        )
    for share, colour in ((1.0, "#E3E3E3"), (min(1.0, item.flops / most), BLUE)):
        bar = axes.inset_axes((0, -0.33, share, 0.03))
        bar.set_facecolor(colour)
        bar.set(xticks=[], yticks=[])
        bar.spines[:].set_visible(False)
