"""Many simulations: once each, in parallel, kept, bounded in time and memory, and interruptible."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dynrt.energy import simulator_pool
from dynrt.energy.array import SimCounts, SimLayer, SystolicArray
from dynrt.energy.simulator import Pair, UnfinishedError, simulate, simulate_each, simulate_many
from dynrt.errors import CacheError, MissingExtraError, SimulatorError
from tests.energy_cases import require_simulator

require_simulator()

ARRAY = SystolicArray(
    rows=8, cols=8, dataflow="ws", ifmap_words=1024, filter_words=1024, ofmap_words=1024
)
#: Some ten seconds and more of the simulator.
LONG: Pair = (
    SimLayer(height=114, width=114, kernel_h=3, kernel_w=3, channels=32, filters=64),
    ARRAY,
)
#: The simulator crashes: a buffer of fewer than 100 words.
BAD: Pair = (
    SimLayer(height=6, width=6, kernel_h=3, kernel_w=3, channels=2, filters=5),
    dataclasses.replace(ARRAY, ifmap_words=10),
)


def _small(count: int) -> list[Pair]:
    return [
        (SimLayer(height=2 + n, width=3, kernel_h=1, kernel_w=3, channels=1, filters=2), ARRAY)
        for n in range(count)
    ]


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[Pair]:
    """What is simulated in this process, in order."""
    seen: list[Pair] = []

    def noted(layer: SimLayer, array: SystolicArray) -> SimCounts:
        seen.append((layer, array))
        return simulate(layer, array)

    monkeypatch.setattr(simulator_pool, "simulate", noted)
    return seen


def test_processes_give_what_one_call_gives_in_order_and_tell_progress() -> None:
    pairs = [*_small(5), BAD, *_small(3)]
    told: list[tuple[int, int]] = []
    results = simulate_many(
        pairs, workers=2, timeout_s=60, cache=None, progress=lambda *x: told.append(x)
    )
    assert results[:5] == [simulate(*pair) for pair in pairs[:5]]
    assert results[6:] == results[:3]
    with pytest.raises(SimulatorError) as caught:
        simulate(*BAD)
    assert str(results[5]) == str(caught.value)
    assert told == [(n, 6) for n in range(1, 7)]
    assert not multiprocessing.active_children()


def test_equal_pairs_are_simulated_once(simulated: list[Pair]) -> None:
    pairs = _small(3)
    results = simulate_many([*pairs, *reversed(pairs)], workers=1, cache=None)
    assert results[:3] == results[:2:-1]
    assert simulated == pairs


def test_what_is_in_the_cache_is_not_simulated_again(tmp_path: Path, simulated: list[Pair]) -> None:
    pairs = _small(4)
    first = simulate_many(pairs[:2], workers=1, cache=tmp_path)
    again = simulate_many(pairs, workers=1, cache=tmp_path)
    assert again[:2] == first
    assert simulated == pairs


def test_an_error_is_not_kept(tmp_path: Path, simulated: list[Pair]) -> None:
    for _ in range(2):
        assert isinstance(simulate_many([BAD], workers=1, cache=tmp_path)[0], SimulatorError)
    assert simulated == [BAD, BAD]


def test_it_goes_on_where_it_was_interrupted(tmp_path: Path, simulated: list[Pair]) -> None:
    pairs = _small(4)

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_many(pairs, workers=1, cache=tmp_path, progress=interrupt)
    assert simulated == pairs[:2]
    assert all(isinstance(r, SimCounts) for r in simulate_many(pairs, workers=1, cache=tmp_path))
    assert simulated == pairs


def test_processes_keep_their_results_too(tmp_path: Path, simulated: list[Pair]) -> None:
    pairs = _small(3)
    first = simulate_many(pairs, workers=2, timeout_s=60, cache=tmp_path)
    assert simulate_many(pairs, workers=1, cache=tmp_path) == first
    assert simulated == []


def test_a_late_one_is_ended_and_the_others_go_on(tmp_path: Path) -> None:
    pairs = [LONG, *_small(2)]
    late, *others = simulate_many(pairs, workers=1, timeout_s=0.7, cache=tmp_path)
    assert isinstance(late, UnfinishedError)
    assert str(late).startswith("layer 114x114x32 kernel 3x3 filters 64 stride 1x1 on 8x8 ws")
    assert str(late).endswith("not done after 0.7 s, and ended")
    assert others == [simulate(*pair) for pair in pairs[1:]]
    assert len(list(tmp_path.iterdir())) == 2


def test_one_that_needs_too_much_memory_is_reported() -> None:
    huge: Pair = (
        SimLayer(height=6000, width=6000, kernel_h=1, kernel_w=6000, channels=1, filters=2),
        ARRAY,
    )
    results = simulate_many([huge, *_small(1)], workers=1, memory_bytes=1 << 30, cache=None)
    assert "SCALE-Sim ran out of memory: Unable to allocate" in str(results[0])
    assert isinstance(results[0], UnfinishedError)
    assert isinstance(results[1], SimCounts)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_process_that_dies_spoils_one_result() -> None:
    first, *rest = _small(3)
    each = simulate_each([first, LONG, *rest], workers=1, timeout_s=60, cache=None)
    assert next(each) == (first, simulate(*first))
    (child,) = multiprocessing.active_children()
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)  # it is busy with the long one by now
    pair, outcome = next(each)
    assert pair == LONG
    assert isinstance(outcome, UnfinishedError)
    assert "its process died with code -9" in str(outcome)
    assert list(each) == [(pair, simulate(*pair)) for pair in rest]


def test_closing_ends_what_is_running() -> None:
    with contextlib.closing(
        simulate_each([*_small(1), LONG], workers=2, timeout_s=60, cache=None)
    ) as each:
        next(each)
        assert multiprocessing.active_children()
    assert not multiprocessing.active_children()


def test_a_script_that_starts_itself_again_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from dynrt.energy.array import SimLayer, SystolicArray\n"
        "from dynrt.energy.simulator import simulate_many\n"
        "from dynrt.errors import SimulatorError\n"
        "layer = SimLayer(height=2, width=2, kernel_h=1, kernel_w=1, channels=1, filters=1)\n"
        f"array = {ARRAY!r}\n"
        "try:\n"
        "    simulate_many([(layer, array)], timeout_s=30, cache=None)\n"
        "except SimulatorError as exc:\n"
        "    print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "ended with code 1 before it began; a script needs if __name__" in done.stdout, (
        done.stderr
    )


def test_no_process_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", refused)
    with pytest.raises(SimulatorError, match=r"cannot start: .*temporarily unavailable"):
        simulate_many(_small(2), workers=2, cache=None)


def test_none_at_all() -> None:
    assert simulate_many([], cache=None) == []


@pytest.mark.parametrize("workers", [0, -1])
def test_workers_are_one_or_more(workers: int) -> None:
    with pytest.raises(ValueError, match=f"workers is {workers}"):
        simulate_many(_small(1), workers=workers)


def test_without_the_extra_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise MissingExtraError("scalesim", "energy")

    monkeypatch.setattr(simulator_pool, "installed_version", missing)
    with pytest.raises(MissingExtraError, match="scalesim is missing"):
        simulate_many(_small(1))


def test_a_folder_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was asked for is an error; the usual one is done without."""
    (tmp_path / "file").write_text("")
    (tmp_path / "energy").write_text("")
    with pytest.raises(CacheError, match="file"):
        simulate_many(_small(1), workers=1, cache=tmp_path / "file")
    monkeypatch.setenv("DYNRT_CACHE", str(tmp_path))
    assert isinstance(simulate_many(_small(1), workers=1)[0], SimCounts)
    assert (tmp_path / "energy").read_text() == ""


