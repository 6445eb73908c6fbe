"""DDI's table II: networks with exits under hard budgets, beside the paper and static nets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynrt.bundle import Bundle
from dynrt.calibrate.datasets import Dataset
from dynrt.calibrate.observe import Observed, Setting
from dynrt.errors import DataError
from dynrt.ir.cost import Budget
from dynrt.report.paper_tables import static_figures
from dynrt.report.tables import Column, Table
from dynrt.report.tables_figures import (
    How,
    dynrt_version,
    early_exits_closed,
    energy_note,
    figures,
    time_note,
    timed,
    timing_cells,
    versions,
    watched,
)
from dynrt.report.tables_full import full_cost
from dynrt.runtime import load
from dynrt.units import FLOPS_PER_MAC, macs_to_flops


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One half of DDI's table II (Wang et al., section IV-C).

    Attributes:
        network: theirs.
        full_flops: of it.
        budgets: hard budget in FLOPs to their DDI's accuracy and that of their static net.
    """

    network: str
    full_flops: int
    budgets: Mapping[int, tuple[float, float]]


DDI_TABLE_II: Mapping[str, Published] = {
    "resnet74": Published(
        network="ResNet74-DDI",
        full_flops=340_000_000,
        budgets={
            58_000_000: (0.9100, 0.9070),
            74_000_000: (0.9282, 0.9125),
            117_000_000: (0.9381, 0.9230),
            144_000_000: (0.9388, 0.9250),
        },
    ),
    "densenet100": Published(
        network="DenseNet100-DDI",
        full_flops=580_000_000,
        budgets={
            372_000_000: (0.9383, 0.9435),
            392_000_000: (0.9444, 0.9445),
            408_000_000: (0.9468, 0.9416),
        },
    ),
}

_DDI_COLUMNS = (
    Column(key="budget_flops", title="hard budget, MFLOPs", unit="flops"),
    Column(key="network", title="network"),
    Column(key="accuracy", title="accuracy", unit="share"),
    Column(key="paper_accuracy", title="paper", unit="share"),
    Column(key="below_paper", title="ours - paper, points", unit="points"),
    Column(key="static", title="static net"),
    Column(key="static_flops", title="its MFLOPs", unit="flops"),
    Column(key="static_accuracy", title="its accuracy", unit="share"),
    Column(key="above_static", title="ours - static, points", unit="points"),
    Column(key="max_flops", title="dearest input, MFLOPs", unit="flops"),
    Column(key="flops_saved", title="FLOPs saved", unit="share"),
    Column(key="energy_saved", title="energy saved", unit="share"),
    Column(key="time_saved", title="time saved", unit="share"),
    Column(key="time_over_flops", title="time / FLOPs saved", unit="number"),
    Column(key="gated_accuracy", title="with early exits", unit="share"),
    Column(key="gated_mean_flops", title="mean MFLOPs then", unit="flops"),
)


def ddi_table_2(
    bundles: Sequence[Bundle],
    dataset: Dataset,
    *,
    chosen_on: Dataset | None = None,
    statics: Sequence[Bundle] = (),
    paper: str = "resnet74",
    budgets: Sequence[int] = (),
    how: How | None = None,
) -> Table:
    """Networks with exits under hard budgets, beside the paper and static nets.

    Each budget is met as in the paper: no exit accepts by itself, every input runs until the budget
    stops it. The last columns are with the exits' thresholds in force as well.

    Args:
        bundles: a network with exits, or several trained to different savings; each budget is then
            given to the one that answers most of ``chosen_on`` right under it.
        dataset: labelled pictures of the test set.
        chosen_on: labelled pictures that ``dataset`` does not hold; needed for several networks.
        statics: networks without exits; each budget is compared with the one nearest in cost (by
            ratio), as the paper pairs 74 MFLOPs with a static net of 84.
        paper: which half of its table: ``resnet74`` or ``densenet100``.
        budgets: in FLOPs; those of the paper by default.
        how: how figures are got.

    Raises:
        DataError: there is no such half; no network; several, and nothing to choose on.
        CalibrationError: a network does not fit the data.
    """
    how = how or How()
    if paper not in DDI_TABLE_II:
        raise DataError(f"{paper!r} is not in DDI's table II: {', '.join(DDI_TABLE_II)}")
    published = DDI_TABLE_II[paper]
    caps = list(budgets or published.budgets)
    chosen, tried = _choose(bundles, caps, chosen_on, how)
    still = [static_figures(static, dataset, how) for static in statics]
    found: dict[int, dict[str, Any]] = {}
    for bundle in bundles:
        met = [flops for flops in caps if chosen.get(flops) is bundle]
        found |= _rows_of(bundle, met, dataset, how)
    rows = []
    for flops in caps:
        row: dict[str, Any] = {"budget_flops": flops}
        ours, theirs = published.budgets.get(flops, (None, None))
        row |= {"paper_accuracy": ours, "paper_static_accuracy": theirs}
        if flops in found:
            row |= found[flops]
            if ours is not None:
                row["below_paper"] = row["accuracy"] - ours
            row |= _nearest(flops, still, row["accuracy"])
        rows.append(row)
    costs = {macs_to_flops(full_cost(b.graph).macs) for b in bundles}
    full = " to ".join(f"{flops / 1e6:.1f}" for flops in sorted({min(costs), max(costs)}))
    notes = [
        f"Paper: {published.network} with layer and channel gates, {published.full_flops / 1e6:.0f} "
        f"MFLOPs in full; ours: {', '.join(b.name for b in bundles)}, "
        f"{full} MFLOPs without exits and gates.",
        "Every input runs until its hard budget stops it, as in the paper; the last two columns "
        "are with the exits' calibrated thresholds as well.",
        time_note(how, "the network without exits and gates"),
        energy_note(bundles[0]),
    ]
    if chosen_on is not None and len(bundles) > 1:
        notes.append(
            "Which network answers under a budget was chosen by accuracy on "
            f"{len(chosen_on)} pictures of {chosen_on.source}."
        )
    if refused := [flops for flops in caps if flops not in found]:
        listed = ", ".join(f"{flops / 1e6:g}" for flops in refused)
        cheapest = min(macs_to_flops(b.certificate.cheapest_macs) for b in bundles)
        notes.append(
            f"Refused: {listed} MFLOPs are below the cheapest answer, {cheapest / 1e6:.1f} MFLOPs."
        )
    return Table(
        name="ddi-table-2",
        title=f"DDI, table II: {', '.join(b.name for b in bundles)} under hard budgets",
        data=dataset.source,
        n=len(dataset),
        bundles=versions([*bundles, *statics]),
        columns=_DDI_COLUMNS,
        rows=rows,
        notes=notes,
        details={"statics": still, "paper": published.network, "chosen_by": tried},
        version=dynrt_version(),
    )


