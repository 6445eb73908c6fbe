"""Learning rate and momentum as pure functions of the step, so that resuming needs no state."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import cos, pi

from dynrt.train.recipe import Descent


@dataclass(frozen=True, slots=True)
class Pace:
    """What one step uses."""

    rate: float
    momentum: float


def _half_cosine(start: float, end: float, share: float) -> float:
    """From ``start`` at share 0 to ``end`` at share 1."""
    return end + (start - end) / 2.0 * (cos(pi * share) + 1)


def pace_at(descent: Descent, step: int, steps: int) -> Pace:
    """The pace of step ``step`` (from 0) of ``steps`` in all.

    ``one-cycle`` is Smith & Topin's (2018) with cosines, step for step that of
    ``torch.optim.lr_scheduler.OneCycleLR``: the momentum falls from ``momentum`` to
    ``momentum_at_peak`` while the rate rises, and back. ``drops`` keeps the momentum.
    """
    rate = descent.rate
    if rate.kind == "drops":
        passed = bisect_right(rate.at, step / steps)
        return Pace(rate=rate.peak / rate.divisor**passed, momentum=descent.momentum)
    start, end = rate.peak / rate.start_divisor, rate.peak / rate.end_divisor
    top = rate.warmup * steps - 1
    high, low = descent.momentum, descent.momentum_at_peak
    if step <= top:
        share = step / top if top > 0 else 1.0
        return Pace(
            rate=_half_cosine(start, rate.peak, share), momentum=_half_cosine(high, low, share)
        )
    share = (step - top) / (steps - 1 - top) if steps - 1 > top else 1.0
    return Pace(rate=_half_cosine(rate.peak, end, share), momentum=_half_cosine(low, high, share))
