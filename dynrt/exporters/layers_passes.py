"""Operators that go over their tensors once: how many words and how many scalar operations.

One operation is one scalar function of one or two numbers, whatever it is made of inside: an
addition, a comparison, a ``tanh``. Composed operators count their steps, as each entry says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from dynrt.exporters.draft import attribute_int, attribute_ints, attribute_text
from dynrt.exporters.layers_facts import Facts
from dynrt.exporters.layers_formats import widest
from dynrt.ir.layers import PassLayer

Operations = Callable[[onnx.NodeProto, Facts], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRule:
    """How one kind of operator is counted.

    Attributes:
        operations: of one such operator.
        data_inputs: how many of the first inputs hold data; the others are sizes, axes or limits
            and are not read as tensors. ``None``: all.
        index_inputs, index_outputs: positions that hold indices: their words count, their number
            format does not.
        picks: of its first input it reads only as many words as it gives.
        elementwise: each result comes from the element at its place (and parameters).
    """

    operations: Operations
    data_inputs: int | None = None
    index_inputs: tuple[int, ...] = ()
    index_outputs: tuple[int, ...] = ()
    picks: bool = False
    elementwise: bool = False


def pass_layer(
    node: onnx.NodeProto,
    facts: Facts,
    *,
    name: str,
    written: str | None,
    fused: bool,
    view: bool,
) -> PassLayer:
    """The layer of an operator in :data:`PASSES`, or of a view.

    Args:
        node: the operator; every tensor of it is known.
        facts: of its graph.
        name: of the layer.
        written: the tensor that is stored in the end where operators behind ``node`` are applied
            to its result on the way out; ``None``: the result itself.
        fused: as of :class:`PassLayer`.
        view: as of :class:`PassLayer`.
    """
    rule = PASSES.get(node.op_type, _MOVE)
    inputs = [n for n in node.input[: 1 if view else rule.data_inputs] if n]
    words = [facts.words(n) for n in inputs]
    outputs = [n for n in node.output if n]
    out_words = sum(facts.words(n) for n in outputs)
    if rule.picks:
        words[0] = min(words[0], out_words)
    given = [*inputs, *outputs] if view else _formats(node, rule, written)
    formats = [facts.types[facts.first(n)].dtype for n in given]
    return PassLayer(
        name=name,
        op=node.op_type,
        dtype=widest(formats),
        reads_words=sum(words),
        writes_words=out_words,
        operations=0 if view else rule.operations(node, facts),
        fused=fused,
        view=view,
    )


def _formats(node: onnx.NodeProto, rule: PassRule, written: str | None) -> list[str]:
    """Tensors whose words are worked on: no indices, and no scales of quantised numbers."""
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return [node.input[0], node.output[0]]
    inputs = [
        n for i, n in enumerate(node.input[: rule.data_inputs]) if n and i not in rule.index_inputs
    ]
    outputs = [n for i, n in enumerate(node.output) if n and i not in rule.index_outputs]
    return [*inputs, *([written] if written is not None else outputs)]


def _per_output(count: int) -> Operations:
    return lambda node, facts: count * facts.words(node.output[0])


def _per_input(count: int) -> Operations:
    return lambda node, facts: count * facts.words(node.input[0])


def _none(_node: onnx.NodeProto, _facts: Facts) -> int:
    return 0


def _joined(node: onnx.NodeProto, facts: Facts) -> int:
    """One step for each further operand; a mean divides once more."""
    steps = sum(1 for n in node.input if n) - (node.op_type != "Mean")
    return steps * facts.words(node.output[0])


def _window(each: int, last: int) -> Operations:
    """Steps for each tap of a pooling window, padding included, and for each result."""

    def count(node: onnx.NodeProto, facts: Facts) -> int:
        taps = math.prod(attribute_ints(node, "kernel_shape"))
        return (each * taps + last) * facts.words(node.output[0])

    return count


def _resized(node: onnx.NodeProto, facts: Facts) -> int:
    """Each result is a weighted sum over 2 (linear) or 4 (cubic) places of each resized axis."""
    mode = attribute_text(node, "mode", "nearest")
    before, after = facts.shape(node.input[0]), facts.shape(node.output[0])
    axes = sum(a != b for a, b in zip(before, after, strict=True))
    places = {"linear": 2, "cubic": 4}.get(mode, 0)
    return places**axes * math.prod(after) if axes and places else 0


def _best(node: onnx.NodeProto, facts: Facts) -> int:
    """A heap of the best k: log2(k) comparisons for each element, one at least."""
    axis = attribute_int(node, "axis", -1)
    kept = facts.shape(node.output[0])[axis]
    return max(1, math.ceil(math.log2(max(1, kept)))) * facts.words(node.input[0])


def _scattered(node: onnx.NodeProto, facts: Facts) -> int:
    adds = attribute_text(node, "reduction", "none") != "none"
    return facts.words(node.input[2]) if adds else 0


def _neighbours(node: onnx.NodeProto, facts: Facts) -> int:
    """A square, a sum over ``size`` channels, scale and offset, power and division."""
    return (attribute_int(node, "size", 1) + 5) * facts.words(node.output[0])


_MOVE = PassRule(operations=_none)
_FIRST = PassRule(operations=_none, data_inputs=1)
_TAKE = PassRule(operations=_none, index_inputs=(1,), picks=True)
_PUT = PassRule(operations=_scattered, index_inputs=(1,))
_ELEMENT = PassRule(operations=_per_output(1), elementwise=True)
_LIMITED = PassRule(operations=_per_output(1), data_inputs=1, elementwise=True)
_JOIN = PassRule(operations=_joined, elementwise=True)
_ONCE = PassRule(operations=_per_input(1), data_inputs=1)
_TWICE = PassRule(operations=_per_input(2), data_inputs=1)
_PLACE = PassRule(operations=_per_input(1), index_outputs=(0,))

_ONE_BY_ONE = [
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "Div",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Where",
    "Xor",
]

#: Every operator that is counted as one pass over its tensors.
PASSES: Mapping[str, PassRule] = {
    **dict.fromkeys(_ONE_BY_ONE, _ELEMENT),
    **dict.fromkeys(("Max", "Mean", "Min", "Sum"), _JOIN),
    **dict.fromkeys(("ArgMax", "ArgMin"), _PLACE),
    **dict.fromkeys(
        ["ReduceLogSum", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"], _ONCE
    ),
    # an absolute value, a square or an exponential before each addition
    **dict.fromkeys(["ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceSumSquare"], _TWICE),
    **dict.fromkeys(("GatherElements", "GatherND", "Gather"), _TAKE),
    **dict.fromkeys(("ScatterElements", "ScatterND"), _PUT),
    **dict.fromkeys(
        ["ConstantOfShape", "Expand", "EyeLike", "Pad", "Range", "Tile", "Trilu"], _FIRST
    ),
    **dict.fromkeys(("Concat", "DepthToSpace", "SpaceToDepth", "Transpose"), _MOVE),
    "AveragePool": PassRule(operations=_window(1, 0)),  # taps - 1 additions, one division
    "BatchNormalization": PassRule(operations=_per_output(2), elementwise=True),  # scale and shift
    "Clip": _LIMITED,
    "CumSum": _ONCE,
    "DequantizeLinear": PassRule(operations=_per_output(2), elementwise=True),  # offset and scale
    "Dropout": PassRule(operations=_per_output(2), data_inputs=1),  # one that is in training mode
    # both limits, then scale, rounding and offset
    "DynamicQuantizeLinear": PassRule(operations=_per_input(5)),
    "GlobalAveragePool": _ONCE,
    "GlobalLpPool": _TWICE,
    "GlobalMaxPool": _ONCE,
    # mean, deviation, its square and their sum, division, scale and shift
    **dict.fromkeys(
        ("GroupNormalization", "InstanceNormalization", "LayerNormalization"),
        PassRule(operations=_per_input(7)),
    ),
    "Hardmax": _ONCE,
    "LRN": PassRule(operations=_neighbours),
    "LogSoftmax": PassRule(operations=_per_output(5)),
    "LpNormalization": PassRule(operations=_per_output(3)),  # a power, a sum, a division
    "LpPool": PassRule(operations=_window(2, 0)),
    "MaxPool": PassRule(operations=_window(1, -1), index_outputs=(1,)),
    # mean, deviation, its square and their sum, division
    "MeanVarianceNormalization": PassRule(operations=_per_output(5)),
    "OneHot": PassRule(operations=_none, index_inputs=(0, 1)),
    "QuantizeLinear": PassRule(operations=_per_output(3), elementwise=True),  # and rounding
    "RMSNormalization": PassRule(operations=_per_input(4)),  # a square, a sum, division, scale
    "Resize": PassRule(operations=_resized, data_inputs=1),
    "Slice": PassRule(operations=_none, data_inputs=1, picks=True),
    "Softmax": PassRule(
        operations=_per_output(5)
    ),  # maximum, difference, exponential, sum, division
    "Split": _FIRST,
    "TopK": PassRule(operations=_best, data_inputs=1, index_outputs=(1,)),
    "Upsample": PassRule(operations=_resized, data_inputs=1),
}
