"""Channel masks on what a node gives: a dropped channel is not computed, and something else stands there.

DDI's channel gates act on a block's output (Wang et al., equation 2): a channel that is dropped is
the block's own input channel, ``m * F + (1 - m) * x``. What is recognised: a product with the mask
spelt out over the channels (or a ``Where`` on it) whose result reaches nothing but the node's
outputs, element by element; before it, element-wise operators on tensors of that shape; before
those, one or several dense convolutions. The filters of the dropped channels of these convolutions
need not be computed. That is counted and not realised: onnxruntime computes all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx

from dynrt.errors import CompileError, ExportError
from dynrt.exporters.draft import attribute_int
from dynrt.exporters.layers_facts import Facts, standard
from dynrt.exporters.layers_passes import PASSES
from dynrt.ir.graph import ChannelMask, ComputeNode
from dynrt.runtime.compile.mask_form import spells_groups


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputMark:
    """Where a mask of output channels stands.

    Attributes:
        convolutions: positions of those whose filters are dropped.
        between: positions of the element-wise operators from them up to the mask, that one left
            out: they lose the words of the dropped channels.
        spelt: the tensor that holds the mask, spelt out over the channels.
    """

    convolutions: tuple[int, ...]
    between: tuple[int, ...]
    spelt: str


def output_mark(
    model: onnx.ModelProto, facts: Facts, node: ComputeNode, *, place: str
) -> OutputMark | None:
    """Find the convolutions whose filters the mask of ``node`` drops.

    Args:
        model: of the node.
        facts: of its graph.
        node: with a mask.
        place: names the node in errors.

    Returns:
        ``None`` where the mask does not stand on output channels in that way.

    Raises:
        ExportError: the operators that spell the mask out cannot be run.
    """
    if node.mask is None:
        return None
    side = mask_side(facts, node.mask.port)
    found = []
    for i in mask_joins(facts, side):
        factors = _masked_and_spelt(facts, i, side)
        if factors is None or not _only_given(facts, i, set()):
            continue
        masked, spelt = factors
        chain = _Behind(facts=facts)
        chain.follow(masked)
        channels = {facts.shape(facts.nodes[c].input[1])[0] for c in chain.convolutions}
        if len(channels) == 1 and _spells(model, node.mask, spelt, channels.pop(), place):
            found.append(
                OutputMark(
                    convolutions=tuple(sorted(chain.convolutions)),
                    between=tuple(sorted(chain.between)),
                    spelt=facts.first(spelt),
                )
            )
    return found[0] if len(found) == 1 else None


def mask_side(facts: Facts, port: str) -> set[str]:
    """First names of the tensors that the mask, constants and shapes alone determine."""
    side = {facts.first(port)}
    for op in facts.nodes:
        moving = facts.moving(op)
        if moving and side.issuperset(moving):
            side.update(facts.first(n) for n in op.output if n)
    return side


def mask_joins(facts: Facts, side: set[str]) -> list[int]:
    """Positions of the operators where the mask meets something else."""
    return [
        i
        for i, op in enumerate(facts.nodes)
        if i not in facts.views
        and not side.isdisjoint(facts.moving(op))
        and not side.issuperset(facts.moving(op))
    ]


def _masked_and_spelt(facts: Facts, i: int, side: set[str]) -> tuple[str, str] | None:
    """Of a product or a choice: the tensor whose channels it drops, and the mask spelt out."""
    op = facts.nodes[i]
    if op.op_type == "Where" and len(op.input) == 3:
        condition, kept, other = op.input
        inside = [facts.first(n) in side for n in (condition, kept, other)]
        return (kept, condition) if inside == [True, False, False] else None
    if op.op_type == "Mul":
        spelt = [n for n in op.input if facts.first(n) in side]
        masked = [n for n in op.input if facts.first(n) not in side and n not in facts.static]
        if len(spelt) == 1 and len(masked) == 1:
            return masked[0], spelt[0]
    return None


def _only_given(facts: Facts, i: int, seen: set[int]) -> bool:
    """Whether what an operator gives is only handed out, element by element."""
    if i in seen:
        return True
    seen.add(i)
    op = facts.nodes[i]
    if not _elementwise(facts, i) or len(op.output) != 1:
        return False
    result = facts.first(op.output[0])
    readers = facts.readers.get(result, ())
    if not readers and result not in facts.ends:
        return False
    return all(_only_given(facts, reader, seen) for reader in readers)


@dataclass(slots=True, kw_only=True)
class _Behind:
    """What makes a tensor and nothing else, back to the convolutions."""

    facts: Facts
    convolutions: set[int] = field(default_factory=set)
    between: set[int] = field(default_factory=set)

    def follow(self, tensor: str) -> bool:
        """Walk back from ``tensor``; whether a convolution was found behind it."""
        facts = self.facts
        name = facts.first(tensor)
        i = facts.producers.get(name)
        if i is None or name in facts.ends or len(facts.readers.get(name, ())) != 1:
            return False
        op = facts.nodes[i]
        if op.op_type == "Conv" and standard(op):
            if attribute_int(op, "group", 1) != 1:
                return False
            self.convolutions.add(i)
            return True
        if not _elementwise(facts, i) or len(op.output) != 1:
            return False
        shape = facts.shape(name)
        moving = [n for n in op.input if n and n not in facts.static]
        if any(facts.shape(n) != shape for n in moving):
            return False
        found = False
        for operand in moving:  # all of them: two convolutions may be added
            found = self.follow(operand) or found
        if found:
            self.between.add(i)
        return found


def _elementwise(facts: Facts, i: int) -> bool:
    op = facts.nodes[i]
    rule = PASSES.get(op.op_type)
    known = all(n in facts.types for n in (*op.input, *op.output) if n)
    return standard(op) and rule is not None and rule.elementwise and known


def _spells(
    model: onnx.ModelProto, mask: ChannelMask, spelt: str, channels: int, place: str
) -> bool:
    """Whether ``spelt`` is 1 on the channels of kept groups and 0 on the others."""
    if channels % mask.groups:
        return False
    try:
        return spells_groups(model, mask, spelt, channels)
    except CompileError as exc:
        raise ExportError(f"{place}: {exc}") from exc
