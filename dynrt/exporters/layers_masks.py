"""Which operators of a node its channel mask takes a share of."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx

from dynrt.errors import CompileError, ExportError
from dynrt.exporters.draft import attribute_int
from dynrt.exporters.layers_facts import Facts, standard
from dynrt.exporters.layers_passes import PASSES
from dynrt.ir.graph import ComputeNode
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
    """Find the two convolutions around the masked channels, and what lies between.

    A float node's mask is tried out as a device does (``dynrt.runtime.compile.mask_form``); of a
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
    side = _side(facts, node.mask.port)
    joins = [
        i
        for i, op in enumerate(facts.nodes)
        if i not in facts.views
        and not side.isdisjoint(facts.moving(op))
        and not side.issuperset(facts.moving(op))
    ]
    if len(joins) != 1 or facts.nodes[joins[0]].op_type != "Mul":
        return NO_MASK
    join = joins[0]
    factors = facts.moving(facts.nodes[join])
    spelt = next(t for t in factors if t in side)
    before = _behind(facts, next(t for t in factors if t not in side), passes)
    after = _ahead(facts, facts.first(facts.nodes[join].output[0]), passes)
    if before is None or after is None:
        return NO_MASK
    (source, *rest), (reader, *others) = before, after
    first, second = facts.nodes[source], facts.nodes[reader]
    channels = facts.shape(first.input[1])[0]
    dense = all(attribute_int(op, "group", 1) == 1 for op in (first, second))
    if not dense or channels % node.mask.groups or channels != facts.shape(second.input[1])[1]:
        return NO_MASK
    if not any(op.op_type == "DequantizeLinear" for op in facts.nodes):
        try:
            tried = mask_form(model.SerializeToString(), node)
        except CompileError as exc:
            raise ExportError(f"{place}: {exc}") from exc
        if tried is None:
            return NO_MASK
    between = {facts.first(facts.nodes[i].output[0]) for i in (source, *rest, join, *others)}
    reads = [i for i in facts.on_the_way_in if facts.first(facts.nodes[i].input[0]) in between]
    parts: dict[int, MaskedPart] = dict.fromkeys((*rest, join, *others, *reads), "words")
    return MaskMarks(parts={source: "filters", reader: "channels", **parts}, spelt=spelt)


def _side(facts: Facts, port: str) -> set[str]:
    """First names of the tensors that the mask, constants and shapes alone determine."""
    side = {facts.first(port)}
    for op in facts.nodes:
        moving = facts.moving(op)
        if moving and side.issuperset(moving):
            side.update(facts.first(n) for n in op.output if n)
    return side


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
