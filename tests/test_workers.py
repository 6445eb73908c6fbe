"""Work is the same here, in processes and on Ray; errors come back; nothing is left running."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.errors import (
    BudgetRefusedError,
    BundleSizeError,
    CalibrationError,
    DynrtError,
    GraphError,
    MissingExtraError,
)
from dynrt.workers import HERE, Failure, Spread, Work, spread_over
from tests.ray_runs import said_on_ray


class Counted:
    """What a worker holds: a factor, and how many tasks it has had."""

    def __init__(self, factor: int) -> None:
        self.factor, self.tasks = factor, 0


def times(held: Counted, task: int) -> tuple[int, int, int]:
    """The product, how many tasks this worker has had, and which process it is."""
    held.tasks += 1
    if task == 13:
        raise CalibrationError("thirteen")
    return held.factor * task, held.tasks, os.getpid()


def die(_: Counted, task: int) -> int:
    os._exit(task)


def slow(_: Counted, task: int) -> int:
    time.sleep(600 if task else 0)
    return task


def work(call: Any = times) -> Work[int, Counted, int, Any]:
    return Work(shared=3, make=Counted, call=call)


def run(tasks: list[int], spread: Spread, call: Any = times) -> dict[int, Any]:
    found = spread_over(work(call), iter(tasks), spread, error=CalibrationError, what="the test")
    return dict(found)


def test_processes_find_what_this_one_finds_and_make_what_they_hold_once() -> None:
    tasks = [t for t in range(40) if t != 13]
    here, there = run(tasks, HERE), run(tasks, Spread(workers=2))
    assert {t: f[0] for t, f in here.items()} == {t: 3 * t for t in tasks}
    assert {t: f[0] for t, f in there.items()} == {t: 3 * t for t in tasks}
    assert [f[1] for f in here.values()] == list(range(1, 40))
    own: dict[int, list[int]] = {}
    for _, number, process in there.values():
        own.setdefault(process, []).append(number)
    assert os.getpid() not in own
    assert len(own) <= 2
    # each process counted on from what it held, and had no task twice
    assert all(sorted(numbers) == list(range(1, len(numbers) + 1)) for numbers in own.values())


def test_an_error_of_a_task_comes_back_and_the_others_go_on() -> None:
    found = run([1, 13, 2], Spread(workers=2))
    assert found[13] == Failure(kind="CalibrationError", text="thirteen")
    assert (found[1][0], found[2][0]) == (3, 6)
    with pytest.raises(CalibrationError, match="thirteen"):
        run([13], HERE)


def test_a_failure_becomes_its_error_again() -> None:
    said = Failure(kind="BudgetRefusedError", text="too little").error(CalibrationError)
    assert type(said) is BudgetRefusedError
    assert str(said) == "too little"
    # classes that take more than a text, and classes that are not there
    for kind in ("BundleSizeError", "GraphError", "MissingExtraError", "NoSuch", "Sequence"):
        again = Failure(kind=kind, text="abc").error(CalibrationError)
        assert type(again) is CalibrationError
        assert str(again) == "abc"
    assert issubclass(BundleSizeError, DynrtError)
    assert issubclass(GraphError, DynrtError)


def test_a_process_that_dies_is_an_error() -> None:
    with pytest.raises(CalibrationError, match="a process of the test died: no memory left"):
        run([3, 3], Spread(workers=2), die)


def test_closing_ends_what_is_under_way() -> None:
    began = time.monotonic()
    found = spread_over(
        work(slow), iter([0, 1, 1]), Spread(workers=2), error=CalibrationError, what="the test"
    )
    assert next(found) == (0, 0)
    found.close()
    assert time.monotonic() - began < 60  # a task would take ten minutes


@given(workers=st.integers(max_value=0))
def test_workers_are_at_least_one(workers: int) -> None:
    with pytest.raises(CalibrationError, match=f"{workers} workers; at least 1 is needed"):
        run([1], Spread(workers=workers))


def test_where_is_here() -> None:
    assert HERE.here
    assert not Spread(workers=2).here
    assert not Spread(ray="auto").here


def test_ray_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dynrt\[ray\]'"):
        run([1], Spread(ray="auto"))


_ON_RAY = """
import json
import ray
from dynrt.calibrate.evaluate import evaluate
from dynrt.calibrate.parallel_scores import collect_scores
from dynrt.errors import CalibrationError
from dynrt.ir.cost import Budget
from dynrt.runtime import load
from dynrt.workers import Spread
from tests.calibrate.spreading import colour_data, same_evaluation, same_scores
from tests.cli.colours import colour_bundle

bundle, data, said = colour_bundle(), colour_data(90), []
network = load(bundle, mode="portable")
for address in ("127.0.0.1:1", "no address"):
    try:
        evaluate(network, data, spread=Spread(ray=address))
    except CalibrationError as exc:
        said.append(str(exc))
budgets, there = [Budget(macs=2000)], Spread(ray="local", workers=2)
same = [
    same_evaluation(
        evaluate(network, data, budgets=budgets, batch=20, spread=there),
        evaluate(network, data, budgets=budgets, batch=20),
    ),
    same_scores(
        collect_scores(bundle, data, batch=20, spread=there), collect_scores(bundle, data, batch=20)
    ),
]
try:
    evaluate(network, data, budgets=[Budget(macs=1)], spread=there)
except Exception as exc:
    said.append(type(exc).__name__)
print(json.dumps([same, not ray.is_initialized(), said]))
"""


def test_a_ray_cluster_gives_the_same(tmp_path: Path) -> None:
    same, left, (nobody, wrong, refused) = said_on_ray(_ON_RAY, tmp_path)
    assert same == [True, True]
    assert left
    assert nobody.startswith("ray at 127.0.0.1:1: nobody answers there")
    assert wrong.startswith("ray at no address: ")
    assert refused == "BudgetRefusedError"