def test_a_full_disk_loses_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise CacheError("no space left")

    monkeypatch.setattr("dynrt.energy.simulation_cache.SimulationCache.write", full)
    assert simulate_many(_small(1), workers=1, cache=tmp_path) == [simulate(*_small(1)[0])]


def test_the_usual_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNRT_CACHE", str(tmp_path))
    simulate_many(_small(2), workers=1)
    assert len(list((tmp_path / "energy").glob("*.json"))) == 2


class _Pipe:
    """A connection of which all requests are known beforehand."""

    def __init__(self, *requests: Pair) -> None:
        self._requests = list(requests)
        self.answers: list[object] = []

    def recv(self) -> Pair:
        if not self._requests:
            raise EOFError
        return self._requests.pop(0)

    def send(self, answer: object) -> None:
        self.answers.append(answer)


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[object]]]:
    """What a process does, done in this one: its answers."""
    monkeypatch.setattr(simulator_pool, "_hush", lambda: None)
    handler = signal.getsignal(signal.SIGINT)

    def work(*requests: Pair) -> list[object]:
        pipe: Any = _Pipe(*requests)
        simulator_pool._work(pipe, None)
        answers: list[object] = pipe.answers
        return answers

    yield work
    signal.signal(signal.SIGINT, handler)


def test_a_process_answers_until_nobody_asks(worked: Callable[..., list[object]]) -> None:
    (pair,) = _small(1)
    ready, counts, refused = worked(pair, BAD)
    assert ready is None
    assert counts == simulate(*pair)
    assert isinstance(refused, SimulatorError)
    assert "SCALE-Sim failed" in str(refused)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_process_without_the_simulator_says_so(
    worked: Callable[..., list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> object:
        raise MissingExtraError("pandas", "energy")

    monkeypatch.setattr(simulator_pool, "load", missing)
    (said,) = worked(*_small(2))
    assert isinstance(said, SimulatorError)
    assert str(said) == "pandas is missing: pip install 'dynrt[energy]'"


def test_what_a_process_says_before_it_is_ready_ends_the_call() -> None:
    pool = simulator_pool._Pool(deque(_small(1)), 1, None, None)
    ours, theirs = multiprocessing.Pipe()
    theirs.send(SimulatorError("pandas is missing"))
    unused: Any = None
    worker = simulator_pool._Worker(process=unused, pipe=ours)
    with pytest.raises(SimulatorError, match="pandas is missing"), theirs, ours:
        list(pool._listen(worker))


def test_nothing_comes_out_of_a_process(capfd: pytest.CaptureFixture[str]) -> None:
    saved = [os.dup(stream) for stream in (1, 2)]
    try:
        simulator_pool._hush()
        os.write(1, b"out")
        os.write(2, b"err")
    finally:
        for stream, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
    assert capfd.readouterr() == ("", "")


def test_a_bound_on_memory_never_goes_above_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource", reason="no such bounds here")
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: asked.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, 1000))
    simulator_pool._bound(None)
    assert asked == []
    simulator_pool._bound(5000)
    simulator_pool._bound(500)
    assert asked == [(1000, 1000), (500, 1000)]


def test_without_a_usual_folder_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulated: list[Pair]
) -> None:
    monkeypatch.setenv("DYNRT_CACHE", str(tmp_path))
    monkeypatch.setenv("DYNRT_CACHE_MB", "0")
    for _ in range(2):
        simulate_many(_small(1), workers=1)
    assert simulated == _small(1) * 2
    assert list(tmp_path.iterdir()) == []
