"""Operators on one element at a time, on one or two tensors."""

from __future__ import annotations

import math

import numpy as np
import onnx

from dynrt.bundle.board_kinds import Broadcast, Function1, Function2, OpKind
from dynrt.bundle.board_table import SlotType
from dynrt.errors import BoardFitError
from dynrt.exporters.board_builder import float_bits
from dynrt.exporters.board_integers import quantised_sum
from dynrt.exporters.board_lowering import NodeLowering
from dynrt.exporters.board_strides import Walk, copied
from dynrt.exporters.draft import attribute_float, attribute_int

FUNCTIONS_1 = {
    "Abs": Function1.ABS,
    "Exp": Function1.EXP,
    "Neg": Function1.NEG,
    "Relu": Function1.RELU,
    "Sigmoid": Function1.SIGMOID,
    "Sqrt": Function1.SQRT,
    "Tanh": Function1.TANH,
}
FUNCTIONS_2 = {
    "Add": Function2.ADD,
    "And": Function2.MUL,
    "Div": Function2.DIV,
    "GreaterOrEqual": Function2.GE,
    "Max": Function2.MAX,
    "Min": Function2.MIN,
    "Mul": Function2.MUL,
    "Or": Function2.MAX,
    "Sub": Function2.SUB,
}
_COMMUTE = (Function2.ADD, Function2.MUL, Function2.MAX, Function2.MIN)
_FLOATS = ("float32", "bool")


