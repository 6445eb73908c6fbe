from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dynrt.calibrate.scores import ScoreTable, collect
from dynrt.calibrate.search import Gates
from dynrt.calibrate.simulate import simulate
from dynrt.calibrate.simulate_each import least_unforced, require_unforced
from dynrt.calibrate.thresholds import for_budget
from dynrt.errors import BudgetError, CalibrationError
from dynrt.ir.certificate import certify
from dynrt.ir.cost import Budget
from dynrt.ir.graph import ControlEdge
from dynrt.ir.reference import ReferenceResult, interpret
from dynrt.runtime import CallableBackend
from tests.calibrate.gated_chains import ROWS, GatedCase, gated_cases
from tests.calibrate.made import bundle_of, pixels

INF = float("inf")
BOUNDS = st.sampled_from([-INF, -1.0, 0.0, 0.5, 1.0, 2.0, INF])


def table_of(case: GatedCase, *, batch: int = 4) -> ScoreTable:
    run = CallableBackend(case.functions)
    return collect(bundle_of(case.graph), pixels(case.labels), run.call, batch=batch)


def alone(
    case: GatedCase, row: int, thresholds: dict[str, float], budget: Budget | None = None
) -> ReferenceResult:
    x = np.full((1, 1, 1, 1), row / 255, np.float32)
    return interpret(case.graph, case.functions, {"x": x}, thresholds=thresholds, budget=budget)


@given(case=gated_cases(), data=st.data())
def test_every_input_costs_what_its_own_path_costs(case: GatedCase, data: st.DataObject) -> None:
    table = table_of(case)
    assert table.costs_differ
    thresholds = {e: data.draw(BOUNDS) for e in case.graph.exits[:-1]}
    outcome = simulate(table, thresholds)
    for row in range(ROWS):
        result = alone(case, row, thresholds)
        at = case.graph.exits.index(result.exit)
        assert outcome.exit_index[row] == at
        assert outcome.macs[row] == result.macs
        assert table.predicted[row, at] == result.answer[0].argmax()
    assert table.step_macs.sum(axis=1).max() <= certify(case.graph).full_macs
    assert table.step_price.sum() >= certify(case.graph).full_macs


@given(case=gated_cases(), data=st.data())
def test_a_cap_stops_each_input_where_the_reference_does(
    case: GatedCase, data: st.DataObject
) -> None:
    table = table_of(case)
    thresholds = {e: data.draw(BOUNDS) for e in case.graph.exits[:-1]}
    cap = data.draw(st.integers(1, max(1, certify(case.graph).full_macs + 2)))
    outcome = None
    with suppress(CalibrationError):
        outcome = simulate(table, thresholds, cap)
    if outcome is None:
        with pytest.raises(CalibrationError, match="would change gates' decisions"):
            require_unforced(table, cap)
        assert cap < least_unforced(table)
        return
    stopped = 0
    for row in range(ROWS):
        result = alone(case, row, thresholds, Budget(macs=cap))
        assert outcome.exit_index[row] == case.graph.exits.index(result.exit)
        assert outcome.macs[row] == result.macs
        stopped += result.forced
    assert outcome.stopped >= stopped
    assert outcome.max_macs <= cap


@given(case=gated_cases())
def test_from_the_least_unforced_cap_on_none_is_refused(case: GatedCase) -> None:
    table = table_of(case)
    simulate(table, dict.fromkeys(case.graph.exits[:-1], 0.5), max(1, least_unforced(table)))


@given(case=gated_cases(), batch=st.integers(1, ROWS))
def test_batches_make_no_difference(case: GatedCase, batch: int) -> None:
    one, other = table_of(case, batch=batch), table_of(case, batch=ROWS)
    for name in ("scores", "predicted", "step_macs", "step_ahead", "step_price"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)


@given(case=gated_cases(), seed=st.integers(0, 99))
def test_the_search_sums_each_inputs_own_costs(case: GatedCase, seed: int) -> None:
    table, rng = table_of(case), np.random.default_rng(seed)
    gates = Gates(table)
    bounds = tuple(float(rng.choice([INF, -0.5, 0.5, 1.5])) for _ in gates.index)
    for gate in range(len(bounds)):
        for t, errors, macs in zip(*gates.cuts(bounds, gate), strict=True):
            tried = (*bounds[:gate], float(t), *bounds[gate + 1 :])
            outcome = simulate(table, dict(zip(gates.names, tried, strict=True)))
            assert macs == outcome.macs.sum()
            assert errors == ROWS - round(outcome.accuracy * ROWS)


