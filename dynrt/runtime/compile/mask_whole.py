"""Masked nodes in a compiled network: whole in the flat graph, gathered where groups are left out.

The flat graph holds such a node with every group kept, so that its neighbours hand over blocked
tensors as they do elsewhere. What is cut out of it runs where the mask keeps everything, and its
gathered form where it does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import onnx

from dynrt.errors import CompileError
from dynrt.ir.graph import ChannelMask, ComputeNode, Graph, NodeId, PortRef
from dynrt.runtime.compile.mask_form import MaskForm, mask_form
from dynrt.runtime.compile.mask_gather import gathered
from dynrt.runtime.compile.mask_sessions import optimised
from dynrt.runtime.compiled import Gathered, Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeNode:
    """A masked node whose groups can be left out in time.

    Attributes:
        name: of the node.
        mask: of the node.
        form: its ONNX with every group kept.
    """

    name: NodeId
    mask: ChannelMask
    form: MaskForm


def whole_nodes(
    graph: Graph, models: Mapping[NodeId, bytes], names: Iterable[NodeId]
) -> dict[NodeId, WholeNode]:
    """Those of ``names`` that have a mask which onnxruntime can be spared the dropped groups of.

    Args:
        graph: valid.
        models: plain ONNX by node.
        names: nodes that can be part of a flat graph.
    """
    out: dict[NodeId, WholeNode] = {}
    for name in names:
        node = graph.by_name[name]
        if not isinstance(node, ComputeNode) or node.mask is None:
            continue
        try:
            form = mask_form(models[name], node)
            if form is None:
                continue
            alone = gathered(optimised(form.model), between=form.between, groups=node.mask.groups)
        except CompileError:  # the node's own model runs as it is
            continue
        if alone is not None:
            out[name] = WholeNode(name=name, mask=node.mask, form=form)
    return out


def with_gathered(segment: Segment, node: WholeNode, between: str) -> Segment | None:
    """``segment`` with its gathered form, or ``None`` if the cut left none.

    Args:
        segment: of ``node`` alone, cut from a flat graph.
        node: what it runs.
        between: what the flat graph called the tensor of the channels before it was optimised.
    """
    groups = node.mask.groups
    made = gathered(onnx.load_model_from_string(segment.model), between=between, groups=groups)
    if made is None:
        return None
    model = made.SerializeToString(deterministic=True)
    mask = PortRef(node.name, node.mask.port)
    return replace(segment, gathered=Gathered(mask=mask, groups=groups, model=model))
