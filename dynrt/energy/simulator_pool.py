"""Many simulations: each distinct one once, in parallel processes, kept on disk as they come.

Interrupting is cheap: what was finished is in the cache, and the same call goes on from there.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Literal

from dynrt.energy.array import SimCounts, SimLayer, SystolicArray
from dynrt.energy.simulation_cache import SimulationCache, default_folder
from dynrt.energy.simulator_driver import (
    UnfinishedError,
    installed_version,
    load,
    place,
    simulate,
)
from dynrt.errors import CacheError, MissingExtraError, SimulatorError

Pair = tuple[SimLayer, SystolicArray]
Outcome = SimCounts | SimulatorError
Results = Generator[tuple[Pair, Outcome], None, None]


#: How long processes have to go by themselves before they are ended.
_GOODBYE_S = 1.0


def simulate_many(
    pairs: Sequence[Pair],
    *,
    workers: int | None = None,
    timeout_s: float | None = None,
    memory_bytes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    cache: Path | Literal["default"] | None = "default",
) -> list[Outcome]:
    """Simulate layers on arrays; the results in the order of the pairs.

    Args:
        pairs: what to simulate; equal ones are simulated once.
        workers: processes at a time; all cores by default. A script that asks for more than one
            needs the usual ``if __name__ == "__main__":``, as with any spawned process.
        timeout_s: a simulation that takes longer is ended and reported as ``UnfinishedError``; it
            is not kept, so the next call tries again.
        memory_bytes: of address space for a process, where the system can bound it: a simulation
            that needs more is reported as ``UnfinishedError``.
        progress: told how many distinct ones are done, out of how many.
        cache: folder of results; ``default`` for the usual one (see ``default_folder``), ``None``
            to keep nothing. The usual one is left alone if it cannot be used.

    Returns:
        Counts, or the error that a pair ended in: one bad pair spoils no other.

    Raises:
        MissingExtraError: the simulator is not installed (extra ``energy``).
        SimulatorError: another release is installed, or no process can be started.
        CacheError: the folder given cannot be used.
    """
    distinct = list(dict.fromkeys(pairs))
    found: dict[Pair, Outcome] = {}
    each = simulate_each(
        distinct, workers=workers, timeout_s=timeout_s, memory_bytes=memory_bytes, cache=cache
    )
    for pair, outcome in each:
        found[pair] = outcome
        if progress is not None:
            progress(len(found), len(distinct))
    return [found[pair] for pair in pairs]


def simulate_each(
    pairs: Sequence[Pair],
    *,
    workers: int | None = None,
    timeout_s: float | None = None,
    memory_bytes: int | None = None,
    cache: Path | Literal["default"] | None = "default",
) -> Results:
    """As ``simulate_many``, each distinct pair as it is done: those from the cache first.

    Closing the iterator ends what is still running.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}, not 1 or more")
    store = _open(cache, installed_version())
    missing: deque[Pair] = deque()
    for pair in dict.fromkeys(pairs):
        counts = None if store is None else store.read(*pair)
        if counts is None:
            missing.append(pair)
        else:
            yield pair, counts
    count = min(workers or _cores(), len(missing))
    alone = count == 1 and timeout_s is None and memory_bytes is None
    fresh = _here(missing) if alone else _Pool(missing, count, timeout_s, memory_bytes).results()
    with contextlib.closing(fresh):
        for pair, outcome in fresh:
            if store is not None and isinstance(outcome, SimCounts):
                with contextlib.suppress(CacheError):  # a full disk loses no result
                    store.write(*pair, outcome)
            yield pair, outcome


def _open(cache: Path | Literal["default"] | None, version: str) -> SimulationCache | None:
    if cache != "default":
        return None if cache is None else SimulationCache(cache, simulator=version)
    folder = default_folder()
    with contextlib.suppress(CacheError):
        return None if folder is None else SimulationCache(folder, simulator=version)
    return None


def _here(pairs: deque[Pair]) -> Results:
    for pair in pairs:
        try:
            yield pair, simulate(*pair)
        except SimulatorError as exc:
            yield pair, exc


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(slots=True, eq=False)
class _Worker:
    """A process and what it is doing."""

    process: SpawnProcess
    pipe: Connection
    ready: bool = False
    pair: Pair | None = None
    until: float | None = field(default=None)


