"""Spreads the counting of distinct layers over processes of this machine, or over a Ray cluster.

All three ways call the same function with the same values, so that their results are equal; they
differ only in where, and in the order in which results come.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace

from dynrt import errors
from dynrt.energy.backend import backend_named
from dynrt.energy.counting import count_nodes
from dynrt.energy.hardware import Hardware
from dynrt.errors import DynrtError, EnergyError
from dynrt.ir.counts import NodeCounts
from dynrt.ir.graph import NodeId
from dynrt.ir.layers import Layer, UnmodelledLayer
from dynrt.workers import RAY_IN_FLIGHT, Failure, Work, in_processes, on_ray

#: How long counting stays in this process before others are started, by default.
_HERE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One layer on one hardware.

    Attributes:
        point: number of the hardware in the sweep.
        work: the layer.
        hardware, policy, backend: what counts it.
    """

    point: int
    work: Layer
    hardware: Hardware
    policy: str
    backend: str


Done = tuple[Task, NodeCounts]


def nameless(layer: Layer) -> Layer:
    """The layer as far as counts see it; layers that differ in name or mask are counted once."""
    if isinstance(layer, UnmodelledLayer):
        return replace(layer, name="")
    return replace(layer, name="", masked=None)


def count_task(task: Task) -> NodeCounts | Failure:
    """Count one layer; errors that dynrt raises on purpose are handed back."""
    name = NodeId(task.work.name)
    work = nameless(task.work)
    try:
        table = count_nodes(
            {name: (work,)},
            task.hardware,
            policy=task.policy,
            backend=backend_named(task.backend, workers=1),
        )
    except DynrtError as exc:
        return Failure(kind=type(exc).__name__, text=str(exc))
    return table.nodes[name]


def run_tasks(
    tasks: Iterable[Task], *, count: int, workers: int | None, ray: str | None
) -> Generator[Done, None, None]:
    """Count all tasks and give each as it is done.

    Args:
        tasks: in the order in which they should be begun.
        count: of the tasks.
        workers: processes; 1 counts in this one; by default it begins in this one, and takes one
            per core after a second.
        ray: address of a Ray cluster, ``auto`` for the one of this machine, ``local`` for a new
            one here; then ``workers`` bounds the tasks in flight.

    Raises:
        EnergyError: a task failed, a worker died, or the cluster is out of reach.
        MissingExtraError: ray is not installed.
    """
    if workers is not None and workers < 1:
        raise EnergyError(f"{workers} workers; at least 1 is needed")
    queue = iter(tasks)
    if ray is not None:
        return _on_ray(queue, ray, workers or RAY_IN_FLIGHT)
    if workers == 1 or count == 1:
        return _here(queue)
    processes = min(workers or os.cpu_count() or 1, count)
    return _in_processes(queue, processes) if workers else _spread_late(queue, processes)


def _checked(task: Task, found: NodeCounts | Failure) -> Done:
    if isinstance(found, NodeCounts):
        return task, found
    kind = getattr(errors, found.kind, EnergyError)
    if not issubclass(kind, EnergyError):
        kind = EnergyError  # others may take more than a message
    on = f"{task.hardware.rows}x{task.hardware.cols} {task.hardware.dataflow}"
    raise kind(f"{task.hardware.name} ({on}): {task.work.op} {task.work.name!r}: {found.text}")


def _here(queue: Iterator[Task], until_s: float = math.inf) -> Generator[Done, None, None]:
    """Until the tasks end or the time has come."""
    for task in queue:
        yield _checked(task, count_task(task))
        if time.monotonic() > until_s:
            return


def _spread_late(queue: Iterator[Task], workers: int) -> Generator[Done, None, None]:
    """What takes no longer than starting processes is done here."""
    yield from _here(queue, time.monotonic() + _HERE_S)
    if workers == 1:
        yield from _here(queue)
    else:
        yield from _in_processes(queue, workers)


def _in_processes(queue: Iterator[Task], workers: int) -> Generator[Done, None, None]:
    return _checked_all(
        in_processes(_COUNTING, queue, workers, error=EnergyError, what="the sweep")
    )


def _on_ray(queue: Iterator[Task], address: str, in_flight: int) -> Generator[Done, None, None]:
    return _checked_all(on_ray(_COUNTING, queue, address, in_flight, error=EnergyError))


def _checked_all(
    running: Generator[tuple[Task, NodeCounts | Failure], None, None],
) -> Generator[Done, None, None]:
    with contextlib.closing(running):
        for task, found in running:
            yield _checked(task, found)


def _nothing(_: None) -> None:
    """A worker holds nothing from one layer to the next."""


def _counted(_: None, task: Task) -> NodeCounts | Failure:
    return count_task(task)


_COUNTING = Work(shared=None, make=_nothing, call=_counted)
