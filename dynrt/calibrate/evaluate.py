"""Runs a network for real on labelled pictures, under each of several budgets."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dynrt.calibrate.files import write_text
from dynrt.calibrate.parallel import (
    Batch,
    Station,
    bundle_of,
    each_batch,
    require_classes,
    require_no_clock,
)
from dynrt.errors import BudgetError
from dynrt.ir.certificate import Certificate
from dynrt.ir.cost import Budget
from dynrt.units import FLOPS_PER_MAC, fj_to_j, milli_to_mac_equivalents
from dynrt.workers import HERE, Spread

if TYPE_CHECKING:
    from dynrt.calibrate.datasets import Dataset
    from dynrt.runtime import Network, Result

_NO_CAP = Budget()
#: Energy costs of results, with the unit that people see and how to get there.
_UNITS: Mapping[str, tuple[str, Callable[[int], float]]] = {
    "femtojoules": ("J", fj_to_j),
    "milli_mac_equivalents": ("MACeq", milli_to_mac_equivalents),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPoint:
    """What all inputs came to under one budget.

    Attributes:
        budget: hard cap per input; nothing capped in the run without a budget.
        n: inputs.
        accuracy: a fraction.
        mean_flops: per input.
        max_flops: of the dearest input.
        mean_energy: modelled energy per input in ``energy_unit``, ``None`` without a table.
        max_energy: of the dearest input, ``None`` without a table.
        energy_unit: ``J`` or ``MACeq``; ``None`` without a table.
        exits: inputs answered at each exit; every exit is named.
        stopped: answers that their exit's rule did not accept.
        forced: runs in which the budget settled or changed a decision, or stopped the run.
        seconds: time of all runs together, added up over workers.
    """

    budget: Budget
    n: int
    accuracy: float
    mean_flops: float
    max_flops: int
    mean_energy: float | None
    max_energy: float | None
    energy_unit: str | None
    exits: Mapping[str, int]
    stopped: int
    forced: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """One of the ``points`` of ``dynrt eval --json``."""
        return {
            "budget": self.budget.to_json(),
            "n": self.n,
            "accuracy": self.accuracy,
            "mean_flops": self.mean_flops,
            "max_flops": self.max_flops,
            "mean_energy": self.mean_energy,
            "max_energy": self.max_energy,
            "energy_unit": self.energy_unit,
            "exits": dict(self.exits),
            "stopped": self.stopped,
            "forced": self.forced,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A network on a data set.

    Attributes:
        bundle: name of the network.
        bundle_sha256: of its bundle.
        full_flops: of its dearest path.
        data: what it ran on, such as ``cifar10 test``.
        energy_source: where the modelled energies come from; ``None`` if there are none.
        uncapped: the run under the thresholds in force, without a budget.
        points: one per budget, in the order asked for.
    """

    bundle: str
    bundle_sha256: str
    full_flops: int
    data: str
    energy_source: str | None
    uncapped: EvaluationPoint
    points: tuple[EvaluationPoint, ...]

    def to_json(self) -> dict[str, Any]:
        """The object of ``dynrt eval --json``; its own figures are those without a budget."""
        free = self.uncapped
        return {
            "bundle": {"name": self.bundle, "sha256": self.bundle_sha256},
            "full_flops": self.full_flops,
            "data": self.data,
            "n": free.n,
            "accuracy": free.accuracy,
            "mean_flops": free.mean_flops,
            "max_flops": free.max_flops,
            "mean_energy": free.mean_energy,
            "energy_unit": free.energy_unit,
            "energy_source": self.energy_source,
            "exits": dict(free.exits),
            "seconds": free.seconds,
            "points": [p.to_json() for p in self.points],
        }


@dataclass(slots=True, kw_only=True)
class Tally:
    """Running sums under one budget; whole numbers, so that the order of batches is no matter."""

    exits: dict[str, int]
    n: int = 0
    right: int = 0
    macs: int = 0
    max_macs: int = 0
    energies: dict[str, list[int]] = field(default_factory=lambda: {n: [0, 0] for n in _UNITS})
    stopped: int = 0
    forced: int = 0
    seconds: float = 0.0
    budget: Budget = field(default_factory=Budget)

    def add(self, result: Result, label: int) -> None:
        """Take in one answer."""
        self.n += 1
        self.right += result.index == label
        self.macs += result.macs
        self.max_macs = max(self.max_macs, result.macs)
        self.exits[result.exit] += 1
        self.stopped += not result.accepted
        self.forced += result.forced
        for name in list(self.energies):
            spent = getattr(result, name)
            if spent is None:
                del self.energies[name]
            else:
                total, most = self.energies[name]
                self.energies[name] = [total + spent, max(most, spent)]

    def join(self, other: Tally) -> None:
        """Take in the sums of other inputs."""
        self.n += other.n
        self.right += other.right
        self.macs += other.macs
        self.max_macs = max(self.max_macs, other.max_macs)
        self.stopped += other.stopped
        self.forced += other.forced
        self.seconds += other.seconds
        for name, count in other.exits.items():
            self.exits[name] += count
        for name in list(self.energies):
            if name not in other.energies:
                del self.energies[name]
                continue
            (total, most), (more, dearest) = self.energies[name], other.energies[name]
            self.energies[name] = [total + more, max(most, dearest)]

    def point(self) -> EvaluationPoint:
        """The figures, of at least one input."""
        mean = most = unit = None
        for name, (total, dearest) in self.energies.items():
            unit, to_unit = _UNITS[name]
            mean, most = to_unit(total) / self.n, to_unit(dearest)
        return EvaluationPoint(
            budget=self.budget,
            n=self.n,
            accuracy=self.right / self.n,
            mean_flops=FLOPS_PER_MAC * self.macs / self.n,
            max_flops=FLOPS_PER_MAC * self.max_macs,
            mean_energy=mean,
            max_energy=most,
            energy_unit=unit,
            exits=MappingProxyType(self.exits),
            stopped=self.stopped,
            forced=self.forced,
            seconds=self.seconds,
        )


