from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.calibrate.scores import ScoreTable, collect
from dynrt.calibrate.simulate import simulate
from dynrt.errors import BudgetRefusedError, CalibrationError
from dynrt.ir.certificate import certify
from dynrt.ir.cost import Budget
from dynrt.ir.graph import Exit, Graph
from dynrt.ir.reference import interpret
from dynrt.runtime import CallableBackend
from tests.calibrate.chains import Case, cases
from tests.calibrate.made import bundle_of, chain, functions, pixels, random_table


def table_of(case: Case) -> ScoreTable:
    run = CallableBackend(functions(case.graph, case.values))
    return collect(bundle_of(case.graph), pixels(case.labels), run.call, batch=4)


def thresholds_of(graph: Graph) -> dict[str, float]:
    heads = [graph.by_name[e] for e in graph.exits]
    return {h.name: h.accept.threshold for h in heads if isinstance(h, Exit) and h.accept.scored}


@given(case=cases(), macs=st.one_of(st.none(), st.integers(1, 60)))
def test_simulation_equals_the_reference_interpreter(case: Case, macs: int | None) -> None:
    table, thresholds = table_of(case), thresholds_of(case.graph)
    budget = None if macs is None else Budget(macs=macs)
    run = functions(case.graph, case.values)
    if macs is not None and macs < certify(case.graph).cheapest_macs:
        with pytest.raises(BudgetRefusedError) as caught:
            simulate(table, thresholds, macs)
        assert caught.value.cheapest == certify(case.graph).cheapest_macs
        with pytest.raises(BudgetRefusedError):
            interpret(case.graph, run, {"x": np.zeros((1, 1, 1, 1), np.float32)}, budget=budget)
        return
    outcome = simulate(table, thresholds, macs)
    stopped = 0
    for row in range(len(table)):
        x = np.full((1, 1, 1, 1), row / 255, np.float32)
        result = interpret(case.graph, run, {"x": x}, budget=budget)
        at = case.graph.exits.index(result.exit)
        assert outcome.exit_index[row] == at
        assert outcome.macs[row] == result.macs
        assert table.predicted[row, at] == result.answer[0].argmax()
        stopped += result.forced
    assert outcome.stopped >= stopped
    assert outcome.max_macs <= (macs or outcome.max_macs)
    assert sum(outcome.exits.values()) == len(table)
    assert outcome.mean_macs == pytest.approx(outcome.macs.mean())
    right = table.correct[np.arange(len(table)), outcome.exit_index]
    assert outcome.accuracy == pytest.approx(right.mean())


def two_exits() -> Case:
    graph = chain(
        kinds=("hinge", "always"), thresholds=(1.0, 0.0), segments=((10,), (20, 5)), heads=(3, 2)
    )
    values = np.zeros((2, 2, 2, 3), np.float32)
    values[0, 0, 1] = (1.0, 0, 0)  # accepted at the first exit: just the threshold
    values[1, 0, 1] = (0.5, 0, 0)
    values[:, :, 0] = (0, 1, 0)
    return Case(graph=graph, values=values, labels=np.array([1, 0]))


def test_heads_in_passing_are_charged_and_closed_heads_are_not() -> None:
    table = table_of(two_exits())
    open_ = simulate(table, {"exit1": 1.0})
    assert open_.macs.tolist() == [13, 10 + 3 + 25 + 2]
    assert (open_.accuracy, open_.exits) == (0.5, {"exit1": 1, "exit2": 1})
    closed = simulate(table, {"exit1": float("inf")})
    assert closed.macs.tolist() == [37, 37]
    assert table.macs.tolist() == [13, 40]
    assert table.full_macs == 37


@pytest.mark.parametrize(("budget", "spent", "stopped"), [(40, 40, 0), (39, 13, 1), (13, 13, 1)])
def test_a_budget_stops_at_the_latest_exit_passed(budget: int, spent: int, stopped: int) -> None:
    outcome = simulate(table_of(two_exits()), {"exit1": 1.0}, budget)
    assert (outcome.macs[1], outcome.stopped) == (spent, stopped)


def test_a_budget_below_the_cheapest_answer_is_refused_with_that_figure() -> None:
    with pytest.raises(BudgetRefusedError, match=r"24 FLOPs .*26 FLOPs") as caught:
        simulate(table_of(two_exits()), {"exit1": 1.0}, 12)
    assert caught.value.cheapest == 13


@pytest.mark.parametrize(
    ("thresholds", "says"),
    [
        ({}, "no threshold for exit1"),
        ({"exit1": 0.5, "exit9": 0.5}, "exit9, which is no exit"),
        ({"exit1": float("nan")}, "NaN"),
    ],
)
def test_wrong_thresholds_are_refused(thresholds: dict[str, float], says: str) -> None:
    table = random_table(np.random.default_rng(0), n=3, exits=2)
    with pytest.raises(CalibrationError, match=says):
        simulate(table, thresholds)
