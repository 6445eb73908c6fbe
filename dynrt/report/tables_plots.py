"""Draws the record of a table: one picture for each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynrt.calibrate.datasets import Dataset
from dynrt.errors import DataError
from dynrt.report.figures import FAINT, INK, MARKERS, SERIES, check_format, figure, grid, save
from dynrt.report.paper_tables import SKIPPING_PUBLISHED
from dynrt.report.plots import plot_exits_used
from dynrt.report.skipping import record_of_exits
from dynrt.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEGA = 1e6
Pairs = Sequence[tuple[float, float]]


def plot_table(
    table: Table, path: Path, *, dataset: Dataset | None = None, force: bool = False
) -> None:
    """Draw a table's record.

    Args:
        table: of a kind that :data:`KINDS` has.
        path: ``.png``, ``.svg`` or ``.pdf``.
        dataset: whose pictures are shown; only for easy and hard pictures.
        force: replace an existing file.

    Raises:
        DataError: the kind is unknown, its record lacks something, or pictures are needed and not
            given; or the file cannot be written.
        OutputExistsError: ``path`` exists and ``force`` is not set.
        MissingExtraError: matplotlib is not installed.
    """
    check_format(path)
    if table.name == "exits-used":
        plot_exits_used(record_of_exits(table), path, force=force)
        return
    if table.name not in KINDS:
        raise DataError(f"{table.name!r} is no table that can be drawn: {', '.join(ALL)}")
    width, height = _SIZES.get(table.name, (7.6, 4.6))
    with figure(width, height) as made:
        try:
            KINDS[table.name](made, table, dataset)
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise DataError(f"{table.title}: the record cannot be drawn: {error!r}") from error
        save(made, path, force=force)


def _pairs(table: Table, x: str, y: str, *, scale: float = 1.0, of: str = "") -> Pairs:
    """Two figures of every row that has both; ``of`` is a key that the row must have too."""
    return [
        (row[x] * scale, 100 * row[y])
        for row in table.rows
        if row.get(x) is not None and row.get(y) is not None and (not of or row.get(of) is not None)
    ]


def _line(axes: Axes, points: Pairs, number: int, label: str, **style: Any) -> None:
    if not points:
        return
    look: dict[str, Any] = {
        "color": SERIES[number % len(SERIES)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 6,
        "linewidth": 1.6,
    }
    ordered = sorted(points)
    axes.plot([x for x, _ in ordered], [y for _, y in ordered], label=label, **(look | style))


_THEIRS: Mapping[str, Any] = {"color": FAINT, "linestyle": ":", "markerfacecolor": "white"}


def _finish(made: Figure, panels: Sequence[tuple[Axes, str]], title: str, y: str) -> None:
    for axes, x in panels:
        axes.set_xlabel(x)
        grid(axes)
    panels[0][0].set_ylabel(y)
    made.suptitle(title, fontsize=11, fontweight="bold")
    made.legend(loc="outside lower left", fontsize=8.5, ncols=1)


def _subject(table: Table) -> str:
    return f"{table.title}\n({table.data}, {table.n:,} inputs)"


def _ddi(made: Figure, table: Table, _: Dataset | None) -> None:
    known = [key for key in ("mean_energy", "seconds") if _pairs(table, key, "accuracy")]
    panels = made.subplots(1, 1 + len(known), sharey=True, squeeze=False)[0]
    ours = sorted({str(row["network"]) for row in table.rows if row.get("network")})
    name = ours[0] if len(ours) == 1 else f"the best of {len(ours)} of ours"
    budget = panels[0]
    _line(
        budget,
        _pairs(table, "budget_flops", "accuracy", scale=1 / _MEGA),
        0,
        f"{name}: hard budget",
    )
    gated = _pairs(table, "gated_mean_flops", "gated_accuracy", scale=1 / _MEGA)
    _line(budget, gated, 2, f"{name}: mean cost with early exits too", linestyle="--")
    statics = [
        (item["static_flops"] / _MEGA, 100 * item["static_accuracy"])
        for item in table.details["statics"]
    ]
    _line(budget, statics, 1, "static nets, run here", linestyle="-.")
    paper = str(table.details["paper"])
    for key, label in (
        ("paper_accuracy", f"paper: {paper}"),
        ("paper_static_accuracy", "paper: static nets"),
    ):
        marker = {"marker": "D" if key == "paper_accuracy" else "X"}
        points = _pairs(table, "budget_flops", key, scale=1 / _MEGA)
        _line(budget, points, 3, label, **(dict(_THEIRS) | marker))
    titles = [(budget, "MFLOPs per input")]
    for axes, key in zip(panels[1:], known, strict=True):
        _line(axes, _pairs(table, key, "accuracy", scale=1e3), 0, "")
        titles.append((axes, "modelled mJ per input" if key == "mean_energy" else "ms per input"))
    _finish(made, titles, _subject(table), "accuracy in %")


def _iadi(made: Figure, table: Table, _: Dataset | None) -> None:
    keys = [
        k for k in ("flops_saved", "energy_saved", "time_saved") if _pairs(table, k, "accuracy")
    ]
    panels = made.subplots(1, max(1, len(keys)), sharey=True, squeeze=False)[0]
    rows = [row for row in table.rows if row.get("flops_saved") is not None]
    for axes, key in zip(panels, keys, strict=False):
        for number, row in enumerate(rows):
            if row.get(key) is not None:
                point = [(100 * row[key], 100 * row["accuracy"])]
                label = row["network"] if key == keys[0] else ""
                _line(axes, point, number, label, linestyle="none")
        for row in table.rows:
            if row.get("flops_saved") is None:
                label = row["network"] if key == keys[0] else ""
                axes.axhline(100 * row["accuracy"], color=INK, linewidth=1, label=label)
    for number, (label, points) in enumerate(SKIPPING_PUBLISHED.items()):
        marker = {"marker": "DXP"[number % 3]}
        _line(
            panels[0], [(100 * x, 100 * y) for x, y in points], 0, label, **(dict(_THEIRS) | marker)
        )
    names = {"flops_saved": "FLOPs", "energy_saved": "modelled energy", "time_saved": "time"}
    titles = [(axes, f"{names[key]} saved in %") for axes, key in zip(panels, keys, strict=False)]
    _finish(made, titles or [(panels[0], "")], _subject(table), "accuracy in %")


def _table_1(made: Figure, table: Table, _: Dataset | None) -> None:
    axes = made.subplots()
    ours = [r for r in table.rows if "set" in r]
    theirs = [r for r in table.rows if "set" not in r and r.get("loss") is not None]
    for number, (key, label) in enumerate(
        (("flops_saved", "FLOPs saved"), ("time_saved", "time saved"))
    ):
        for rows, who, style in (
            (ours, table.title.rpartition(": ")[2], {}),
            (theirs, "paper", _THEIRS),
        ):
            points = [(100 * r[key], 100 * r["loss"]) for r in rows if r.get(key) is not None]
            marker = {"marker": "os"[number]}
            _line(axes, points, number, f"{who}: {label}", **(dict(style) | marker))
    _finish(made, [(axes, "saved in %")], _subject(table), "accuracy - full network's, points")


def _figure_4(made: Figure, table: Table, _: Dataset | None) -> None:
    axes = made.subplots()
    for number, kind in enumerate(table.details["kinds"]):
        points = _pairs(table, f"{kind}_mean_flops", f"{kind}_accuracy", scale=1 / _MEGA)
        _line(axes, points, number, f"{kind} gates")
    _finish(made, [(axes, "mean MFLOPs per input")], _subject(table), "accuracy in %")


def _figure_5(made: Figure, table: Table, _: Dataset | None) -> None:
    panels = made.subplots(1, 2)
    first, second = table.details["gates"]
    values = sorted({row["t1"] for row in table.rows})
    place = {value: at for at, value in enumerate(values)}
    for axes, key, label, scale in (
        (panels[0], "mean_flops", "mean MFLOPs", 1 / _MEGA),
        (panels[1], "accuracy", "accuracy in %", 100.0),
    ):
        cells = [[float("nan")] * len(values) for _ in values]
        for row in table.rows:
            cells[place[row["t2"]]][place[row["t1"]]] = row[key] * scale
        half = (values[1] - values[0]) / 2  # a cell's middle stands at its thresholds
        extent = (values[0] - half, values[-1] + half) * 2
        shown = axes.imshow(cells, origin="lower", extent=extent, aspect="auto", cmap="cividis")
        made.colorbar(shown, ax=axes)
        axes.set(xlabel=f"threshold at {first}", ylabel=f"threshold at {second}")
        axes.set_title(label, fontsize=10)
    made.suptitle(_subject(table), fontsize=11, fontweight="bold")


def _figure_7(made: Figure, table: Table, _: Dataset | None) -> None:
    exits = table.details["exits"]
    panels = made.subplots(len(exits), 1, sharex=True, squeeze=False)[:, 0]
    names = [str(row["class"]) for row in table.rows]
    for axes, name in zip(panels, exits, strict=True):
        axes.bar(range(len(names)), [row[name] for row in table.rows], color=SERIES[0])
        axes.set_title(name, fontsize=9, fontweight="normal")
        grid(axes)
    step = max(1, len(names) // 20)
    panels[-1].set_xticks(range(0, len(names), step), names[::step], rotation=40, ha="right")
    made.supylabel("pictures that the exit is right and sure about", fontsize=9)
    made.suptitle(_subject(table), fontsize=11, fontweight="bold")


def _skipping(made: Figure, table: Table, _: Dataset | None) -> None:
    keys = [
        (key, label)
        for key, label in (
            ("layer_skipped", "block skipped"),
            ("channels_skipped", "channels skipped where the block runs"),
        )
        if any(row.get(key) is not None for row in table.rows)
    ]
    panels = made.subplots(len(keys), 1, sharex=True, squeeze=False)[:, 0]
    names = [str(row["unit"]) for row in table.rows]
    for number, (axes, (key, label)) in enumerate(zip(panels, keys, strict=True)):
        heights = [100 * (row[key] or 0.0) for row in table.rows]
        axes.bar(range(len(names)), heights, color=SERIES[number])
        none = [at for at, row in enumerate(table.rows) if row[key] is None]
        axes.plot(none, [1.0] * len(none), "|", color=FAINT, label="no gate here: always runs")
        for at, row in enumerate(table.rows):
            if row["starts_stage"]:
                axes.axvline(at - 0.5, color=INK, linewidth=0.8, linestyle=":")
        axes.set_title(f"{label}, % of inputs that reach it", fontsize=9, fontweight="normal")
        axes.set_ylim(0, 100)
        grid(axes)
    step = max(1, len(names) // 20)
    panels[-1].set_xticks(range(0, len(names), step), names[::step], rotation=60, ha="right")
    made.suptitle(_subject(table), fontsize=11, fontweight="bold")


def _easy_hard(made: Figure, table: Table, dataset: Dataset | None) -> None:
    if dataset is None:
        raise DataError(
            "the record holds no pictures: draw them with `dynrt report easy-hard --plot`"
        )
    groups = {g: [r for r in table.rows if r["group"] == g] for g in ("easy", "hard")}
    columns = max(1, *(len(rows) for rows in groups.values()))
    panels = made.subplots(2, columns, squeeze=False)
    for line, (group, rows) in zip(panels, groups.items(), strict=True):
        for axes in line:
            axes.set_axis_off()
        for axes, row in zip(line, rows, strict=False):
            picture = dataset.pictures[int(row["picture"])]
            gray = picture.shape[2] == 1
            axes.imshow(picture[..., 0] if gray else picture, cmap="gray", vmin=0, vmax=255)
            right = row["label"] == row["answer"]
            answer = row["answer"] if right else f"{row['answer']}\n(is {row['label']})"
            axes.set_title(
                f"{100 * row['skipped']:.0f} %\n{answer}",
                fontsize=7,
                fontweight="normal",
                loc="center",
            )
        line[0].text(-0.2, 0.5, group, transform=line[0].transAxes, rotation=90, va="center")
    made.suptitle(f"{table.title}: % skipped, answer", fontsize=11, fontweight="bold")


def _averages(made: Figure, table: Table, _: Dataset | None) -> None:
    axes = made.subplots()
    for number, method in enumerate(dict.fromkeys(row["method"] for row in table.rows)):
        points = [
            (row["mean_flops"] / _MEGA, 100 * row["accuracy"])
            for row in table.rows
            if row["method"] == method
        ]
        _line(axes, points, number, method)
    _finish(made, [(axes, "mean MFLOPs per input")], _subject(table), "accuracy in %")


KINDS: Mapping[str, Callable[[Figure, Table, Dataset | None], None]] = {
    "ddi-table-2": _ddi,
    "iadi": _iadi,
    "dgate-table-1": _table_1,
    "dgate-figure-4": _figure_4,
    "dgate-figure-5": _figure_5,
    "dgate-figure-7": _figure_7,
    "skipping": _skipping,
    "easy-hard": _easy_hard,
    "averages": _averages,
}
ALL = (*KINDS, "exits-used")
_SIZES: Mapping[str, tuple[float, float]] = {
    "ddi-table-2": (10.4, 5.4),
    "iadi": (10.4, 6.4),
    "dgate-figure-5": (9.6, 4.2),
    "dgate-figure-7": (7.6, 7.6),
    "skipping": (8.6, 5.2),
    "easy-hard": (11.0, 3.4),
}