def _choose(
    bundles: Sequence[Bundle], caps: Sequence[int], chosen_on: Dataset | None, how: How
) -> tuple[dict[int, Bundle], list[dict[str, Any]]]:
    """The network for each budget that one can meet, and the accuracies that it was chosen by."""
    if not bundles:
        raise DataError("no bundle: nothing to tabulate")
    able = {
        flops: [b for b in bundles if macs_to_flops(b.certificate.cheapest_macs) <= flops]
        for flops in caps
    }
    if len(bundles) == 1:
        return {flops: those[0] for flops, those in able.items() if those}, []
    if chosen_on is None:
        raise DataError(f"{len(bundles)} networks, and no pictures to choose among them on")
    best: dict[int, tuple[float, Bundle]] = {}
    tried = []
    for bundle in bundles:
        met = [flops for flops, those in able.items() if bundle in those]
        if not met:
            continue
        closed = early_exits_closed(bundle.graph)
        settings = [_setting(flops, "budget alone", closed) for flops in met]
        with load(bundle) as network:
            seen = watched(network, chosen_on, settings, how)
        for flops, observed in zip(met, seen, strict=True):
            tried.append(
                {"network": bundle.name, "budget_flops": flops, "accuracy": observed.accuracy}
            )
            if flops not in best or observed.accuracy > best[flops][0]:
                best[flops] = (observed.accuracy, bundle)
    return {flops: bundle for flops, (_, bundle) in best.items()}, tried


def _rows_of(
    bundle: Bundle, met: Sequence[int], dataset: Dataset, how: How
) -> dict[int, dict[str, Any]]:
    """What one network comes to under each of its budgets."""
    if not met:
        return {}
    closed = early_exits_closed(bundle.graph)
    alone = [_setting(flops, "budget alone", closed) for flops in met]
    gated = [_setting(flops, "with early exits", {}) for flops in met]
    with load(bundle) as network:
        seen = watched(network, dataset, [*alone, *gated], how)
        times = timed(network, bundle, dataset, alone, how)
    rows = {}
    for flops, observed, with_gates, timing in zip(
        met, seen[: len(met)], seen[len(met) :], times, strict=True
    ):
        row = {"network": bundle.name} | figures(observed, bundle.graph) | timing_cells(timing)
        row |= _gated(with_gates, bundle)
        row["over_budget"] = sum(v * FLOPS_PER_MAC > flops for v in observed.macs.tolist())
        rows[flops] = row
    return rows


def _setting(flops: int, name: str, thresholds: Mapping[str, float]) -> Setting:
    budget = Budget(macs=flops // FLOPS_PER_MAC)
    return Setting(name=f"{flops / 1e6:g}M, {name}", budget=budget, thresholds=thresholds)


def _gated(observed: Observed, bundle: Bundle) -> dict[str, Any]:
    own = figures(observed, bundle.graph)
    kept = ("accuracy", "mean_flops", "max_flops", "flops_saved", "energy_saved", "exits")
    return {f"gated_{key}": own[key] for key in kept}


def _nearest(flops: int, statics: Sequence[Mapping[str, Any]], accuracy: float) -> dict[str, Any]:
    """The static net whose cost is nearest to a budget by ratio."""
    if not statics:
        return {}
    best = min(statics, key=lambda s: abs(math.log(s["static_flops"] / flops)))
    return {**best, "above_static": accuracy - best["static_accuracy"]}
