"""Power over time in a session, with its windows marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dynrt.errors import DataError
from dynrt.report.figures import BLUE, FAINT, SERIES, figure, grid, save

_MOST_POINTS = 1500


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PowerWindow:
    """One window.

    Attributes:
        kind: ``idle`` or ``run``.
        label: name of the case; empty for idle.
        seconds: of each sample, by the meter's clock, from the window's first sample.
        watts: of each sample; NaN where it is missing.
        mean_w: what was taken; NaN where the window is invalid.
        valid: whether the window counts.
    """

    kind: str
    label: str
    seconds: npt.NDArray[np.float64]
    watts: npt.NDArray[np.float64]
    mean_w: float
    valid: bool


def plot_power(
    windows: Sequence[PowerWindow],
    path: Path,
    *,
    title: str,
    source: str,
    force: bool = False,
) -> None:
    """Draw the windows one after another.

    Args:
        windows: in their order.
        path: of the picture (.svg, .png or .pdf).
        title: above it.
        source: emulated or hardware; is in the title.
        force: replace what is there.

    Raises:
        DataError: no window has samples, or the file cannot be written.
        OutputExistsError: it exists, and ``force`` is not set.
    """
    drawn = [window for window in windows if len(window.seconds)]
    if not drawn:
        raise DataError("the session has no window with samples: nothing to draw")
    labels = list(dict.fromkeys(window.label for window in drawn if window.kind == "run"))
    with figure(10, 3.6) as made:
        axes = made.subplots()
        at_s = 0.0
        named: set[str] = set()
        for window in drawn:
            step = max(1, len(window.seconds) // _MOST_POINTS)
            times = at_s + window.seconds[::step]
            running = window.kind == "run"
            colour = SERIES[1 + labels.index(window.label) % (len(SERIES) - 1)] if running else BLUE
            axes.plot(times, window.watts[::step], color=colour, linewidth=0.5, alpha=0.35)
            end_s = at_s + float(window.seconds[-1])
            name = (window.label or "run") if running else "idle"
            if window.valid:
                axes.axvspan(at_s, end_s, color=colour, alpha=0.08, linewidth=0)
            else:
                name = "not counted"
                axes.axvspan(at_s, end_s, facecolor="none", edgecolor=FAINT, hatch="///")
            axes.plot(
                [at_s, end_s],
                [window.mean_w, window.mean_w],
                color=colour if window.valid else FAINT,
                linewidth=2,
                label=None if name in named else name,
            )
            named.add(name)
            at_s = end_s + 0.5
        axes.set_xlabel("seconds by the meter's clock, pauses left out")
        axes.set_ylabel(f"W ({source})")
        axes.set_title(f"{title} ({source})")
        grid(axes)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="mean of window")
        save(made, path, force=force)