def evaluate(
    network: Network,
    dataset: Dataset,
    *,
    budgets: Sequence[Budget | None] = (),
    batch: int = 250,
    spread: Spread = HERE,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run every picture under every budget, and once without any.

    The thresholds are those in force when it starts. All figures but the seconds are the same
    wherever the work is done.

    Args:
        network: loaded from a bundle with preprocessing.
        dataset: labelled pictures.
        budgets: hard caps per input; ``None`` is the run without a cap.
        batch: pictures at a time.
        spread: where: in this process, in several, or on a Ray cluster.
        progress: told how many runs are done, of how many.

    Raises:
        CalibrationError: the network takes no pictures, or has too few classes; a worker died, or
            the cluster is out of reach.
        MissingExtraError: ray is not installed.
        BudgetRefusedError: a budget is below the cheapest answer.
        BackendError: a node failed.
    """
    bundle = bundle_of(network)
    require_classes(bundle, dataset)
    wanted = list(dict.fromkeys([_NO_CAP, *(b or _NO_CAP for b in budgets)]))
    require_no_clock(wanted, spread)
    exits = dict.fromkeys(network.graph.exits, 0)
    tallies = {b: Tally(exits=dict(exits), budget=b) for b in wanted}
    for task, tally in each_batch(
        network, _tallied, dataset, wanted, batch=batch, spread=spread, progress=progress
    ):
        tallies[task.asked].join(tally)
    points = {b: t.point() for b, t in tallies.items()}
    return Evaluation(
        bundle=bundle.name,
        bundle_sha256=bundle.sha256,
        full_flops=FLOPS_PER_MAC * bundle.certificate.full_macs,
        data=dataset.source,
        energy_source=None if bundle.energy is None else str(bundle.energy),
        uncapped=points[_NO_CAP],
        points=tuple(points[b or _NO_CAP] for b in budgets),
    )


def _tallied(station: Station, batch: Batch[Budget]) -> Tally:
    """One batch under one budget."""
    network, inputs = station.network, station.inputs(batch)
    tally = Tally(exits=dict.fromkeys(network.graph.exits, 0), budget=batch.asked)
    began = time.perf_counter()
    results = network.run_batch(inputs, budget=batch.asked)
    tally.seconds = time.perf_counter() - began
    for result, label in zip(results, batch.labels.tolist(), strict=True):
        tally.add(result, label)
    return tally


def sweep(certificate: Certificate, count: int) -> tuple[Budget, ...]:
    """``count`` budgets evenly spread from the cheapest answer to the dearest path, both included.

    Raises:
        BudgetError: fewer than two are asked for, or more than there are MACs between the ends.
    """
    low, high = max(1, certificate.cheapest_macs), certificate.full_macs
    if not 2 <= count <= high - low + 1:
        raise BudgetError(
            f"a sweep of {count} budgets; 2 to {max(0, high - low + 1)} are possible here"
        )
    return tuple(Budget(macs=low + (high - low) * i // (count - 1)) for i in range(count))


def write_csv(path: Path, evaluation: Evaluation, *, force: bool = False) -> None:
    """Write one row per point, the run without a budget first (its budget columns are empty).

    Raises:
        OutputExistsError: ``path`` exists and ``force`` is not set.
        DataError: it cannot be written.
    """
    exits = list(evaluation.uncapped.exits)
    figures = [
        "n",
        "accuracy",
        "mean_flops",
        "max_flops",
        "mean_energy",
        "max_energy",
        "energy_unit",
        "stopped",
        "forced",
        "seconds",
    ]
    caps = ["flops", "joules", "mac_equivalents", "seconds"]
    text = io.StringIO(newline="")
    out = csv.writer(text, lineterminator="\n")
    out.writerow([*(f"budget_{c}" for c in caps), *figures, *(f"exit_{e}" for e in exits)])
    points = [evaluation.uncapped, *(p for p in evaluation.points if p.budget.capped)]
    for record in (p.to_json() for p in points):
        budget, counts = record["budget"], record["exits"]
        out.writerow(
            [
                *(_cell(budget.get(c)) for c in caps),
                *(_cell(record[f]) for f in figures),
                *(counts[e] for e in exits),
            ]
        )
    write_text(path, text.getvalue(), force=force)


def _cell(value: float | str | None) -> str:
    """A missing figure is an empty cell, never a zero."""
    return "" if value is None else str(value)
