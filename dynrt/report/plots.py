"""Plots of evaluation records: accuracy against cost, and the exits used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dynrt.errors import DataError
from dynrt.report.figures import FAINT, INK, MARKERS, SERIES, check_format, figure, grid, save
from dynrt.report.records import Record, RecordPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MEGA = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Figures of a paper, drawn apart from ours.

    Attributes:
        label: what the legend says, the paper's network included.
        marker: matplotlib's name of the mark.
        flops_accuracy: hard budget in FLOPs and accuracy as a fraction, point by point.
    """

    label: str
    marker: str
    flops_accuracy: tuple[tuple[int, float], ...]


#: Wang et al., Dual Dynamic Inference, table II. Their network is not ours: a ResNet-74 of 340
#: MFLOPs with layer and channel gates, and static ResNets that they trained for each budget.
DDI_TABLE_II = (
    Reference(
        label="DDI paper, table II: ResNet-74 with gates (340 MFLOPs in full)",
        marker="D",
        flops_accuracy=(
            (58_000_000, 0.9100),
            (74_000_000, 0.9282),
            (117_000_000, 0.9381),
            (144_000_000, 0.9388),
        ),
    ),
    Reference(
        label="DDI paper, table II: a static ResNet per budget",
        marker="X",
        flops_accuracy=(
            (58_000_000, 0.9070),
            (74_000_000, 0.9125),
            (117_000_000, 0.9230),
            (144_000_000, 0.9250),
        ),
    ),
)


def plot_accuracy_against_cost(
    records: Sequence[Record],
    path: Path,
    *,
    references: Sequence[Reference] = (),
    title: str = "",
    force: bool = False,
) -> None:
    """Draw accuracy against FLOPs per input.

    The solid line is over the mean cost under each hard budget, the dashed one over the budget
    itself, which no input exceeds and by which DDI's table counts; a star is the run without one.

    Args:
        records: evaluations, one series each.
        path: ``.png``, ``.svg`` or ``.pdf``.
        references: figures of papers, in grey; their costs are budgets.
        title: above the plot; the data and count by default.
        force: replace an existing file.

    Raises:
        DataError: there is nothing to draw, or the file cannot be written.
        OutputExistsError: ``path`` exists and ``force`` is not set.
        MissingExtraError: matplotlib is not installed.
    """
    if not records:
        raise DataError("no evaluation records: nothing to draw")
    check_format(path)
    with figure(7.6, 4.0 + 0.19 * (3 * len(records) + len(references))) as made:
        axes = made.add_subplot()
        for i, record in enumerate(records):
            _series(axes, record, SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)])
        for reference in references:
            flops, accuracy = zip(*reference.flops_accuracy, strict=True)
            axes.plot(
                [f / _MEGA for f in flops],
                [100 * a for a in accuracy],
                linestyle=":",
                linewidth=1,
                color=FAINT,
                marker=reference.marker,
                markersize=6,
                markerfacecolor="white",
                label=reference.label,
            )
        axes.set_xlabel("MFLOPs per input (2 per multiply-accumulate)")
        axes.set_ylabel("accuracy in %")
        axes.set_title(title or _subject(records))
        axes.set_xlim(left=0)
        grid(axes)
        made.legend(loc="outside lower left", fontsize=8.5, ncols=1)
        save(made, path, force=force)


def _series(axes: Axes, record: Record, colour: str, marker: str) -> None:
    points = sorted(record.points, key=lambda p: p.mean_flops)
    capped = sorted((p for p in points if p.budget_flops is not None), key=_cap)
    if points:
        axes.plot(
            [p.mean_flops / _MEGA for p in points],
            [100 * p.accuracy for p in points],
            color=colour,
            marker=marker,
            markersize=6,
            linewidth=1.8,
            label=f"{record.name}: mean cost under each hard budget",
        )
    if capped:
        axes.plot(
            [_cap(p) / _MEGA for p in capped],
            [100 * p.accuracy for p in capped],
            color=colour,
            marker=marker,
            markersize=6,
            markerfacecolor="white",
            linewidth=1.2,
            linestyle="--",
            label=f"{record.name}: the budget itself, which no input exceeds",
        )
    axes.plot(
        [record.uncapped.mean_flops / _MEGA],
        [100 * record.uncapped.accuracy],
        linestyle="none",
        color=colour,
        marker="*",
        markersize=14,
        markeredgecolor="white",
        zorder=5,
        label=f"{record.name}: mean cost without a budget (full path: "
        f"{record.full_flops / _MEGA:.0f} MFLOPs)",
    )


def plot_exits_used(record: Record, path: Path, *, title: str = "", force: bool = False) -> None:
    """Draw, for each budget, which share of the inputs answered at which exit.

    Args:
        record: an evaluation.
        path: ``.png``, ``.svg`` or ``.pdf``.
        title: above the plot; the network and data by default.
        force: replace an existing file.

    Raises:
        DataError: the file cannot be written.
        OutputExistsError: ``path`` exists and ``force`` is not set.
        MissingExtraError: matplotlib is not installed.
    """
    check_format(path)
    rows = [*sorted(record.points, key=_cap), record.uncapped]
    names = list(record.uncapped.exits)
    with figure(7.6, 1.9 + 0.42 * len(rows)) as made:
        from matplotlib import colormaps

        axes = made.add_subplot()
        shades = [colormaps["cividis"](i / max(1, len(names) - 1)) for i in range(len(names))]
        left = [0.0] * len(rows)
        for name, shade in zip(names, shades, strict=True):
            shares = [100 * r.exits.get(name, 0) / max(1, sum(r.exits.values())) for r in rows]
            bars = axes.barh(
                range(len(rows)),
                shares,
                left=left,
                color=shade,
                edgecolor="white",
                linewidth=0.8,
                label=name,
            )
            ink = "white" if _luminance(shade) < 0.5 else INK
            texts = [f"{s:.0f}" if s >= 4 else "" for s in shares]
            axes.bar_label(bars, texts, label_type="center", fontsize=8.5, color=ink)
            left = [a + b for a, b in zip(left, shares, strict=True)]
        axes.set_yticks(range(len(rows)), [_row_name(r) for r in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("share of inputs answered at each exit in %")
        axes.set_ylabel("hard budget in MFLOPs")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_title(title or f"{record.name} on {record.data} ({record.n:,} inputs)")
        made.legend(loc="outside lower center", ncols=min(len(names), 8), fontsize=8.5)
        save(made, path, force=force)


def _subject(records: Sequence[Record]) -> str:
    data = dict.fromkeys(f"{r.data} ({r.n:,} inputs)" for r in records)
    return "Accuracy against cost on " + ", ".join(data)


def _cap(point: RecordPoint) -> float:
    return float("inf") if point.budget_flops is None else point.budget_flops


def _row_name(point: RecordPoint) -> str:
    return "none" if point.budget_flops is None else f"{point.budget_flops / _MEGA:.4g}"


def _luminance(shade: tuple[float, float, float, float]) -> float:
    red, green, blue, _ = shade
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
