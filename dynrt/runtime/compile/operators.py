"""ONNX operators that kernel programs know, on values with a batch of one.

As the batch is one, operators that move data along size-one axes do nothing, and most tensors of a
small node are vectors in effect; whatever would really move data is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynrt.ir.graph import Array
from dynrt.runtime.compile.assembling import (
    MAX_VECTOR,
    Assembler,
    Feature,
    Shape,
    UnfitError,
    Value,
    Vector,
)

Takes = Sequence[Value | None]


@dataclass(frozen=True, slots=True)
class Context:
    """One ONNX node.

    Attributes:
        to: the program in the making.
        attributes: by name.
        opset: the version of the operators.
        outputs: how many the node has.
        once: for each input, whether nothing else reads it.
    """

    to: Assembler
    attributes: dict[str, Any]
    opset: int
    outputs: int
    once: list[bool]

    def get(self, name: str, default: Any) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)


def optional(takes: Takes, at: int) -> Value | None:
    """An input that may be left out."""
    return takes[at] if at < len(takes) else None


def needed(takes: Takes, at: int = 0) -> Value:
    """An input that must be there."""
    value = optional(takes, at)
    if value is None:
        raise UnfitError(f"input {at} is missing")
    return value


def constant(value: Value | None) -> Array:
    """A value that must be constant."""
    if not isinstance(value, np.ndarray):
        raise UnfitError("a weight or index is computed")
    return value


def vector(value: Value | None) -> Vector:
    """A value that must be a vector; a feature of one pixel is one."""
    if not isinstance(value, Vector):
        raise UnfitError("features are read without a pool, or a constant where none may be")
    return value


def operand(to: Assembler, value: Value) -> Vector | Array:
    """What an operation may take."""
    if isinstance(value, Feature):
        if math.prod(value.stored[1:]) != 1:
            raise UnfitError("features are read without a pool")
        return to.pooled(value, value.shape)
    if isinstance(value, np.ndarray) and value.dtype != np.float32:
        raise UnfitError(f"arithmetic in {value.dtype}")
    return value


def whole_axis(shape: Shape, axes: Sequence[int]) -> bool:
    """Whether all other axes than ``axes`` have size one."""
    return all(n == 1 for i, n in enumerate(shape) if i not in axes)


def axis_of(axis: int, rank: int) -> int:
    """A possibly negative axis as an index."""
    if not -rank <= axis < rank:
        raise UnfitError(f"axis {axis} of {rank}")
    return axis % rank


def reshaped(value: Value, shape: Shape) -> Value:
    """The same data under another shape."""
    if any(n < 0 for n in shape) or math.prod(shape) != math.prod(value.shape):
        raise UnfitError(f"{value.shape} as {shape}")
    if isinstance(value, np.ndarray):
        return value.reshape(shape)
    if isinstance(value, Vector):
        return Vector(shape, value.start)
    if shape[:2] != value.shape[:2] and math.prod(value.stored[1:]) != 1:
        raise UnfitError("features of another order")
    return value._replace(shape=shape)


# --- elementwise


def unary(kind: str, numpy_twin: Callable[[Array], Array] | None = None) -> Operator:
    """An operator that a kernel has under the name ``kind``."""

    def apply(context: Context, takes: Takes) -> list[Value]:
        x = operand(context.to, needed(takes))
        if isinstance(x, np.ndarray):
            if numpy_twin is None:
                raise UnfitError(f"{kind} of a constant")
            return [np.asarray(numpy_twin(x))]
        return [context.to.emit(kind, x.shape, [x])]

    return apply


def binary(kind: str, numpy_twin: Callable[[Array, Array], Array]) -> Operator:
    """An operator of two or more operands, broadcast."""

    def apply(context: Context, takes: Takes) -> list[Value]:
        total = needed(takes)
        for at in range(1, len(takes)):
            total = _pair(context, kind, numpy_twin, total, needed(takes, at), at)
        return [total]

    return apply


def _pair(
    context: Context,
    kind: str,
    numpy_twin: Callable[[Array, Array], Array],
    left: Value,
    right: Value,
    at: int,
) -> Value:
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        if kind == "div" and left.dtype.kind in "iu":
            raise UnfitError("division of integers")
        small(np.broadcast_shapes(left.shape, right.shape))
        return np.asarray(numpy_twin(left, right))
    a, b = operand(context.to, left), operand(context.to, right)
    shape = np.broadcast_shapes(a.shape, b.shape)
    if kind == "add":
        for x, more, once in ((a, b, context.once[at - 1]), (b, a, context.once[at])):
            if isinstance(x, Vector) and isinstance(more, np.ndarray) and x.shape == shape and once:
                fused = context.to.add_to_bias(x, more)
                if fused is not None:
                    return fused
    return context.to.emit(kind, shape, [_spread(a, shape), _spread(b, shape)])


def _spread(value: Vector | Array, shape: Shape) -> Vector | Array:
    """An operand that has as many elements as ``shape``, or one."""
    if value.size in (1, math.prod(shape)):
        return value
    if isinstance(value, Vector):
        raise UnfitError(f"{value.shape} broadcast to {shape}")
    small(shape)
    return np.broadcast_to(value, shape)


def small(shape: Sequence[int]) -> None:
    """Refuses a shape of which no memory shall be taken."""
    if not 0 <= math.prod(shape) <= MAX_VECTOR:
        raise UnfitError(f"a shape of {shape}")


def clip(context: Context, takes: Takes) -> list[Value]:
    """Clip, with bounds as inputs or (before opset 11) attributes."""
    x = operand(context.to, vector_or_feature(takes))
    low, high = (
        float(constant(given).reshape(-1)[0]) if given is not None else float(default)
        for given, default in (
            (optional(takes, 1), context.get("min", -math.inf)),
            (optional(takes, 2), context.get("max", math.inf)),
        )
    )
    return [context.to.emit("clip", x.shape, [x], (low, high))]


def vector_or_feature(takes: Takes) -> Value:
    """The first input, which must not be constant."""
    x = needed(takes)
    if isinstance(x, np.ndarray):
        raise UnfitError("an operator of a constant")
    return x


def hard_sigmoid(context: Context, takes: Takes) -> list[Value]:
    """HardSigmoid: ``clip(alpha x + beta, 0, 1)``."""
    x = operand(context.to, vector_or_feature(takes))
    alpha = np.array([context.get("alpha", 0.2)], np.float32)
    beta = np.array([context.get("beta", 0.5)], np.float32)
    y = context.to.emit("mul", x.shape, [x, alpha])
    y = context.to.emit("add", x.shape, [y, beta])
    return [context.to.emit("clip", x.shape, [y], (0.0, 1.0))]


def leaky_relu(context: Context, takes: Takes) -> list[Value]:
    """LeakyRelu with a slope of at most 1: ``max(x, alpha x)``."""
    x = operand(context.to, vector_or_feature(takes))
    alpha = context.get("alpha", 0.01)
    if not 0 <= alpha <= 1:
        raise UnfitError(f"LeakyRelu with {alpha}")
    y = context.to.emit("mul", x.shape, [x, np.array([alpha], np.float32)])
    return [context.to.emit("max", x.shape, [x, y])]


def absolute(context: Context, takes: Takes) -> list[Value]:
    """Abs: ``max(x, -x)``."""
    x = operand(context.to, vector_or_feature(takes))
    return [context.to.emit("max", x.shape, [x, context.to.emit("neg", x.shape, [x])])]


def softmax(context: Context, takes: Takes) -> list[Value]:
    """Softmax over all that there is."""
    x = operand(context.to, vector_or_feature(takes))
    rank = len(x.shape)
    old = context.opset < 13  # from the axis on, flattened
    axis = axis_of(context.get("axis", 1 if old else -1), rank)
    if not whole_axis(x.shape, range(axis, rank) if old else (axis,)):
        raise UnfitError(f"softmax of {x.shape} over axis {axis}")
    return [context.to.emit("softmax", x.shape, [x])]


# --- products


def gemm(context: Context, takes: Takes) -> list[Value]:
    """Gemm with constant B and C."""
    x = vector(operand(context.to, vector_or_feature(takes)))
    weight = constant(needed(takes, 1)) * np.float32(context.get("alpha", 1.0))
    if not context.get("transB", 0):
        weight = weight.T
    if context.get("transA", 0) or len(x.shape) != 2 or x.shape[0] != 1:
        raise UnfitError(f"Gemm of {x.shape}")
    more = optional(takes, 2)
    bias = None
    if more is not None:
        scaled = constant(more) * np.float32(context.get("beta", 1.0))
        bias = np.broadcast_to(scaled, (1, weight.shape[0]))
    return [context.to.linear(x, weight, bias, (1, weight.shape[0]))]


def matmul(context: Context, takes: Takes) -> list[Value]:
    """MatMul of a vector with a constant matrix on either side."""
    left, right = needed(takes), needed(takes, 1)
    if isinstance(right, np.ndarray):
        x, weight = vector(operand(context.to, left)), right
        if weight.ndim != 2 or x.size != x.shape[-1]:
            raise UnfitError(f"{x.shape} times {weight.shape}")
        return [context.to.linear(x, weight.T, None, (*x.shape[:-1], weight.shape[1]))]
    x, weight = vector(operand(context.to, right)), constant(left)
    if weight.ndim != 2 or len(x.shape) < 2 or x.size != x.shape[-2]:
        raise UnfitError(f"{weight.shape} times {x.shape}")
    return [context.to.linear(x, weight, None, (*x.shape[:-2], weight.shape[0], 1))]


def conv(context: Context, takes: Takes) -> list[Value]:
    """A 1x1 convolution of one pixel."""
    x = vector(operand(context.to, vector_or_feature(takes)))
    weight = constant(needed(takes, 1))
    ones = len(x.shape) >= 3 and set(x.shape[2:]) == {1} and set(weight.shape[2:]) == {1}
    padding = any(context.get("pads", ())) or context.get("group", 1) != 1
    if not ones or padding or x.shape[0] != 1:
        raise UnfitError(f"a convolution of {x.shape} with {weight.shape}")
    m = weight.shape[0]
    more = optional(takes, 2)
    bias = None if more is None else constant(more)
    return [context.to.linear(x, weight.reshape(m, -1), bias, (1, m, *x.shape[2:]))]


def batch_norm(context: Context, takes: Takes) -> list[Value]:
    """BatchNormalization with constant statistics: a product and a sum."""
    x = operand(context.to, vector_or_feature(takes))
    scale, shift, mean, var = (constant(needed(takes, i)).astype(np.float64) for i in range(1, 5))
    if context.get("training_mode", 0) or scale.size != x.size or x.shape[:2] != (1, x.size):
        raise UnfitError(f"batch norm of {x.shape}")
    factor = scale / np.sqrt(var + context.get("epsilon", 1e-5))
    offset = shift - mean * factor
    y = context.to.emit("mul", x.shape, [x, factor.astype(np.float32)])
    return [context.to.emit("add", x.shape, [y, offset.astype(np.float32)])]


def lstm(context: Context, takes: Takes) -> list[Value]:
    """One step of a forward LSTM without peepholes."""
    x = vector(operand(context.to, vector_or_feature(takes)))
    w, r = constant(needed(takes, 1)), constant(needed(takes, 2))
    k, n = int(context.get("hidden_size", r.shape[-1])), w.shape[-1]
    plain = (
        context.get("direction", b"forward") == b"forward"
        and context.get("activations", [b"Sigmoid", b"Tanh", b"Tanh"])
        == [b"Sigmoid", b"Tanh", b"Tanh"]
        and not set(context.attributes)
        & {"clip", "activation_alpha", "activation_beta", "output_sequence"}
        and not context.get("input_forget", 0)
        and optional(takes, 7) is None
    )
    fits = w.shape == (1, 4 * k, n) and r.shape == (1, 4 * k, k) and x.shape == (1, 1, n)
    lengths = optional(takes, 4)
    if not plain or not fits or (lengths is not None and constant(lengths).tolist() != [1]):
        raise UnfitError(f"an LSTM of {x.shape}")
    more = optional(takes, 3)
    halves = np.zeros((2, 4 * k)) if more is None else constant(more).reshape(2, 4 * k)
    state: list[Vector | Array] = []
    for at in (5, 6):
        given = optional(takes, at)
        value = np.zeros(k, np.float32) if given is None else operand(context.to, given)
        if value.size != k:
            raise UnfitError(f"an LSTM's state of {value.shape}")
        state.append(value)
    both = context.to.emit("lstm", (2 * k,), [x, *state, w, r, halves[0] + halves[1]])
    hidden, cell = both.start, both.start + k
    # the axis of directions comes after the batch in layout 1; both are of size one
    return [Vector((1, 1, 1, k), hidden), Vector((1, 1, k), hidden), Vector((1, 1, k), cell)]


def power(context: Context, takes: Takes) -> list[Value]:
    """Pow by 2 or 0.5."""
    x = operand(context.to, vector_or_feature(takes))
    exponents = constant(needed(takes, 1)).reshape(-1).tolist()
    if exponents == [2]:
        return [context.to.emit("mul", x.shape, [x, x])]
    if exponents == [0.5]:
        return [context.to.emit("sqrt", x.shape, [x])]
    raise UnfitError(f"a power of {exponents[:3]}")


Operator = Callable[[Context, Takes], list[Value]]

ARITHMETIC: dict[str, Operator] = {
    "Abs": absolute,
    "Add": binary("add", np.add),
    "BatchNormalization": batch_norm,
    "Clip": clip,
    "Conv": conv,
    "Div": binary("div", np.divide),
    "Exp": unary("exp"),
    "Gemm": gemm,
    "HardSigmoid": hard_sigmoid,
    "LSTM": lstm,
    "LeakyRelu": leaky_relu,
    "MatMul": matmul,
    "Max": binary("max", np.maximum),
    "Min": binary("min", np.minimum),
    "Mul": binary("mul", np.multiply),
    "Neg": unary("neg", np.negative),
    "Pow": power,
    "Relu": unary("relu"),
    "Sigmoid": unary("sigmoid"),
    "Softmax": softmax,
    "Sqrt": unary("sqrt"),
    "Sub": binary("sub", np.subtract),
    "Sum": binary("add", np.add),
    "Tanh": unary("tanh"),
}
