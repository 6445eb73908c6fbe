"""What compiling a bundle on a device gives: segments of its optimised graph, and small gates.

Made by ``dynrt.runtime.compile``, kept by ``dynrt.runtime.cache``, run by ``dynrt.runtime.machine``.
Plain values: no onnx, no onnxruntime here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dynrt.ir.graph import Array, NodeId, PortRef
from dynrt.runtime.kernels.program import Program


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a tensor ``(n, c, h, w)`` lies in memory at a border between segments.

    Attributes:
        kind: ``plain`` as declared; ``nchwc`` blocks of channels, innermost (the last block is
            filled up with zeros); ``nhwc`` channels innermost.
        block: channels per block of ``nchwc``, else 1.
    """

    kind: Literal["plain", "nchwc", "nhwc"] = "plain"
    block: int = 1

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one stored sample, as onnxruntime names it, of a port of ``shape``.

        ``nchwc`` keeps the name ``(c, h, w)`` with ``c`` rounded up to whole blocks, although the
        memory is ``(c / block, h, w, block)``.
        """
        if self.kind == "plain":
            return shape
        c, h, w = shape
        if self.kind == "nhwc":
            return (h, w, c)
        return (-(-c // self.block) * self.block, h, w)

    def to_plain(self, value: Array, shape: tuple[int, ...]) -> Array:
        """A stored batch ``(n, *stored_shape)`` as declared, ``(n, *shape)``."""
        if self.kind == "plain":
            return value
        c, h, w = shape
        if self.kind == "nhwc":
            return np.ascontiguousarray(value.reshape(-1, h, w, c).transpose(0, 3, 1, 2))
        blocks = value.reshape(len(value), -1, h, w, self.block).transpose(0, 1, 4, 2, 3)
        return np.ascontiguousarray(blocks.reshape(len(value), -1, h, w)[:, :c])

    def from_plain(self, value: Array) -> Array:
        """A declared batch ``(n, *shape)`` as stored, ``(n, *stored_shape)``."""
        if self.kind == "plain":
            return value
        n, c, h, w = value.shape
        if self.kind == "nhwc":
            return np.ascontiguousarray(value.transpose(0, 2, 3, 1))
        full = -(-c // self.block) * self.block
        filled = np.zeros((n, full, h, w), value.dtype)
        filled[:, :c] = value
        blocks = filled.reshape(n, full // self.block, self.block, h, w).transpose(0, 1, 3, 4, 2)
        return np.ascontiguousarray(blocks).reshape(n, full, h, w)


PLAIN = Layout()


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentPort:
    """One tensor that a segment takes or gives.

    Attributes:
        name: of the model's input or output.
        port: the node's input port that takes it, or the node's output port that gives it.
    """

    name: str
    port: PortRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The same segment for when some channel groups are left out.

    Attributes:
        mask: the node's input port whose tensor says which groups are kept; always plain.
        groups: how many there are.
        model: as the segment's, with one input more: :data:`KEPT`, int64 ``(k,)``, the groups that
            are kept in rising order; or only the number ``groups`` itself, if none is.
    """

    mask: PortRef
    groups: int
    model: bytes


#: Name of the input of a gathered segment that says which groups are kept.
KEPT = "dynrt/kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of the optimised graph that always runs as a whole.

    Attributes:
        nodes: the bundle's nodes that it runs, in schedule order.
        takes: its inputs, in the order of the model; the layout is that of the edge's source port
            in :attr:`Compiled.layouts`.
        gives: its outputs, in the order of the model: only ports that something outside reads.
        overwrites: ``(take, give)`` positions of which the output may lie in the input's memory.
        model: an ONNX (or ORT-format) model to be loaded without any further optimisation.
        raw: whether ``model`` is the node's own ONNX, to be optimised by itself when loaded.
        gathered: what runs instead where the node's mask leaves some groups out; ``model`` then
            is for all groups, and takes no mask.
    """

    nodes: tuple[NodeId, ...]
    takes: tuple[SegmentPort, ...]
    gives: tuple[SegmentPort, ...]
    overwrites: tuple[tuple[int, int], ...] = ()
    model: bytes
    raw: bool = False
    gathered: Gathered | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallGate:
    """A node that a kernel runs instead of onnxruntime.

    Attributes:
        node: a compute node or exit.
        program: what it computes.
        tie_distance: a score no farther than this from its threshold (or, for argmax, from the
            runner-up) is decided by the node's ONNX instead.
    """

    node: NodeId
    program: Program
    tie_distance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A bundle, compiled for one device.

    Every compute node and exit of the schedule is in exactly one segment or small gate; ports that
    an edge's default can exchange for one another have one layout.

    Attributes:
        layouts: of every output port, inputs of the network included (always plain).
        segments: what onnxruntime runs.
        gates: what kernels run.
    """

    layouts: Mapping[PortRef, Layout]
    segments: tuple[Segment, ...]
    gates: tuple[SmallGate, ...]

    def without_models(self) -> Compiled:
        """The same, once the models are loaded: without their bytes."""
        segments = tuple(
            replace(
                s,
                model=b"",
                gathered=None if s.gathered is None else replace(s.gathered, model=b""),
            )
            for s in self.segments
        )
        return replace(self, segments=segments)
