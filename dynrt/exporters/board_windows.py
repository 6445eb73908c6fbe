"""Pooling and reductions."""

from __future__ import annotations

import math

import numpy as np
import onnx

from dynrt.bundle.board_kinds import Broadcast, Function2, OpKind, Pools
from dynrt.bundle.board_table import SlotType
from dynrt.errors import BoardFitError
from dynrt.exporters.board_lowering import NodeLowering
from dynrt.exporters.board_products import Window, window_of
from dynrt.exporters.board_strides import Walk, copied
from dynrt.exporters.draft import attribute_int, attribute_ints


def pooling(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """MaxPool and AveragePool."""
    if len([n for n in op.output if n]) > 1:
        raise BoardFitError(f"{low.graph.name(i)}: places of maxima are not on the board")
    window = window_of(low, i, attribute_ints(op, "kernel_shape"))
    pool = Pools.MAX
    if op.op_type == "AveragePool":
        padded = attribute_int(op, "count_include_pad", 0)
        pool = Pools.AVERAGE_PADDED if padded else Pools.AVERAGE
        if padded and attribute_int(op, "ceil_mode", 0):
            raise BoardFitError(f"{low.graph.name(i)}: ceil_mode over counted pads")
    _pool(low, i, op, low.graph.shape(op.input[0])[1], window, pool)


def _pool(
    low: NodeLowering, i: int, op: onnx.NodeProto, channels: int, window: Window, pool: Pools
) -> None:
    dtype = low.graph.types[op.input[0]].dtype
    if dtype not in (("float32", "uint8", "int8") if pool is Pools.MAX else ("float32",)):
        raise BoardFitError(f"{low.graph.name(i)}: of {dtype} is not on the board")
    source = low.slot_of(op.input[0])
    low.builder.add(
        OpKind.POOL,
        dst=low.result(op.output[0]),
        a=source,
        in_channels=channels,
        out_channels=channels,
        pool=int(pool),
        **window.words(low.graph.name(i)),
    )


def whole_mean(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """GlobalAveragePool."""
    shape = low.graph.shape(op.input[0])
    source = low.slot_of(op.input[0])
    _mean(low, low.result(op.output[0]), source, math.prod(shape[:2]), math.prod(shape[2:]))


def whole_maximum(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """GlobalMaxPool."""
    shape = low.graph.shape(op.input[0])
    size = (math.prod(shape[2:-1]), shape[-1])
    window = Window(
        in_size=size,
        out_size=(1, 1),
        kernel=size,
        strides=(1, 1),
        pads_begin=(0, 0),
        pads_end=(0, 0),
        dilations=(1, 1),
    )
    _pool(low, i, op, shape[1], window, Pools.MAX)


def _mean(low: NodeLowering, dst: int, source: int, outer: int, inner: int) -> None:
    low.builder.add(OpKind.MEAN, dst=dst, a=source, outer=outer, inner=inner)


def reduction(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """ReduceMean and ReduceSum; axes that are not the last ones are moved there first."""
    shape = low.graph.shape(op.input[0])
    if low.graph.types[op.input[0]].dtype != "float32":
        raise BoardFitError(f"{low.graph.name(i)}: only of float32 on the board")
    axes = attribute_ints(op, "axes")
    if len(op.input) > 1 and op.input[1]:
        axes = tuple(low.require_constant(i, 1, "axes").reshape(-1).tolist())
    if not axes and attribute_int(op, "noop_with_empty_axes", 0):
        low.alias(op.output[0], op.input[0])
        return
    gone = {a % len(shape) for a in axes} or set(range(len(shape)))
    source = low.slot_of(op.input[0])
    order = [a for a in range(len(shape)) if a not in gone] + sorted(gone)
    moved = [a for a in order if shape[a] != 1]
    if moved != sorted(moved):
        turned = low.temporary(math.prod(shape))
        walk = Walk.whole(shape).turned(tuple(order))
        copied(low, source, walk, turned, Walk.whole(walk.sizes), 4)
        source = turned
    inner = math.prod(shape[a] for a in gone)
    outer = math.prod(shape) // inner
    if op.op_type == "ReduceMean":
        _mean(low, low.result(op.output[0]), source, outer, inner)
        return
    means = low.temporary(outer)
    _mean(low, means, source, outer, inner)
    low.builder.add(
        OpKind.BINARY,
        dst=low.result(op.output[0]),
        a=means,
        b=low.builder.constant(np.array([inner], np.float32), SlotType.F32),
        function=int(Function2.MUL),
        n=outer,
        broadcast=int(Broadcast.B_SCALAR),
    )
