from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.calibrate.risk import Loss, betting_p, binomial_p, differences, for_risk
from dynrt.calibrate.simulate import simulate
from dynrt.errors import CalibrationError
from tests.calibrate.made import plausible_table, random_table

POPULATION = plausible_table(60_000, seed=1)


@pytest.mark.parametrize("loss", ["net", "added"])
def test_the_risk_is_kept_on_data_that_calibration_never_saw(loss: Loss) -> None:
    risk, broken, savings = 0.02, 0, []
    for seed in range(12):
        rows = np.random.default_rng(seed).choice(len(POPULATION), 1_500, replace=False)
        found = for_risk(POPULATION.rows(rows), risk, 0.9, loss=loss, seed=seed)
        true = differences(POPULATION, dict(found.thresholds))
        broken += (np.maximum(true, 0) if loss == "added" else true).mean() >= risk
        savings.append(found.saving)
        assert (found.goal, found.target, found.confidence) == ("risk", risk, 0.9)
        assert loss in found.method
    # At most one in ten by the guarantee; five of twelve would come of it once in 200 times.
    assert broken <= 4
    assert min(savings) > 0.1


def test_counting_only_what_turned_wrong_is_the_more_careful() -> None:
    table = POPULATION.rows(np.arange(3_000))
    assert for_risk(table, 0.02, loss="added").mean_macs >= for_risk(table, 0.02).mean_macs


def test_differences_are_against_the_last_exit() -> None:
    table = random_table(np.random.default_rng(0), n=50, exits=3)
    thresholds = {"exit1": 0.8, "exit2": 0.5}
    found = differences(table, thresholds)
    assert set(found.tolist()) == {-1, 0, 1}
    loss = table.full_accuracy - simulate(table, thresholds).accuracy
    assert found.mean() == pytest.approx(loss)


def test_the_binomial_p_value_is_the_sum_of_its_terms() -> None:
    for n, k, risk in ((10, 0, 0.3), (20, 3, 0.2), (50, 50, 0.5)):
        found = np.array([1] * k + [0] * (n - k - min(2, n - k)) + [-1] * min(2, n - k))
        exact = sum(math.comb(n, i) * risk**i * (1 - risk) ** (n - i) for i in range(k + 1))
        assert binomial_p(found, risk) == pytest.approx(exact)


@given(
    stake=st.floats(0.01, 0.99),
    risk=st.floats(0.001, 0.5),
    turned_wrong=st.floats(0, 1),
    level=st.floats(0.01, 0.5),
    n=st.integers(1, 8),
)
def test_a_bet_against_a_true_hypothesis_seldom_wins(
    stake: float, risk: float, turned_wrong: float, level: float, n: int
) -> None:
    """The exact probability of a wrong rejection, summed over every outcome of n inputs."""
    worst = (1 + risk) / 2  # of three values with a mean of just ``risk``
    up = risk + turned_wrong * (worst - risk)
    chances = {1: up, -1: up - risk, 0: 1 - 2 * up + risk}
    assert min(chances.values()) >= -1e-12
    wrong = 0.0
    for ups in range(n + 1):
        for downs in range(n + 1 - ups):
            flat = n - ups - downs
            found = np.array([1] * ups + [-1] * downs + [0] * flat)
            ways = math.comb(n, ups) * math.comb(n - ups, downs)
            chance = ways * chances[1] ** ups * chances[-1] ** downs * max(0.0, chances[0]) ** flat
            if betting_p(found, risk, stake) <= level:
                wrong += chance
    assert wrong <= level + 1e-9


@pytest.mark.parametrize(
    ("risk", "confidence", "says"),
    [
        (0.0, 0.9, "risk 0.0"),
        (1.0, 0.9, "risk 1.0"),
        (math.nan, 0.9, "risk nan"),
        (0.1, 0.0, "confidence 0.0"),
        (0.1, 1.0, "confidence 1.0"),
        (0.0001, 0.95, r"needs at least \d+ inputs"),
    ],
)
def test_what_cannot_be_guaranteed_is_refused(risk: float, confidence: float, says: str) -> None:
    with pytest.raises(CalibrationError, match=says):
        for_risk(plausible_table(200), risk, confidence)


def test_without_a_safe_early_exit_it_says_so() -> None:
    rng = np.random.default_rng(0)
    table = random_table(rng, n=300, exits=2)  # scores that mean nothing
    with pytest.raises(
        CalibrationError, match=r"no early exit could be shown to keep a risk below 0\.02"
    ):
        for_risk(table, 0.02)
