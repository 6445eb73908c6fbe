"""Draws the rows of one record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.bars import BARS
from bench.row import Row

_REACHED, _MISSED, _PLAIN = "#1b7837", "#b2182b", "#555555"


def plot_rows(rows: Sequence[Row], missing: Mapping[str, str], path: Path) -> None:
    """One panel per unit: value, quartiles, and a mark at the bar; what is missing is named."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    units = list(dict.fromkeys(row.unit for row in rows))
    panels = [[row for row in rows if row.unit == unit] for unit in units]
    heights = [len(panel) + 1 for panel in panels] or [1]
    figure, axes = plt.subplots(
        len(heights),
        1,
        figsize=(8, 0.36 * sum(heights) + 1),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, unit, panel in zip(axes[:, 0], units, panels, strict=False):
        _panel(axis, panel, unit)
    if missing:
        names = ", ".join(missing)
        figure.supxlabel(f"not measured here: {names}", fontsize=8, x=0.01, ha="left", wrap=True)
    figure.savefig(path)
    plt.close(figure)


def _panel(axis: Any, rows: Sequence[Row], unit: str) -> None:
    for y, row in enumerate(rows):
        bar = BARS.get(row.name)
        colour = _PLAIN if bar is None else _REACHED if bar.met(row.value) else _MISSED
        axis.plot([row.low, row.high], [y, y], color=colour, linewidth=3, alpha=0.4)
        axis.plot(row.value, y, "o", color=colour)
        if bar is not None:
            axis.plot(bar.bar, y, "|", color="black", markersize=14)
    axis.set_yticks(range(len(rows)), [row.name for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlabel(f"{unit} (line: quartiles over rounds; |: the bar)", fontsize=8)
    axis.grid(visible=True, axis="x", alpha=0.3)
    if unit == "ratio":
        axis.set_xlim(left=0)
