"""The runtime against the reference interpreter, and the promises of hard budgets."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle import compare, hard_budget

#: A few hundred here; the large counts are ``python -m tests.soak``.
SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=300, deadline=None)
@given(SEEDS)
def test_runtime_is_the_reference_on_random_graphs(seed: int) -> None:
    assert compare(seed) == []


def test_a_forced_decision_is_not_remembered_by_its_outcome() -> None:
    # two samples with one highest score, and another order below it
    assert compare(31_220) == []


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_budgets_hold_and_affordable_is_answered(seed: int) -> None:
    cases, found = hard_budget(seed)
    assert cases
    assert found == []
