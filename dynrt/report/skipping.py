"""What a network skips, and of which pictures: DDI's figures 13 and 15, and the exits used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dynrt.bundle import Bundle
from dynrt.calibrate.datasets import Dataset
from dynrt.calibrate.observe import Observed, Setting
from dynrt.errors import DataError
from dynrt.ir.cost import Budget
from dynrt.ir.flow import gates_of
from dynrt.ir.graph import ComputeNode, Graph, NodeId
from dynrt.report.records import Record, RecordPoint
from dynrt.report.tables import Column, Table
from dynrt.report.tables_figures import How, dynrt_version, figures, versions, watched
from dynrt.report.tables_full import full_cost, plain_nodes
from dynrt.runtime import load
from dynrt.units import macs_to_flops

#: DDI, figure 13: pictures with a larger skipping ratio are easy, with a smaller one hard.
EASY_FROM, HARD_BELOW = 0.6, 0.4


def gated_units(graph: Graph) -> tuple[NodeId, ...]:
    """Compute nodes that a decision switches on and that are no gates themselves, in order."""
    gates = gates_of(graph)
    return tuple(
        name
        for name in graph.order
        if isinstance(graph.by_name[name], ComputeNode)
        and name in graph.controls_of
        and name not in gates
        and name in plain_nodes(graph)
    )


def skipping_table(bundle: Bundle, dataset: Dataset, *, how: How | None = None) -> Table:
    """The share of inputs that skip each block, and of channels that are skipped where it runs.

    Args:
        bundle: a network with layer gates or channel masks.
        dataset: labelled pictures.
        how: how figures are got.

    Raises:
        DataError: nothing in the network can be skipped.
    """
    how = how or How()
    graph = bundle.graph
    plain, gated = plain_nodes(graph), gated_units(graph)
    units = [
        node
        for node in (graph.by_name[name] for name in graph.order)
        if isinstance(node, ComputeNode) and node.name in plain
    ]
    masked = [unit for unit in units if unit.mask is not None]
    if not gated and not masked:
        raise DataError(f"{bundle.name} has neither layer gates nor channel masks: nothing to skip")
    with load(bundle) as network:
        setting = Setting(name=bundle.name)
        (observed,) = watched(network, dataset, [setting], how, charges=bool(masked))
    reached = _reached(observed, graph, [unit.name for unit in units])
    rows: list[dict[str, Any]] = []
    before: tuple[int, ...] = ()
    for at, unit in enumerate(units):
        column = observed.nodes.index(unit.name)
        came, ran = reached[:, at], observed.ran[:, column]
        there = int(np.count_nonzero(came))
        shape = unit.outputs[0].type.shape[-2:]
        row: dict[str, Any] = {
            "unit": unit.name,
            "reached": there,
            "layer_skipped": None,
            "channels_skipped": _channels(observed, unit, column),
            "starts_stage": int(at > 0 and shape != before),
        }
        before = shape
        if unit.name in gated and there:
            row["layer_skipped"] = 1 - int(np.count_nonzero(ran & came)) / there
        rows.append(row)
    own = figures(observed, graph)
    return Table(
        name="skipping",
        title=f"DDI, figure 15: what {bundle.name} skips",
        data=dataset.source,
        n=len(dataset),
        bundles=versions([bundle]),
        columns=(
            Column(key="unit", title="block"),
            Column(key="reached", title="inputs that reach it", unit="count"),
            Column(key="layer_skipped", title="skipped", unit="share"),
            Column(key="channels_skipped", title="channels skipped where it runs", unit="share"),
        ),
        rows=rows,
        notes=[
            f"Accuracy {100 * own['accuracy']:.2f} %, {100 * own['flops_saved']:.1f} % of the FLOPs "
            "saved. An empty cell: the block has no gate, or no channel mask."
        ],
        details={"accuracy": own["accuracy"], "flops_saved": own["flops_saved"]},
        version=dynrt_version(),
    )


def _reached(observed: Observed, graph: Graph, names: Sequence[NodeId]) -> npt.NDArray[np.bool_]:
    """``(n, names)``: whether a run had not ended before each node's turn."""
    place = {name: at for at, name in enumerate(graph.order)}
    ends = np.array([place[e] for e in observed.exits])[observed.ended]
    out: npt.NDArray[np.bool_] = ends[:, None] > np.array([place[name] for name in names])
    return out


def _channels(observed: Observed, unit: ComputeNode, column: int) -> float | None:
    """Mean share of channel groups that were dropped where the node ran; ``None`` without a mask."""
    ran = observed.ran[:, column]
    mask = unit.mask
    if mask is None or observed.charged is None or not mask.group_macs or not ran.any():
        return None
    dropped = (unit.cost.macs - observed.charged[ran, column]) / mask.group_macs
    return float(dropped.mean() / mask.groups)


def skipping_ratio(observed: Observed, graph: Graph) -> npt.NDArray[np.float64]:
    """``(n,)``: share of the gated blocks that did not run; without any, share of MACs saved."""
    gated = gated_units(graph)
    if gated:
        columns = [observed.nodes.index(name) for name in gated]
        skipped: npt.NDArray[np.float64] = 1 - observed.ran[:, columns].mean(axis=1)
        return skipped
    saved: npt.NDArray[np.float64] = 1 - observed.macs / full_cost(graph).macs
    return saved


