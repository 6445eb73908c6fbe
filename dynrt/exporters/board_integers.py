"""Quantised operators: integers between ``QuantizeLinear`` and ``DequantizeLinear``."""

from __future__ import annotations

import struct

import numpy as np
import onnx

from dynrt.bundle.board_kinds import OpKind
from dynrt.bundle.board_table import MAX_INT8_TERMS, SlotType
from dynrt.errors import BoardFitError
from dynrt.exporters.board_builder import float_bits, slot_type
from dynrt.exporters.board_graph import Stored
from dynrt.exporters.board_lowering import Coded, NodeLowering
from dynrt.ir.graph import Array


def dequantise(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """DequantizeLinear: integers stay until somebody needs the numbers."""
    scale, zero = _affine(low, i)
    dtype = slot_type(low.graph.types[op.input[0]].dtype, low.graph.name(i))
    if dtype not in (SlotType.U8, SlotType.S8):
        raise BoardFitError(f"{low.graph.name(i)}: only 8-bit integers are on the board")
    slot = low.slot_of(op.input[0])
    low.set_code(op.output[0], Coded(slot=slot, scale=scale, zero=zero, dtype=dtype))


def quantise(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """QuantizeLinear."""
    scale, zero = _affine(low, i)
    source = low.slot_of(op.input[0])
    dtype = slot_type(low.graph.types[op.output[0]].dtype, low.graph.name(i))
    if dtype not in (SlotType.U8, SlotType.S8):
        raise BoardFitError(f"{low.graph.name(i)}: only 8-bit integers are on the board")
    low.builder.add(
        OpKind.QUANTIZE,
        dst=low.result(op.output[0]),
        a=source,
        n=low.graph.count(op.input[0]),
        scale=float_bits(scale),
        zero=zero,
        signed=int(dtype is SlotType.S8),
    )


def _affine(low: NodeLowering, i: int) -> tuple[float, int]:
    op = low.graph.ops[i]
    scale = low.require_constant(i, 1, "the scale")
    given = len(op.input) > 2 and op.input[2]
    zero = low.require_constant(i, 2, "the zero point") if given else np.zeros(1, np.uint8)
    if scale.size != 1 or zero.size != 1:
        raise BoardFitError(f"{low.graph.name(i)}: scales by channel of what is no constant")
    return float(scale.reshape(())), int(zero.reshape(()))


def quantised_product(
    low: NodeLowering, i: int, kind: OpKind, fields: dict[str, int], *, weights_axis: int
) -> bool:
    """Lower a product, its ReLU and its QuantizeLinear in integers, if all of it is in integers.

    Args:
        low: the node.
        i: the product's position.
        kind: QCONV or QGEMM.
        fields: its words but pointers and slots.
        weights_axis: of the output channels in the ONNX constant.

    Returns:
        Whether it was done.
    """
    op = low.graph.ops[i]
    x, weights = low.code_of(op.input[0]), low.graph.stored.get(op.input[1])
    has_bias = len(op.input) > 2 and bool(op.input[2])
    bias = low.graph.stored.get(op.input[2]) if has_bias else None
    if x is None or x.dtype is not SlotType.U8 or not _plain(weights, np.int8, weights_axis):
        return False
    if weights is None or (has_bias and (bias is None or not _plain(bias, np.int32, 0))):
        return False
    terms = weights.value.size // weights.value.shape[weights_axis]
    if terms > MAX_INT8_TERMS or i in low.masked:
        return False
    tail = _quantised_tail(low, op.output[0])
    if tail is None:
        return False
    end, relu, taken = tail
    position = low.graph.maker[end]
    scale, zero = _affine(low, position)
    channels = weights.value.shape[weights_axis]
    factor = np.float32(x.scale) * np.broadcast_to(weights.scale, (channels,)).astype(np.float32)
    integers = weights.value if weights_axis == 0 else weights.value.T
    aux = struct.pack("<4i", x.zero, zero, zero if relu else 0, 255)
    aux += (factor / np.float32(scale)).astype("<f4").tobytes()
    for each in taken:
        low.take(each)
    low.builder.add(
        kind,
        dst=low.result(end),
        a=x.slot,
        weights=low.builder.data(np.ascontiguousarray(integers)),
        bias=0 if bias is None else low.builder.data(bias.value),
        aux=low.builder.data(np.frombuffer(aux, np.uint8)),
        **fields,
    )
    return True


def quantised_sum(low: NodeLowering, i: int) -> bool:
    """Lower an Add, its ReLU and its QuantizeLinear in integers, if all of it is in integers."""
    op = low.graph.ops[i]
    a, b = low.code_of(op.input[0]), low.code_of(op.input[1])
    if a is None or b is None or SlotType.S8 in (a.dtype, b.dtype):
        return False
    if len({low.graph.shape(n) for n in (*op.input, op.output[0])}) != 1:
        return False
    tail = _quantised_tail(low, op.output[0])
    if tail is None:
        return False
    end, relu, taken = tail
    scale, zero = _affine(low, low.graph.maker[end])
    words = (a.zero, b.zero, zero, zero if relu else 0, 255)
    inverse = np.float32(1) / np.float32(scale)
    aux = struct.pack("<5i3f", *words, a.scale, b.scale, inverse)
    for each in taken:
        low.take(each)
    low.builder.add(
        OpKind.QADD,
        dst=low.result(end),
        a=a.slot,
        b=b.slot,
        n=low.graph.count(end),
        aux=low.builder.data(np.frombuffer(aux, np.uint8)),
    )
    return True


def _quantised_tail(low: NodeLowering, tensor: str) -> tuple[str, bool, list[int]] | None:
    """The uint8 tensor that a result becomes, whether by a ReLU, and the operators on the way."""
    taken = []
    relu = low.follower(tensor, "Relu")
    if relu is not None:
        taken.append(relu)
        tensor = low.graph.ops[relu].output[0]
    last = low.follower(tensor, "QuantizeLinear")
    if last is None:
        return None
    end = low.graph.ops[last].output[0]
    if low.graph.types[end].dtype != "uint8":
        return None
    return end, relu is not None, [*taken, last]


def _plain(stored: Stored | None, dtype: type[np.generic], axis: int) -> bool:
    """Whether a constant is of integers around zero, one scale or one for each output channel."""
    if stored is None or stored.value.dtype != dtype or np.any(stored.zero):
        return False
    of_channels: Array = stored.scale.reshape(-1)
    return of_channels.size == 1 or (
        stored.axis % stored.value.ndim == axis and of_channels.size == stored.value.shape[axis]
    )
