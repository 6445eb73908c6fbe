"""A stream whose price follows a token bucket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dynrt.errors import BudgetError
from dynrt.ir.cost import Budget
from dynrt.ir.graph import Accept
from dynrt.runtime import CallableBackend, Network
from dynrt.runtime.priced import PriceControl, PricedBudget, PriceLevel
from tests.ir.test_reference import ALWAYS, exits_chain

X = np.array([1.0, 2.0, 3.0, 4.0], np.float32)


def level(mean_cost: float, threshold: float) -> PriceLevel:
    return PriceLevel(thresholds={"e0": threshold}, accuracy=0.5, mean_cost=mean_cost, price=0.0)


LEVELS = (level(11, -99.0), level(20, 99.0))


def chain() -> Network:
    # e0 ends at 11 MACs, e1 at 22 with e0's head
    graph, functions = exits_chain(Accept(kind="hinge", port="y", threshold=0.0), ALWAYS)
    return Network(graph, CallableBackend(functions))


def test_a_stream_moves_between_its_levels_and_never_exceeds_the_average() -> None:
    network, told = chain(), list[Mapping[str, float]]()

    def apply(thresholds: Mapping[str, float]) -> None:
        told.append(thresholds)
        network.set(thresholds=thresholds)

    source = PricedBudget(LEVELS, apply, average=16, capacity=160, dearest=22)
    spent = 0
    ends: list[str] = []
    for n, result in enumerate(network.stream([X] * 400, budget=source), 1):
        spent += result.macs
        ends.append(result.exit)
        assert spent + source.tokens <= 16 * n
        assert spent <= 16 * n
    assert spent > 0.9 * 16 * 400
    assert 0.3 < ends.count("e1") / 400 < 0.6  # 11 (1 - p) + 22 p = 16
    assert 2 < len(told) < 400  # set when the level changes, not for every input
    assert source.level in LEVELS


def test_a_cap_holds_beside_the_average_and_a_full_bucket_lifts_the_limit() -> None:
    def applied(_: object) -> None: ...

    source = PricedBudget(LEVELS, applied, average=16, capacity=160, dearest=22, start=160)
    assert source.next() == Budget()
    capped = PricedBudget(LEVELS, applied, average=16, capacity=160, dearest=22, start=160, cap=20)
    assert capped.next() == Budget(macs=20)
    poor = PricedBudget(LEVELS, applied, average=16, capacity=160, dearest=22, cap=20)
    assert poor.next() == Budget(macs=16)
    energy = PricedBudget(
        LEVELS, applied, average=16, capacity=160, dearest=22, resource="femtojoules"
    )
    assert energy.next() == Budget(joules=16e-15)
    with pytest.raises(BudgetError, match="modelled energy"):
        energy.spent(chain().run(X))
    energy.spent(replace(chain().run(X), femtojoules=10))
    assert energy.tokens == 6
    relative = PricedBudget(
        LEVELS, applied, average=16, capacity=160, dearest=22, resource="milli_mac_equivalents"
    )
    assert relative.next() == Budget(mac_equivalents=0.016)


def test_units_may_flow_in_with_time() -> None:
    now = [5.0]
    source = PricedBudget(
        LEVELS,
        lambda _: None,
        average=16,
        capacity=160,
        dearest=22,
        rate_per_s=10.0,
        clock=lambda: now[0],
    )
    with pytest.raises(BudgetError, match="empty"):
        source.next()
    for _ in range(10):  # a tenth of a second is one unit, a part of it waits
        now[0] += 0.15
        source._control.fill(source._inflow())
    assert source.tokens == 15
    now[0] += 100
    assert source.next() == Budget()
    assert source.tokens == 160


@given(
    means=st.lists(st.integers(1, 100), min_size=1, max_size=6, unique=True).map(sorted),
    average=st.integers(1, 120),
    burst=st.integers(1, 30),
    cap=st.none() | st.integers(1, 120),
    start=st.floats(0, 1),
    wishes=st.lists(st.integers(0, 150), max_size=60),
)
def test_whoever_keeps_to_the_limits_keeps_the_average(
    means: list[int],
    average: int,
    burst: int,
    cap: int | None,
    start: float,
    wishes: list[int],
) -> None:
    capacity = burst * average
    held = int(start * capacity)
    control = PriceControl(
        means, average=average, capacity=capacity, cap=cap, dearest=150, start=held
    )
    spent = 0
    for n, wish in enumerate(wishes, 1):
        control.fill(average)
        limit = control.limit
        most = min(150 if cap is None else cap, control.tokens)
        assert limit is None or 0 < limit <= control.tokens
        assert limit is not None or control.tokens >= min(150, cap or 150)
        assert limit is None or limit >= min(average, most)  # never short of an average's worth
        cost = min(wish, most if limit is None else limit)
        control.take(cost)
        spent += cost
        assert 0 <= control.tokens <= capacity
        assert spent <= held + n * average


@given(
    means=st.lists(st.integers(1, 100), min_size=2, max_size=6, unique=True).map(sorted),
    average=st.integers(1, 120),
)
@example(means=[1, 94], average=1)  # 93 * 0.1 / 0.1 is not quite 93
def test_the_fuller_the_bucket_the_dearer_the_level(means: list[int], average: int) -> None:
    control = PriceControl(means, average=average, capacity=100 * average, cap=None, dearest=150)
    levels: list[int] = []
    for _ in range(101):
        levels.append(control.level)
        control.fill(average)
    assert levels == sorted(levels)
    assert levels[0] == max([i for i, m in enumerate(means) if m <= min(means[0], average)] or [0])
    assert means[levels[50]] <= max(average, means[0])
    assert levels[-1] == (len(means) - 1 if means[-1] > average else levels[50])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"levels": ()}, "must be there and rise"),
        ({"levels": (LEVELS[1], LEVELS[0])}, "must be there and rise"),
        ({"average": 0}, "average of 0"),
        ({"capacity": 15}, "within 15"),
        ({"start": 161}, "cannot start with 161"),
        ({"start": -1}, "cannot start with -1"),
        ({"cap": 0}, "cap of 0"),
        ({"dearest": 0}, "dearest path of 0"),
        ({"rate_per_s": 1.0}, "go together"),
        ({"clock": lambda: 0.0}, "go together"),
        ({"rate_per_s": 0.0, "clock": lambda: 0.0}, "above zero"),
        ({"rate_per_s": float("inf"), "clock": lambda: 0.0}, "above zero"),
    ],
)
def test_sources_that_cannot_be(change: dict[str, Any], says: str) -> None:
    good: dict[str, Any] = {"levels": LEVELS, "average": 16, "capacity": 160, "dearest": 22}
    with pytest.raises(BudgetError, match=says):
        PricedBudget(apply=lambda _: None, **good | change)