def one(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """A function without parameters."""
    _unary(low, op.input[0], op.output[0], FUNCTIONS_1[op.op_type])


def clip(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Clip; its limits are constants."""
    limits = []
    for position, name, missing in ((1, "min", -math.inf), (2, "max", math.inf)):
        if low.graph.opset < 11:
            limits.append(attribute_float(op, name, missing))
        elif position < len(op.input) and op.input[position]:
            limits.append(float(low.require_constant(i, position, "a limit").reshape(())))
        else:
            limits.append(missing)
    _unary(low, op.input[0], op.output[0], Function1.CLIP, *limits)


def hard_sigmoid(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """HardSigmoid."""
    alpha, beta = attribute_float(op, "alpha", 0.2), attribute_float(op, "beta", 0.5)
    _unary(low, op.input[0], op.output[0], Function1.HARD_SIGMOID, alpha, beta)


def hard_swish(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """HardSwish: ``x * max(0, min(1, x / 6 + 0.5))``."""
    source, n = low.slot_of(op.input[0]), low.graph.count(op.input[0])
    gate = low.temporary(n)
    _add_unary(low, gate, source, n, Function1.HARD_SIGMOID, 1 / 6, 0.5)
    _add_binary(low, low.result(op.output[0]), source, gate, Function2.MUL, n)


def leaky_relu(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """LeakyRelu."""
    slope = attribute_float(op, "alpha", 0.01)
    _unary(low, op.input[0], op.output[0], Function1.LEAKY_RELU, slope)


def _unary(
    low: NodeLowering, source: str, end: str, function: Function1, p: float = 0, q: float = 0
) -> None:
    slot = low.slot_of(source)
    _require_floats(low, source)
    _add_unary(low, low.result(end), slot, low.graph.count(end), function, p, q)


def _add_unary(
    low: NodeLowering, dst: int, a: int, n: int, function: Function1, p: float = 0, q: float = 0
) -> None:
    words = {"dst": dst, "a": a, "n": n, "p": float_bits(p), "q": float_bits(q)}
    low.builder.add(OpKind.UNARY, function=int(function), **words)


def _require_floats(low: NodeLowering, *tensors: str) -> None:
    for name in tensors:
        dtype = low.graph.types[name].dtype
        if dtype not in _FLOATS:
            raise BoardFitError(f"{low.builder.label}: of {dtype} is not on the board")


def two(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """A function of two tensors; further ones (Max, Min) are joined one by one."""
    if op.op_type == "Add" and quantised_sum(low, i):
        return
    function = FUNCTIONS_2[op.op_type]
    if len(op.input) == 1:
        low.alias(op.output[0], op.input[0])
        return
    end, act = low.with_relu(op.output[0])
    shape = low.graph.shape(end)
    so_far, sized = low.slot_of(op.input[0]), low.graph.shape(op.input[0])
    for k, name in enumerate(op.input[1:], 2):
        _require_floats(low, op.input[0], name)
        other = low.slot_of(name)
        last = k == len(op.input)
        dst = low.result(end) if last else low.temporary(math.prod(shape))
        operands = (so_far, sized), (other, low.graph.shape(name))
        _broadcast(low, dst, shape, *operands, function, act if last else 0)
        so_far, sized = dst, shape


def compare(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Greater, Less, LessOrEqual: by GE, which is 1 or 0."""
    a, b = op.input
    _require_floats(low, a, b)
    if op.op_type in ("LessOrEqual", "Greater"):  # a <= b is b >= a; a > b is not b >= a
        a, b = b, a
    shape = low.graph.shape(op.output[0])
    operands = [(low.slot_of(n), low.graph.shape(n)) for n in (a, b)]
    result = low.result(op.output[0])
    if op.op_type == "LessOrEqual":
        _broadcast(low, result, shape, operands[0], operands[1], Function2.GE, 0)
        return
    reached = low.temporary(math.prod(shape))
    _broadcast(low, reached, shape, operands[0], operands[1], Function2.GE, 0)
    _complement(low, result, reached, math.prod(shape))


def invert(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Not."""
    source = low.slot_of(op.input[0])
    _complement(low, low.result(op.output[0]), source, low.graph.count(op.input[0]))


def _complement(low: NodeLowering, dst: int, a: int, n: int) -> None:
    low.builder.add(
        OpKind.BINARY,
        dst=dst,
        a=_number(low, 1.0),
        b=a,
        function=int(Function2.SUB),
        n=n,
        broadcast=int(Broadcast.A_SCALAR),
    )


def _number(low: NodeLowering, value: float) -> int:
    return low.builder.constant(np.array([value], np.float32), SlotType.F32)


def reciprocal(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Reciprocal."""
    source, n = low.slot_of(op.input[0]), low.graph.count(op.input[0])
    low.builder.add(
        OpKind.BINARY,
        dst=low.result(op.output[0]),
        a=_number(low, 1.0),
        b=source,
        function=int(Function2.DIV),
        n=n,
        broadcast=int(Broadcast.A_SCALAR),
    )


def power(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Pow with the constant exponent 2 or 0.5."""
    exponent = low.require_constant(i, 1, "the exponent")
    kind = float(exponent.reshape(-1)[0]) if exponent.size == 1 else math.nan
    if kind not in (2, 0.5):
        raise BoardFitError(f"{low.graph.name(i)}: only squares and roots are on the board")
    source, n = low.slot_of(op.input[0]), low.graph.count(op.input[0])
    if kind == 2:
        _add_binary(low, low.result(op.output[0]), source, source, Function2.MUL, n)
    else:
        _add_unary(low, low.result(op.output[0]), source, n, Function1.SQRT)


def choose(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Where, as ``condition * a + (1 - condition) * b``, which is exact for finite numbers."""
    _require_floats(low, *op.input[1:])
    shape = low.graph.shape(op.output[0])
    n = math.prod(shape)
    (condition, of_condition), yes, no = (
        (low.slot_of(name), low.graph.shape(name)) for name in op.input
    )
    not_condition = low.temporary(math.prod(of_condition))
    _complement(low, not_condition, condition, math.prod(of_condition))
    kept, other = low.temporary(n), low.temporary(n)
    _broadcast(low, kept, shape, yes, (condition, of_condition), Function2.MUL, 0)
    _broadcast(low, other, shape, no, (not_condition, of_condition), Function2.MUL, 0)
    _add_binary(low, low.result(op.output[0]), kept, other, Function2.ADD, n)


def cast(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Cast: of truth values to numbers, and of what stays as it is."""
    before, after = low.graph.types[op.input[0]].dtype, low.graph.types[op.output[0]].dtype
    if before != after and (before, after) != ("bool", "float32"):
        raise BoardFitError(f"{low.graph.name(i)}: {before} to {after} is not on the board")
    low.alias(op.output[0], op.input[0])


def softmax(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Softmax along the last axis, or along one behind which all have size 1."""
    shape = low.graph.shape(op.input[0])
    axis = attribute_int(op, "axis", -1 if low.graph.opset >= 13 else 1) % len(shape)
    n, behind = shape[axis], math.prod(shape[axis + 1 :])
    if low.graph.opset < 13:
        n, behind = n * behind, 1
    if behind != 1:
        raise BoardFitError(f"{low.graph.name(i)}: only along the last axis on the board")
    source = low.slot_of(op.input[0])
    outer = math.prod(shape) // n
    low.builder.add(OpKind.SOFTMAX, dst=low.result(op.output[0]), a=source, outer=outer, n=n)


# --- shapes


def _add_binary(low: NodeLowering, dst: int, a: int, b: int, function: Function2, n: int) -> None:
    low.builder.add(OpKind.BINARY, dst=dst, a=a, b=b, function=int(function), n=n)


Operand = tuple[int, tuple[int, ...]]


def _broadcast(
    low: NodeLowering,
    dst: int,
    shape: tuple[int, ...],
    a: Operand,
    b: Operand,
    function: Function2,
    act: int,
) -> None:
    n = math.prod(shape)
    if math.prod(a[1]) != n and function in _COMMUTE:
        a, b = b, a
    if math.prod(a[1]) != n and not (math.prod(a[1]) == 1 and math.prod(b[1]) == n):
        a = _spread(low, a, shape), shape
    words = {"broadcast": int(Broadcast.SAME)}
    if math.prod(a[1]) != n:
        words = {"broadcast": int(Broadcast.A_SCALAR)}
    elif math.prod(b[1]) == 1 and n != 1:
        words = {"broadcast": int(Broadcast.B_SCALAR)}
    elif math.prod(b[1]) != n:
        run = _channels(b[1], shape)
        if run is None:
            b = _spread(low, b, shape), shape
        else:
            words = {
                "broadcast": int(Broadcast.PER_CHANNEL),
                "channels": run[0],
                "inner": run[1],
            }
    low.builder.add(
        OpKind.BINARY, dst=dst, a=a[0], b=b[0], function=int(function), n=n, act=act, **words
    )


def _channels(small: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Channels and inner elements, if ``small`` covers one run of axes and repeats along all others."""
    full = (1,) * (len(shape) - len(small)) + small
    axes = [k for k, size in enumerate(full) if size != 1]
    if not axes:
        return None
    first, last = axes[0], axes[-1]
    if full[first : last + 1] != shape[first : last + 1]:
        return None
    return math.prod(shape[first : last + 1]), math.prod(shape[last + 1 :])


def _spread(low: NodeLowering, operand: Operand, shape: tuple[int, ...]) -> int:
    """An operand repeated along the axes of ``shape`` that it lacks."""
    slot, small = operand
    full = (1,) * (len(shape) - len(small)) + small
    walk = Walk.whole(full)
    strides = tuple(0 if size == 1 else s for size, s in zip(full, walk.strides, strict=True))
    dst = low.temporary(math.prod(shape))
    copied(low, slot, Walk(sizes=shape, strides=strides, offset=0), dst, Walk.whole(shape), 4)
    return dst


def expand(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Expand."""
    shape = low.graph.shape(op.output[0])
    if low.graph.count(op.input[0]) == math.prod(shape):
        low.alias(op.output[0], op.input[0])
        return
    _require_floats(low, op.input[0])
    small = low.graph.shape(op.input[0])
    full = (1,) * (len(shape) - len(small)) + small
    strides = Walk.whole(full).strides
    repeated = tuple(0 if size == 1 else s for size, s in zip(full, strides, strict=True))
    source = low.slot_of(op.input[0])
    walk = Walk(sizes=shape, strides=repeated, offset=0)
    copied(low, source, walk, low.result(op.output[0]), Walk.whole(shape), 4)
