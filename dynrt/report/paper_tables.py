"""DDI's table II (hard budgets) and its comparison of skipping networks, with ours beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dynrt.bundle import Bundle
from dynrt.calibrate.datasets import Dataset
from dynrt.calibrate.observe import Observed, Setting
from dynrt.errors import DataError
from dynrt.ir.cost import Budget, Cost
from dynrt.ir.graph import ComputeNode
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
from dynrt.report.tables_full import full_cost, full_model
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
    bundle: Bundle,
    dataset: Dataset,
    *,
    statics: Sequence[Bundle] = (),
    paper: str = "resnet74",
    budgets: Sequence[int] = (),
    how: How | None = None,
) -> Table:
    """A network with exits under hard budgets, beside the paper and static nets.

    Each budget is met as in the paper: no exit accepts by itself, every input runs until the budget
    stops it. The last columns are with the exits' thresholds in force as well.

    Args:
        bundle: a network with exits.
        dataset: labelled pictures of the test set.
        statics: networks without exits; each budget is compared with the one nearest in cost (by
            ratio), as the paper pairs 74 MFLOPs with a static net of 84.
        paper: which half of its table: ``resnet74`` or ``densenet100``.
        budgets: in FLOPs; those of the paper by default.
        how: how figures are got.

    Raises:
        DataError: there is no such half.
        CalibrationError: a network does not fit the data.
    """
    how = how or How()
    if paper not in DDI_TABLE_II:
        raise DataError(f"{paper!r} is not in DDI's table II: {', '.join(DDI_TABLE_II)}")
    published = DDI_TABLE_II[paper]
    caps = list(budgets or published.budgets)
    cheapest = macs_to_flops(bundle.certificate.cheapest_macs)
    met = [flops for flops in caps if flops >= cheapest]
    closed = early_exits_closed(bundle.graph)
    alone = [_setting(flops, "budget alone", closed) for flops in met]
    gated = [_setting(flops, "with early exits", {}) for flops in met]
    still = [static_figures(static, dataset, how) for static in statics]
    with load(bundle) as network:
        seen = watched(network, dataset, [*alone, *gated], how) if met else ()
        times = timed(network, bundle, dataset, alone, how)
    found = dict(zip(met, zip(seen[: len(met)], seen[len(met) :], times, strict=True), strict=True))
    rows = []
    for flops in caps:
        row: dict[str, Any] = {"budget_flops": flops}
        ours, theirs = published.budgets.get(flops, (None, None))
        row |= {"paper_accuracy": ours, "paper_static_accuracy": theirs}
        if flops in found:
            observed, with_gates, timing = found[flops]
            row |= figures(observed, bundle.graph) | timing_cells(timing)
            row |= _gated(with_gates, bundle)
            row["over_budget"] = sum(v * FLOPS_PER_MAC > flops for v in observed.macs.tolist())
            if ours is not None:
                row["below_paper"] = row["accuracy"] - ours
            row |= _nearest(flops, still, row["accuracy"])
        rows.append(row)
    notes = [
        f"Paper: {published.network} with layer and channel gates, {published.full_flops / 1e6:.0f} "
        f"MFLOPs in full; ours: {bundle.name}, "
        f"{macs_to_flops(full_cost(bundle.graph).macs) / 1e6:.1f} MFLOPs without exits and gates.",
        "Every input runs until its hard budget stops it, as in the paper; the last two columns "
        "are with the exits' calibrated thresholds as well.",
        time_note(how, "the network without exits and gates"),
        energy_note(bundle),
    ]
    if refused := [flops for flops in caps if flops not in found]:
        listed = ", ".join(f"{flops / 1e6:g}" for flops in refused)
        notes.append(
            f"Refused: {listed} MFLOPs are below the cheapest answer, {cheapest / 1e6:.1f} MFLOPs."
        )
    return Table(
        name="ddi-table-2",
        title=f"DDI, table II: {bundle.name} under hard budgets",
        data=dataset.source,
        n=len(dataset),
        bundles=versions([bundle, *statics]),
        columns=_DDI_COLUMNS,
        rows=rows,
        notes=notes,
        details={"statics": still, "paper": published.network},
        version=dynrt_version(),
    )


def _setting(flops: int, name: str, thresholds: Mapping[str, float]) -> Setting:
    budget = Budget(macs=flops // FLOPS_PER_MAC)
    return Setting(name=f"{flops / 1e6:g}M, {name}", budget=budget, thresholds=thresholds)


def _gated(observed: Observed, bundle: Bundle) -> dict[str, Any]:
    own = figures(observed, bundle.graph)
    kept = ("accuracy", "mean_flops", "max_flops", "flops_saved", "energy_saved", "exits")
    return {f"gated_{key}": own[key] for key in kept}


def static_figures(bundle: Bundle, dataset: Dataset, how: How) -> dict[str, Any]:
    """Accuracy and cost of a network that always does the same."""
    with load(bundle) as network:
        (observed,) = watched(network, dataset, [Setting(name="static")], how)
    return {
        "static": bundle.name,
        "static_flops": FLOPS_PER_MAC * int(observed.macs.max()),
        "static_accuracy": observed.accuracy,
    }


def _nearest(flops: int, statics: Sequence[Mapping[str, Any]], accuracy: float) -> dict[str, Any]:
    """The static net whose cost is nearest to a budget by ratio."""
    if not statics:
        return {}
    best = min(statics, key=lambda s: abs(math.log(s["static_flops"] / flops)))
    return {**best, "above_static": accuracy - best["static_accuracy"]}


def _left_out(bundle: Bundle, counted: float) -> float | None:
    """What of the channels saved is not computed either; ``None`` if only some blocks pay it out."""
    masked = [
        n.name for n in bundle.graph.nodes if isinstance(n, ComputeNode) and n.mask is not None
    ]
    if not masked:
        return None
    left = full_model(bundle).masks_left
    return counted if not left else 0.0 if len(left) == len(masked) else None


def _full_of(base: Bundle, bundle: Bundle) -> Cost:
    """The cost of the base; its energy only where both are modelled alike, else the network's own."""
    full = full_cost(base.graph)
    own = full_cost(bundle.graph)
    known = [(c.femtojoules is None, c.milli_mac_equivalents is None) for c in (full, own)]
    if str(base.energy) == str(bundle.energy) and known[0] == known[1]:
        return full
    return replace(
        full, femtojoules=own.femtojoules, milli_mac_equivalents=own.milli_mac_equivalents
    )


