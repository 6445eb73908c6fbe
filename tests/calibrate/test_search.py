from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dynrt.calibrate.scores import ScoreTable
from dynrt.calibrate.search import (
    Gates,
    Point,
    Value,
    at_most_errors,
    at_most_macs,
    frontier,
    search,
)
from dynrt.calibrate.simulate import simulate
from tests.calibrate.made import plausible_table, random_table

INF = float("inf")


def worth(point: Point, value: Value) -> tuple[int, int]:
    first, second = value(np.array([point.errors]), np.array([point.macs]))
    return int(first[0]), int(second[0])


def exhaustive(table: ScoreTable, value: Value) -> tuple[int, int]:
    """The best of every combination of thresholds that makes a difference."""
    gates = Gates(table)
    cuts = [[INF, *np.unique(s).tolist()] for s in gates.scores]
    return min(worth(gates.point(bounds), value) for bounds in itertools.product(*cuts))


def same(value: Value) -> Callable[[int], Value]:
    return lambda _: value


@st.composite
def small_tables(draw: st.DrawFn) -> ScoreTable:
    exits = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 8 if exits == 4 else 12))
    return random_table(rng, n=n, exits=exits, ties=draw(st.booleans()))


@given(table=small_tables(), share=st.floats(0, 1))
def test_the_search_is_never_better_than_exhaustive_and_its_sums_are_true(
    table: ScoreTable, share: float
) -> None:
    n = len(table)
    for value in (at_most_errors(int(share * n)), at_most_macs(int(share * n * table.full_macs))):
        gates, found = search(table, value, same(value))
        assert worth(found, value) >= exhaustive(table, value)
        outcome = simulate(table, dict(zip(gates.names, found.bounds, strict=True)))
        assert found.macs == outcome.macs.sum()
        assert found.errors == n - round(outcome.accuracy * n)


def test_the_search_finds_the_best_of_all_on_small_tables() -> None:
    # 3,000 of 3,000 such cases, seed 11, were solved exactly; these are a part of them.
    rng = np.random.default_rng(11)
    for i in range(30):
        exits = int(rng.integers(2, 5))
        table = random_table(rng, n=int(rng.integers(2, 10)), exits=exits, ties=i % 3 == 0)
        n = len(table)
        errors = int(rng.integers(0, n + 1))
        macs = int(rng.integers(n * table.full_macs // 3, n * table.full_macs + 10))
        for value in (at_most_errors(errors), at_most_macs(macs)):
            _, found = search(table, value, same(value))
            best, got = exhaustive(table, value), worth(found, value)
            assert got == best


@given(table=small_tables(), seed=st.integers(0, 99))
def test_every_cut_of_a_gate_comes_to_what_it_says(table: ScoreTable, seed: int) -> None:
    gates = Gates(table)
    rng = np.random.default_rng(seed)
    bounds = tuple(float(rng.choice([INF, 0.0, 0.3, 0.5, 0.8])) for _ in gates.index)
    for gate in range(len(bounds)):
        thresholds, errors, macs = gates.cuts(bounds, gate)
        assert (np.diff(thresholds) < 0).all()
        for t, e, m in zip(thresholds.tolist(), errors.tolist(), macs.tolist(), strict=True):
            point = gates.point((*bounds[:gate], t, *bounds[gate + 1 :]))
            assert (point.errors, point.macs) == (e, m)


def test_thresholds_stand_halfway_between_scores() -> None:
    table = random_table(np.random.default_rng(0), n=3, exits=2)
    column = np.array([[0.9, np.nan], [0.5, np.nan], [0.5, np.nan]])
    gates = Gates(
        ScoreTable(
            **{f: getattr(table, f) for f in table.__dataclass_fields__} | {"scores": column}
        )
    )
    assert gates.cuts((INF,), 0)[0].tolist() == [INF, 0.7, -INF]


def test_neighbouring_floats_are_told_apart() -> None:
    table = random_table(np.random.default_rng(0), n=2, exits=2)
    high = 0.5
    low = float(np.nextafter(high, 0))
    column = np.array([[high, np.nan], [low, np.nan]])
    gates = Gates(
        ScoreTable(
            **{f: getattr(table, f) for f in table.__dataclass_fields__} | {"scores": column}
        )
    )
    thresholds = gates.cuts((INF,), 0)[0]
    assert low < thresholds[1] <= high


def test_a_large_table_is_explored_on_a_part_and_finished_on_all() -> None:
    table = plausible_table(20_000, exits=4)
    limit = int(np.count_nonzero(~table.correct[:, -1])) + 100
    _, found = search(
        table, at_most_errors(limit), lambda part: at_most_errors(limit * part // len(table))
    )
    assert found.errors <= limit
    never = Gates(table).point((INF,) * 3)
    assert found.macs < 0.75 * never.macs
    # No single cut could be moved to make it better.
    gates = Gates(table)
    for gate in range(3):
        assert gates.best_cut(found, gate, at_most_errors(limit)) == found


def test_the_frontier_rises_in_errors_and_falls_in_macs() -> None:
    points = frontier(plausible_table(2_000), [50, 80, 120])
    assert len(points) > 5
    errors, macs = [p.errors for p in points], [p.macs for p in points]
    assert errors == sorted(set(errors))
    assert macs == sorted(set(macs), reverse=True)
    assert frontier(plausible_table(50, exits=1), [3])[0].bounds == ()


def test_tables_without_gates_are_solved_too() -> None:
    table = random_table(np.random.default_rng(2), n=4, exits=1)
    gates, found = search(table, at_most_errors(0), lambda _: at_most_errors(0))
    assert gates.names == ()
    assert found.macs == 4 * table.full_macs
