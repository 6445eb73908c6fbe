"""Decision gates: the paper's table 1, and its figures 4, 5 and 7 (Shafiee et al., section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dynrt.bundle import Bundle
from dynrt.calibrate.datasets import Dataset
from dynrt.calibrate.observe import Setting
from dynrt.calibrate.scores import ScoreTable
from dynrt.calibrate.simulate import simulate
from dynrt.calibrate.thresholds import for_budget, for_loss
from dynrt.errors import CalibrationError, DataError
from dynrt.ir.graph import Graph
from dynrt.report.tables import Column, Table
from dynrt.report.tables_figures import (
    How,
    dynrt_version,
    early_exits_closed,
    energy_note,
    figures,
    time_note,
    timed,
    timing_cells,
    versions,
    watched,
)
from dynrt.report.tables_full import full_cost
from dynrt.runtime import load
from dynrt.units import FLOPS_PER_MAC, macs_to_flops

#: Shafiee et al., table 1: thresholds, accuracy, GFLOPs, FLOPs saved, time saved (Titan Xp).
TABLE_1_PUBLISHED = (
    ((1.0, 0.6, 1.5), 0.9199, 2.22e9, 0.5577, 0.5571),
    ((1.0, 1.8, 1.5), 0.9297, 2.82e9, 0.4382, 0.4331),
    ((1.5, 1.7, 1.0), 0.9399, 3.20e9, 0.3625, 0.3596),
    ((2.4, 2.4, 1.5), 0.9470, 3.93e9, 0.2171, 0.2217),
)
TABLE_1_FULL = (0.9471, 5.02e9)
#: Losses in accuracy of its four rows: what thresholds are chosen for where none are given.
TABLE_1_LOSSES = (0.0272, 0.0174, 0.0072, 0.0001)
#: Held-out parts by which thresholds that were chosen are corrected for luck.
_FOLDS = 10

_TABLE_1_COLUMNS = (
    Column(key="network", title="network"),
    Column(key="thresholds", title="thresholds"),
    Column(key="accuracy", title="accuracy", unit="share"),
    Column(key="loss", title="- full, points", unit="points"),
    Column(key="mean_flops", title="mean MFLOPs", unit="flops"),
    Column(key="flops_saved", title="FLOPs saved", unit="share"),
    Column(key="seconds", title="ms", unit="seconds"),
    Column(key="time_saved", title="time saved", unit="share"),
    Column(key="time_over_flops", title="time / FLOPs saved", unit="number"),
    Column(key="energy_saved", title="energy saved", unit="share"),
)


def early_exits(table: ScoreTable) -> tuple[str, ...]:
    """Exits that a threshold opens: all scored ones but the last."""
    pairs = zip(table.exits[:-1], table.kinds, strict=False)
    return tuple(name for name, kind in pairs if kind not in ("always", "never"))


def gate_names(graph: Graph) -> tuple[str, ...]:
    """:func:`early_exits` of a network."""
    return tuple(early_exits_closed(graph))


def chosen_sets(
    validation: ScoreTable, losses: Sequence[float] = TABLE_1_LOSSES
) -> list[tuple[str, dict[str, float]]]:
    """Thresholds found on validation scores, each for a loss of at most so much there.

    Raises:
        CalibrationError: the table has no early exit.
    """
    if not early_exits(validation):
        raise CalibrationError(
            f"{validation.bundle or 'this network'} has no exit with a threshold"
        )
    return [_chosen(validation, loss) for loss in losses]


def _chosen(validation: ScoreTable, loss: float) -> tuple[str, dict[str, float]]:
    """Corrected for luck where a loss so small can still be kept then."""
    name = f"loss <= {100 * loss:g} points on {validation.data}"
    try:
        found = for_loss(validation, loss, folds=_FOLDS)
    except CalibrationError:
        name, found = f"{name}, not corrected for luck", for_loss(validation, loss)
    return name, dict(found.thresholds)


def dgate_table_1(
    bundle: Bundle,
    dataset: Dataset,
    sets: Sequence[tuple[str, Mapping[str, float]]],
    *,
    how: How | None = None,
) -> Table:
    """Threshold sets: accuracy, FLOPs saved and time saved, beside the paper's.

    Args:
        bundle: a network with exits.
        dataset: labelled pictures of the test set.
        sets: what each is, and its thresholds by exit.
        how: how figures are got.

    Raises:
        DataError: no set.
        PolicyError: a set has a threshold that the network does not.
    """
    how = how or How()
    if not sets:
        raise DataError("no thresholds: nothing to tabulate")
    closed = {e: float("inf") for e in sets[0][1]}
    settings = [Setting(name=name, thresholds=dict(bounds)) for name, bounds in sets]
    with load(bundle) as network:
        seen = watched(network, dataset, [*settings, Setting(name="full", thresholds=closed)], how)
        times = timed(network, bundle, dataset, settings, how)
    full = seen[-1]
    rows: list[dict[str, Any]] = []
    for setting, observed, timing in zip(settings, seen, times, strict=False):
        row: dict[str, Any] = {"network": bundle.name, "set": setting.name}
        row["thresholds"] = _bounds_text(setting)
        row |= figures(observed, bundle.graph) | timing_cells(timing)
        row["loss"] = row["accuracy"] - full.accuracy
        rows.append(row)
    whole = macs_to_flops(full_cost(bundle.graph).macs)
    rows.append(
        {
            "network": f"{bundle.name} in full",
            "accuracy": full.accuracy,
            "mean_flops": whole,
            "seconds": times[0].full_seconds if times and times[0] is not None else None,
        }
    )
    rows += _published_rows()
    return Table(
        name="dgate-table-1",
        title=f"Decision gates, table 1: {bundle.name}",
        data=dataset.source,
        n=len(dataset),
        bundles=versions([bundle]),
        columns=_TABLE_1_COLUMNS,
        rows=rows,
        notes=[
            *(f"{_bounds_text(s)}: {s.name}." for s in settings),
            time_note(how, "the network without gates"),
            energy_note(bundle),
            "Paper: ResNet-101 on CIFAR-10, time on a Titan Xp.",
        ],
        version=dynrt_version(),
    )


def _published_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "network": "ResNet-101 (paper)",
            "thresholds": ", ".join(f"{t:g}" for t in bounds),
            "accuracy": accuracy,
            "loss": accuracy - TABLE_1_FULL[0],
            "mean_flops": flops,
            "flops_saved": saved,
            "time_saved": time,
            "time_over_flops": time / saved,
        }
        for bounds, accuracy, flops, saved, time in TABLE_1_PUBLISHED
    ]
    accuracy, flops = TABLE_1_FULL
    return [
        *rows,
        {"network": "ResNet-101 in full (paper)", "accuracy": accuracy, "mean_flops": flops},
    ]


def _bounds_text(setting: Setting) -> str:
    values = [v for v in setting.thresholds.values() if not isinstance(v, tuple)]
    return ", ".join("never" if v == float("inf") else f"{v:.2f}" for v in values)


def dgate_figure_4(
    gates: Sequence[tuple[str, ScoreTable, ScoreTable]], *, points: int = 12
) -> Table:
    """Gates of several kinds at equal FLOPs: hinge against cross-entropy.

    Thresholds are found on validation scores for each mean cost, and judged on the test scores.

    Args:
        gates: a name (such as ``hinge``), scores on validation, and scores on test, for each kind;
            the first one is what others are held against.
        points: mean costs, evenly spread over what all kinds can reach.

    Raises:
        DataError: fewer than two kinds, or fewer than two points.
    """
    if len(gates) < 2 or points < 2:
        raise DataError(f"{len(gates)} kinds of gates at {points} costs: two of each are needed")
    low = max(int(validation.macs.min()) for _, validation, _ in gates)
    high = max(validation.full_macs for _, validation, _ in gates)
    rows: list[dict[str, Any]] = []
    for share in range(points):
        flops = FLOPS_PER_MAC * (low + (high - low) * share // (points - 1))
        row: dict[str, Any] = {"budget_flops": flops}
        for name, validation, test in gates:
            bounds = for_budget(validation, flops).thresholds
            outcome = simulate(test, bounds)
            row[f"{name}_accuracy"] = outcome.accuracy
            row[f"{name}_mean_flops"] = FLOPS_PER_MAC * outcome.mean_macs
        rows.append(row)
    first = gates[0][0]
    columns = [Column(key="budget_flops", title="mean MFLOPs allowed", unit="flops")]
    for name, _, _ in gates:
        columns.append(Column(key=f"{name}_mean_flops", title=f"{name}: MFLOPs", unit="flops"))
        columns.append(Column(key=f"{name}_accuracy", title=f"{name}: accuracy", unit="share"))
    for name, _, _ in gates[1:]:
        curve = sorted((r[f"{name}_mean_flops"], r[f"{name}_accuracy"]) for r in rows)
        for row in rows:
            at = row[f"{first}_mean_flops"]
            there = np.interp(at, [c for c, _ in curve], [a for _, a in curve])
            inside = curve[0][0] <= at <= curve[-1][0]
            row[f"above_{name}"] = row[f"{first}_accuracy"] - float(there) if inside else None
        columns.append(
            Column(key=f"above_{name}", title=f"{first} - {name}, points", unit="points")
        )
    test = gates[0][2]
    return Table(
        name="dgate-figure-4",
        title=f"Decision gates, figure 4: {' against '.join(name for name, _, _ in gates)}",
        data=test.data,
        n=len(test),
        bundles={table.bundle: table.bundle_sha256 for _, _, table in gates},
        columns=columns,
        rows=rows,
        notes=[
            f"Thresholds found on {gates[0][1].data} for each mean cost. The last column compares "
            f"at the cost that {first} came to, between the neighbouring points of the other."
        ],
        details={"kinds": [name for name, _, _ in gates]},
        version=dynrt_version(),
    )


def dgate_figure_5(table: ScoreTable, *, low: float, high: float, steps: int = 13) -> Table:
    """FLOPs and accuracy over the thresholds of the first two gates; the others are closed.

    Args:
        table: scores on the test set.
        low: least threshold of each.
        high: largest.
        steps: of each.

    Raises:
        DataError: fewer than two gates or steps, or no range.
    """
    early = early_exits(table)
    if len(early) < 2 or steps < 2 or not low < high:
        raise DataError(
            f"{len(early)} gates, {steps} thresholds from {low:g} to {high:g}: two gates and two "
            "thresholds are needed"
        )
    closed = dict.fromkeys(early, float("inf"))
    values = [float(v) for v in np.linspace(low, high, steps)]
    rows: list[dict[str, Any]] = []
    for first in values:
        for second in values:
            outcome = simulate(table, {**closed, early[0]: first, early[1]: second})
            rows.append(
                {
                    "t1": first,
                    "t2": second,
                    "accuracy": outcome.accuracy,
                    "mean_flops": FLOPS_PER_MAC * outcome.mean_macs,
                    "flops_saved": 1 - outcome.mean_macs / table.full_macs,
                }
            )
    return Table(
        name="dgate-figure-5",
        title=f"Decision gates, figure 5: {table.bundle}, {early[0]} and {early[1]}",
        data=table.data,
        n=len(table),
        bundles={table.bundle: table.bundle_sha256},
        columns=(
            Column(key="t1", title=f"t at {early[0]}", unit="number"),
            Column(key="t2", title=f"t at {early[1]}", unit="number"),
            Column(key="accuracy", title="accuracy", unit="share"),
            Column(key="mean_flops", title="mean MFLOPs", unit="flops"),
            Column(key="flops_saved", title="FLOPs saved", unit="share"),
        ),
        rows=rows,
        notes=[f"All gates but {early[0]} and {early[1]} are closed."],
        details={"gates": list(early[:2]), "steps": steps},
        version=dynrt_version(),
    )


def dgate_figure_7(table: ScoreTable, names: Sequence[str], *, least: float | None = None) -> Table:
    """Which classes each exit tells apart: pictures that it is right about and sure of.

    Args:
        table: scores on the test set.
        names: of the classes.
        least: score from which an exit is sure (the paper's: a distance of 1); by default 1 for
            distances and 0.9 for probabilities.

    Raises:
        DataError: fewer names than classes.
    """
    if len(names) <= int(table.labels.max()):
        raise DataError(f"{len(names)} names for {int(table.labels.max()) + 1} classes")
    early = early_exits(table)
    counts = np.bincount(table.labels, minlength=len(names))
    rows: list[dict[str, Any]] = [
        {"class": name, "pictures": int(count)} for name, count in zip(names, counts, strict=True)
    ]
    bounds = {}
    for exit_name in early:
        at = table.exits.index(exit_name)
        bounds[exit_name] = _sure_from(table.kinds[at]) if least is None else least
        sure = table.correct[:, at] & (table.scores[:, at] >= bounds[exit_name])
        for row, count in zip(
            rows, np.bincount(table.labels[sure], minlength=len(names)), strict=True
        ):
            row[exit_name] = int(count)
    said = ", ".join(f"{name} {bound:g}" for name, bound in bounds.items())
    return Table(
        name="dgate-figure-7",
        title=f"Decision gates, figure 7: classes told apart by each exit of {table.bundle}",
        data=table.data,
        n=len(table),
        bundles={table.bundle: table.bundle_sha256},
        columns=(
            Column(key="class", title="class"),
            Column(key="pictures", title="pictures", unit="count"),
            *(Column(key=e, title=e, unit="count") for e in early),
        ),
        rows=rows,
        notes=[f"Pictures that an exit is right about with a score of at least: {said}."],
        details={"exits": list(early)},
        version=dynrt_version(),
    )


def _sure_from(kind: str) -> float:
    return 1.0 if kind == "hinge" else 0.9
