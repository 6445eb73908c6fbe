"""A float bundle to an int8 one: static QDQ, u8 activations, s8 weights per channel.

Compute nodes work in integers and hand uint8 to one another; exits and the nodes that give scores,
masks or gate states stay float and convert at their borders. Ports that an edge's default can
exchange (skipped blocks) share one scale and zero point, so what is passed on unchanged stays
right. Costs in multiply-accumulates stay what they are; modelled energies are those of the float
network and are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import onnx
import onnxruntime

from dynrt.bundle import Bundle, build_bundle
from dynrt.errors import ExportError
from dynrt.exporters.int8_borders import Borders, borders_of
from dynrt.exporters.int8_emit import WeightBits, emit_float, emit_planned
from dynrt.exporters.int8_observe import Batch, observed
from dynrt.exporters.int8_ranges import Affine
from dynrt.exporters.layers import layer_table
from dynrt.exporters.onnx_node import probe_inputs
from dynrt.exporters.session import run_model
from dynrt.ir.cost import Cost
from dynrt.ir.graph import (
    ComputeNode,
    Constant,
    DataEdge,
    Exit,
    Graph,
    Node,
    NodeId,
    Port,
    PortRef,
    TensorType,
)

#: What a card says of the float network's own measurements, and no longer of this one.
_MEASURED = ("accuracy", "accuracy_per_exit", "full_accuracy", "mean_flops", "measured_on")
_EXACT = Affine(scale=1.0, zero=0)


def quantise(
    bundle: Bundle,
    batches: Iterable[Batch],
    *,
    name: str | None = None,
    keep: Collection[NodeId] = (),
    weight_bits: WeightBits = 8,
) -> Bundle:
    """``bundle`` in 8-bit integers.

    Args:
        bundle: a float network.
        batches: calibration data, a few hundred samples of what the network will see (no labels):
            arrays ``(n, ...)`` for a network of one input, or arrays by input name.
        name: of the new bundle; by default the old one with ``-int8``.
        keep: compute nodes that stay float.
        weight_bits: 7 leaves a bit of headroom for x86 CPUs without VNNI, whose 8-bit products
            saturate (onnxruntime's ``reduce_range``).

    Raises:
        ExportError: nothing to quantise (or it is quantised already), an unknown name in ``keep``,
            no or wrong data, or a node that onnxruntime or ONNX's checker refuses.
        BundleError: the result breaks a limit of bundles.
    """
    place = f"bundle {bundle.name!r}"
    if unknown := sorted(set(keep) - bundle.models.keys()):
        raise ExportError(f"{place} has no node {unknown[0]!r} to keep in float")
    models = {n: onnx.load_model_from_string(data) for n, data in bundle.models.items()}
    for node, model in models.items():
        if any(op.op_type == "QuantizeLinear" for op in model.graph.node):
            raise ExportError(f"{place}: node {node!r} is quantised already")
    borders = borders_of(bundle.graph, models, keep=keep)
    if not borders.plans:
        raise ExportError(f"{place}: no compute node multiplies by weights; nothing to quantise")
    known = observed(bundle, models, borders, batches)
    affine = _Lookup(borders, known)
    graph = _retyped(bundle.graph, borders, affine)
    written = {
        n: _written(graph, n, models[n], borders, affine, weight_bits) for n in bundle.models
    }
    return build_bundle(
        name=name or f"{bundle.name}-int8",
        graph=graph,
        models=written,
        labels=bundle.labels,
        preprocessing=bundle.preprocessing,
        card=_card(bundle),
        provenance={
            **{k: v for k, v in bundle.provenance.items() if k != "parity"},
            "quantised_by": "dynrt.exporters.int8",
            "quantised_from": bundle.sha256,
            "quantised_nodes": f"{len(borders.plans)} of {len(bundle.models)}",
            "weights": "int8",
            "weight_bits": str(weight_bits),
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        layers=layer_table(written, graph),
    )


class _Lookup:
    """The affine map of any port or tensor."""

    def __init__(self, borders: Borders, known: Mapping[PortRef, Affine]) -> None:
        self._borders, self._known = borders, known

    def __call__(self, node: NodeId, tensor: str) -> Affine:
        """Of a tensor of a node; what never held a number is stored one to one."""
        return self._known.get(self._borders.scales.of(PortRef(node, tensor)), _EXACT)


def _written(
    graph: Graph,
    name: NodeId,
    model: onnx.ModelProto,
    borders: Borders,
    affine: _Lookup,
    weight_bits: WeightBits,
) -> bytes:
    """A node's new ONNX, checked.

    Raises:
        ExportError: ONNX's checker or onnxruntime refuses it.
    """
    node = graph.by_name[name]
    if not isinstance(node, ComputeNode | Exit):
        raise ExportError(f"model {name!r} belongs to no compute node or exit")
    ports = {p.name: affine(name, p.name) for p in (*node.inputs, *node.outputs)}
    plan = borders.plans.get(name)
    if plan is not None and isinstance(node, ComputeNode):
        tensors = {**ports, **{t: affine(name, t) for t in plan.asked}}
        data = emit_planned(plan, node, tensors, weight_bits=weight_bits)
    else:
        data = emit_float(model, node, ports)
    try:
        onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        reason = str(exc).strip().splitlines()[0]
        raise ExportError(f"node {name!r}: the int8 ONNX graph is not sound: {reason}") from exc
    probe = probe_inputs(node.inputs, batch=2, seed=0)
    run_model(data, probe, place=f"node {name!r} in int8")
    return data


def _retyped(graph: Graph, borders: Borders, affine: _Lookup) -> Graph:
    """``graph`` with uint8 where integers cross, and constants as they are stored."""

    def ports(node: NodeId, old: tuple[Port, ...]) -> tuple[Port, ...]:
        return tuple(
            replace(p, type=TensorType(dtype="uint8", shape=p.type.shape))
            if PortRef(node, p.name) in borders.whole
            else p
            for p in old
        )

    def retyped(node: Node) -> Node:
        if not isinstance(node, ComputeNode | Exit):
            return node
        typed = replace(
            node,
            inputs=ports(node.name, node.inputs),
            outputs=ports(node.name, node.outputs),
            cost=Cost(macs=node.cost.macs),
        )
        if isinstance(typed, ComputeNode) and typed.mask is not None:
            mask = replace(typed.mask, kept_femtojoules=(), kept_milli_mac_equivalents=())
            return replace(typed, mask=mask)
        return typed

    def stored(edge: DataEdge) -> DataEdge:
        if edge.target not in borders.whole or not isinstance(edge.default, Constant):
            return edge
        rule = affine(edge.target.node, edge.target.port)
        return replace(edge, default=Constant(rule.store(edge.default.value)))

    return Graph(
        nodes=tuple(retyped(n) for n in graph.nodes),
        data=tuple(stored(e) for e in graph.data),
        control=graph.control,
        exits=graph.exits,
        combine=graph.combine,
    )


def _card(bundle: Bundle) -> Mapping[str, object]:
    """The card; what was measured on the float network is said to be of that one."""
    rest = {k: v for k, v in bundle.card.items() if k not in (*_MEASURED, "weights")}
    measured = {k: bundle.card[k] for k in _MEASURED if k in bundle.card}
    source = {"name": bundle.name, "sha256": bundle.sha256, **measured}
    return {**rest, "weights": "int8, activations uint8", "quantised_from": source}
