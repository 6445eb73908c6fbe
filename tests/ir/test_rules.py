"""Rules against hand-derived cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.errors import BackendError
from dynrt.ir.graph import Accept, Argmax, ControlNode, ScoreKind, Threshold
from dynrt.ir.rules import (
    MAX_SUBSET_ACTIONS,
    accept_score,
    argmax,
    can_accept,
    candidates,
    decisions,
    softmax,
    threshold_actions,
)

LOGITS = np.log(np.array([0.5, 0.3, 0.2]))  # softmax gives these probabilities back


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("hinge", math.log(0.5)),  # Shafiee et al. algorithm 1: max of the distances
        ("max_softmax", 0.5),
        ("margin", 0.5 - 0.3),
        # 1 - H / ln 3 with H = -(0.5 ln 0.5 + 0.3 ln 0.3 + 0.2 ln 0.2) = 1.02965
        ("entropy", 1 - 1.0296530140645737 / math.log(3)),
    ],
)
def test_accept_scores(kind: ScoreKind, expected: float) -> None:
    assert accept_score(kind, LOGITS) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["max_softmax", "margin", "entropy"])
def test_scores_of_certainty_and_of_nothing_known(kind: ScoreKind) -> None:
    sure = accept_score(kind, np.array([1000.0, 0.0, 0.0]))
    unsure = accept_score(kind, np.zeros(4))
    assert sure == pytest.approx(1.0)
    assert unsure == pytest.approx(0.25 if kind == "max_softmax" else 0.0, abs=1e-12)
    assert accept_score(kind, np.array([3.0])) == 1.0


@pytest.mark.parametrize("kind", ["hinge", "max_softmax", "margin", "entropy"])
@pytest.mark.parametrize("values", [[], [1.0, math.nan]])
def test_no_score_of_nan_or_nothing(kind: ScoreKind, values: list[float]) -> None:
    with pytest.raises(BackendError, match=kind):
        accept_score(kind, np.array(values))


def test_no_score_of_infinite_logits_or_of_rules_without_one() -> None:
    with pytest.raises(BackendError, match="infinite"):
        accept_score("margin", np.array([1.0, math.inf]))
    with pytest.raises(BackendError, match="'always'"):
        accept_score("always", np.array([1.0]))


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6))
def test_softmax_sums_to_one_and_keeps_the_order(values: list[float]) -> None:
    p = softmax(np.array(values))
    assert p.sum() == pytest.approx(1.0)
    assert p[int(np.argmax(values))] == p.max()


@pytest.mark.parametrize(
    ("kind", "threshold", "possible"),
    [
        ("never", -math.inf, False),
        ("always", math.inf, True),
        ("hinge", 100.0, True),
        ("hinge", math.inf, False),
        ("max_softmax", 1.0, True),
        ("max_softmax", 1.01, False),
        ("entropy", -1.0, True),
    ],
)
def test_can_accept(kind: ScoreKind, threshold: float, possible: bool) -> None:
    assert can_accept(Accept(kind=kind, port="y"), threshold) is possible


def test_argmax_tie_goes_to_the_lowest() -> None:
    assert argmax([1.0, 3.0, 3.0]) == 1
    with pytest.raises(BackendError, match="NaN"):
        argmax([1.0, math.nan])


def test_threshold_takes_what_is_at_least_it() -> None:
    assert threshold_actions([0.5, 0.4, 0.5], (0.5, 0.5, 0.4)) == (0, 2)
    assert threshold_actions([0.0], (0.1,)) == ()
    with pytest.raises(BackendError, match="NaN"):
        threshold_actions([math.nan], (0.1,))


def test_candidates_go_down_the_scores() -> None:
    choose = ControlNode(name="q", actions=3, rule=Argmax())
    assert candidates(choose, (1.0, 2.0, 2.0), ()) == ((1,), (2,), (0,))
    keep = ControlNode(name="q", actions=3, rule=Threshold(thresholds=(0.0, 0.0, 0.0)))
    # the lowest scores are dropped first
    assert candidates(keep, (5.0, -1.0, 3.0), (0.0, 0.0, 0.0)) == ((0, 2), (0,), ())


def test_all_decisions_of_a_node() -> None:
    choose = ControlNode(name="q", actions=3, rule=Argmax())
    assert decisions(choose) == ((0,), (1,), (2,))
    keep = ControlNode(name="q", actions=2, rule=Threshold(thresholds=(0.0, 0.0)))
    assert decisions(keep) == ((), (0,), (1,), (0, 1))
    many = MAX_SUBSET_ACTIONS + 1
    wide = ControlNode(name="q", actions=many, rule=Threshold(thresholds=(0.0,) * many))
    assert len(decisions(wide)) == many + 2
