"""The look of all plots, and how a figure becomes a file. matplotlib is imported here, when used."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dynrt.calibrate.files import write_whole
from dynrt.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, told apart by people with any common kind of colour blindness.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SERIES = (BLUE, "#D55E00", GREEN, PINK, "#56B4E9", ORANGE)
MARKERS = ("o", "s", "^", "v", "P", "X")
INK, FAINT = "#222222", "#8A8A8A"
FORMATS = (".png", ".svg", ".pdf")
_DPI = 160
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "dynrt",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


@contextmanager
def figure(width: float, height: float, *, placed: bool = False) -> Iterator[Figure]:
    """A new figure in dynrt's style; nothing global is left changed.

    Args:
        width: in inches.
        height: in inches.
        placed: the caller places everything by hand.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "report") from error
    with rc_context(_STYLE):
        made = Figure(figsize=(width, height), layout=None if placed else "constrained")
        FigureCanvasAgg(made)
        yield made


def check_format(path: Path) -> None:
    """Refuse a file name that says no format that plots are written in.

    Raises:
        DataError: another suffix.
    """
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path}: a plot is written as {', '.join(FORMATS)}")


def save(made: Figure, path: Path, *, force: bool = False) -> None:
    """Write a figure in the format of the file name, the same bytes each time.

    Raises:
        DataError: the format is unknown, or the file cannot be written.
        OutputExistsError: ``path`` exists and ``force`` is not set.
    """
    check_format(path)
    kind = path.suffix.lower()[1:]
    stamp = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}[kind]
    out = io.BytesIO()
    made.savefig(out, format=kind, dpi=_DPI, metadata=stamp)

    def write(stream: IO[bytes]) -> None:
        stream.write(out.getvalue())

    write_whole(path, write, force=force)


def grid(axes: Axes, *, axis: str = "y") -> None:
    """Faint lines behind the data."""
    axes.grid(visible=True, axis="x" if axis == "x" else "y", color="#E3E3E3", linewidth=0.8)
