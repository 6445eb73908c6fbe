"""Three ways to spend an average, side by side: value-aware, fixed thresholds, MSDNet's quantiles.

All of them are calibrated on one table and judged on another, as MSDNet's budgeted batch is (Huang
et al. 2018, arXiv 1703.09844, section 4.2, and its published code: exit k answers a share of the
inputs proportional to q to the power of k, the thresholds that do this on validation data are
applied to the test data, and q is chosen for the budget).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dynrt.calibrate.average import AveragePolicy, best_fixed, for_average
from dynrt.calibrate.scores import ScoreTable
from dynrt.calibrate.simulate import simulate
from dynrt.calibrate.stream import answer_stream
from dynrt.calibrate.thresholds import quantiles_for_budget
from dynrt.errors import CalibrationError
from dynrt.units import FLOPS_PER_MAC

Method = Literal["value", "fixed", "quantiles"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AverageRow:
    """One way to spend an average.

    Attributes:
        method: ``value`` (levels and a bucket), ``fixed`` (the best thresholds found) or
            ``quantiles`` (MSDNet).
        average: units of the resource per input that were allowed.
        cap: units for one input, or ``None``.
        accuracy: on the test table, a fraction.
        mean_cost: there, per input; above ``average`` where other data cost more.
        max_cost: of the dearest input there.
        excess_share: the most by which the mean up to any input exceeded the average, as a share of
            it; judged from the hundredth input on. Zero or less: the average was kept all the time.
    """

    method: Method
    average: int
    cap: int | None
    accuracy: float
    mean_cost: float
    max_cost: int
    excess_share: float

    def to_json(self) -> dict[str, Any]:
        """The row as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


def compare(
    calibration: ScoreTable,
    test: ScoreTable,
    averages: Sequence[int],
    *,
    cap: int | None = None,
    order: Sequence[int] | None = None,
) -> tuple[AverageRow, ...]:
    """Every method at every average.

    Args:
        calibration: what thresholds and levels are chosen on.
        test: another table of the same network.
        averages: units of the table's resource per input.
        cap: hard cap per input for all of them.
        order: of the test inputs; as they stand by default.

    Raises:
        CalibrationError: the tables are of two networks, or as the calibrations.
    """
    if calibration.bundle_sha256 != test.bundle_sha256 or calibration.exits != test.exits:
        raise CalibrationError(
            f"scores of {calibration.bundle or 'a network'} and of {test.bundle or 'another'} "
            "cannot be compared"
        )
    rows = np.arange(len(test)) if order is None else np.asarray(order, np.int64)
    out: list[AverageRow] = []
    for average in averages:
        policy = for_average(calibration, average, cap)
        streamed = answer_stream(test, policy, order=rows)
        out.append(
            AverageRow(
                method="value",
                average=average,
                cap=cap,
                accuracy=streamed.accuracy,
                mean_cost=streamed.mean_cost,
                max_cost=streamed.max_cost,
                excess_share=_excess(streamed.costs, average),
            )
        )
        fixed = best_fixed(calibration, average, cap)
        out.append(_row("fixed", test, fixed, policy, rows))
        if calibration.resource == "macs":
            quantiles = quantiles_for_budget(calibration, FLOPS_PER_MAC * average).thresholds
            out.append(_row("quantiles", test, quantiles, policy, rows))
    return tuple(out)


def _row(
    method: Method,
    test: ScoreTable,
    thresholds: Mapping[str, float],
    policy: AveragePolicy,
    rows: np.typing.NDArray[np.int64],
) -> AverageRow:
    outcome = simulate(test.rows(rows), thresholds, policy.cap)
    return AverageRow(
        method=method,
        average=policy.average,
        cap=policy.cap,
        accuracy=outcome.accuracy,
        mean_cost=outcome.mean_macs,
        max_cost=outcome.max_macs,
        excess_share=_excess(outcome.macs, policy.average),
    )


def _excess(costs: np.typing.NDArray[np.int64], average: int) -> float:
    means = costs.cumsum() / np.arange(1, costs.size + 1)
    return float((means[min(99, costs.size - 1) :] / average).max() - 1)