class _Pool:
    """Processes that simulate one pair after the other; one that is late or dies is replaced."""

    def __init__(
        self, pairs: deque[Pair], count: int, timeout_s: float | None, memory_bytes: int | None
    ) -> None:
        self._waiting = pairs
        self._count = count
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    def results(self) -> Results:
        try:
            while self._waiting or any(worker.pair for worker in self._workers):
                busy = sum(worker.pair is not None for worker in self._workers)
                while len(self._workers) < min(self._count, busy + len(self._waiting)):
                    self._workers.append(self._start())
                ends = [worker.until for worker in self._workers if worker.until is not None]
                left_s = max(0.0, min(ends) - time.monotonic()) if ends else None
                told = wait([worker.pipe for worker in self._workers], left_s)
                for worker in tuple(self._workers):
                    if worker.pipe in told:
                        yield from self._listen(worker)
                    elif worker.until is not None and worker.until <= time.monotonic():
                        yield from self._late(worker)
        finally:
            self._stop()

    def _start(self) -> _Worker:
        try:
            ours, theirs = self._context.Pipe()
            with theirs:
                process = self._context.Process(
                    target=_work, args=(theirs, self._memory_bytes), daemon=True
                )
                process.start()
        except OSError as exc:
            raise SimulatorError(f"a process for the simulator cannot start: {exc}") from None
        return _Worker(process=process, pipe=ours)

    def _listen(self, worker: _Worker) -> Results:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            yield from self._dead(worker)
            return
        if worker.pair is None and message is not None:
            raise message
        pair, worker.pair, worker.until, worker.ready = worker.pair, None, None, True
        if self._waiting:
            worker.pair = self._waiting.popleft()
            if self._timeout_s is not None:
                worker.until = time.monotonic() + self._timeout_s
            with contextlib.suppress(OSError):  # it died just now: its pipe will say so
                worker.pipe.send(worker.pair)
        if pair is not None:
            yield pair, message

    def _late(self, worker: _Worker) -> Results:
        self._drop(worker)
        if worker.pair is not None:
            said = f"not done after {self._timeout_s:g} s, and ended"
            yield worker.pair, UnfinishedError(f"{place(*worker.pair)}: {said}")

    def _dead(self, worker: _Worker) -> Results:
        worker.process.join(_GOODBYE_S)  # its pipe goes before it does
        self._drop(worker)
        code = worker.process.exitcode
        if not worker.ready:
            raise SimulatorError(
                f"a process for the simulator ended with code {code} before it began; a script "
                'needs if __name__ == "__main__": around what it does'
            )
        if worker.pair is not None:
            said = f"its process died with code {code} (out of memory?)"
            yield worker.pair, UnfinishedError(f"{place(*worker.pair)}: {said}")

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.kill()
        worker.process.join()

    def _stop(self) -> None:
        """End everybody; those that have nothing to do go by themselves."""
        for worker in self._workers:
            if worker.pair is not None:
                worker.process.kill()
            worker.pipe.close()
        until = time.monotonic() + _GOODBYE_S
        for worker in tuple(self._workers):
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()


def _work(pipe: Connection, memory_bytes: int | None) -> None:
    """The life of a process: says it is there, then answers pairs until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who asks is interrupted, and ends us
    _hush()
    with contextlib.suppress(EOFError, OSError):
        try:
            load()
        except (MissingExtraError, SimulatorError) as exc:
            pipe.send(SimulatorError(str(exc)))
            return
        _bound(memory_bytes)
        pipe.send(None)
        while True:
            layer, array = pipe.recv()
            try:
                answer: Outcome = simulate(layer, array)
            except SimulatorError as exc:
                answer = exc
            pipe.send(answer)


def _hush() -> None:
    """Nothing that a library or the system says comes out of this process."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(null, stream)
    os.close(null)


def _bound(memory_bytes: int | None) -> None:
    if memory_bytes is None:
        return
    try:
        import resource
    except ImportError:  # not on Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    with contextlib.suppress(OSError, ValueError):  # macOS knows the limit, and does not take it
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
