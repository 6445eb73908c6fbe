"""What every input came to, kept input by input: where it ended, what it spent, which nodes ran.

Evaluation adds up; here nothing is added up yet, so that tables can ask which blocks were skipped,
which pictures were easy, and which classes left at which exit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dynrt.calibrate.parallel import (
    Batch,
    Progress,
    Station,
    bundle_of,
    each_batch,
    require_classes,
    require_no_clock,
)
from dynrt.ir.cost import Budget
from dynrt.ir.graph import ComputeNode, Exit, Graph, NodeId
from dynrt.ir.trace import Trace
from dynrt.workers import HERE, Spread

if TYPE_CHECKING:
    from dynrt.calibrate.datasets import Dataset
    from dynrt.runtime import Network, Result

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is in force for a run of all inputs.

    Attributes:
        name: for people and records.
        budget: hard cap per input; nothing capped by default.
        thresholds: instead of those in force; the others stay.
    """

    name: str
    budget: Budget = field(default_factory=Budget)
    thresholds: Mapping[NodeId, float | tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """What each of ``n`` inputs came to under one setting.

    Attributes:
        setting: what was in force.
        nodes: compute nodes and exits, in the order of the schedule.
        exits: names, in the order in which they are tried.
        labels, predicted: ``(n,)``.
        ended: ``(n,)``: the exit that answered, an index into ``exits``.
        macs: ``(n,)``: spent, gates and heads included.
        femtojoules, milli_mac_equivalents: ``(n,)``, or ``None`` where that is not modelled.
        accepted, forced: ``(n,)``: as in :class:`~dynrt.runtime.Result`.
        ran: ``(n, nodes)``.
        charged: ``(n, nodes)``: MACs charged for each node, where they were recorded (needed only
            for networks with channel masks); else ``None``.
    """

    setting: Setting
    nodes: tuple[NodeId, ...]
    exits: tuple[NodeId, ...]
    labels: Ints
    predicted: Ints
    ended: Ints
    macs: Ints
    femtojoules: Ints | None
    milli_mac_equivalents: Ints | None
    accepted: Bools
    forced: Bools
    ran: Bools
    charged: Ints | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def correct(self) -> Bools:
        """``(n,)``: whether each answer is right."""
        out: Bools = self.predicted == self.labels
        return out

    @property
    def accuracy(self) -> float:
        """A fraction."""
        right = int(np.count_nonzero(self.correct))
        return float(right / len(self))

    @property
    def mean_macs(self) -> float:
        """Per input."""
        return float(sum(self.macs.tolist()) / len(self))

    @cached_property
    def energy(self) -> Ints | None:
        """``(n,)``: the modelled energy, in whichever unit it is modelled."""
        return self.femtojoules if self.femtojoules is not None else self.milli_mac_equivalents

    @property
    def used(self) -> dict[NodeId, int]:
        """Inputs answered at each exit; every exit is named."""
        counts = np.bincount(self.ended, minlength=len(self.exits)).tolist()
        return dict(zip(self.exits, counts, strict=True))


def work_nodes(graph: Graph) -> tuple[NodeId, ...]:
    """Compute nodes and exits, in the order of the schedule."""
    return tuple(n for n in graph.order if isinstance(graph.by_name[n], ComputeNode | Exit))


def observe(
    network: Network,
    dataset: Dataset,
    settings: Sequence[Setting],
    *,
    batch: int = 250,
    charges: bool = False,
    spread: Spread = HERE,
    progress: Progress | None = None,
) -> tuple[Observed, ...]:
    """Run every picture under every setting.

    Args:
        network: loaded from a bundle with preprocessing; it is left as it was.
        dataset: labelled pictures.
        settings: budgets and thresholds; the latter change those in force when it starts.
        batch: pictures at a time.
        charges: also record what was charged for each node; slower, since every step is recorded.
        spread: where.
        progress: told how many runs are done, of how many.

    Returns:
        One for each setting, in order.

    Raises:
        CalibrationError: the network takes no pictures or has too few classes; a worker died, or
            the cluster is out of reach.
        PolicyError: a setting has a threshold that the network does not.
        BudgetRefusedError: a budget is below the cheapest answer.
        BackendError: a node failed.
        MissingExtraError: ray is not installed.
    """
    require_classes(bundle_of(network), dataset)
    require_no_clock([s.budget for s in settings], spread)
    asked = [(at, setting, charges) for at, setting in enumerate(settings)]
    parts: list[list[Observed]] = [[] for _ in settings]
    before = network.policy.thresholds
    try:
        for task, part in each_batch(
            network, _observed, dataset, asked, batch=batch, spread=spread, progress=progress
        ):
            parts[task.asked[0]].append(part)
    finally:
        network.set(thresholds=before)
    return tuple(_joined(own) for own in parts)


def _observed(station: Station, batch: Batch[tuple[int, Setting, bool]]) -> Observed:
    """One batch under one setting; thresholds are put back, since settings name only changes."""
    _, setting, charges = batch.asked
    network, inputs = station.network, station.inputs(batch)
    before = network.policy.thresholds
    network.set(thresholds=setting.thresholds)
    try:
        results = network.run_batch(inputs, budget=setting.budget, trace=charges)
    finally:
        network.set(thresholds=before)
    graph = network.graph
    nodes = work_nodes(graph)
    column = {name: at for at, name in enumerate(nodes)}
    ran = np.zeros((len(results), len(nodes)), np.bool_)
    for row, result in enumerate(results):
        ran[row, [column[name] for name in result.path]] = True
    return Observed(
        setting=setting,
        nodes=nodes,
        exits=graph.exits,
        labels=batch.labels,
        predicted=np.array([r.index for r in results], np.int64),
        ended=np.array([graph.exits.index(r.exit) for r in results], np.int64),
        macs=np.array([r.macs for r in results], np.int64),
        femtojoules=_known([r.femtojoules for r in results]),
        milli_mac_equivalents=_known([r.milli_mac_equivalents for r in results]),
        accepted=np.array([r.accepted for r in results], np.bool_),
        forced=np.array([r.forced for r in results], np.bool_),
        ran=ran,
        charged=_charged(results, column) if charges else None,
    )


def _known(values: Sequence[int | None]) -> Ints | None:
    """All of them, or ``None`` where one is missing."""
    known = [v for v in values if v is not None]
    return np.array(known, np.int64) if len(known) == len(values) else None


def _charged(results: Sequence[Result], column: Mapping[NodeId, int]) -> Ints:
    out = np.zeros((len(results), len(column)), np.int64)
    for row, result in enumerate(results):
        trace = result.trace or Trace(steps=())
        for step in trace.steps:
            if step.ran and step.node in column:
                out[row, column[step.node]] = step.cost.macs
    return out


def _joined(parts: Sequence[Observed]) -> Observed:
    first = parts[0]

    def whole(name: str) -> npt.NDArray[np.generic]:
        return np.concatenate([getattr(part, name) for part in parts])

    optional = ("femtojoules", "milli_mac_equivalents", "charged")
    there = [name for name in optional if all(getattr(p, name) is not None for p in parts)]
    always = ("labels", "predicted", "ended", "macs", "accepted", "forced", "ran")
    arrays: dict[str, object] = {name: whole(name) for name in (*always, *there)}
    missing: dict[str, object] = dict.fromkeys(set(optional) - set(there))
    fixed = {"setting": first.setting, "nodes": first.nodes, "exits": first.exits}
    return Observed(**(fixed | arrays | missing))  # type: ignore[arg-type]  # by name, as above
