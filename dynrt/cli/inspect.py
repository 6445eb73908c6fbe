"""``dynrt inspect``: nodes, edges, rules, exits, costs, the certificate and the hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import click

from dynrt.bundle import Bundle
from dynrt.cli.bundles import open_bundle
from dynrt.cli.drawing import kind_of, to_dot, to_mermaid, to_svg
from dynrt.cli.energies import Energy, as_energy, energy_of, energy_source, energy_unit
from dynrt.cli.options import json_option
from dynrt.cli.text import megaflops, table, to_json
from dynrt.ir.certificate import exit_bounds
from dynrt.ir.cost import Cost
from dynrt.ir.graph import Argmax, Constant, ControlNode, DataEdge, Exit, InputNode, Node
from dynrt.units import fj_to_j, macs_to_flops, milli_to_mac_equivalents

_DRAWINGS: dict[str, Callable[..., str]] = {"svg": to_svg, "dot": to_dot, "mermaid": to_mermaid}


@click.command()
@click.argument("bundle", required=False)
@click.option(
    "--graph",
    "drawing",
    type=click.Choice(list(_DRAWINGS)),
    help="Write a picture of the graph to stdout instead.",
)
@json_option
def command(bundle: str | None, drawing: str | None, as_json: bool) -> None:
    """Show what BUNDLE is made of and what it costs.

    BUNDLE is a .dynrt file, a folder, or a name that `dynrt models` lists; without it, the packaged
    default.
    """
    if drawing is not None and as_json:
        raise click.UsageError("--graph and --json exclude each other")
    found = open_bundle(bundle)
    if drawing is not None:
        click.echo(_DRAWINGS[drawing](found.graph, title=found.name), nl=False)
    elif as_json:
        click.echo(to_json(describe(found)))
    else:
        click.echo(page(found))


def _cost(node: Node) -> Cost | None:
    """What a node costs; inputs and control nodes cost nothing by themselves."""
    return None if isinstance(node, InputNode | ControlNode) else node.cost


def _energy(femtojoules: int | None, milli_mac_equivalents: int | None) -> float | None:
    energy = as_energy(femtojoules, milli_mac_equivalents)
    return None if energy is None else energy.amount


def _exit_energies(bundle: Bundle) -> dict[str, tuple[Energy, Energy]]:
    """Least and most energy at each exit; nothing where energy is not modelled."""
    unit = energy_unit(bundle)
    if unit is None:
        return {}
    name = "femtojoules" if unit == "J" else "milli_mac_equivalents"
    to_unit = fj_to_j if unit == "J" else milli_to_mac_equivalents
    return {
        exit_.name: (Energy(to_unit(exit_.cheapest), unit), Energy(to_unit(exit_.full), unit))
        for exit_ in exit_bounds(bundle.graph, name)
    }


def _exit_record(energies: tuple[Energy, Energy] | None) -> dict[str, float]:
    if energies is None:
        return {}
    return {"cheapest_energy": energies[0].amount, "full_energy": energies[1].amount}


def describe(bundle: Bundle) -> dict[str, Any]:
    """The object of ``inspect --json``; energies are null where they are not modelled."""
    certificate = bundle.certificate
    unit, energies = energy_unit(bundle), _exit_energies(bundle)
    layers, counts = bundle.layers, bundle.counts
    return {
        "name": bundle.name,
        "sha256": bundle.sha256,
        "full_flops": macs_to_flops(certificate.full_macs),
        "cheapest_flops": macs_to_flops(certificate.cheapest_macs),
        "nodes": [_node(bundle, node) for node in bundle.graph.nodes],
        "edges": [_edge(edge) for edge in bundle.graph.data],
        "control": [
            {"control": e.control, "target": e.target, "action": e.action}
            for e in bundle.graph.control
        ],
        "exits": [
            {
                "name": exit_.name,
                "cheapest_flops": macs_to_flops(exit_.cheapest_macs),
                "full_flops": macs_to_flops(exit_.full_macs),
            }
            | _exit_record(energies.get(exit_.name))
            for exit_ in certificate.exits
        ],
        "combine": bundle.graph.combine.kind,
        "certificate": {
            "answers": certificate.answers,
            "exact": certificate.exact,
            "cheapest_macs": certificate.cheapest_macs,
            "full_macs": certificate.full_macs,
            "cheapest_joules": _energy(certificate.cheapest_femtojoules, None),
            "full_joules": _energy(certificate.full_femtojoules, None),
            "cheapest_mac_equivalents": _energy(None, certificate.cheapest_milli_mac_equivalents),
            "full_mac_equivalents": _energy(None, certificate.full_milli_mac_equivalents),
            "peak_tensor_bytes": certificate.peak_tensor_bytes,
        },
        "operators": None if layers is None else sum(map(len, layers.values())),
        "counts": None
        if counts is None
        else {
            "hardware": counts.hardware.get("name"),
            "policy": counts.policy,
            "backend": counts.backend,
        },
        "energy_unit": unit,
        "energy_source": None if unit is None else energy_source(bundle),
        "labels": list(bundle.labels),
        "preprocessing": _preprocessing(bundle),
        "card": bundle.card,
        "provenance": bundle.provenance,
    }


def _preprocessing(bundle: Bundle) -> dict[str, Any] | None:
    rule = bundle.preprocessing
    if rule is None:
        return None
    names = ("height", "width", "channels", "mean", "std", "resize")
    return {name: getattr(rule, name) for name in names}


def _node(bundle: Bundle, node: Node) -> dict[str, Any]:
    cost = _cost(node)
    out: dict[str, Any] = {
        "name": node.name,
        "kind": kind_of(node),
        "macs": 0 if cost is None else cost.macs,
        "energy": None if cost is None else _energy(cost.femtojoules, cost.milli_mac_equivalents),
        "inputs": {port.name: str(port.type) for port in node.inputs},
        "outputs": {port.name: str(port.type) for port in node.outputs},
    }
    if isinstance(node, ControlNode):
        rule = node.rule
        out["rule"] = "argmax" if isinstance(rule, Argmax) else "threshold"
        out["thresholds"] = [] if isinstance(rule, Argmax) else list(rule.thresholds)
    if isinstance(node, Exit):
        out["rule"] = node.accept.kind
        out["threshold"] = node.accept.threshold if node.accept.scored else None
    if node.name in bundle.models:
        model = bundle.models[node.name]
        out["bytes"] = len(model)
        out["sha256"] = hashlib.sha256(model).hexdigest()
    return out


def _edge(edge: DataEdge) -> dict[str, Any]:
    default = edge.default
    return {
        "source": str(edge.source),
        "target": str(edge.target),
        "default": "constant" if isinstance(default, Constant) else default and str(default),
    }


def _rule_text(node: Node) -> str:
    if isinstance(node, ControlNode):
        if isinstance(node.rule, Argmax):
            return f"argmax of {node.actions}"
        return "score >= " + ",".join(f"{t:.4g}" for t in node.rule.thresholds)
    if isinstance(node, Exit):
        accept = node.accept
        return f"{accept.kind} >= {accept.threshold:.4g}" if accept.scored else accept.kind
    if isinstance(node, InputNode):
        return "input" if node.param is None else "parameter"
    return ""


def page(bundle: Bundle) -> str:
    """The same for people."""
    certificate = bundle.certificate
    graph = bundle.graph
    with_energy = energy_unit(bundle) is not None
    parts = [
        f"{bundle.name}  sha256 {bundle.sha256}",
        f"{len(graph.nodes)} nodes, {len(graph.data)} data edges, {len(graph.control)} control "
        f"edges, {len(graph.exits)} exits, {sum(map(len, bundle.models.values()))} bytes of ONNX",
        "",
        _node_table(bundle, with_energy=with_energy),
        "",
        _exit_table(bundle),
        "",
        f"certificate: {'an answer on every path' if certificate.answers else 'NO ANSWER'}; "
        f"cheapest {megaflops(macs_to_flops(certificate.cheapest_macs))}, "
        f"full {megaflops(macs_to_flops(certificate.full_macs))} MFLOPs"
        f"{' (exact)' if certificate.exact else ' (bounds)'}",
        f"memory: at most {certificate.peak_tensor_bytes} bytes of tensors at once",
    ]
    parts.append(_tables(bundle))
    if with_energy:
        cheapest = as_energy(
            certificate.cheapest_femtojoules, certificate.cheapest_milli_mac_equivalents
        )
        full = as_energy(certificate.full_femtojoules, certificate.full_milli_mac_equivalents)
        parts.append(f"energy: cheapest {cheapest}, full {full} ({energy_source(bundle)})")
    if bundle.provenance:
        made = ", ".join(f"{key} {value}" for key, value in bundle.provenance.items())
        parts.append(f"made by: {made}")
    return "\n".join(parts)


def _tables(bundle: Bundle) -> str:
    """What the bundle carries for the energy model."""
    layers, counts = bundle.layers, bundle.counts
    if layers is None:
        return "layers: no table, so that no energy can be modelled from this bundle"
    operators = sum(map(len, layers.values()))
    if counts is None:
        return f"layers: {operators} operators, not counted yet (dynrt energy --write)"
    return (
        f"layers: {operators} operators, counted on {counts.hardware.get('name')} "
        f"({counts.policy}) by {counts.backend}"
    )


def _node_table(bundle: Bundle, *, with_energy: bool) -> str:
    rows = []
    for node in bundle.graph.nodes:
        cost = _cost(node)
        sources = [str(e.source) for e in bundle.graph.data if e.target.node == node.name]
        gates = [f"{e.control}={e.action}" for e in bundle.graph.control if e.target == node.name]
        row = [
            node.name,
            kind_of(node),
            "" if cost is None else megaflops(cost.flops),
            _rule_text(node),
            " ".join(dict.fromkeys(sources)) + (f" if {' or '.join(gates)}" if gates else ""),
            hashlib.sha256(bundle.models[node.name]).hexdigest()[:12]
            if node.name in bundle.models
            else "",
        ]
        if with_energy:
            energy = None if cost is None else energy_of(cost)
            row.insert(3, "" if energy is None else str(energy))
        rows.append(row)
    titles = ["node", "kind", "MFLOPs", "rule", "takes", "sha256"]
    if with_energy:
        titles.insert(3, "energy")
    right = (2, 3) if with_energy else (2,)
    return table(titles, rows, right=right, elastic=titles.index("takes"))


def _exit_table(bundle: Bundle) -> str:
    energies = _exit_energies(bundle)
    rows = [
        [
            cost.name,
            megaflops(macs_to_flops(cost.cheapest_macs)),
            megaflops(macs_to_flops(cost.full_macs)),
            _rule_text(bundle.graph.by_name[cost.name]),
        ]
        for cost in bundle.certificate.exits
    ]
    titles = ["exit", "cheapest", "full MFLOPs", "accepts"]
    for row in rows if energies else ():
        row[3:3] = map(str, energies[row[0]])
    if energies:
        titles[3:3] = ["cheapest", "full energy"]
    return table(titles, rows, right=range(1, len(titles) - 1))
