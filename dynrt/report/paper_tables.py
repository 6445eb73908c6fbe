"""DDI's comparison of skipping networks, with ours beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dynrt.bundle import Bundle
from dynrt.calibrate.datasets import Dataset
from dynrt.calibrate.observe import Setting
from dynrt.errors import DataError
from dynrt.ir.cost import Cost
from dynrt.ir.graph import ComputeNode
from dynrt.report.tables import Column, Table
from dynrt.report.tables_figures import (
    How,
    dynrt_version,
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


def static_figures(bundle: Bundle, dataset: Dataset, how: How) -> dict[str, Any]:
    """Accuracy and cost of a network that always does the same."""
    with load(bundle) as network:
        (observed,) = watched(network, dataset, [Setting(name="static")], how)
    return {
        "static": bundle.name,
        "static_flops": FLOPS_PER_MAC * int(observed.macs.max()),
        "static_accuracy": observed.accuracy,
    }


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
