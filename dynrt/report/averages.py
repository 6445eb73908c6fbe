"""An average kept three ways, side by side: value-aware levels, fixed thresholds, MSDNet's quantiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dynrt.bundle import Bundle
from dynrt.calibrate.budgeted_batch import AverageRow, Method, compare
from dynrt.calibrate.datasets import Dataset
from dynrt.calibrate.parallel_scores import collect_scores
from dynrt.report.tables import Column, Table
from dynrt.report.tables_figures import How, dynrt_version, versions
from dynrt.units import FLOPS_PER_MAC, macs_to_flops

_METHODS: Mapping[Method, str] = {
    "value": "value-aware levels",
    "fixed": "fixed thresholds",
    "quantiles": "MSDNet's quantiles",
}
_COLUMNS = (
    Column(key="average_flops", title="average allowed, MFLOPs", unit="flops"),
    Column(key="method", title="method"),
    Column(key="accuracy", title="accuracy", unit="share"),
    Column(key="mean_flops", title="mean MFLOPs", unit="flops"),
    Column(key="max_flops", title="max MFLOPs", unit="flops"),
    Column(key="excess_share", title="most above the average on the way", unit="share"),
)


def averages(
    bundle: Bundle,
    validation: Dataset,
    test: Dataset,
    averages_macs: Sequence[int],
    *,
    cap_macs: int | None = None,
    how: How | None = None,
) -> Table:
    """What each method reaches on ``test`` with what it chose on ``validation``.

    Args:
        bundle: a network with exits.
        validation: labelled pictures to choose levels and thresholds on.
        test: labelled pictures to judge them on, as a stream in this order.
        averages_macs: multiply-accumulates per input that are allowed on average.
        cap_macs: hard cap for each input, or ``None``.
        how: where scores are collected.

    Raises:
        CalibrationError: the network is no chain of exits, or has other classes than the data.
        BudgetRefusedError: an average or the cap is below the cheapest answer.
    """
    how = how or How()
    scored = [
        collect_scores(
            bundle,
            dataset,
            batch=how.batch,
            spread=how.spread,
            progress=lambda done, total: how.tell("pictures", done, total),
        )
        for dataset in (validation, test)
    ]
    found = compare(scored[0], scored[1], averages_macs, cap=cap_macs)
    cap = "no cap" if cap_macs is None else f"at most {macs_to_flops(cap_macs):,} FLOPs each"
    return Table(
        name="averages",
        title=f"Averages kept by {bundle.name}, {cap}",
        data=test.source,
        n=len(test),
        bundles=versions([bundle]),
        columns=_COLUMNS,
        rows=[_row(each) for each in found],
        notes=(
            f"Chosen on {validation.source} ({len(validation):,} inputs), judged on {test.source}.",
            "Value-aware levels follow a token bucket and keep the average all the time; the others "
            "keep it only as far as these inputs are like those. The last column is judged from the "
            "hundredth input on.",
        ),
        version=dynrt_version(),
    )


def _row(row: AverageRow) -> dict[str, Any]:
    return {
        "average_flops": macs_to_flops(row.average),
        "method": _METHODS[row.method],
        "accuracy": row.accuracy,
        "mean_flops": FLOPS_PER_MAC * row.mean_cost,
        "max_flops": macs_to_flops(row.max_cost),
        "excess_share": row.excess_share,
    }