@given(case=gated_cases())
def test_a_mean_budget_holds_with_costs_per_input(case: GatedCase) -> None:
    table = table_of(case)
    assume(table.full_macs > 1)
    found = None
    with suppress(CalibrationError):
        found = for_budget(table, 1.6 * table.full_macs)
    if found is None:
        cheapest = (table.reach_macs[:, 0] + table.head_macs[0]).sum()
        assert cheapest > int(0.8 * table.full_macs * ROWS) or len(table.exits) == 1
        return
    assert 2 * found.mean_macs <= 1.6 * table.full_macs
    assert found.mean_macs == simulate(table, found.thresholds).mean_macs


@given(case=gated_cases())
def test_a_part_of_a_table_and_a_stored_one_keep_the_costs(
    case: GatedCase, tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = table_of(case)
    path: Path = tmp_path_factory.mktemp("scores") / "scores.npz"
    table.save(path)
    stored = ScoreTable.load(path)
    assert np.array_equal(stored.step_macs, table.step_macs)
    assert np.array_equal(stored.step_ahead, table.step_ahead)
    part = stored.rows(np.array([4, 1]))
    thresholds = dict.fromkeys(case.graph.exits[:-1], 0.5)
    assert (
        simulate(part, thresholds).macs.tolist()
        == simulate(table, thresholds).macs[[4, 1]].tolist()
    )


@given(case=gated_cases())
def test_an_exit_that_some_path_passes_by_is_refused(case: GatedCase) -> None:
    first = case.graph.exits[0]
    assume(len(case.graph.exits) > 1)
    edge = ControlEdge(control="control0", target=first, action=0)
    graph = replace(case.graph, control=(*case.graph.control, edge))
    table = table_of(case)
    column = [n for n in case.graph.order if n != "x"].index("block0")
    if (table.step_macs[:, column] > 0).all():
        return  # this gate lets all six pass
    assume((table.step_macs[:, column] == 0).any() and case.graph.by_name["block0"].cost.macs > 0)  # type: ignore[union-attr]
    with pytest.raises(CalibrationError, match="not on every path"):
        table_of(replace(case, graph=graph))


@given(case=gated_cases())
def test_unknown_energies_are_refused(case: GatedCase) -> None:
    run = CallableBackend(case.functions)
    with pytest.raises(BudgetError, match="energy table"):
        collect(bundle_of(case.graph), pixels(case.labels), run.call, resource="femtojoules")


def bad_tables() -> list[tuple[str, dict[str, object]]]:
    n, steps = 3, 4
    return [
        ("step_ahead is", {"step_ahead": np.zeros((0, 0), np.int64)}),
        ("step_price is", {"step_price": np.zeros(0, np.int64)}),
        ("too small", {"step_price": np.zeros(steps, np.int64)}),
        ("too small", {"step_ahead": np.full((n, steps), -2)}),
        (
            "not the same for all",
            {"step_macs": np.array([[1, 1, 1, 1], [1, 2, 1, 1], [1, 1, 1, 1]])},
        ),
        ("costs in 'watts'", {"resource": "watts"}),
    ]


@pytest.mark.parametrize(("says", "change"), bad_tables())
def test_a_table_with_wrong_costs_is_refused(says: str, change: dict[str, object]) -> None:
    good: dict[str, object] = {
        "exits": ("a", "b"),
        "kinds": ("hinge", "always"),
        "scores": np.zeros((3, 2)),
        "predicted": np.zeros((3, 2), np.int64),
        "labels": np.zeros(3, np.int64),
        "step_macs": np.ones((3, 4), np.int64),
        "step_exit": np.array([-1, 0, -1, 1]),
        "step_ahead": np.full((3, 4), -1),
        "step_price": np.full(4, 2),
    }
    assert ScoreTable(**good).costs_differ  # type: ignore[arg-type]
    with pytest.raises(CalibrationError, match=says):
        ScoreTable(**good | change)  # type: ignore[arg-type]
