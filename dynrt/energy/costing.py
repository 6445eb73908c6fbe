"""Energies as the costs of a network's nodes, so that a runtime can spend them."""

from __future__ import annotations

from dataclasses import replace

from dynrt.bundle import Bundle
from dynrt.bundle.held import Held
from dynrt.energy.backend import Backend
from dynrt.energy.counting import count_nodes
from dynrt.energy.hardware import Hardware
from dynrt.energy.model import EnergyReport, NodeReport, price
from dynrt.energy.policy import DEFAULT_POLICY
from dynrt.energy.tables import EnergyTable
from dynrt.errors import EnergyError
from dynrt.ir.certificate import certify
from dynrt.ir.counts import CountTable
from dynrt.ir.graph import ComputeNode, Exit, Graph


def count_bundle(
    bundle: Bundle,
    hardware: Hardware,
    *,
    policy: str = DEFAULT_POLICY,
    backend: Backend | None = None,
) -> CountTable:
    """Access counts of a bundle's nodes.

    Args:
        bundle: with a layer table.
        hardware: on which.
        policy: name of the policy.
        backend: as for :func:`~dynrt.energy.counting.count_nodes`.

    Raises:
        EnergyError: the bundle has no layer table, or a layer cannot be counted.
    """
    if bundle.layers is None:
        raise EnergyError(
            f"bundle {bundle.name!r} has no layer table: export its network again with this dynrt"
        )
    masks = {
        node.name: node.mask.groups
        for node in bundle.graph.nodes
        if isinstance(node, ComputeNode) and node.mask is not None
    }
    return count_nodes(bundle.layers, hardware, policy=policy, backend=backend, mask_groups=masks)


def priced(bundle: Bundle, counts: CountTable, table: EnergyTable, *, hops: bool = False) -> Bundle:
    """The bundle with energies in its costs, from these counts and this table.

    It is the same network, under the same hash, to be loaded or written; models are not touched.

    Args:
        bundle: any.
        counts: of all its compute nodes and exits.
        table: what each access takes.
        hops: as for :func:`~dynrt.energy.model.price`.

    Raises:
        EnergyError: the counts are of another network, or the table does not know a number format.
    """
    report = price(counts, table, hops=hops)
    graph = with_energies(bundle.graph, report)
    return replace(
        bundle,
        graph=graph,
        certificate=certify(graph),
        energy=report.source,
        held_counts=Held.of(counts),
    )


def repriced(bundle: Bundle, table: EnergyTable) -> Bundle:
    """The bundle with the energies of another table; nothing is counted again.

    Raises:
        EnergyError: the bundle carries no counts, or the table does not fit them.
    """
    if bundle.counts is None:
        raise EnergyError(
            f"bundle {bundle.name!r} carries no access counts: dynrt energy BUNDLE --write OUT "
            "stores them"
        )
    return priced(bundle, bundle.counts, table)


def with_energies(graph: Graph, report: EnergyReport) -> Graph:
    """The graph with the energies of a report as costs, whatever it had before.

    A node with a channel mask costs the most that any number of kept groups takes; what a run is
    charged is what its kept groups take.

    Raises:
        EnergyError: a node is not in the report, or the report has one that the graph has not.
    """
    wanted = {n.name for n in graph.nodes if isinstance(n, ComputeNode | Exit)}
    if odd := sorted(wanted ^ report.nodes.keys()):
        raise EnergyError(f"the counts are of another network: node {odd[0]!r}")
    return replace(
        graph,
        nodes=tuple(
            _with_energy(node, report.nodes[node.name], report.unit)
            if isinstance(node, ComputeNode | Exit)
            else node
            for node in graph.nodes
        ),
    )


def _with_energy(node: ComputeNode | Exit, energy: NodeReport, unit: str) -> ComputeNode | Exit:
    kept = tuple(amount.value for amount in energy.kept)
    most = max((energy.amount.value, *kept))
    joules = unit == "J"
    cost = replace(
        node.cost,
        femtojoules=most if joules else None,
        milli_mac_equivalents=None if joules else most,
    )
    if isinstance(node, Exit) or node.mask is None:
        return replace(node, cost=cost)
    mask = replace(
        node.mask,
        kept_femtojoules=kept if joules else (),
        kept_milli_mac_equivalents=() if joules else kept,
    )
    return replace(node, cost=cost, mask=mask)