#: Published points of others on CIFAR-10: share of the computation saved, accuracy (DDI table I
#: for its own; SkipNet's from its repository).
SKIPPING_PUBLISHED: Mapping[str, Sequence[tuple[float, float]]] = {
    "DDI, table I: ResNet74-IADI (paper)": (
        (0.40, 0.9365),
        (0.50, 0.9333),
        (0.60, 0.9306),
        (0.70, 0.9254),
        (0.80, 0.9190),
    ),
    "SkipNet, ResNet-38 (published)": ((0.297, 0.9275),),
    "SkipNet, ResNet-74 (published)": ((0.477, 0.9277),),
}
#: DDI table I: computation saved to energy saved, measured by the paper on an FPGA.
ENERGY_PUBLISHED = ((0.40, 0.3608), (0.50, 0.4710), (0.60, 0.5730), (0.70, 0.6679), (0.80, 0.7820))

_IADI_COLUMNS = (
    Column(key="network", title="network"),
    Column(key="accuracy", title="accuracy", unit="share"),
    Column(key="above_base", title="- base, points", unit="points"),
    Column(key="mean_flops", title="mean MFLOPs", unit="flops"),
    Column(key="flops_saved", title="FLOPs saved", unit="share"),
    Column(key="layers_saved", title="in layers", unit="share"),
    Column(key="channels_saved", title="in channels, counted", unit="share"),
    Column(key="channels_left_out", title="left out by the runtime", unit="share"),
    Column(key="overhead", title="gates took", unit="share"),
    Column(key="energy_saved", title="energy saved", unit="share"),
    Column(key="time_saved", title="time saved", unit="share"),
    Column(key="time_over_flops", title="time / FLOPs saved", unit="number"),
    Column(key="energy_over_flops", title="energy / FLOPs saved", unit="number"),
)


def iadi_table(
    bundles: Sequence[Bundle],
    dataset: Dataset,
    *,
    base: Bundle | None = None,
    how: How | None = None,
) -> Table:
    """Networks that skip layers or channels: accuracy, and FLOPs, energy and time saved.

    Args:
        bundles: one for each skipping ratio and kind of gate.
        dataset: labelled pictures of the test set.
        base: the static network that gates were added to, for its accuracy, cost and time; without
            it, savings are shares of each network with all blocks and channels kept.
        how: how figures are got.

    Raises:
        DataError: no bundle.
        CalibrationError: a network does not fit the data.
    """
    how = how or How()
    if not bundles:
        raise DataError("no bundle: nothing to tabulate")
    rows: list[dict[str, Any]] = []
    reference: dict[str, Any] = {}
    if base is not None:
        reference = static_figures(base, dataset, how)
        flops = macs_to_flops(full_cost(base.graph).macs)
        rows.append(
            {
                "network": f"{base.name} (static)",
                "accuracy": reference["static_accuracy"],
                "mean_flops": flops,
            }
        )
    for bundle in bundles:
        setting = Setting(name=bundle.name)
        with load(bundle) as network:
            (observed,) = watched(network, dataset, [setting], how)
            (timing,) = timed(network, bundle, dataset, [setting], how, full=base)
        full = None if base is None else _full_of(base, bundle)
        row = {"network": bundle.name} | figures(observed, bundle.graph, full)
        row |= timing_cells(timing)
        row["channels_left_out"] = _left_out(bundle, row["channels_saved"])
        if base is not None:
            row["above_base"] = row["accuracy"] - reference["static_accuracy"]
        if row["energy_saved"] is not None and row["flops_saved"] > 0:
            row["energy_over_flops"] = row["energy_saved"] / row["flops_saved"]
        rows.append(row)
    full_name = "each network with everything kept" if base is None else base.name
    return Table(
        name="iadi",
        title="Skipping networks: what they save and what it costs in accuracy",
        data=dataset.source,
        n=len(dataset),
        bundles=versions([*bundles, *([] if base is None else [base])]),
        columns=_IADI_COLUMNS,
        rows=rows,
        notes=[
            f"Savings are shares of {full_name}; FLOPs saved is layers and channels less what "
            "the gates took. Channels are counted; the runtime leaves out those that masks drop "
            "between two convolutions, in groups, and computes the others all the same.",
            time_note(how, full_name),
            energy_note(bundles[0]),
        ],
        details={"base": None if base is None else base.name},
        version=dynrt_version(),
    )
