"""Keeps an average by moving a price: the less is left, the surer an early answer need not be.

A calibration hands over *levels*: thresholds that are best at one price of what is spent, with the
mean cost that they came to (``dynrt.calibrate.average``). A token bucket says how much is there; the
level in force follows it, and no input may spend more than the bucket holds. What is spent is thus
at most the average times the inputs so far, plus what the bucket started with: an invariant, not a
tendency.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dynrt.errors import BudgetError
from dynrt.ir.cost import Budget
from dynrt.ir.graph import NodeId
from dynrt.runtime.result import Result
from dynrt.runtime.sources import Clock
from dynrt.units import fj_to_j, milli_to_mac_equivalents

Resource = Literal["macs", "femtojoules", "milli_mac_equivalents"]
#: Takes the thresholds that are in force from now on: ``network.set(thresholds=...)``.
Apply = Callable[[Mapping[NodeId, float]], object]

#: Caps below the dearest path are rounded down to so many steps, so that few different ones occur.
_CAP_STEPS = 64
#: Shares of the capacity below and above which the price leaves the average's.
_LOW, _HIGH = 0.1, 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceLevel:
    """Thresholds that are best at one price.

    Attributes:
        thresholds: by exit.
        accuracy: on the calibration data, a fraction.
        mean_cost: per input there, in units of the resource.
        price: accuracy that one more unit spent brings from here on; 0 at the dearest level.
    """

    thresholds: Mapping[NodeId, float]
    accuracy: float
    mean_cost: float
    price: float


class PriceControl:
    """The bucket and the level that follows it; whole units of a resource, no clock, no network.

    Args:
        mean_costs: of the levels, rising.
        average: units that flow in per input.
        capacity: most units held.
        cap: most units that one input may spend, or ``None``.
        dearest: units that no input can exceed.
        start: units held at first.

    Raises:
        BudgetError: no levels, levels that do not rise, or an amount out of range.
    """

    def __init__(
        self,
        mean_costs: Sequence[float],
        *,
        average: int,
        capacity: int,
        cap: int | None,
        dearest: int,
        start: int = 0,
    ) -> None:
        if not mean_costs or any(b <= a for a, b in itertools.pairwise(mean_costs)):
            raise BudgetError(
                f"mean costs {list(mean_costs)} of price levels must be there and rise"
            )
        if not 0 < average <= capacity:
            raise BudgetError(f"an average of {average} is not above 0 and within {capacity}")
        if not 0 <= start <= capacity:
            raise BudgetError(f"a bucket of {capacity} cannot start with {start}")
        if dearest <= 0 or (cap is not None and cap <= 0):
            raise BudgetError(f"a cap of {cap} and a dearest path of {dearest} must be above 0")
        self._means, self._average, self._capacity = list(mean_costs), average, capacity
        self._most = dearest if cap is None else min(cap, dearest)
        self._grain = max(1, self._most // _CAP_STEPS)
        self.tokens = start

    def fill(self, amount: int) -> None:
        """Units flow in, up to the capacity."""
        self.tokens = min(self._capacity, self.tokens + amount)

    def take(self, amount: int) -> None:
        """Units were spent."""
        self.tokens -= amount

    @property
    def level(self) -> int:
        """The level in force: the dearest whose mean cost is at most what the bucket calls for.

        That is the average while the bucket is neither nearly empty nor nearly full; below, it
        falls to the cheapest level's mean, and above it rises to the dearest's, in proportion. So
        the price stays where it is best as long as there is something to live on.
        """
        means, average, fill = self._means, self._average, self.tokens / self._capacity
        wanted = float(average)
        if fill < _LOW:
            low = min(means[0], average)
            wanted = low + (average - low) * fill / _LOW
        elif fill > _HIGH:
            share = (fill - _HIGH) / (1 - _HIGH)  # exactly 1 for a full bucket
            wanted = average * (1 - share) + max(means[-1], average) * share
        return max(0, bisect.bisect_right(means, wanted) - 1)

    @property
    def limit(self) -> int | None:
        """Units that the next input may spend; ``None`` where the bucket holds any path."""
        if self.tokens >= self._most:
            return None
        rounded = self.tokens // self._grain * self._grain
        return rounded if rounded >= self._average else self.tokens


class PricedBudget:
    """A :class:`~dynrt.runtime.sources.BudgetSource` that keeps an average best.

    It sets the network's thresholds, so that a network goes with one such stream at a time.

    Args:
        levels: of a calibration, mean costs rising.
        apply: is given a level's thresholds when it comes into force.
        average: whole units of ``resource`` per input; with ``rate_per_s``, a typical input's.
        capacity: most units held for later.
        cap: most units that one input may spend, or ``None``.
        dearest: units that no input can exceed.
        start: units held at first; with none, the average is exceeded at no time.
        resource: what is counted.
        rate_per_s: units that flow in per second instead of ``average`` per input.
        clock: seconds that never run back; needed with ``rate_per_s``.

    Raises:
        BudgetError: as :class:`PriceControl`; or a rate without a clock, or not above zero.
    """

    def __init__(
        self,
        levels: Sequence[PriceLevel],
        apply: Apply,
        *,
        average: int,
        capacity: int,
        cap: int | None = None,
        dearest: int,
        start: int = 0,
        resource: Resource = "macs",
        rate_per_s: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        if (rate_per_s is None) != (clock is None):
            raise BudgetError("rate_per_s and clock go together")
        if rate_per_s is not None and not 0 < rate_per_s < float("inf"):
            raise BudgetError(f"rate_per_s={rate_per_s!r} must be above zero and finite")
        self._control = PriceControl(
            [level.mean_cost for level in levels],
            average=average,
            capacity=capacity,
            cap=cap,
            dearest=dearest,
            start=start,
        )
        self._levels, self._apply, self._cap, self._resource = tuple(levels), apply, cap, resource
        self._average, self._rate_per_s, self._clock = average, rate_per_s, clock
        self._at_s = 0.0 if clock is None else clock()
        self._in_force = -1

    @property
    def tokens(self) -> int:
        """Units in the bucket."""
        return self._control.tokens

    @property
    def level(self) -> PriceLevel:
        """The level that the bucket calls for."""
        return self._levels[self._control.level]

    def next(self) -> Budget:
        """Put the level in force and say what the next input may spend.

        Raises:
            BudgetError: the bucket is empty (which no average per input comes to).
        """
        self._control.fill(self._inflow())
        wanted = self._control.level
        if wanted != self._in_force:
            self._apply(self._levels[wanted].thresholds)
            self._in_force = wanted
        limit = self._control.limit
        if limit is None:
            limit = self._cap
        if limit is None:
            return Budget()
        if limit <= 0:
            raise BudgetError("the bucket is empty")
        return _budget(self._resource, limit)

    def spent(self, result: Result) -> None:
        """Take what ``result`` spent out of the bucket.

        Raises:
            BudgetError: the result has no modelled energy and the bucket counts energy.
        """
        amount = getattr(result, self._resource)
        if amount is None:
            raise BudgetError(f"a bucket of {self._resource} needs results with modelled energy")
        self._control.take(amount)

    def _inflow(self) -> int:
        if self._clock is None or self._rate_per_s is None:
            return self._average
        amount = int((self._clock() - self._at_s) * self._rate_per_s)
        self._at_s += amount / self._rate_per_s  # what is less than a unit waits
        return amount


def _budget(resource: Resource, amount: int) -> Budget:
    if resource == "macs":
        return Budget(macs=amount)
    if resource == "femtojoules":
        return Budget(joules=fj_to_j(amount))
    return Budget(mac_equivalents=milli_to_mac_equivalents(amount))