def easy_hard(
    bundle: Bundle, dataset: Dataset, *, count: int = 12, how: How | None = None
) -> Table:
    """Which pictures the network finds easy and which hard, by how much it skips.

    The record holds their numbers in the data, no pixels.

    Args:
        bundle: any dynamic network.
        dataset: labelled pictures.
        count: of each, most.
        how: how figures are got.

    Raises:
        DataError: ``count`` is below one.
    """
    how = how or How()
    if count < 1:
        raise DataError(f"{count} pictures of each kind; at least 1 is needed")
    with load(bundle) as network:
        (observed,) = watched(network, dataset, [Setting(name=bundle.name)], how)
    ratio = skipping_ratio(observed, bundle.graph)
    order = np.argsort(-ratio, kind="stable")
    easy = [i for i in order.tolist() if ratio[i] > EASY_FROM]
    hard = [i for i in order[::-1].tolist() if ratio[i] < HARD_BELOW]
    rows = [
        {
            "group": group,
            "picture": i,
            "label": _named(dataset, observed.labels[i]),
            "answer": _named(dataset, observed.predicted[i]),
            "skipped": float(ratio[i]),
            "flops": macs_to_flops(int(observed.macs[i])),
        }
        for group, chosen in (("easy", easy), ("hard", hard))
        for i in chosen[:count]
    ]
    right = observed.correct

    def accuracy(chosen: Sequence[int]) -> float | None:
        return float(right[list(chosen)].mean()) if chosen else None

    measure = "of the gated blocks" if gated_units(bundle.graph) else "of the MACs"
    return Table(
        name="easy-hard",
        title=f"DDI, figure 13: easy and hard pictures of {bundle.name}",
        data=dataset.source,
        n=len(dataset),
        bundles=versions([bundle]),
        columns=(
            Column(key="group", title="group"),
            Column(key="picture", title="picture", unit="number"),
            Column(key="label", title="class"),
            Column(key="answer", title="answer"),
            Column(key="skipped", title=f"skipped, {measure}", unit="share"),
            Column(key="flops", title="MFLOPs", unit="flops"),
        ),
        rows=rows,
        notes=[
            f"Easy: more than {EASY_FROM:.0%} {measure} skipped: {len(easy)} of {len(observed)}. "
            f"Hard: less than {HARD_BELOW:.0%}: {len(hard)}."
        ],
        details={
            "easy": len(easy),
            "hard": len(hard),
            "easy_accuracy": accuracy(easy),
            "hard_accuracy": accuracy(hard),
            "measure": measure,
        },
        version=dynrt_version(),
    )


def _named(dataset: Dataset, index: np.int64) -> str:
    """A class; its number where the network knows more of them than the data."""
    at = int(index)
    return dataset.names[at] if at < len(dataset.names) else str(at)


def exits_used(
    bundle: Bundle, dataset: Dataset, *, budgets: Sequence[Budget] = (), how: How | None = None
) -> Table:
    """Which share of the inputs answers at which exit, without a budget and under each.

    Args:
        bundle: a network with exits.
        dataset: labelled pictures.
        budgets: hard caps.
        how: how figures are got.

    Raises:
        BudgetRefusedError: a budget is below the cheapest answer.
    """
    how = how or How()
    settings = [Setting(name="none")] + [Setting(name=str(b), budget=b) for b in budgets]
    with load(bundle) as network:
        seen = watched(network, dataset, settings, how)
    rows: list[dict[str, Any]] = []
    for setting, observed in zip(settings, seen, strict=True):
        row: dict[str, Any] = {"budget": setting.name, "budget_flops": setting.budget.flops}
        row |= figures(observed, bundle.graph)
        row |= {f"at_{name}": count / len(observed) for name, count in observed.used.items()}
        row |= {f"count_{name}": count for name, count in observed.used.items()}
        rows.append(row)
    exits = bundle.graph.exits
    return Table(
        name="exits-used",
        title=f"Exits used by {bundle.name}",
        data=dataset.source,
        n=len(dataset),
        bundles=versions([bundle]),
        columns=(
            Column(key="budget", title="hard budget"),
            Column(key="accuracy", title="accuracy", unit="share"),
            Column(key="mean_flops", title="mean MFLOPs", unit="flops"),
            *(Column(key=f"at_{name}", title=name, unit="share") for name in exits),
        ),
        rows=rows,
        details={"exits": list(exits)},
        version=dynrt_version(),
    )


def record_of_exits(table: Table) -> Record:
    """The figures of :func:`exits_used` as the plot of exits takes them.

    Raises:
        DataError: the record is of something else.
    """
    try:
        exits = [str(e) for e in table.details["exits"]]
        points = [
            RecordPoint(
                budget_flops=row["budget_flops"],
                accuracy=row["accuracy"],
                mean_flops=row["mean_flops"],
                max_flops=row["max_flops"],
                exits={name: row[f"count_{name}"] for name in exits},
            )
            for row in table.rows
        ]
        full = int(table.rows[0]["full_flops"])
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(f"{table.title}: the record lacks {error}") from error
    return Record(
        name=next(iter(table.bundles), ""),
        data=table.data,
        n=table.n,
        full_flops=full,
        uncapped=points[0],
        points=tuple(points[1:]),
    )
