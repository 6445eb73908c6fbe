"""Value-aware budgets: a stream answered best under a hard cap per input *and* an average.

At one price of what is spent, backward induction over cached scores (``dynrt.calibrate.value``)
says where going on is worth it. A range of prices gives a range of *levels*, each with its
thresholds and what they come to under the cap; the upper hull of accuracy against mean cost is
kept. At run time a token bucket moves along it (``dynrt.runtime.priced``): no input exceeds the cap
or what the bucket holds, and what is left over by easy inputs is spent on hard ones.

The best fixed thresholds that the search finds for the average are among the candidates, so that on
the calibration data the hull is nowhere below them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from dynrt.calibrate.scores import Resource, ScoreTable
from dynrt.calibrate.search import EXPLORE_INPUTS, Gates, at_most_macs, search
from dynrt.calibrate.simulate import simulate
from dynrt.calibrate.simulate_each import least_unforced
from dynrt.calibrate.value import ValueModel
from dynrt.errors import CalibrationError
from dynrt.ir.cost import describe_cost
from dynrt.ir.graph import NodeId
from dynrt.runtime.priced import Apply, PricedBudget, PriceLevel

#: A bucket holds the average of so many inputs.
DEFAULT_BURST = 100
_PRICES = 36
_NEVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePolicy:
    """Levels for a stream, and what they come to on the calibration data.

    Costs are whole units of ``resource`` (MACs, femtojoules, thousandths of a MAC-equivalent).

    Attributes:
        resource: what is counted.
        average: most units per input on average.
        cap: most units that one input may spend; ``None`` if only the average counts.
        burst: inputs whose average the bucket can hold.
        dearest: units that no input exceeds.
        levels: the hull, mean costs rising.
        accuracy: on the hull at the average, a fraction.
        mean_cost: there; below ``average`` only if no level is so dear.
        fixed_accuracy: of the best fixed thresholds at this average and cap, a fraction.
        fixed_mean_cost: of them.
        full_accuracy: of the last exit alone, a fraction.
        bundle, bundle_sha256: the network.
        data, n: what was calibrated on, and how many inputs.
    """

    resource: Resource
    average: int
    cap: int | None
    burst: int
    dearest: int
    levels: tuple[PriceLevel, ...]
    accuracy: float
    mean_cost: float
    fixed_accuracy: float
    fixed_mean_cost: float
    full_accuracy: float
    bundle: str
    bundle_sha256: str
    data: str
    n: int

    @property
    def capacity(self) -> int:
        """Most units that the bucket holds."""
        return self.burst * self.average

    def source(self, apply: Apply, *, start: int = 0) -> PricedBudget:
        """A budget source for one stream.

        Args:
            apply: puts thresholds into force: ``lambda t: network.set(thresholds=t)``.
            start: units in the bucket at first; with none, the average is exceeded at no time.

        Raises:
            BudgetError: the bucket does not hold ``start``.
        """
        return PricedBudget(
            self.levels,
            apply,
            average=self.average,
            capacity=self.capacity,
            cap=self.cap,
            dearest=self.dearest,
            start=start,
            resource=self.resource,
        )


def for_average(
    table: ScoreTable, average: int, cap: int | None = None, *, burst: int = DEFAULT_BURST
) -> AveragePolicy:
    """The levels of a stream under an average and, if given, a hard cap per input.

    Args:
        table: scores on calibration data.
        average: most units of the table's resource per input on average.
        cap: most units for one input.
        burst: inputs whose average the bucket holds; more keeps closer to the best price, fewer
            keeps the average over shorter stretches.

    Raises:
        CalibrationError: the average is below the cheapest answer or above the cap, or the burst is
            below 1; or as :func:`~dynrt.calibrate.simulate.simulate`.
        BudgetRefusedError: the cap is below the cheapest answer.
    """
    least = max(1, cheapest_answer(table))
    if average < least:
        raise CalibrationError(
            f"an average of {describe_cost(table.resource, average)} is below what one answer may "
            f"take, {describe_cost(table.resource, least)}"
        )
    if cap is not None and cap < average:
        raise CalibrationError(
            f"a cap of {describe_cost(table.resource, cap)} per input is below the average, "
            f"{describe_cost(table.resource, average)}"
        )
    if burst < 1:
        raise CalibrationError(f"a burst of {burst} inputs; 1 or more are possible")
    fixed = _level(table, best_fixed(table, average, cap), cap)
    levels = hull([fixed, *(_level(table, t, cap) for t in _candidates(table, cap))])
    accuracy, mean_cost = at_mean(levels, average)
    return AveragePolicy(
        resource=table.resource,
        average=average,
        cap=cap,
        burst=burst,
        dearest=max(1, dearest_path(table)),
        levels=levels,
        accuracy=accuracy,
        mean_cost=mean_cost,
        fixed_accuracy=fixed.accuracy,
        fixed_mean_cost=fixed.mean_cost,
        full_accuracy=table.full_accuracy,
        bundle=table.bundle,
        bundle_sha256=table.bundle_sha256,
        data=table.data,
        n=len(table),
    )


def cheapest_answer(table: ScoreTable) -> int:
    """Units within which every input of the table has an answer without a changed decision."""
    if table.costs_differ:
        return least_unforced(table)
    return int((table.reach_macs + table.head_macs).min())


def dearest_path(table: ScoreTable) -> int:
    """Units that no input of the network exceeds: every step, each at its dearest."""
    return int((table.step_price if table.costs_differ else table.step_macs).sum())


def within(table: ScoreTable, cap: int | None) -> ScoreTable:
    """``table`` up to the last exit that a cap leaves within every input's reach.

    Heads are counted as if all were run in passing.
    """
    if cap is None:
        return table
    fits = np.atleast_2d(table.macs).max(axis=0) <= cap
    last = int(np.flatnonzero(fits)[-1]) if fits.any() else 0
    return up_to(table, last)


def up_to(table: ScoreTable, last: int) -> ScoreTable:
    """``table`` as if exit number ``last`` were the last, which always answers."""
    if last == len(table.exits) - 1:
        return table
    steps = int(np.flatnonzero(table.step_exit == last)[0]) + 1
    each = table.costs_differ
    return ScoreTable(
        exits=table.exits[: last + 1],
        kinds=(*table.kinds[:last], "always"),
        scores=table.scores[:, : last + 1],
        predicted=table.predicted[:, : last + 1],
        labels=table.labels,
        step_macs=table.step_macs[..., :steps],
        step_exit=table.step_exit[:steps],
        step_ahead=table.step_ahead[:, :steps] if each else table.step_ahead,
        step_price=table.step_price[:steps] if each else table.step_price,
        bundle=table.bundle,
        bundle_sha256=table.bundle_sha256,
        data=table.data,
        resource=table.resource,
    )


def best_fixed(table: ScoreTable, average: int, cap: int | None) -> dict[str, float]:
    """The best thresholds found, the same for all inputs, at an average and a cap."""
    total = average * len(table)
    gates, found = search(
        within(table, cap), at_most_macs(total), lambda part: at_most_macs(average * part)
    )
    return _named(table, dict(zip(gates.names, found.bounds, strict=True)))


def _candidates(table: ScoreTable, cap: int | None) -> Iterable[dict[str, float]]:
    near = within(table, cap)
    model = ValueModel(near)
    if not model.names:
        return
    for exponent in np.linspace(-2.5, 1.5, _PRICES):
        yield _named(table, model.thresholds(float(10**exponent) / max(1, near.full_macs)))
    some = near
    if len(near) > EXPLORE_INPUTS:
        rows = np.linspace(0, len(near) - 1, EXPLORE_INPUTS).astype(np.int64)
        some = near.rows(rows)
    gates = Gates(some)
    for point in gates.hull():
        yield _named(table, dict(zip(gates.names, point.bounds, strict=True)))
    yield _named(table, {model.names[0]: -_NEVER})


def _named(table: ScoreTable, bounds: Mapping[str, float]) -> dict[str, float]:
    """Thresholds for every scored exit before the last; those out of reach are not asked."""
    scored = (e for e, k in zip(table.exits[:-1], table.kinds, strict=False) if k != "never")
    return {name: bounds.get(name, _NEVER) for name in scored}


def _level(table: ScoreTable, thresholds: Mapping[NodeId, float], cap: int | None) -> PriceLevel:
    outcome = simulate(table, thresholds, cap)
    return PriceLevel(
        thresholds=MappingProxyType(dict(thresholds)),
        accuracy=outcome.accuracy,
        mean_cost=outcome.mean_macs,
        price=0.0,
    )


def hull(levels: Iterable[PriceLevel]) -> tuple[PriceLevel, ...]:
    """The upper hull of accuracy against mean cost, dearer levels that gain nothing left out.

    Each level's price is the slope to the next one.
    """
    kept: list[PriceLevel] = []
    for level in sorted(levels, key=lambda c: (c.mean_cost, -c.accuracy)):
        if kept and level.accuracy <= kept[-1].accuracy:
            continue
        while len(kept) > 1 and _slope(kept[-2], kept[-1]) <= _slope(kept[-1], level):
            kept.pop()
        kept.append(level)
    prices = [_slope(a, b) for a, b in itertools.pairwise(kept)]
    return tuple(
        PriceLevel(
            thresholds=level.thresholds,
            accuracy=level.accuracy,
            mean_cost=level.mean_cost,
            price=price,
        )
        for level, price in zip(kept, [*prices, 0.0], strict=True)
    )


def _slope(a: PriceLevel, b: PriceLevel) -> float:
    return (b.accuracy - a.accuracy) / (b.mean_cost - a.mean_cost)


def at_mean(levels: tuple[PriceLevel, ...], average: float) -> tuple[float, float]:
    """Accuracy and mean cost of dividing inputs between the two levels around an average."""
    means = np.array([level.mean_cost for level in levels])
    mean = float(np.clip(average, means[0], means[-1]))
    return float(np.interp(mean, means, [level.accuracy for level in levels])), mean
