"""What a hop does, said in numbers of buffers; binding comes later."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from dynrt.ir.graph import NodeId, PortRef
from dynrt.runtime.compiled import SmallGate
from dynrt.runtime.machine.buffers import Buffers
from dynrt.runtime.machine.parts import Parts
from dynrt.runtime.needs import Call
from dynrt.runtime.walk import Walk


class SegmentOp(NamedTuple):
    """Run a segment."""

    segment: int
    takes: tuple[int, ...]
    gives: tuple[int, ...]


class MaskedOp(NamedTuple):
    """Run a segment on ``kept`` of its channel groups; which ones, the mask's buffer says."""

    segment: int
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    mask: int
    kept: int


class PoolOp(NamedTuple):
    """Average the features in a buffer over height and width."""

    source: int


class GateOp(NamedTuple):
    """Run a small gate's kernel; pooled ports take the pooled vector of their buffer."""

    gate: SmallGate
    takes: tuple[tuple[str, int], ...]
    gives: tuple[tuple[str, int], ...]


class NodeOp(NamedTuple):
    """Run one node by its own ONNX, its results unread: the budget cut a segment short."""

    node: NodeId
    takes: tuple[tuple[str, int], ...]


Op = SegmentOp | MaskedOp | PoolOp | GateOp | NodeOp


def gives_of(op: Op) -> tuple[int, ...]:
    """The buffers that an op writes."""
    if isinstance(op, GateOp):
        return tuple(ref for _, ref in op.gives)
    return op.gives if isinstance(op, SegmentOp | MaskedOp) else ()


@dataclass(slots=True)
class _Open:
    """A segment some of whose nodes were asked for."""

    index: int
    takes: dict[PortRef, int] = field(default_factory=dict)
    gives: dict[PortRef, int] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)


class Placer:
    """Turns the calls of one walk into ops, choosing buffers for what they give.

    The choice depends on what the walk will still read and on nothing else, so that walks with one
    future use the same buffers.

    Args:
        parts: the network.
        buffers: to choose from.
        pooled: buffers whose pooled vector is up to date.
    """

    def __init__(self, parts: Parts, buffers: Buffers, pooled: frozenset[int]) -> None:
        self._parts, self._buffers = parts, buffers
        self.pooled = set(pooled)
        self._open: _Open | None = None

    def place(self, walk: Walk, call: Call) -> tuple[dict[str, int], list[Op]]:
        """References for what ``call`` gives, and the ops that are complete with it."""
        name = call.step.name
        cut_short: list[Op] = []
        if self._open is not None and self._parts.segment_of.get(name) != self._open.index:
            cut_short = self.stop()  # the budget ended the run here: this is the answer's head
        gate = self._parts.gates.get(name)
        if gate is None:
            placed, ops = self._place_in_segment(walk, call)
            return placed, cut_short + ops
        busy = walk.live_after(call.step.index - 1) | set(call.inputs.values())
        gives: dict[str, int] = {}
        for port, _ in call.step.gives:
            gives[port] = self._buffers.take(self._parts.kind(PortRef(name, port)), busy)
            busy.add(gives[port])
        ops = cut_short
        for port in gate.program.pools:
            source = call.inputs[port]
            if source not in self.pooled:
                self.pooled.add(source)
                ops.append(PoolOp(source))
        self.pooled.difference_update(gives.values())
        ops.append(GateOp(gate, tuple(call.inputs.items()), tuple(gives.items())))
        return gives, ops

    def _place_in_segment(self, walk: Walk, call: Call) -> tuple[dict[str, int], list[Op]]:
        name = call.step.name
        index = self._parts.segment_of[name]
        segment = self._parts.compiled.segments[index]
        part = self._open
        if part is None:
            part = self._open = _Open(index)
        part.calls.append(call)
        for port, ref in call.inputs.items():
            part.takes[PortRef(name, port)] = ref
        gives: dict[str, int] = {}
        for port, slot in call.step.gives:
            ref = PortRef(name, port)
            at = next((i for i, g in enumerate(segment.gives) if g.port == ref), -1)
            if at < 0:
                gives[port] = -2 - slot  # stays inside the segment
                continue
            gives[port] = part.gives[ref] = self._buffer(walk, call, part, at, slot)
        if name != segment.nodes[-1]:
            return gives, []
        self._open = None
        takes = tuple(part.takes[t.port] for t in segment.takes)
        outs = tuple(part.gives[g.port] for g in segment.gives)
        self.pooled.difference_update(outs)
        gathered = segment.gathered
        if gathered is None or call.kept in (None, gathered.groups):
            return gives, [SegmentOp(index, takes, outs)]
        mask = part.takes[gathered.mask]
        return gives, [MaskedOp(index, takes, outs, mask, call.kept or 0)]

    def _buffer(self, walk: Walk, call: Call, part: _Open, at: int, slot: int) -> int:
        """Where a segment's output goes: over one of its inputs, if that is allowed and unread."""
        segment = self._parts.compiled.segments[part.index]
        kind = self._parts.kind(segment.gives[at].port)
        last = self._parts.index_of[segment.nodes[-1]]
        unread = walk.live_after(last, frozenset((slot,)))
        for take, give in segment.overwrites:
            ref = part.takes.get(segment.takes[take].port, -1)
            if (
                give == at
                and ref >= 0
                and ref not in unread
                and self._buffers.is_shared(ref)
                and self._buffers.kinds[ref] == kind
                and ref not in part.gives.values()
                and sum(r == ref for r in part.takes.values()) == 1
            ):
                return ref
        busy = walk.live_after(call.step.index - 1)
        busy.update(part.takes.values(), part.gives.values(), call.inputs.values())
        return self._buffers.take(kind, busy)

    def stop(self) -> list[Op]:
        """Ops of a segment that the walk stopped in the middle of."""
        part, self._open = self._open, None
        if part is None:
            return []
        return [
            NodeOp(call.step.name, tuple(call.inputs.items()))
            for call in part.calls
            if all(ref >= 0 for ref in call.inputs.values())
        ]
