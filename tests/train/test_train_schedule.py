"""The learning rate as a function of the step, against torch's own schedulers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from dynrt.train.recipe import Descent, Rate
from dynrt.train.schedule import pace_at


def _descent(rate: Rate, *, high: float = 0.95, low: float = 0.85) -> Descent:
    return Descent(
        epochs=1, batch=1, rate=rate, momentum=high, momentum_at_peak=low, weight_decay=0.0
    )


@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
@given(
    steps=st.integers(4, 80),
    warmup=st.floats(0.001, 0.9),
    peak=st.floats(1e-4, 10),
    start=st.floats(1, 100),
    end=st.floats(1, 1e4),
)
def test_one_cycle_is_that_of_torch(
    steps: int, warmup: float, peak: float, start: float, end: float
) -> None:
    assume(warmup * steps != 1)  # theirs divides by zero
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        peak,
        total_steps=steps,
        pct_start=warmup,
        div_factor=start,
        final_div_factor=end / start,
    )
    rate = Rate(kind="one-cycle", peak=peak, warmup=warmup, start_divisor=start, end_divisor=end)
    for step in range(steps):
        ours = pace_at(_descent(rate), step, steps)
        group = optimiser.param_groups[0]
        assert ours.rate == pytest.approx(group["lr"], rel=1e-9, abs=1e-15)
        assert ours.momentum == pytest.approx(group["momentum"], rel=1e-9)
        theirs.step()
        if step == steps - 1:
            break


def test_one_cycle_ends_where_it_says() -> None:
    rate = Rate(kind="one-cycle", peak=0.1, warmup=0.2, start_divisor=10, end_divisor=1e4)
    first, last = pace_at(_descent(rate), 0, 100), pace_at(_descent(rate), 99, 100)
    assert (first.rate, first.momentum) == pytest.approx((0.01, 0.95))
    assert (last.rate, last.momentum) == pytest.approx((1e-5, 0.95))
    top = max(pace_at(_descent(rate), s, 100).rate for s in range(100))
    assert top == pytest.approx(0.1)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 0.9])
def test_one_cycle_of_very_few_steps_stays_between_its_ends(steps: int, warmup: float) -> None:
    rate = Rate(kind="one-cycle", peak=1.0, warmup=warmup, start_divisor=10, end_divisor=100)
    for step in range(steps):
        assert 0.01 <= pace_at(_descent(rate), step, steps).rate <= 1.0


def test_drops_divide_at_their_shares() -> None:
    # He et al.: 64,000 steps, a tenth at 32,000 and 48,000
    rate = Rate(kind="drops", peak=0.1, at=(0.5, 0.75), divisor=10)
    descent = _descent(rate, low=0.5)
    paces = {s: pace_at(descent, s, 64_000) for s in (0, 31_999, 32_000, 47_999, 48_000, 63_999)}
    assert [round(p.rate, 6) for p in paces.values()] == [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    assert {p.momentum for p in paces.values()} == {0.95}
