"""Operators that only move words: slices, pads, transpositions, joins."""

from __future__ import annotations

import math

import numpy as np
import onnx

from dynrt.bundle.board_kinds import OpKind
from dynrt.errors import BoardFitError
from dynrt.exporters.board_builder import float_bits
from dynrt.exporters.board_lowering import NodeLowering
from dynrt.exporters.board_strides import MOST_COPIES, Walk, copied
from dynrt.exporters.draft import attribute_int, attribute_ints, attribute_text

_BYTES = {"float32": 4, "bool": 4, "int32": 4, "uint8": 1, "int8": 1}


def same_words(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Reshape and the like."""
    low.alias(op.output[0], op.input[0])


def _element_bytes(low: NodeLowering, tensor: str) -> int:
    dtype = low.graph.types[tensor].dtype
    if dtype not in _BYTES:
        raise BoardFitError(f"{low.builder.label}: {dtype} is not on the board")
    return _BYTES[dtype]


def _moved(low: NodeLowering, op: onnx.NodeProto, taken: Walk, output: int = 0) -> None:
    """Give what ``taken`` finds in the first input."""
    source, end = low.slot_of(op.input[0]), op.output[output]
    each = _element_bytes(low, end)
    copied(low, source, taken, low.result(end), Walk.whole(taken.sizes), each)


def transpose(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Transpose; nothing moves where only axes of size 1 change places."""
    shape = low.graph.shape(op.input[0])
    order = attribute_ints(op, "perm") or tuple(range(len(shape)))[::-1]
    moved = [a for a in order if shape[a] != 1]
    if moved == sorted(moved):
        low.alias(op.output[0], op.input[0])
    else:
        _moved(low, op, Walk.whole(shape).turned(order))


def slice_(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Slice with constant limits."""
    shape = low.graph.shape(op.input[0])
    starts, ends = (
        low.require_constant(i, k, "limits of a slice").reshape(-1).tolist() for k in (1, 2)
    )
    axes, steps = list(range(len(starts))), [1] * len(starts)
    if len(op.input) > 3 and op.input[3]:
        axes = low.require_constant(i, 3, "axes").reshape(-1).tolist()
    if len(op.input) > 4 and op.input[4]:
        steps = low.require_constant(i, 4, "steps").reshape(-1).tolist()
    walk = Walk.whole(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        places = range(*slice(start, end, step).indices(shape[axis]))
        walk = walk.part(axis % len(shape), start=places.start, size=len(places), step=step)
    if walk.sizes == shape and all(step == 1 for step in steps):
        low.alias(op.output[0], op.input[0])
    else:
        _moved(low, op, walk)


def split(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Split: each part is a copy, but of one part."""
    shape = low.graph.shape(op.input[0])
    axis = attribute_int(op, "axis", 0) % len(shape)
    start = 0
    for k, name in enumerate(op.output):
        size = low.graph.shape(name)[axis]
        if low.graph.readers.get(name) or name in low.graph.ends:
            _moved(low, op, Walk.whole(shape).part(axis, start=start, size=size), k)
        start += size


def gather(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Gather at constant places."""
    shape = low.graph.shape(op.input[0])
    axis = attribute_int(op, "axis", 0) % len(shape)
    places = low.require_constant(i, 1, "places").reshape(-1) % shape[axis]
    end, source = op.output[0], low.slot_of(op.input[0])
    each, dst = _element_bytes(low, end), low.result(end)
    steps = np.diff(places)
    target = Walk.whole((*shape[:axis], len(places), *shape[axis + 1 :]))
    if len(set(steps.tolist())) <= 1:
        runs = [(0, len(places), int(steps[0]) if len(steps) else 1)]
    else:
        runs = [(k, 1, 1) for k in range(len(places))]
    if len(runs) > MOST_COPIES:
        raise BoardFitError(f"{low.graph.name(i)}: {len(runs)} places in no order")
    for at, size, step in runs:
        taken = Walk.whole(shape).part(axis, start=int(places[at]), size=size, step=step)
        copied(low, source, taken, dst, target.part(axis, start=at, size=size), each)


def pad(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Pad with a constant."""
    if attribute_text(op, "mode", "constant") != "constant":
        raise BoardFitError(f"{low.graph.name(i)}: only pads of a constant are on the board")
    shape, end = low.graph.shape(op.input[0]), op.output[0]
    given = low.require_constant(i, 1, "pads").reshape(-1).tolist()
    axes = list(range(len(shape)))
    if len(op.input) > 3 and op.input[3]:
        axes = [a % len(shape) for a in low.require_constant(i, 3, "axes").reshape(-1).tolist()]
    filler = 0.0
    if len(op.input) > 2 and op.input[2]:
        filler = float(low.require_constant(i, 2, "what pads").reshape(()))
    taken, target = Walk.whole(shape), Walk.whole(low.graph.shape(end))
    for k, axis in enumerate(axes):
        before, after = given[k], given[k + len(axes)]
        size = shape[axis] + min(0, before) + min(0, after)
        taken = taken.part(axis, start=max(0, -before), size=size)
        target = target.part(axis, start=max(0, before), size=size)
    source, each = low.slot_of(op.input[0]), _element_bytes(low, end)
    dst = low.result(end)
    if math.prod(taken.sizes) != low.graph.count(end):
        is_float = low.graph.types[end].dtype in ("float32", "bool")
        value = float_bits(filler) if is_float else int(filler) & (256**each - 1)
        low.builder.add(
            OpKind.FILL, dst=dst, n=low.graph.count(end), value=value, element_bytes=each
        )
    if math.prod(taken.sizes):
        copied(low, source, taken, dst, target, each)


def concat(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Concat."""
    if len(op.input) == 1:
        low.alias(op.output[0], op.input[0])
        return
    end = op.output[0]
    shape = low.graph.shape(end)
    axis = attribute_int(op, "axis", 0) % len(shape)
    parts = []
    for name in op.input:
        slot = low.slot_of(name)
        parts += [slot, math.prod(low.graph.shape(name)[axis:])]
    each = _element_bytes(low, end)
    low.builder.add(
        OpKind.CONCAT,
        dst=low.result(end),
        parts=low.builder.put(parts),
        n_parts=len(op.input),
        outer=math.prod(shape[:axis]),
        element_bytes=each,
    )
