"""Spreads calls of one function over processes of this machine, or over a Ray cluster.

Both ways call the same function with the same values as a loop in this process would, so that
results are equal; they differ only in where, and in the order in which results come.
"""

from __future__ import annotations

import itertools
import multiprocessing
import secrets
import signal
import socket
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from dynrt import errors
from dynrt.errors import DynrtError, MissingExtraError, first_line

#: What is sent to each worker once, what it makes of it, one task, and what it gives for it.
Shared = TypeVar("Shared")
Held = TypeVar("Held")
Task = TypeVar("Task")
Found = TypeVar("Found")

#: Tasks that wait for each worker, so that none is idle and none of a long queue is held twice.
_QUEUED = 4
_REACH_S = 5.0
#: Ray tasks in flight: a cluster has more workers than this machine knows.
RAY_IN_FLIGHT = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Where work is done.

    Attributes:
        workers: processes; 1 is this process alone.
        ray: address of a Ray cluster instead: ``HOST:PORT``, ``auto`` for the one that runs on this
            machine, ``local`` to start one here; then more than one worker bounds what is in flight.
    """

    workers: int = 1
    ray: str | None = None

    @property
    def here(self) -> bool:
        """Whether nothing leaves this process."""
        return self.ray is None and self.workers == 1


HERE = Spread()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[Shared, Held, Task, Found]):
    """What every worker does; the functions must be importable by name.

    Attributes:
        shared: sent to each worker once.
        make: what a worker makes of it, before its first task.
        call: from that and a task to what is found; a DynrtError becomes a :class:`Failure`.
    """

    shared: Shared
    make: Callable[[Shared], Held]
    call: Callable[[Held, Task], Found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error of a task, in a form that crosses processes.

    Attributes:
        kind: name of its class.
        text: what it says.
    """

    kind: str
    text: str

    def error(self, otherwise: type[DynrtError]) -> DynrtError:
        """The error again; of the kind ``otherwise`` where its class takes more than a text."""
        kind = getattr(errors, self.kind, otherwise)
        try:
            again = kind(self.text)
        except (TypeError, AttributeError):
            again = otherwise(self.text)
        return again if isinstance(again, DynrtError) else otherwise(self.text)


#: What this worker made, by the token of the work that it was made for.
_HELD: dict[str, Any] = {}
#: The work of this process, if it is a worker.
_OURS: list[tuple[str, Work[Any, Any, Any, Any]]] = []


def spread_over(
    work: Work[Shared, Held, Task, Found],
    tasks: Iterator[Task],
    spread: Spread,
    *,
    error: type[DynrtError],
    what: str,
) -> Generator[tuple[Task, Found | Failure], None, None]:
    """Do all tasks and give each as it is done; closing the generator stops what is under way.

    Args:
        work: what is done.
        tasks: in the order in which they should be begun.
        spread: where.
        error: raised where a worker died or the cluster is out of reach.
        what: names the whole in that error: ``the sweep``.

    Raises:
        DynrtError: of the kind ``error``.
        MissingExtraError: ray is not installed.
    """
    if spread.workers < 1:
        raise error(f"{spread.workers} workers; at least 1 is needed")
    if spread.ray is not None:
        many = spread.workers if spread.workers > 1 else RAY_IN_FLIGHT
        return on_ray(work, tasks, spread.ray, many, error=error)
    if spread.here:
        return _here(work, tasks)
    return in_processes(work, tasks, spread.workers, error=error, what=what)


def _here(
    work: Work[Shared, Held, Task, Found], tasks: Iterator[Task]
) -> Generator[tuple[Task, Found | Failure], None, None]:
    held = work.make(work.shared)
    for task in tasks:
        yield task, work.call(held, task)


def in_processes(
    work: Work[Shared, Held, Task, Found],
    tasks: Iterator[Task],
    workers: int,
    *,
    error: type[DynrtError],
    what: str,
) -> Generator[tuple[Task, Found | Failure], None, None]:
    """See :func:`spread_over`; processes are started afresh, so that they inherit no locks."""
    token = secrets.token_hex(8)
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(token, work),
    )
    flying: dict[Future[Any], Task] = {}
    try:
        for task in itertools.islice(tasks, _QUEUED * workers):
            flying[pool.submit(_ours, task)] = task
        while flying:
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                task, found = flying.pop(future), future.result()
                for more in itertools.islice(tasks, 1):
                    flying[pool.submit(_ours, more)] = more
                yield task, found
    except BrokenProcessPool:
        raise error(
            f"a process of {what} died: no memory left, or a script without "
            'if __name__ == "__main__": around what it does'
        ) from None
    finally:
        if flying:  # stopped half-way: a task may have minutes to go
            for process in (getattr(pool, "_processes", None) or {}).copy().values():
                process.terminate()
        pool.shutdown(cancel_futures=True)


def _begin(token: str, work: Work[Any, Any, Any, Any]) -> None:
    """The one who asks is interrupted, and ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _OURS[:] = [(token, work)]


def _ours(task: Any) -> Any:
    ((token, work),) = _OURS
    return _done(token, work, task)


def _done(token: str, work: Work[Any, Any, Any, Any], task: Any) -> Any:
    """One task in a worker, which makes what it holds when the first one comes."""
    try:
        if token not in _HELD:
            _HELD.clear()  # of another work, which is over
            _HELD[token] = work.make(work.shared)
        return work.call(_HELD[token], task)
    except DynrtError as exc:
        return Failure(kind=type(exc).__name__, text=str(exc))


def on_ray(
    work: Work[Shared, Held, Task, Found],
    tasks: Iterator[Task],
    address: str,
    in_flight: int,
    *,
    error: type[DynrtError],
) -> Generator[tuple[Task, Found | Failure], None, None]:
    """See :func:`spread_over`; a cluster that this call joined is left when it ends."""
    try:
        import ray
        from ray.exceptions import RayError
    except ModuleNotFoundError as exc:
        raise MissingExtraError("ray", "ray") from exc
    ours = not ray.is_initialized()
    token = secrets.token_hex(8)
    flying: dict[Any, Task] = {}
    try:
        if ours:
            _connect(ray, address, error)
        shared, remote = ray.put(work), ray.remote(_done)
        for task in itertools.islice(tasks, in_flight):
            flying[remote.remote(token, shared, task)] = task
        while flying:
            for done in ray.wait(list(flying), num_returns=1)[0]:
                task, found = flying.pop(done), ray.get(done)
                for more in itertools.islice(tasks, 1):
                    flying[remote.remote(token, shared, more)] = more
                yield task, found
    except (RayError, ConnectionError) as exc:
        raise error(f"ray at {address}: {first_line(exc)}") from exc
    finally:
        if ours:
            ray.shutdown()
        else:
            for left in flying:
                ray.cancel(left)


def _connect(ray: Any, address: str, error: type[DynrtError]) -> None:
    """Join a cluster; its workers get this dynrt, so that they compute as this process would."""
    _reach(address, error)
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
        raise error(f"ray at {address}: {first_line(exc)}") from exc


def _reach(address: str, error: type[DynrtError]) -> None:
    """Find out in seconds that nobody listens; Ray itself tries for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdecimal():
        return  # a name, such as auto: Ray looks it up
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except (OSError, OverflowError) as exc:
        raise error(f"ray at {address}: nobody answers there ({first_line(exc)})") from None
