"""What one group of a channel mask costs: its share of the convolutions that it takes filters from."""

from __future__ import annotations

import onnx

from dynrt.errors import CompileError, ExportError
from dynrt.exporters.layers_facts import facts_of
from dynrt.exporters.macs import count_macs, macs_of
from dynrt.exporters.output_masks import output_mark
from dynrt.ir.graph import ComputeNode
from dynrt.runtime.compile.mask_form import mask_form


def count_group_macs(model: bytes, node: ComputeNode) -> int:
    """Multiply-accumulates at batch 1 that one dropped group of ``node`` saves.

    Of a mask between two convolutions its share of both; of a mask on the channels that the node
    gives its share of the convolutions that only they come from.

    Args:
        model: its plain ONNX.
        node: with a mask; what the mask says of the cost is not looked at.

    Raises:
        ExportError: the mask does not stand, in equal groups, on the channels between two
            convolutions or on those that the node gives, or the node has none.
    """
    place = f"node {node.name!r}"
    if node.mask is None:
        raise ExportError(f"{place} has no channel mask")
    try:
        form = mask_form(model, node)
    except CompileError as exc:
        raise ExportError(f"{place}: {exc}") from exc
    if form is not None:
        layers = count_macs(form.model, place=place).layers
        both = sum(layer.macs for layer in layers if layer.name in (form.source, form.reader))
        return both // node.mask.groups
    proto = onnx.load_model_from_string(model)
    facts = facts_of(proto, place=place)
    given = output_mark(proto, facts, node, place=place)
    if given is None:
        raise ExportError(
            f"{place}: mask {node.mask.port!r} does not multiply the channels between two "
            f"convolutions, or those that the node gives, in {node.mask.groups} equal groups by 0 "
            "and 1"
        )
    every = sum(macs_of(facts.nodes[i], facts.types) or 0 for i in given.convolutions)
    return every // node.mask.groups
