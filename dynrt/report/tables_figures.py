"""What a table says of one run of all inputs: accuracy, cost, and what was saved of it, and where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import dynrt
from dynrt.bundle import Bundle
from dynrt.calibrate.datasets import Dataset
from dynrt.calibrate.observe import Observed, Setting, observe
from dynrt.calibrate.pictures import prepare
from dynrt.errors import CalibrationError
from dynrt.ir.cost import Cost
from dynrt.ir.graph import ComputeNode, Exit, Graph
from dynrt.report.tables_full import energy_in, full_call, full_cost, full_model, plain_nodes
from dynrt.report.tables_timing import Timing, time_settings
from dynrt.runtime import Network
from dynrt.units import FLOPS_PER_MAC, fj_to_j, milli_to_mac_equivalents
from dynrt.workers import HERE, Spread

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How figures are got.

    Attributes:
        spread: where accuracy and cost are found; time is measured in this process.
        batch: pictures at a time.
        timed: pictures that are timed, one by one; 0: time is not measured.
        rounds: turns of each setting when timed.
        tell: told what is being done, how much is done, and of how much.
    """

    spread: Spread = HERE
    batch: int = 250
    timed: int = 500
    rounds: int = 10
    tell: Progress = lambda what, done, total: None


def watched(
    network: Network,
    dataset: Dataset,
    settings: Sequence[Setting],
    how: How,
    *,
    charges: bool = False,
) -> tuple[Observed, ...]:
    """:func:`~dynrt.calibrate.observe.observe` as ``how`` says."""
    name = "network" if network.bundle is None else network.bundle.name
    return observe(
        network,
        dataset,
        settings,
        batch=how.batch,
        charges=charges,
        spread=how.spread,
        progress=lambda done, total: how.tell(name, done, total),
    )


def timed(
    network: Network,
    bundle: Bundle,
    dataset: Dataset,
    settings: Sequence[Setting],
    how: How,
    *,
    full: Bundle | None = None,
) -> list[Timing | None]:
    """Time every setting, unless ``how`` says not to.

    Args:
        network: loaded from ``bundle``.
        bundle: of the network.
        dataset: pictures; the first ones are timed.
        settings: what to time.
        how: how many pictures, and in how many rounds.
        full: whose full network it is held against; by default its own.
    """
    if not how.timed or not settings:
        return [None] * len(settings)
    if bundle.preprocessing is None:
        raise CalibrationError(f"{bundle.name} takes no pictures (its bundle has no preprocessing)")
    how.tell("time", 0, 1)
    other = full or bundle
    inputs = prepare(dataset.first(how.timed).pictures, bundle.preprocessing)
    found = time_settings(
        network,
        settings,
        full_call(full_model(other)),
        full_cost(other.graph).macs,
        inputs,
        rounds=min(how.rounds, len(inputs)),
    )
    how.tell("time", 1, 1)
    return list(found)


def figures(observed: Observed, graph: Graph, full: Cost | None = None) -> dict[str, Any]:
    """Cells of a row.

    ``flops_saved`` is what all gates, heads and masks together come to. ``layers_saved`` is the
    share of the full network in nodes that did not run, ``channels_saved`` that in channels that
    masks dropped (counted; whether time is saved as well is measured), and ``overhead`` what gates,
    masks' gates and heads of earlier exits took: the first is the sum of the next two less the last.

    Args:
        observed: of the inputs.
        graph: of the network.
        full: of the full network; by default its own.
    """
    whole = full or full_cost(graph)
    plain = plain_nodes(graph)
    costs = np.array([_macs(graph, name) for name in observed.nodes], np.float64)
    is_plain = np.array([name in plain for name in observed.nodes])
    share = observed.ran.mean(axis=0)
    ran_macs, own_full = float(share @ costs), float(costs[is_plain].sum())
    mean_macs = observed.mean_macs
    unit, energy, full_energy = _energy(observed, graph, whole)
    return {
        "accuracy": observed.accuracy,
        "mean_flops": FLOPS_PER_MAC * mean_macs,
        "max_flops": FLOPS_PER_MAC * int(observed.macs.max()),
        "full_flops": FLOPS_PER_MAC * whole.macs,
        "flops_saved": 1 - mean_macs / whole.macs,
        "layers_saved": (own_full - float((share * costs)[is_plain].sum())) / whole.macs,
        "channels_saved": (ran_macs - mean_macs) / whole.macs,
        "overhead": float((share * costs)[~is_plain].sum()) / whole.macs,
        "mean_energy": energy,
        "energy_unit": unit,
        "energy_saved": None if energy is None or not full_energy else 1 - energy / full_energy,
        "exits": exits_text(observed),
        "stopped": int(np.count_nonzero(~observed.accepted)),
    }


def _macs(graph: Graph, name: str) -> int:
    node = graph.by_name[name]
    return node.cost.macs if isinstance(node, ComputeNode | Exit) else 0


def _energy(
    observed: Observed, graph: Graph, full: Cost
) -> tuple[str | None, float | None, float | None]:
    """Unit, mean per input and that of the full network; ``None`` where it is not modelled."""
    spent = observed.energy
    whole = energy_in(full)
    if spent is None:
        return None, None, None
    mean = sum(spent.tolist()) / len(observed)
    joules = observed.femtojoules is not None
    to_unit = fj_to_j if joules else milli_to_mac_equivalents
    same = whole is not None and joules == (full.femtojoules is not None)
    full_energy = to_unit(whole) if whole is not None and same else None
    return "J" if joules else "MACeq", to_unit(round(mean)), full_energy


def exits_text(observed: Observed) -> str:
    """Which share of the inputs answered where: ``exit2 40 % final 60 %``."""
    parts = [
        f"{e} {100 * count / len(observed):.0f} %" for e, count in observed.used.items() if count
    ]
    return ", ".join(parts)


def timing_cells(timing: Timing | None) -> dict[str, Any]:
    """Cells of a row; none where time was not measured."""
    return {} if timing is None else timing.cells()


def time_note(how: How, full: str) -> str:
    """How time was measured."""
    if not how.timed:
        return "Time was not measured."
    return (
        f"Time: single runs of the first {how.timed} pictures, one thread, in turns with {full} "
        "as one static graph in one onnxruntime session; time saved / FLOPs saved is of those "
        "pictures."
    )


def energy_note(bundle: Bundle) -> str:
    """Where energies come from."""
    if bundle.energy is None:
        return "Energy is not modelled: the bundle carries no energy table."
    return f"Energy is modelled, not measured: {bundle.energy}."


def versions(bundles: Sequence[Bundle]) -> dict[str, str]:
    """SHA-256 of each bundle by its name; numbers where names repeat."""
    out: dict[str, str] = {}
    for bundle in bundles:
        name, number = bundle.name, 1
        while out.get(name, bundle.sha256) != bundle.sha256:
            number += 1
            name = f"{bundle.name} ({number})"
        out[name] = bundle.sha256
    return out


def dynrt_version() -> str:
    """Of the dynrt that makes a record."""
    return dynrt.__version__


def early_exits_closed(graph: Graph) -> Mapping[str, float]:
    """Thresholds under which no exit but the last accepts: runs end where their budget stops them."""
    closed = {}
    for name in graph.exits[:-1]:
        node = graph.by_name[name]
        if isinstance(node, Exit) and node.accept.scored:
            closed[name] = float("inf")
    return closed
