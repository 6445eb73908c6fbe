"""Where a stream's budget comes from: fixed, a schedule, or an average to be kept."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from dynrt.errors import BudgetError
from dynrt.ir.cost import Budget
from dynrt.runtime.result import Result

Clock = Callable[[], float]


class BudgetSource(Protocol):
    """Says what the next input may spend, and is told what the last one spent."""

    def next(self) -> Budget:
        """The hard cap on the next input."""
        ...

    def spent(self, result: Result) -> None:
        """Take note of a finished input."""
        ...


class FixedBudget:
    """The same cap on every input."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def next(self) -> Budget:
        """The cap."""
        return self._budget

    def spent(self, result: Result) -> None:
        """Nothing to note."""


class ScheduleBudget:
    """Caps by time of day, or by seconds since any origin.

    Args:
        entries: ``(start_s, budget)`` with rising starts; each is in force until the next.
        clock: seconds on the same scale.

    Raises:
        BudgetError: no entry, or starts that do not rise.
    """

    def __init__(
        self, entries: Sequence[tuple[float, Budget]], *, clock: Clock = time.monotonic
    ) -> None:
        self._starts = [start for start, _ in entries]
        if not entries or any(b <= a for a, b in zip(self._starts, self._starts[1:], strict=False)):
            raise BudgetError(f"schedule starts {self._starts} must be there and rise")
        self._budgets = [budget for _, budget in entries]
        self._clock = clock

    def next(self) -> Budget:
        """The entry in force now.

        Raises:
            BudgetError: the first entry has not begun.
        """
        now = self._clock()
        place = bisect.bisect_right(self._starts, now) - 1
        if place < 0:
            raise BudgetError(f"at {now:g} s the schedule has not begun ({self._starts[0]:g} s)")
        return self._budgets[place]

    def spent(self, result: Result) -> None:
        """Nothing to note."""


class AverageBudget:
    """Keeps an average rate with a token bucket: average power, or MACs per second.

    Tokens flow in at ``rate_per_s`` up to ``capacity``; an input may spend what is there, and no
    more, so over any time ``t`` at most ``capacity + rate_per_s * t`` is spent. Starts full, as a
    charged battery does.

    Args:
        resource: ``joules`` (then the rate is watts) or ``macs``.
        rate_per_s: tokens per second.
        capacity: most tokens held; also the most that one input may spend.
        clock: seconds that never run back.

    Raises:
        BudgetError: a rate or capacity that is not above zero and finite.
    """

    def __init__(
        self,
        resource: Literal["joules", "macs"],
        *,
        rate_per_s: float,
        capacity: float,
        clock: Clock = time.monotonic,
    ) -> None:
        for name, value in (("rate_per_s", rate_per_s), ("capacity", capacity)):
            if not 0 < value < float("inf"):
                raise BudgetError(f"{name}={value!r} must be above zero and finite")
        self._resource = resource
        self._rate_per_s, self._capacity, self._clock = rate_per_s, capacity, clock
        self._tokens, self._at_s = capacity, clock()

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._at_s) * self._rate_per_s)
        self._at_s = now

    def next(self) -> Budget:
        """What is in the bucket.

        Raises:
            BudgetError: there is less than one MAC, or nothing.
        """
        self._fill()
        if self._resource == "macs":
            if self._tokens < 1:
                raise BudgetError(
                    f"the bucket holds {self._tokens:g} MACs; wait {self.wait_s(1):g} s"
                )
            return Budget(macs=int(self._tokens))
        if self._tokens <= 0:
            raise BudgetError("the bucket is empty")
        return Budget(joules=self._tokens)

    def wait_s(self, amount: float) -> float:
        """Seconds until the bucket holds ``amount``; infinite if it never will."""
        self._fill()
        if amount > self._capacity:
            return float("inf")
        return max(0.0, (amount - self._tokens) / self._rate_per_s)

    def spent(self, result: Result) -> None:
        """Take what ``result`` spent out of the bucket.

        Raises:
            BudgetError: the result has no modelled energy and the bucket counts joules.
        """
        self._fill()
        if self._resource == "macs":
            self._tokens -= result.macs
        elif result.joules is None:
            raise BudgetError("a joule bucket needs results with modelled energy")
        else:
            self._tokens -= result.joules
