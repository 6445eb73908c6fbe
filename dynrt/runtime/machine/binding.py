"""Binds ops to the memory of one machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dynrt.ir.graph import Argmax, Array, ControlNode
from dynrt.ir.masks import KEPT_FROM
from dynrt.runtime.kernels import KERNELS
from dynrt.runtime.machine.buffers import Buffers
from dynrt.runtime.machine.ops import GateOp, MaskedOp, NodeOp, Op, PoolOp, SegmentOp
from dynrt.runtime.machine.parts import Bound, Parts
from dynrt.runtime.needs import Kept, Scores, Verdict
from dynrt.runtime.policy import Policy

Kernel = Callable[[], None]
Decide = Callable[[], int]

#: Decisions closer than this to their threshold (times the threshold, if that is above 1) are
#: counted as near-ties: other modes round differently by about as much.
NEAR_TIE = 5e-6


def _call(kernel: Kernel) -> None:
    kernel()


def call_all(runs: Sequence[Bound], kernels: Sequence[Kernel]) -> None:
    """Call what :meth:`Binder.bind` gave, in order."""
    for run, argument in runs:
        run(argument)
    for kernel in kernels:
        kernel()


class Binder:
    """Binds ops to buffers, once each.

    Args:
        parts: the network.
        buffers: of one machine.
    """

    def __init__(self, parts: Parts, buffers: Buffers) -> None:
        self._parts, self._buffers = parts, buffers
        self._segments: dict[SegmentOp, Bound] = {}
        self._masked: dict[tuple[MaskedOp, int], Bound] = {}
        self._kernels: dict[tuple[Any, int], Kernel] = {}
        self._pooled: dict[tuple[int, int], Array] = {}

    def bind(self, ops: Sequence[Op], row: int = 0) -> tuple[tuple[Bound, ...], tuple[Kernel, ...]]:
        """Calls in order, and the kernels that come after the last of them."""
        runs: list[Bound] = []
        kernels: list[Kernel] = []
        for op in ops:
            if isinstance(op, PoolOp | GateOp):
                kernels.append(self.kernel(op, row))
                continue
            runs.extend((_call, kernel) for kernel in kernels)
            kernels.clear()
            if isinstance(op, SegmentOp):
                runs.append(self.segment(op))
            else:
                runs.append(self._node(op, row) if isinstance(op, NodeOp) else self.masked(op, row))
        return tuple(runs), tuple(kernels)

    def segment(self, op: SegmentOp) -> Bound:
        """A segment on whole buffers."""
        if op not in self._segments:
            handles = self._buffers.handles
            takes, gives = [handles[r] for r in op.takes], [handles[r] for r in op.gives]
            self._segments[op] = self._parts.engine.bind(op.segment, takes, gives)
        return self._segments[op]

    def masked(self, op: MaskedOp, row: int) -> Bound:
        """A gathered segment on one row; the groups are read from the mask at every call."""
        key = (op, row)
        if key not in self._masked:
            kept = np.zeros(max(1, op.kept), np.int64)
            rows = [self._buffers.arrays[r][row : row + 1] for r in (*op.takes, *op.gives)]
            handle = self._parts.engine.handle
            handles = [handle(a) for a in rows]
            at = len(op.takes)
            call, argument = self._parts.engine.bind_kept(
                op.segment, handles[:at], handles[at:], handle(kept)
            )
            mask = self.flat(op.mask, row)

            def run(_: object) -> None:
                # none kept: the group behind the last, which is all zeros
                kept[:] = np.flatnonzero(mask >= KEPT_FROM) if op.kept else len(mask)
                call(argument)

            self._masked[key] = (run, None)
        return self._masked[key]

    def _node(self, op: NodeOp, row: int) -> Bound:
        def run(_: object) -> None:
            inputs = {port: self._buffers.plain(ref, row) for port, ref in op.takes}
            self._parts.portable.call(op.node, inputs, batch=1)

        return run, None

    def kernel(self, op: PoolOp | GateOp, row: int) -> Kernel:
        """A kernel on one row of its buffers."""
        key = (op if isinstance(op, PoolOp) else (op.gate.node, op.takes, op.gives), row)
        if key not in self._kernels:
            self._kernels[key] = (
                self._bind_pool(op, row) if isinstance(op, PoolOp) else self._bind_gate(op, row)
            )
        return self._kernels[key]

    def _vector(self, source: int, row: int) -> Array:
        """Where the pooled vector of one row of a buffer is kept."""
        if (source, row) not in self._pooled:
            channels = self._buffers.kinds[source].shape[0]
            self._pooled[source, row] = np.zeros(channels, np.float32)
        return self._pooled[source, row]

    def _bind_pool(self, op: PoolOp, row: int) -> Kernel:
        kind = self._buffers.kinds[op.source]
        channels, height, width = kind.shape
        return KERNELS.bind_pool(
            self._buffers.arrays[op.source][row],
            shape=(channels, height, width),
            layout=kind.layout,
            out=self._vector(op.source, row),
        )

    def _bind_gate(self, op: GateOp, row: int) -> Kernel:
        program = op.gate.program
        takes = {
            port: self._vector(ref, row) if port in program.pools else self.flat(ref, row)
            for port, ref in op.takes
        }
        gives = {port: self.flat(ref, row) for port, ref in op.gives}
        return KERNELS.bind_program(program, takes, gives)

    def flat(self, ref: int, row: int) -> Array:
        """One row of a buffer as a vector that shares its memory."""
        flat: Array = self._buffers.arrays[ref][row].reshape(-1)
        return flat

    def decide(self, need: Kept | Scores | Verdict, policy: Policy, tie: float, row: int) -> Decide:
        """Reads a decision off one row; see ``dynrt.runtime.kernels`` for what it returns."""
        if isinstance(need, Kept):
            mask = self.flat(need.mask, row)
            return lambda: int(np.count_nonzero(mask >= KEPT_FROM))
        values = self.flat(need[-1], row)
        node = need.node
        if isinstance(node, ControlNode):
            if isinstance(node.rule, Argmax):
                return KERNELS.bind_argmax(values, tie)
            bounds = policy.thresholds[node.name]
            return KERNELS.bind_threshold(values, bounds, tie * _scale(bounds))
        bound = policy.thresholds[node.name][0]
        return KERNELS.bind_accept(node.accept.kind, values, bound, tie * _scale((bound,)))

    def exact_gate(self, op: GateOp, row: int) -> None:
        """Run a small gate by its own ONNX instead, on the same buffers."""
        node = op.gate.node
        inputs = {port: self._buffers.plain(ref, row) for port, ref in op.takes}
        gave = self._parts.portable.call(node, inputs, batch=1)
        for port, ref in op.gives:
            self._buffers.put(ref, row, gave[port])

    def outcome_count(self, need: Kept | Scores | Verdict) -> int:
        """How many outcomes are remembered by number; others are looked up."""
        node = need.step.flow.node
        if isinstance(need, Kept):
            return 1 + int(self._buffers.kinds[need.mask].shape[0])
        if isinstance(node, ControlNode):
            return min(64, node.actions if isinstance(node.rule, Argmax) else 1 << node.actions)
        return 2


def _scale(bounds: Sequence[float]) -> float:
    finite = [abs(b) for b in bounds if np.isfinite(b)]
    return max(1.0, *finite) if finite else 1.0
