"""Lowers a spec to a bundle in three passes, each checked after it ran."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnxruntime
import torch

from dynrt.bundle import Bundle, build_bundle, replace_parts
from dynrt.errors import ExportError
from dynrt.exporters.layers import layer_table
from dynrt.exporters.macs import count_macs
from dynrt.exporters.mask_macs import count_group_macs
from dynrt.exporters.onnx_node import NodeExport, export_node, frozen_copy, output_ports
from dynrt.exporters.plain import OPSET, Weights
from dynrt.exporters.spec import ControlSpec, ExitSpec, NetworkSpec, NodeSpec, Wire
from dynrt.ir.check import require_valid
from dynrt.ir.cost import Cost
from dynrt.ir.graph import (
    ChannelMask,
    ComputeNode,
    Constant,
    ControlEdge,
    ControlNode,
    DataEdge,
    Exit,
    Graph,
    Node,
    NodeId,
    Port,
    PortRef,
    TensorType,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is known of a network between two passes.

    Attributes:
        spec: what is lowered.
        graph: nodes, ports and edges; costs are zero until they are counted.
        models: ONNX by node, once exported.
        unknown: operators that were taken as zero, by node.
    """

    spec: NetworkSpec
    graph: Graph
    models: Mapping[NodeId, bytes]
    unknown: Mapping[NodeId, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A named step from draft to draft."""

    name: str
    run: Callable[[Draft], Draft]


def lower(
    spec: NetworkSpec,
    *,
    weights: Weights = "float32",
    provenance: Mapping[str, str] | None = None,
) -> Bundle:
    """Lower ``spec`` to a bundle; what it computes is proven by :mod:`dynrt.exporters.parity`.

    Args:
        spec: the network.
        weights: ``float16`` stores large weights in half the bytes; they are cast when loaded.
        provenance: added to versions of what made the bundle.

    Raises:
        ExportError: a module cannot be exported or counted.
        GraphError: the graph breaks an invariant; names the pass after which it does.
    """
    draft = Draft(spec=spec, graph=_typed_graph(spec), models={}, unknown={})
    require_valid(draft.graph, place=f"network {spec.name!r}, after pass 'types'")
    for step in (Pass(name="export", run=_export(weights)), Pass(name="count", run=_count)):
        draft = step.run(draft)
        require_valid(draft.graph, place=f"network {spec.name!r}, after pass {step.name!r}")
    made_by = {
        "made_by": "dynrt.exporters.lower",
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "opset": str(OPSET),
        "weights": weights,
    }
    if draft.unknown:
        rows = (f"{node}: {' '.join(ops)}" for node, ops in sorted(draft.unknown.items()))
        made_by["uncounted_operators"] = "; ".join(rows)
    return build_bundle(
        name=spec.name,
        graph=draft.graph,
        models=draft.models,
        labels=spec.labels,
        preprocessing=spec.preprocessing,
        card=spec.card,
        provenance={**made_by, **(provenance or {})},
        layers=layer_table(draft.models, draft.graph),
    )


def with_provenance(bundle: Bundle, entries: Mapping[str, str]) -> Bundle:
    """``bundle`` with more lines of provenance."""
    return replace_parts(bundle, provenance={**bundle.provenance, **entries})


def _typed_graph(spec: NetworkSpec) -> Graph:
    """Nodes with the port types that the modules turn out to have, sources before readers."""
    types: dict[PortRef, TensorType] = {PortRef(n.name, n.name): n.type for n in spec.inputs}
    nodes: dict[NodeId, Node] = {n.name: n for n in spec.inputs}
    waiting = list(spec.nodes)
    declared = {n.name for n in (*spec.inputs, *spec.nodes)}
    while waiting:
        ready = [n for n in waiting if all(w.source in types for w in _wires(n).values())]
        if not ready:
            raise ExportError(_stuck(spec, waiting, declared, types))
        for item in ready:
            node = _typed_node(item, types)
            if item.name in nodes:
                raise ExportError(f"two nodes are called {item.name!r}")
            nodes[item.name] = node
            types.update({PortRef(item.name, p.name): p.type for p in node.outputs})
        waiting = [n for n in waiting if n not in ready]
    order = [*(n.name for n in spec.inputs), *(n.name for n in spec.nodes)]
    return Graph(
        nodes=tuple(nodes[name] for name in order),
        data=tuple(
            DataEdge(
                source=wire.source,
                target=PortRef(item.name, port),
                default=_default(wire, types),
            )
            for item in spec.nodes
            for port, wire in _wires(item).items()
        ),
        control=tuple(
            ControlEdge(control=item.name, target=target, action=i)
            for item in spec.nodes
            if isinstance(item, ControlSpec)
            for i, targets in enumerate(item.actions)
            for target in targets
        ),
        exits=tuple(n.name for n in spec.nodes if isinstance(n, ExitSpec)),
        combine=spec.combine,
    )


def _wires(item: NodeSpec) -> Mapping[str, Wire]:
    return {"scores": item.scores} if isinstance(item, ControlSpec) else item.inputs


def _default(wire: Wire, types: Mapping[PortRef, TensorType]) -> Constant | PortRef | None:
    if wire.default == "zeros":
        return Constant.zeros(types[wire.source])
    return wire.default


def _typed_node(item: NodeSpec, types: Mapping[PortRef, TensorType]) -> Node:
    place = f"node {item.name!r}"
    inputs = tuple(Port(name=p, type=types[w.source]) for p, w in _wires(item).items())
    if isinstance(item, ControlSpec):
        scores = inputs[0].type
        if scores.shape != (len(item.actions),):
            raise ExportError(
                f"{place}: scores of shape {scores.shape} for {len(item.actions)} actions; "
                f"give {(len(item.actions),)}"
            )
        return ControlNode(
            name=item.name, actions=len(item.actions), rule=item.rule, dtype=scores.dtype
        )
    outputs = output_ports(frozen_copy(item.module), inputs, item.outputs, place=place)
    uncounted = Cost(macs=0)
    if isinstance(item, ExitSpec):
        return Exit(
            name=item.name,
            inputs=inputs,
            outputs=outputs,
            answer=item.answer,
            accept=item.accept,
            cost=uncounted,
        )
    mask = None
    if item.mask is not None:
        sizes = {p.name: p.type.shape for p in inputs}.get(item.mask, ())
        mask = ChannelMask(port=item.mask, groups=sizes[0] if sizes else 1, group_macs=0)
    return ComputeNode(name=item.name, inputs=inputs, outputs=outputs, cost=uncounted, mask=mask)


def _stuck(
    spec: NetworkSpec,
    waiting: list[NodeSpec],
    declared: set[NodeId],
    types: Mapping[PortRef, TensorType],
) -> str:
    """Why no waiting node can be typed: an unknown port, or a cycle."""
    later = {n.name for n in waiting}
    for item in waiting:
        for port, wire in _wires(item).items():
            source, place = wire.source, f"node {item.name!r}, input {port!r}"
            if source.node not in declared:
                return f"{place}: there is no node {source.node!r}"
            if source not in types and source.node not in later:
                known = sorted(r.port for r in types if r.node == source.node)
                return f"{place}: {source.node!r} has no output {source.port!r} but {known}"
    for item in waiting:
        for port, wire in _wires(item).items():
            source = wire.source
            given = next((n for n in waiting if n.name == source.node), None)
            names = () if given is None or isinstance(given, ControlSpec) else given.outputs
            if given is not None and source.port not in names:
                return f"node {item.name!r}, input {port!r}: {source.node!r} has no output {source.port!r}"
    return f"network {spec.name!r}: {', '.join(sorted(later))} feed each other in a cycle"


def _export(weights: Weights) -> Callable[[Draft], Draft]:
    def run(draft: Draft) -> Draft:
        models: dict[NodeId, bytes] = {}
        for item in draft.spec.nodes:
            if isinstance(item, ControlSpec):
                continue
            node = draft.graph.by_name[item.name]
            made = export_node(
                item.module, node.inputs, item.outputs, weights=weights, place=f"node {item.name!r}"
            )
            _require_ports(node, made)
            models[item.name] = made.model
        return replace(draft, models=models)

    return run


def _require_ports(node: Node, made: NodeExport) -> None:
    if made.outputs != node.outputs:
        raise ExportError(f"node {node.name!r}: its outputs changed type between two calls")


def _count(draft: Draft) -> Draft:
    nodes: list[Node] = []
    unknown: dict[NodeId, tuple[str, ...]] = {}
    for node in draft.graph.nodes:
        if isinstance(node, ComputeNode | Exit):
            count = count_macs(draft.models[node.name], place=f"node {node.name!r}")
            if count.unknown:
                unknown[node.name] = count.unknown
            counted = replace(node, cost=Cost(macs=count.macs))
            if isinstance(counted, ComputeNode) and counted.mask is not None:
                each = count_group_macs(draft.models[node.name], counted)
                counted = replace(counted, mask=replace(counted.mask, group_macs=each))
            nodes.append(counted)
        else:
            nodes.append(node)
    return replace(draft, graph=replace(draft.graph, nodes=tuple(nodes)), unknown=unknown)
