"""Design space: a network's energy and cycles over arrays, dataflows and buffer sizes.

Each distinct layer is counted once per hardware, spread over processes of this machine or over a
Ray cluster; results are equal either way. Points can be recorded as they are done, and a sweep that
was stopped goes on from its record.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynrt.energy.backend import backend_named
from dynrt.energy.hardware import Hardware
from dynrt.energy.model import price
from dynrt.energy.policy import DEFAULT_POLICY, policy_named
from dynrt.energy.sweep_points import KEYS, Point, points
from dynrt.energy.sweep_record import (
    SweepPoint,
    SweepRecord,
    Swept,
    layers_sha256,
    marked,
    point_key,
    read_points,
    table_sha256,
)
from dynrt.energy.sweep_workers import Task, nameless, run_tasks
from dynrt.energy.tables import EnergyTable
from dynrt.errors import EnergyError
from dynrt.ir.counts import AccessCounts, CountTable, NodeCounts, TypedCounts
from dynrt.ir.layers import Layer, LayerTable

__all__ = ["KEYS", "Point", "SweepPoint", "Swept", "points", "read_points", "sweep"]

Progress = Callable[[int, int], None]


def sweep(
    layers: LayerTable,
    hardware: Hardware,
    table: EnergyTable,
    keys: Sequence[Point],
    *,
    policy: str = DEFAULT_POLICY,
    backend: str = "analytic",
    hops: bool = False,
    workers: int | None = None,
    ray: str | None = None,
    record: Path | None = None,
    progress: Progress | None = None,
) -> list[SweepPoint]:
    """Count and price a network at every point.

    Args:
        layers: of the network; energies and cycles are of all its nodes together, each run once
            with all its channels.
        hardware: what the points change.
        table: prices.
        keys: the points, from :func:`points`; equal ones are counted once.
        policy: of the counts, by its name.
        backend: of the counts, by its name.
        hops: also price the words handed from one processing element to the next.
        workers: processes; 1 stays in this one; by default one per core where it takes more than a
            second. A script needs the usual ``if __name__ == "__main__":`` for more than one.
        ray: address of a Ray cluster to use instead: ``HOST:PORT``, ``auto`` for the one that runs
            on this machine, ``local`` to start one here; then ``workers`` bounds what is in flight.
        record: JSON lines, written as points are done; points that are in it are not counted again.
        progress: called with the points done and all points.

    Returns:
        One result per point, in the order of ``keys``, the Pareto front marked.

    Raises:
        EnergyError: no layers or points, a layer that cannot be counted, a number format that the
            table does not price, a record of something else, or a cluster out of reach.
        HardwareError: a point that is no hardware.
        MissingExtraError: ray or the simulator is not installed.
    """
    if not keys or not any(layers.values()):
        raise EnergyError("a sweep needs points, and a network with layers")
    asked = [hardware.with_(**point.changes()) for point in keys]
    distinct = {point_key(item): item for item in asked}
    run = _Sweep(
        layers=layers,
        table=table,
        backend=backend,
        hops=hops,
        swept=Swept(
            network=layers_sha256(layers),
            table=f"{table.name}+hops" if hops else table.name,
            table_sha256=table_sha256(table),
            policy=policy_named(policy).name,
            backend=backend_named(backend).version,
        ),
    )
    with contextlib.ExitStack() as stack:
        file = None if record is None else stack.enter_context(SweepRecord(record, run.swept))
        before = {} if file is None else file.done
        found = {key: before[key] for key in distinct if key in before}
        left = {key: item for key, item in distinct.items() if key not in found}
        if progress is not None:
            progress(len(found), len(distinct))
        for key, point in run.points(left, workers, ray) if left else ():
            found[key] = point
            if file is not None:
                file.add(point)
            if progress is not None:
                progress(len(found), len(distinct))
    return marked([found[point_key(item)] for item in asked])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sweep:
    """What is the same at every point."""

    layers: LayerTable
    table: EnergyTable
    backend: str
    hops: bool
    swept: Swept

    def points(
        self, left: Mapping[str, Hardware], workers: int | None, ray: str | None
    ) -> Iterator[tuple[str, SweepPoint]]:
        """Points by their keys, as they are done."""
        keys = list(left)
        works = {nameless(layer): layer for own in self.layers.values() for layer in own}
        parts: list[dict[Layer, NodeCounts]] = [{} for _ in keys]
        tasks = (
            Task(point=i, work=work, hardware=item, policy=self.swept.policy, backend=self.backend)
            for i, item in enumerate(left.values())
            for work in works.values()
        )
        running = run_tasks(tasks, count=len(keys) * len(works), workers=workers, ray=ray)
        with contextlib.closing(running):
            for task, counts in running:
                own = parts[task.point]
                own[nameless(task.work)] = counts
                if len(own) == len(works):
                    parts[task.point] = {}
                    yield keys[task.point], self._priced(task.hardware, own)

    def _priced(self, hardware: Hardware, parts: Mapping[Layer, NodeCounts]) -> SweepPoint:
        """A point from the counts of the distinct layers."""
        nodes = {name: _joined(own, parts) for name, own in self.layers.items()}
        counts = CountTable(
            hardware=hardware.to_json(),
            policy=self.swept.policy,
            backend=self.swept.backend,
            nodes=nodes,
        )
        report = price(counts, self.table, hops=self.hops)
        whole = AccessCounts()
        for item in (typed for node in nodes.values() for typed in node.typed):
            whole += item.counts
        return SweepPoint(
            hardware=hardware,
            energy=report.total.value,
            low=report.total.low,
            high=report.total.high,
            unit=report.unit,
            macs=whole.macs,
            cycles=whole.cycles,
            pe_cycles=whole.pe_cycles,
            unmodelled_macs=sum(gap.macs for node in nodes.values() for gap in node.gaps),
            missing=tuple(report.missing),
        )


def _joined(layers: Iterable[Layer], parts: Mapping[Layer, NodeCounts]) -> NodeCounts:
    """Counts of a node from those of its layers."""
    found = [parts[nameless(layer)] for layer in layers]
    typed: dict[str, AccessCounts] = {}
    for part in found:
        for item in part.typed:
            typed[item.dtype] = typed.get(item.dtype, AccessCounts()) + item.counts
    return NodeCounts(
        typed=tuple(TypedCounts(dtype=dtype, counts=typed[dtype]) for dtype in sorted(typed)),
        gaps=tuple(gap for part in found for gap in part.gaps),
    )
