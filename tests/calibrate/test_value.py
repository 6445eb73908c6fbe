from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.calibrate.isotonic import bin_of, edges_of, isotonic
from dynrt.calibrate.scores import ScoreTable
from dynrt.calibrate.simulate import simulate
from dynrt.calibrate.value import ValueFunction, ValueModel
from dynrt.errors import CalibrationError
from tests.calibrate.gated_chains import GatedCase, gated_cases
from tests.calibrate.made import plausible_table, random_table
from tests.calibrate.test_paths import table_of

INF = float("inf")
ROUNDING = 1e-9


@st.composite
def tables(draw: st.DrawFn) -> ScoreTable:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, exits = draw(st.integers(1, 400)), draw(st.integers(2, 5))
    return random_table(rng, n=n, exits=exits, ties=draw(st.booleans()))


# --- monotone regression


def nearest_rising(values: list[float], weights: list[float]) -> list[float]:
    """By the min-max formula of Barlow et al.: slow, and nothing like pooling."""

    def mean(i: int, j: int) -> float:
        return float(np.average(values[i : j + 1], weights=weights[i : j + 1]))

    n = len(values)
    return [min(max(mean(i, j) for i in range(k + 1)) for j in range(k, n)) for k in range(n)]


@given(data=st.data(), n=st.integers(1, 7))
def test_pooling_gives_the_nearest_rising_sequence_and_preserves_order(
    data: st.DataObject, n: int
) -> None:
    numbers = st.lists(st.integers(-5, 5).map(float), min_size=n, max_size=n)
    values, more = data.draw(numbers), data.draw(numbers)
    weights = data.draw(st.lists(st.integers(1, 4).map(float), min_size=n, max_size=n))
    got = isotonic(np.array(values), np.array(weights))
    assert got == pytest.approx(nearest_rising(values, weights))
    higher = np.array(values) + np.abs(more)
    assert (isotonic(higher, np.array(weights)) >= got - ROUNDING).all()


@given(data=st.data(), bins=st.integers(1, 9))
def test_bins_divide_no_equal_scores_and_leave_none_empty(data: st.DataObject, bins: int) -> None:
    scores = np.array(data.draw(st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=40)))
    edges = edges_of(scores, bins)
    assert edges.size < bins
    assert (np.diff(edges) > 0).all()
    where = bin_of(scores, edges)
    assert np.bincount(where, minlength=edges.size + 1).min() > 0
    for k, edge in enumerate(edges.tolist()):
        assert ((scores >= edge) == (where > k)).all()


# --- values


@given(table=tables(), prices=st.tuples(st.floats(0, 0.1), st.floats(0, 0.1)))
def test_values_rise_with_score_and_budget_and_fall_with_the_price(
    table: ScoreTable, prices: tuple[float, float]
) -> None:
    model = ValueModel(table, bins=12)
    cheap, dear = (model.function(p) for p in sorted(prices))
    grid = np.linspace(-0.1, 1.1, 15).tolist()
    budgets = [0.0, 5.0, 20.0, 60.0, INF]
    for name in model.names:
        for function in (cheap, dear):
            for rising in (
                [function.stop(name, s) for s in grid],
                [function.go(name, s) for s in grid],
                [function.value(name, s, 20.0) for s in grid],
                [function.value(name, 0.5, left) for left in budgets],
            ):
                assert all(b >= a - ROUNDING for a, b in itertools.pairwise(rising))
        for s in grid:
            for left in budgets:
                assert cheap.value(name, s, left) >= dear.value(name, s, left) - ROUNDING
                assert cheap.value(name, s, left) >= cheap.stop(name, s)


@given(case=gated_cases())
def test_values_take_costs_per_input(case: GatedCase) -> None:
    table = table_of(case)
    model = ValueModel(table)
    at = model.function(0.01)
    for k, name in enumerate(model.names):
        steps = table.macs[:, k + 1] - table.macs[:, k]  # every exit here is scored
        assert at.go(name, 0.0, float(steps.max() - 1)) == -INF
        assert at.go(name, 0.0, float(steps.max())) > -INF
        free = model.function(0.0)
        assert at.go(name, 0.0) <= free.go(name, 0.0) - 0.01 * steps.min() + ROUNDING


def test_the_probability_to_be_right_is_that_of_the_scores_around() -> None:
    table = plausible_table(20_000, exits=3, seed=3)
    at = ValueModel(table).function(0.0)
    for score in (0.2, 0.5, 0.9):
        near = np.abs(table.scores[:, 0] - score) < 0.03
        assert at.stop("exit1", score) == pytest.approx(table.correct[near, 0].mean(), abs=0.05)


def test_without_a_price_one_stops_only_where_later_exits_are_no_righter() -> None:
    table = plausible_table(5_000, exits=4)
    model = ValueModel(table)
    free = simulate(table, model.thresholds(0.0))
    assert free.accuracy >= table.full_accuracy - 0.002
    dear = simulate(table, model.thresholds(1.0))
    assert dear.exits["exit1"] == len(table)  # nothing is worth that


def test_thresholds_by_value_come_near_the_best_of_a_fine_grid() -> None:
    table = plausible_table(4_000, exits=3, seed=8)
    price = 0.3 / table.full_macs
    grid = [*np.linspace(0.02, 0.98, 25).tolist(), -INF, INF]

    def worth(bounds: dict[str, float]) -> float:
        outcome = simulate(table, bounds)
        return outcome.accuracy - price * outcome.mean_macs

    best = max(worth({"exit1": a, "exit2": b}) for a in grid for b in grid)
    assert worth(ValueModel(table).thresholds(price)) > best - 0.003


def test_without_gates_there_is_nothing_to_decide() -> None:
    model = ValueModel(random_table(np.random.default_rng(0), n=5, exits=1))
    assert model.thresholds(0.1) == {}
    assert model.function(0.1).exits == {}


def some_function() -> ValueFunction:
    return ValueModel(plausible_table(100, exits=3)).function(0.0)


def test_what_has_no_value_is_refused() -> None:
    model = ValueModel(plausible_table(100, exits=3))
    for price in (-1.0, INF, float("nan")):
        with pytest.raises(CalibrationError, match="price"):
            model.function(price)
    with pytest.raises(CalibrationError, match=r"no values at 'exit3'; .* exit1, exit2"):
        some_function().value("exit3", 0.5)
    with pytest.raises(CalibrationError, match="NaN"):
        some_function().stop("exit1", float("nan"))
