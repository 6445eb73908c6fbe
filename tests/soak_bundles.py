"""Feeds damaged bundles to the reader: ``python -m tests.soak_bundles --count 200000``.

Every case must end in a clean read or a ``BundleError`` or ``GraphError``, in time and within the
memory bound. A case that does not is printed with its number; ``--only NUMBER`` repeats it.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import signal
import sys
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

from dynrt.bundle.archive import ArchiveMembers
from dynrt.bundle.limits import DEFAULT_LIMITS
from dynrt.bundle.reader import read_members
from dynrt.errors import BundleError, GraphError
from tests.bundle.mutations import Mutator

#: No case may take longer.
CASE_SECONDS = 2.0
#: No case may allocate more, by tracemalloc; looked at in every ``TRACED_EVERY``-th case.
CASE_BYTES = 64 << 20
TRACED_EVERY = 32
#: A worker process may map so much more than at its start; beyond it a MemoryError is a failure.
WORKER_BYTES = 512 << 20
_CHUNK = 500
_HANG_SECONDS = 20.0
_MESSAGE_CHARS = 600


class _HangError(BaseException):
    """A case took so long that it was stopped."""


@dataclass(kw_only=True)
class Summary:
    """What a soak saw."""

    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    peak_bytes: int = 0
    seconds: float = 0.0

    @property
    def cases(self) -> int:
        """How many cases ran."""
        return self.outcomes.total()

    def add(self, other: Summary) -> None:
        """Take in another summary; wall time stays."""
        self.outcomes += other.outcomes
        self.kinds += other.kinds
        self.failures += other.failures
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)

    def __str__(self) -> str:
        rate = self.cases / self.seconds if self.seconds else 0.0
        outcomes = ", ".join(f"{k} {v}" for k, v in self.outcomes.most_common())
        return (
            f"bundles: {self.cases} damaged, {len(self.failures)} failures, {rate:.0f}/s, slowest "
            f"{self.slowest_s * 1e3:.0f} ms, peak {self.peak_bytes / 2**10:.0f} KiB; {outcomes}"
        )


def run_case(mutator: Mutator, number: int, summary: Summary) -> None:
    """Run one case and write what it did into ``summary``."""
    kind, data = mutator.case(number)
    summary.kinds[kind] += 1
    traced = number % TRACED_EVERY == 0
    if traced:
        tracemalloc.start()
    start_s = time.perf_counter()
    try:
        outcome, trouble = _outcome(data)
    except _HangError:
        outcome, trouble = "hang", f"stopped after {_HANG_SECONDS} s"
    took_s = time.perf_counter() - start_s
    if traced:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        summary.peak_bytes = max(summary.peak_bytes, peak)
        if peak > CASE_BYTES:
            trouble = trouble or f"allocated {peak} bytes, the bound is {CASE_BYTES}"
    elif took_s > CASE_SECONDS:
        trouble = trouble or f"took {took_s:.2f} s, the bound is {CASE_SECONDS} s"
    summary.slowest_s = max(summary.slowest_s, took_s)
    summary.outcomes[outcome] += 1
    if trouble:
        summary.failures.append(f"case {number} ({kind}): {trouble}")


def _outcome(data: bytes) -> tuple[str, str]:
    """The outcome's name, and what is wrong with it, if anything is."""
    try:
        bundle = read_members(ArchiveMembers(io.BytesIO(data), len(data), limits=DEFAULT_LIMITS))
        _ = bundle.layers, bundle.counts  # decoded on first use
    except (BundleError, GraphError) as exc:
        message = str(exc)
        wrong = not message.isprintable() or len(message) > _MESSAGE_CHARS
        return type(exc).__name__, f"message {message[:1000]!r}" if wrong else ""
    except Exception as exc:  # noqa: BLE001 - any other error is what this looks for
        last = traceback.extract_tb(exc.__traceback__)[-1]
        return "crash", f"{type(exc).__name__}: {exc} at {last.filename}:{last.lineno}"
    return "read", ""


def _stop(signum: int, frame: FrameType | None) -> None:
    raise _HangError


def run_range(seed: int, numbers: range, deadline_s: float | None = None) -> Summary:
    """Run the cases ``numbers``, until ``deadline_s`` on the monotonic clock."""
    summary, mutator = Summary(), _mutator(seed)
    before = signal.signal(signal.SIGALRM, _stop)
    try:
        for number in numbers:
            if deadline_s is not None and time.monotonic() > deadline_s:
                break
            signal.setitimer(signal.ITIMER_REAL, _HANG_SECONDS)
            run_case(mutator, number, summary)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return summary


_MUTATORS: dict[int, Mutator] = {}


def _mutator(seed: int) -> Mutator:
    """One mutator per seed and process."""
    if seed not in _MUTATORS:
        _MUTATORS[seed] = Mutator(seed)
    return _MUTATORS[seed]


def _limit_memory() -> None:
    """Bound what this process may map, once everything it needs is imported."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (mapped + WORKER_BYTES, hard))


def _work(job: tuple[int, range, float | None]) -> Summary:
    seed, numbers, deadline_s = job
    return run_range(seed, numbers, deadline_s)


def main(
    count: int = 20_000, seed: int = 0, seconds: float | None = None, processes: int = 2
) -> Summary:
    """Run ``count`` cases, or as many as fit into ``seconds``; the caller looks at ``failures``."""
    start_s = time.monotonic()
    deadline_s = None if seconds is None else start_s + seconds
    total = Summary()

    def jobs() -> Iterator[tuple[int, range, float | None]]:
        for first in range(0, count, _CHUNK):
            yield seed, range(first, min(first + _CHUNK, count)), deadline_s

    if processes == 1:
        for job in jobs():
            total.add(_work(job))
    else:
        context = multiprocessing.get_context("spawn")
        with context.Pool(processes, initializer=_limit_memory) as pool:
            for part in pool.imap_unordered(_work, jobs()):
                total.add(part)
    total.seconds = time.monotonic() - start_s
    return total


def _command() -> int:
    parser = argparse.ArgumentParser(description="Feed damaged bundles to the reader.")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", type=int, default=None, metavar="NUMBER")
    given = parser.parse_args()
    if given.only is not None:
        summary = run_range(given.seed, range(given.only, given.only + 1))
    else:
        summary = main(given.count, given.seed, given.seconds, given.processes)
    print(summary)
    for failure in summary.failures[:20]:
        print(failure)
    return 1 if summary.failures else 0


if __name__ == "__main__":
    sys.exit(_command())
