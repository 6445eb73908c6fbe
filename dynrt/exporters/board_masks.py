"""Channel masks: the convolutions that leave out what a mask drops, and the products that then go."""

from __future__ import annotations

from dynrt.bundle.board_kinds import Masks
from dynrt.errors import CompileError, ExportError
from dynrt.exporters.board_lowering import MaskUse, NodeLowering
from dynrt.exporters.output_masks import mask_side, output_mark
from dynrt.ir.graph import ComputeNode
from dynrt.runtime.compile.mask_form import mask_form


def find_masks(low: NodeLowering, node: ComputeNode, data: bytes) -> None:
    """Mark the convolutions of ``node`` that its mask takes channels from.

    Raises:
        ExportError: the operators that spell the mask out cannot be run.
    """
    if node.mask is None:
        return
    graph = low.graph
    slot = low.slot_of(node.mask.port)
    try:
        form = mask_form(data, node)
    except CompileError as exc:
        raise ExportError(f"{graph.place}: {exc}") from exc
    if form is None:
        given = output_mark(graph.model, graph.facts, node, place=graph.place)
        if given is not None:
            outputs = {graph.facts.nodes[p].output[0] for p in given.convolutions}
            for i in (graph.maker[name] for name in outputs):
                low.masked[i] = MaskUse(mode=Masks.OUT, slot=slot, groups=node.mask.groups)
        return
    side = mask_side(graph.facts, node.mask.port)
    join = next(
        i
        for i, op in enumerate(graph.ops)
        if op.op_type == "Mul"
        and form.between in op.input
        and not side.isdisjoint(graph.facts.first(n) for n in op.input)
    )
    reader = graph.readers[graph.ops[join].output[0]][0]
    source = form.between
    while graph.ops[graph.maker[source]].op_type != "Conv":
        source = graph.ops[graph.maker[source]].input[0]
    for i, mode in ((graph.maker[source], Masks.OUT), (reader, Masks.IN)):
        low.masked[i] = MaskUse(mode=mode, slot=slot, groups=node.mask.groups)
    low.through[join] = form.between
