"""Spreads the counting of distinct layers over processes of this machine, or over a Ray cluster.

All three ways call the same function with the same values, so that their results are equal; they
differ only in where, and in the order in which results come.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dynrt import errors
from dynrt.energy.backend import backend_named
from dynrt.energy.counting import count_nodes
from dynrt.energy.hardware import Hardware
from dynrt.errors import DynrtError, EnergyError, MissingExtraError, first_line
from dynrt.ir.counts import NodeCounts
from dynrt.ir.graph import NodeId
from dynrt.ir.layers import Layer, UnmodelledLayer

#: Tasks that wait for each worker, so that none is idle and none of a long sweep is held twice.
_QUEUED = 4
#: How long counting stays in this process before others are started, by default.
_HERE_S = 1.0
_REACH_S = 5.0
#: Ray tasks in flight: a cluster has more workers than this machine knows.
_RAY_IN_FLIGHT = 512


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error of a task, in a form that crosses processes.

    Attributes:
        kind: name of its class.
        text: what it says.
    """

    kind: str
    text: str


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
        return _on_ray(queue, ray, workers or _RAY_IN_FLIGHT)
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
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin
    )
    flying: dict[Future[NodeCounts | Failure], Task] = {}
    try:
        for task in itertools.islice(queue, _QUEUED * workers):
            flying[pool.submit(count_task, task)] = task
        while flying:
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                task, found = flying.pop(future), future.result()
                for more in itertools.islice(queue, 1):
                    flying[pool.submit(count_task, more)] = more
                yield _checked(task, found)
    except BrokenProcessPool:
        raise EnergyError(
            "a process of the sweep died: no memory left, or a script without "
            'if __name__ == "__main__": around what it does'
        ) from None
    finally:
        if flying:  # stopped half-way: a simulation may have minutes to go
            for process in (getattr(pool, "_processes", None) or {}).copy().values():
                process.terminate()
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """The one who asks is interrupted, and ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _on_ray(queue: Iterator[Task], address: str, in_flight: int) -> Generator[Done, None, None]:
    try:
        import ray
        from ray.exceptions import RayError
    except ModuleNotFoundError as exc:
        raise MissingExtraError("ray", "ray") from exc
    ours = not ray.is_initialized()
    flying: dict[Any, Task] = {}
    try:
        if ours:
            _connect(ray, address)
        remote = ray.remote(count_task)
        for task in itertools.islice(queue, in_flight):
            flying[remote.remote(task)] = task
        while flying:
            for done in ray.wait(list(flying), num_returns=1)[0]:
                task, found = flying.pop(done), ray.get(done)
                for more in itertools.islice(queue, 1):
                    flying[remote.remote(more)] = more
                yield _checked(task, found)
    except (RayError, ConnectionError) as exc:
        raise EnergyError(f"ray at {address}: {first_line(exc)}") from exc
    finally:
        if ours:
            ray.shutdown()
        else:
            for left in flying:
                ray.cancel(left)


def _connect(ray: Any, address: str) -> None:
    """Join a cluster; its workers get this dynrt, so that they count as this process would.

    Raises:
        EnergyError: there is no cluster at the address.
    """
    _reach(address)
    package = Path(errors.__file__).parent
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="error",
            runtime_env={
                "py_modules": [str(package)],
                "excludes": ["**/*.dynrt", "**/__pycache__/**"],
            },
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as exc:
        raise EnergyError(f"ray at {address}: {first_line(exc)}") from exc


def _reach(address: str) -> None:
    """Find out in seconds that nobody listens; Ray itself tries for minutes.

    Raises:
        EnergyError: nobody does.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdecimal():
        return  # a name, such as auto: Ray looks it up
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except (OSError, OverflowError) as exc:
        raise EnergyError(f"ray at {address}: nobody answers there ({first_line(exc)})") from None
