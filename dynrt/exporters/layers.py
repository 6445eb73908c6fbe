"""The layer table of a node, from its ONNX graph at batch 1 (see :mod:`dynrt.ir.layers`).

Every operator gives its layers in graph order, except those whose results constants and shapes
alone determine: they are computed once, when a network is loaded. What has no model is listed with
its share. The multiply-accumulates of all layers together are those of
:func:`dynrt.exporters.macs.count_macs`.

An operator is *fused* where all that it does happens on another's result on its way to the one
tensor that is stored (:mod:`dynrt.exporters.layers_fused`), or, for a ``DequantizeLinear``, on the
way into its readers. A convolution or product between such operators multiplies the integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx

from dynrt.errors import ExportError
from dynrt.exporters.layers_facts import VIEWS, Facts, captured, facts_of, standard, subgraphs
from dynrt.exporters.layers_formats import product_format
from dynrt.exporters.layers_fused import fusion_of
from dynrt.exporters.layers_masks import NO_MASK, mask_marks
from dynrt.exporters.layers_passes import PASSES, pass_layer
from dynrt.exporters.layers_products import PRODUCTS, product_layers
from dynrt.exporters.macs import macs_of
from dynrt.ir.graph import ComputeNode, Exit, Graph, NodeId
from dynrt.ir.layers import WORD_BITS, Layer, LayerTable, UnmodelledLayer

_MOST_CHARS = 128


def layer_table(models: Mapping[NodeId, bytes], graph: Graph) -> LayerTable:
    """The layers of every compute node and exit of ``graph``.

    Args:
        models: plain ONNX of each of them.
        graph: the network.

    Raises:
        ExportError: as :func:`layers_of`; names the node.
    """
    return {
        node.name: layers_of(models[node.name], place=f"node {node.name!r}", node=node)
        for node in graph.nodes
        if isinstance(node, ComputeNode | Exit)
    }


def layers_of(
    model: bytes | onnx.ModelProto, *, place: str, node: ComputeNode | Exit | None = None
) -> tuple[Layer, ...]:
    """The layers of one node.

    Args:
        model: ONNX with the batch as the first axis of its inputs.
        place: names the node in errors.
        node: where it is part of a graph; layers that its channel mask takes a share of are marked.

    Raises:
        ExportError: an axis other than the batch has no fixed size, or shapes do not fit.
    """
    proto = onnx.load_model_from_string(model) if isinstance(model, bytes) else model
    facts = facts_of(proto, place=place)
    names = _names(facts)
    made: dict[int, tuple[Layer, ...]] = {}
    passes: set[int] = set()
    modelled: list[int] = []
    for i, op in enumerate(facts.nodes):
        if _left_out(op, facts):
            continue
        layers = _gap(op, facts) or product_layers(op, facts, name=names[i])
        if layers is None or i in facts.views:
            passes.add(i)
        if isinstance(layers, str):
            made[i] = (_unmodelled(op, facts, names[i], layers),)
            continue
        if layers is not None:
            made[i] = layers
        if i not in facts.views and i not in facts.on_the_way_in:
            modelled.append(i)
    marks = NO_MASK
    if isinstance(node, ComputeNode):
        marks = mask_marks(proto, facts, node, passes, place=place)
    fusion = fusion_of(facts, passes, modelled, marks.spelt)
    for i in passes - made.keys():
        live = facts.live(facts.nodes[i])
        layer = pass_layer(
            facts.nodes[i],
            facts,
            name=names[i],
            written=fusion.written.get(live[0]) if len(live) == 1 else None,
            fused=i in fusion.fused or i in facts.on_the_way_in,
            view=i in facts.views,
        )
        made[i] = (layer,)
    return tuple(
        replace(layer, masked=marks.parts[i])
        if i in marks.parts and not isinstance(layer, UnmodelledLayer)
        else layer
        for i in sorted(made)
        for layer in made[i]
    )


def _names(facts: Facts) -> list[str]:
    """A name of its own for every operator: that of the graph where it has one."""
    names: dict[str, None] = {}
    for i, op in enumerate(facts.nodes):
        name = op.name or f"{op.op_type}_{i}"
        while name in names:
            name += f"_{i}"
        names[name] = None
    return list(names)


def _left_out(op: onnx.NodeProto, facts: Facts) -> bool:
    """Whether an operator is worked out when the network is loaded; products are listed all the same."""
    if standard(op) and op.op_type in ("Shape", "Size"):
        return True
    return facts.static.issuperset(n for n in op.output if n) and op.op_type not in PRODUCTS


def _gap(op: onnx.NodeProto, facts: Facts) -> str | None:
    """Why there is no model of an operator, as far as its kind and its tensors say."""
    if not standard(op):
        return f"an operator of {op.domain[:80]}; its multiplications are not counted"
    if any(True for _ in subgraphs(op)):
        return "it has a subgraph; what that multiplies is not counted"
    tensors = [n for n in (*op.input, *op.output) if n]
    for tensor in tensors:
        if tensor in facts.data_shaped:
            return f"the shape of {tensor[:80]!r} depends on data"
    if op.op_type not in PASSES and op.op_type not in PRODUCTS and op.op_type not in VIEWS:
        return "dynrt has no model of it; its multiplications are not counted"
    for tensor in tensors:
        if tensor not in facts.types:
            return f"the shape of {tensor[:80]!r} is not known"
    if op.op_type in PRODUCTS:
        formats = [product_format(op, facts)]
    else:
        formats = [facts.types[n].dtype for n in tensors]
    for dtype in formats:
        if dtype not in WORD_BITS:
            return f"its words are {dtype}"
    return None


def _unmodelled(op: onnx.NodeProto, facts: Facts, name: str, reason: str) -> UnmodelledLayer:
    try:
        macs = macs_of(op, facts.types) or 0
    except (ExportError, KeyError):
        macs = 0
    kind = op.op_type if standard(op) else f"{op.domain}::{op.op_type}"
    return UnmodelledLayer(
        name=name, op=kind[:_MOST_CHARS], macs=macs, bytes_moved=_bytes(op, facts), reason=reason
    )


def _bytes(op: onnx.NodeProto, facts: Facts) -> int | None:
    """Of all that it reads and gives; ``None`` where part of it is not known."""
    nested = {n for graph in subgraphs(op) for t in graph.node for n in t.output}
    nested |= {t.name for graph in subgraphs(op) for t in (*graph.initializer, *graph.input)}
    total = 0
    for tensor in (*op.input, *op.output, *sorted(captured(op) - nested)):
        if not tensor:
            continue
        bits = (
            WORD_BITS.get(facts.types[facts.first(tensor)].dtype) if tensor in facts.types else None
        )
        if bits is None or tensor in facts.data_shaped:
            return None
        total += facts.words(tensor) * bits // 8
    return total
