"""Which operators of a node its channel mask takes a share of."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx

from dynrt.errors import CompileError, ExportError
from dynrt.exporters.draft import attribute_int
from dynrt.exporters.layers_facts import Facts, standard
from dynrt.exporters.layers_passes import PASSES
from dynrt.exporters.output_masks import mask_joins, mask_side, output_mark
from dynrt.ir.graph import ChannelMask, ComputeNode
from dynrt.ir.layers import MaskedPart
from dynrt.runtime.compile.mask_form import mask_form


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskMarks:
    """Where a mask stands.

    Attributes:
        parts: what each operator, by position, loses with a dropped group.
        spelt: the tensor that holds the mask, spelt out over the channels; empty without a mask.
    """

    parts: dict[int, MaskedPart]
    spelt: str


NO_MASK = MaskMarks(parts={}, spelt="")


def mask_marks(
    model: onnx.ModelProto,
    facts: Facts,
    node: ComputeNode,
    passes: Collection[int],
    *,
    place: str,
) -> MaskMarks:
    """Find the convolutions around the masked channels, and what lies between.

    A mask on what the node gives has them only before it. A float node's mask is tried out as a device does (``dynrt.runtime.compile.mask_form``); of a
    quantised one only the form is looked at, since it was tried before it was quantised.

    Args:
        model: of the node.
        facts: of its graph.
        node: with a mask or without.
        passes: positions of operators that are counted as passes.
        place: names the node in errors.

    Returns:
        No marks where the mask is not applied in that way: then dropped groups save nothing.

    Raises:
        ExportError: the operators that spell the mask out cannot be run.
    """
    if node.mask is None:
        return NO_MASK
    marks = _marks_between(model, facts, node, node.mask, passes, place=place)
    if marks is None and (given := output_mark(model, facts, node, place=place)) is not None:
        filters: dict[int, MaskedPart] = dict.fromkeys(given.convolutions, "filters")
        words: dict[int, MaskedPart] = dict.fromkeys(given.between, "words")
        marks = MaskMarks(parts={**words, **filters}, spelt=given.spelt)
    return NO_MASK if marks is None else marks


def _marks_between(
    model: onnx.ModelProto,
    facts: Facts,
    node: ComputeNode,
    mask: ChannelMask,
    passes: Collection[int],
    *,
    place: str,
) -> MaskMarks | None:
    """Marks of a mask on the channels between two convolutions."""
    side = mask_side(facts, mask.port)
    joins = mask_joins(facts, side)
    if len(joins) != 1 or facts.nodes[joins[0]].op_type != "Mul":
        return None
    join = joins[0]
    factors = facts.moving(facts.nodes[join])
    spelt = next(t for t in factors if t in side)
    before = _behind(facts, next(t for t in factors if t not in side), passes)
    after = _ahead(facts, facts.first(facts.nodes[join].output[0]), passes)
    if before is None or after is None:
        return None
    (source, *rest), (reader, *others) = before, after
    first, second = facts.nodes[source], facts.nodes[reader]
    channels = facts.shape(first.input[1])[0]
    dense = all(attribute_int(op, "group", 1) == 1 for op in (first, second))
    if not dense or channels % mask.groups or channels != facts.shape(second.input[1])[1]:
        return None
    if not any(op.op_type == "DequantizeLinear" for op in facts.nodes):
        try:
            tried = mask_form(model.SerializeToString(), node)
        except CompileError as exc:
            raise ExportError(f"{place}: {exc}") from exc
        if tried is None:
            return None
    between = {facts.first(facts.nodes[i].output[0]) for i in (source, *rest, join, *others)}
    reads = [i for i in facts.on_the_way_in if facts.first(facts.nodes[i].input[0]) in between]
    parts: dict[int, MaskedPart] = dict.fromkeys((*rest, join, *others, *reads), "words")
    return MaskMarks(parts={source: "filters", reader: "channels", **parts}, spelt=spelt)


def _behind(facts: Facts, tensor: str, passes: Collection[int]) -> list[int] | None:
    """The convolution that ``tensor`` comes from alone, and the element-wise operators between."""
    found: list[int] = []
    while len(facts.readers.get(tensor, ())) == 1 and tensor not in facts.ends:
        i = facts.producers.get(tensor)
        if i is None:
            return None
        if facts.nodes[i].op_type == "Conv":
            return [i, *found]
        if not _elementwise(facts, i, passes):
            return None
        found.append(i)
        tensor = facts.moving(facts.nodes[i])[0]
    return None


def _ahead(facts: Facts, tensor: str, passes: Collection[int]) -> list[int] | None:
    """The only convolution that ``tensor`` goes to, and the element-wise operators between."""
    found: list[int] = []
    while len(readers := facts.readers.get(tensor, ())) == 1 and tensor not in facts.ends:
        op = facts.nodes[readers[0]]
        if op.op_type == "Conv":
            return [readers[0], *found] if facts.first(op.input[0]) == tensor else None
        if not _elementwise(facts, readers[0], passes):
            return None
        found.append(readers[0])
        tensor = facts.first(op.output[0])
    return None


def _elementwise(facts: Facts, i: int, passes: Collection[int]) -> bool:
    """Whether an operator works on one tensor, place by place."""
    op = facts.nodes[i]
    return (
        i in passes
        and standard(op)
        and PASSES[op.op_type].elementwise
        and len(facts.moving(op)) == 1
        and len(op.output) == 1
    )
