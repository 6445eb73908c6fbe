"""The objects of ``dynrt energy --json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dynrt.cli.energy_runs import Run
from dynrt.energy.model import Amount, EnergyReport, NodeReport
from dynrt.energy.policy import policy_named
from dynrt.ir.certificate import exit_bounds
from dynrt.ir.cost import Cost
from dynrt.ir.counts import AccessCounts, Gap, NodeCounts
from dynrt.ir.graph import ComputeNode, Exit, Graph, NodeId


def describe(run: Run) -> dict[str, Any]:
    """The object of ``energy --json``; energies in ``unit``, exact ones in its thousandths."""
    report = run.report
    whole = AccessCounts()
    for counted in run.counts.nodes.values():
        whole += _sum(counted)
    names = [n.name for n in run.bundle.graph.nodes if n.name in report.nodes]
    levels = report.of_path(names).by_level
    return {
        "bundle": {"name": run.bundle.name, "sha256": run.bundle.sha256},
        "hardware": run.hardware.name,
        "dataflow": run.hardware.dataflow,
        "table": report.source.table,
        "policy": run.counts.policy,
        "backend": run.counts.backend,
        "unit": report.unit,
        "source": str(report.source),
        "counts_from": "bundle" if run.stored else "now",
        "details": {
            "hardware": run.hardware.to_json(),
            "table": {"technology": run.table.technology, "summary": run.table.summary},
            "policy": policy_named(run.counts.policy).meaning,
            "prices": _prices(report),
        },
        "nodes": [_node(run, name) for name in names],
        "exits": _exits(run),
        "total": {
            "macs": sum(_macs(run.bundle.graph, name) for name in names),
            "cycles": whole.cycles,
            "seconds": _seconds(run, whole.cycles),
            "utilisation": whole.utilisation,
            "counts": _counts(whole),
            "levels": {level: report.in_unit(a.value) for level, a in levels.items()},
            **_energy(report, report.total),
        },
        "missing": list(report.missing),
        "left_out": list(report.left_out),
        "unmodelled": _unmodelled(run, names),
    }


def _seconds(run: Run, cycles: int) -> float | None:
    clock_hz = run.hardware.clock_hz
    return None if clock_hz is None else cycles / clock_hz


def _energy(report: EnergyReport, amount: Amount) -> dict[str, Any]:
    exact = "femtojoules" if report.unit == "J" else "milli_mac_equivalents"
    return {
        "energy": report.in_unit(amount.value),
        "low": report.in_unit(amount.low),
        "high": report.in_unit(amount.high),
        exact: amount.value,
    }


def _node(run: Run, name: NodeId) -> dict[str, Any]:
    node, counted = run.report.node(name), run.counts.nodes[name]
    whole, in_unit = _sum(counted), run.report.in_unit
    return {
        "name": name,
        "kind": "exit" if isinstance(run.bundle.graph.by_name[name], Exit) else "compute",
        "macs": _macs(run.bundle.graph, name),
        "cycles": whole.cycles,
        "utilisation": whole.utilisation,
        "formats": [typed.dtype for typed in counted.typed],
        "counts": _counts(whole),
        "levels": {level: in_unit(a.value) for level, a in node.by_level.items()},
        **_energy(run.report, node.amount),
        "parts": _parts(run, node),
        "kept": [_energy(run.report, amount) for amount in node.kept],
        "unmodelled": [_gap(gap) for gap in node.gaps],
    }


def _parts(run: Run, node: NodeReport) -> list[dict[str, Any]]:
    return [
        {
            "level": part.level,
            "operand": part.operand,
            "access": part.access,
            "count": part.count,
            **_energy(run.report, part.amount),
        }
        for part in node.parts
    ]


def _exits(run: Run) -> list[dict[str, Any]]:
    """Each exit's cheapest and full path, as the certificate bounds them.

    ``low`` and ``high`` are of the paths that are cheapest (dearest) at those prices. A node with a
    channel mask counts with the number of groups that takes most, as budgets have it.
    """
    every = [
        {
            name: max(getattr(amount, bound) for amount in (node.amount, *node.kept))
            for name, node in run.report.nodes.items()
        }
        for bound in ("value", "low", "high")
    ]
    by_bound = [
        {b.name: b for b in exit_bounds(_with_amounts(run.bundle.graph, amounts), "femtojoules")}
        for amounts in every
    ]
    out: list[dict[str, Any]] = []
    for name in by_bound[0]:
        value, low, high = (bound[name] for bound in by_bound)
        cheapest = Amount(value=value.cheapest, low=low.cheapest, high=high.cheapest)
        full = Amount(value=value.full, low=low.full, high=high.full)
        out.append(
            {
                "name": name,
                "cheapest": _energy(run.report, cheapest),
                "full": _energy(run.report, full),
            }
        )
    return out


def _unmodelled(run: Run, names: Sequence[NodeId]) -> dict[str, Any]:
    gaps = [(name, gap) for name in names for gap in run.report.node(name).gaps]
    macs = sum(gap.macs for _, gap in gaps)
    all_macs = sum(_macs(run.bundle.graph, name) for name in names)
    moved = [gap.bytes_moved for _, gap in gaps]
    return {
        "operators": [{"node": name, **_gap(gap)} for name, gap in gaps],
        "count": sum(gap.count for _, gap in gaps),
        "macs": macs,
        "macs_share": macs / all_macs if all_macs else 0.0,
        "bytes": None if None in moved else sum(m for m in moved if m is not None),
    }


def describe_all(runs: Sequence[Run]) -> dict[str, Any]:
    """One network on several hardware descriptions: ``runs`` holds one object for each."""
    described = [{"row": run.row, **describe(run)} for run in runs]
    first = described[0]
    shared = ("bundle", "table", "policy", "backend", "unit", "missing", "left_out", "unmodelled")
    return {**{name: first[name] for name in shared}, "runs": described}


def _with_amounts(graph: Graph, amounts: Mapping[NodeId, int]) -> Graph:
    """The graph with these amounts as its energies, whatever their unit."""
    nodes = tuple(
        replace(node, cost=Cost(macs=node.cost.macs, femtojoules=amounts[node.name]))
        if isinstance(node, ComputeNode | Exit)
        else node
        for node in graph.nodes
    )
    return replace(graph, nodes=nodes)


def _sum(node: NodeCounts) -> AccessCounts:
    return sum((typed.counts for typed in node.typed), start=AccessCounts())


def _macs(graph: Graph, name: NodeId) -> int:
    node = graph.by_name[name]
    return node.cost.macs if isinstance(node, ComputeNode | Exit) else 0


def _gap(gap: Gap) -> dict[str, Any]:
    return {
        "op": gap.op,
        "count": gap.count,
        "macs": gap.macs,
        "bytes": gap.bytes_moved,
        "reason": gap.reason,
    }


def _prices(report: EnergyReport) -> dict[str, Any]:
    """How the prices that were used came about, by term."""
    return {
        name: {"basis": action.basis, "sources": list(action.sources)}
        for name, action in report.basis.items()
    }


def _counts(c: AccessCounts) -> dict[str, Any]:
    """Counts by level and operand: words, cycles, operations."""
    return {
        "mac": c.macs,
        "operation": c.operations,
        "cycles": c.cycles,
        "stall_cycles": c.stall_cycles,
        "pe_cycles": c.pe_cycles,
        "hop": {"ifmap": c.hops_ifmap, "filter": c.hops_filter, "ofmap": c.hops_ofmap},
        "buffer": {
            "ifmap": {"read": c.sram_ifmap_reads},
            "filter": {"read": c.sram_filter_reads},
            "ofmap": {"read": c.sram_ofmap_reads, "write": c.sram_ofmap_writes},
        },
        "dram": {
            "ifmap": {"read": c.dram_ifmap_reads},
            "filter": {"read": c.dram_filter_reads},
            "ofmap": {"read": c.dram_ofmap_reads, "write": c.dram_ofmap_writes},
        },
    }
