"""What one group of a channel mask costs: its share of the two convolutions around the channels."""

from __future__ import annotations

from dynrt.errors import CompileError, ExportError
from dynrt.exporters.macs import count_macs
from dynrt.ir.graph import ComputeNode
from dynrt.runtime.compile.mask_form import mask_form


def count_group_macs(model: bytes, node: ComputeNode) -> int:
    """Multiply-accumulates at batch 1 that one dropped group of ``node`` saves.

    Args:
        model: its plain ONNX.
        node: with a mask; what the mask says of the cost is not looked at.

    Raises:
        ExportError: the mask does not stand, in equal groups, on the channels between two
            convolutions, or the node has none.
    """
    place = f"node {node.name!r}"
    if node.mask is None:
        raise ExportError(f"{place} has no channel mask")
    try:
        form = mask_form(model, node)
    except CompileError as exc:
        raise ExportError(f"{place}: {exc}") from exc
    if form is None:
        raise ExportError(
            f"{place}: mask {node.mask.port!r} does not multiply the channels between two "
            f"convolutions in {node.mask.groups} equal groups by 0 and 1"
        )
    layers = count_macs(form.model, place=place).layers
    both = sum(layer.macs for layer in layers if layer.name in (form.source, form.reader))
    return both // node.mask.groups
