from __future__ import annotations

import math
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.calibrate.simulate import simulate
from dynrt.calibrate.thresholds import (
    Calibration,
    exactly,
    for_accuracy,
    for_budget,
    for_loss,
    for_quantiles,
    quantiles_for_budget,
)
from dynrt.errors import CalibrationError
from tests.calibrate.made import plausible_table, random_table
from tests.calibrate.test_search import small_tables

TABLE = plausible_table(1_500, exits=4)


def check_figures(found: Calibration) -> None:
    outcome = simulate(TABLE, found.thresholds)
    assert found.accuracy == outcome.accuracy
    assert found.mean_macs == outcome.mean_macs
    assert found.max_macs == outcome.max_macs
    assert found.exits == outcome.exits
    assert found.n == len(TABLE)
    assert found.full_accuracy == TABLE.correct[:, -1].mean()
    assert found.full_macs == TABLE.full_macs
    assert found.saving == pytest.approx(1 - outcome.mean_macs / TABLE.full_macs)


@pytest.mark.parametrize("target", [0.7, 0.92, 0.96])
def test_a_target_accuracy_holds_exactly_and_less_costs_less(target: float) -> None:
    found = for_accuracy(TABLE, target)
    check_figures(found)
    assert found.accuracy >= target
    assert (found.goal, found.target, found.confidence) == ("accuracy", target, None)
    assert found.mean_macs < for_accuracy(TABLE, target + 0.015).mean_macs


@pytest.mark.parametrize("loss", [0.0, 0.005, 0.02, -0.001])
def test_a_loss_is_counted_from_the_full_network(loss: float) -> None:
    found = for_loss(TABLE, loss)
    check_figures(found)
    assert found.full_accuracy - found.accuracy <= loss + 1e-12
    assert found.saving > 0.2


@pytest.mark.parametrize("share", [0.35, 0.5, 0.8])
def test_a_mean_cost_holds_exactly_and_more_is_more_accurate(share: float) -> None:
    mean_flops = 2 * TABLE.full_macs * share
    found = for_budget(TABLE, mean_flops)
    check_figures(found)
    assert 2 * found.mean_macs <= mean_flops
    assert found.accuracy >= for_budget(TABLE, mean_flops * 0.9).accuracy
    # MSDNet's quantiles look at neither answers nor costs, so they cannot be better.
    compared = quantiles_for_budget(TABLE, mean_flops)
    check_figures(compared)
    assert 2 * compared.mean_macs <= mean_flops
    assert compared.accuracy <= found.accuracy


@given(table=small_tables(), errors=st.integers(0, 12))
def test_a_target_that_is_a_whole_number_of_inputs_is_met_to_the_input(
    table: object, errors: int
) -> None:
    n = len(table)  # type: ignore[arg-type]
    target = float(Fraction(max(1, n - errors), n))
    try:
        found = for_accuracy(table, target)  # type: ignore[arg-type]
    except CalibrationError:
        return
    assert round(found.accuracy * n) >= math.ceil(Fraction(repr(target)) * n)


def test_held_out_inputs_correct_for_luck() -> None:
    population = plausible_table(30_000, exits=4, seed=5)
    plain: list[float] = []
    corrected: list[float] = []
    for seed in range(3):
        rows = np.random.default_rng(seed).choice(len(population), 500, replace=False)
        table = population.rows(rows)
        for folds, losses in ((0, plain), (2, corrected)):
            found = for_loss(table, 0.02, folds=folds)
            assert found.full_accuracy - found.accuracy <= 0.02 + 1e-12
            elsewhere = simulate(population, found.thresholds).accuracy
            losses.append(population.full_accuracy - elsewhere)
            assert ("2 folds" in found.method) == (folds == 2)
    # The luckiest of all thresholds on 500 inputs lose more on others than was allowed.
    assert np.mean(plain) > 0.024
    assert np.mean(corrected) < np.mean(plain) - 0.002
    assert np.mean(corrected) < 0.024


def test_folds_that_cannot_be_made_are_refused() -> None:
    for folds in (1, 1_501, -1):
        with pytest.raises(CalibrationError, match=f"{folds} folds of 1500"):
            for_loss(TABLE, 0.01, folds=folds)
    with pytest.raises(CalibrationError, match=r"cannot be reached: .* is needed there for it"):
        for_accuracy(TABLE, 0.999, folds=2)


def test_what_was_written_is_what_is_meant() -> None:
    # 0.92 as a float lies above 23/25, which would ask for 4,601 of 5,000.
    assert math.ceil(Fraction(0.92) * 5000) == 4601
    assert math.ceil(exactly(0.92, "target") * 5000) == 4600


def test_the_more_inputs_the_longer_but_seconds_only() -> None:
    table = plausible_table(50_000, exits=4)
    began = time.perf_counter()
    found = for_loss(table, 0.01)
    assert time.perf_counter() - began < 60
    assert found.full_accuracy - found.accuracy <= 0.01 + 1e-12


def test_quantiles_answer_the_shares_that_q_says() -> None:
    found = for_quantiles(TABLE, 0.5)
    shares = np.array([0.5**k for k in range(1, 5)])
    wanted = shares / shares.sum() * len(TABLE)
    assert np.abs(np.array(list(found.exits.values())) - wanted).max() <= 5
    assert for_quantiles(TABLE, 1e-9).exits["exit1"] >= len(TABLE) - 1
    late = for_quantiles(TABLE, 1e9)
    assert late.exits["exit4"] >= len(TABLE) - 5
    assert late.thresholds["exit1"] == math.inf
    assert late.mean_macs > for_quantiles(TABLE, 1.0).mean_macs


def test_targets_out_of_reach_say_what_is_within() -> None:
    with pytest.raises(
        CalibrationError, match=r"accuracy 1 cannot be reached: the best found on 1500"
    ):
        for_accuracy(TABLE, 1.0)
    with pytest.raises(CalibrationError, match=r"cannot be kept: the cheapest is 2\.1e\+07 FLOPs"):
        for_budget(TABLE, 2e7)
    with pytest.raises(CalibrationError, match="no q is as cheap"):
        quantiles_for_budget(TABLE, 2e7)


@pytest.mark.parametrize("target", [0.0, -0.5, 1.5, math.nan, math.inf])
def test_targets_that_are_no_fraction(target: float) -> None:
    with pytest.raises(CalibrationError, match="target accuracy"):
        for_accuracy(TABLE, target)


@pytest.mark.parametrize("loss", [1.0, -1.0, math.nan])
def test_losses_that_are_no_fraction(loss: float) -> None:
    with pytest.raises(CalibrationError, match="loss"):
        for_loss(TABLE, loss)


@pytest.mark.parametrize("q", [0.0, -1.0, math.nan, math.inf])
def test_shares_that_are_none(q: float) -> None:
    with pytest.raises(CalibrationError, match="q "):
        for_quantiles(TABLE, q)
    with pytest.raises(CalibrationError, match="mean cost"):
        for_budget(TABLE, math.nan)


def test_a_network_with_one_exit_has_nothing_to_calibrate() -> None:
    table = random_table(np.random.default_rng(0), n=10, exits=1)
    found = for_budget(table, 1e9)
    assert found.thresholds == {}
    assert found.saving == 0
    assert for_quantiles(table, 1.0).thresholds == {}
