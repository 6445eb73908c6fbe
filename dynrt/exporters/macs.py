"""How many multiply-accumulates a node takes at batch 1, counted from its ONNX graph.

The count is that of ``torch.utils.flop_counter`` (half its FLOPs) and fvcore: convolutions and
products; everything elementwise is zero, as in the papers. A convolution counts every tap of every
output, those that meet padding included. What has weights and no formula is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from dynrt.errors import ExportError
from dynrt.exporters.draft import attribute_int, attribute_text
from dynrt.exporters.shapes import shapes_at_batch_1
from dynrt.ir.graph import TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerMacs:
    """One counted operator: its name, kind and multiply-accumulates."""

    name: str
    op: str
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MacCount:
    """The count of one model.

    Attributes:
        macs: multiply-accumulates at batch 1.
        layers: the operators that multiply, in order.
        unknown: kinds of operators without weights that this module does not know; taken as zero.
    """

    macs: int
    layers: tuple[LayerMacs, ...]
    unknown: tuple[str, ...]


#: Operators that combine, move or reduce elements: no multiply-accumulate.
_FREE = frozenset(
    [
        "Abs",
        "Acos",
        "Acosh",
        "Add",
        "And",
        "ArgMax",
        "ArgMin",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "AveragePool",
        "BatchNormalization",
        "BitShift",
        "Cast",
        "CastLike",
        "Ceil",
        "Celu",
        "Clip",
        "Compress",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Cos",
        "Cosh",
        "CumSum",
        "DepthToSpace",
        "DequantizeLinear",
        "Div",
        "Dropout",
        "DynamicQuantizeLinear",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "EyeLike",
        "Flatten",
        "Floor",
        "Gather",
        "GatherElements",
        "GatherND",
        "Gelu",
        "GlobalAveragePool",
        "GlobalLpPool",
        "GlobalMaxPool",
        "Greater",
        "GreaterOrEqual",
        "GroupNormalization",
        "HardSigmoid",
        "HardSwish",
        "Hardmax",
        "Identity",
        "InstanceNormalization",
        "IsInf",
        "IsNaN",
        "LRN",
        "LayerNormalization",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "LpPool",
        "Max",
        "MaxPool",
        "Mean",
        "MeanVarianceNormalization",
        "Min",
        "Mish",
        "Mod",
        "Mul",
        "Neg",
        "NonZero",
        "Not",
        "OneHot",
        "Or",
        "PRelu",
        "Pad",
        "Pow",
        "QuantizeLinear",
        "Range",
        "Reciprocal",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Relu",
        "Reshape",
        "Resize",
        "Round",
        "ScatterElements",
        "ScatterND",
        "Selu",
        "Shape",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
        "Size",
        "Slice",
        "Softmax",
        "Softplus",
        "Softsign",
        "SpaceToDepth",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Sum",
        "Tan",
        "Tanh",
        "ThresholdedRelu",
        "Tile",
        "TopK",
        "Transpose",
        "Trilu",
        "Unique",
        "Unsqueeze",
        "Upsample",
        "Where",
        "Xor",
    ]
)

Shapes = Mapping[str, TensorType]


def count_macs(model: bytes | onnx.ModelProto, *, place: str) -> MacCount:
    """Count ``model``.

    Args:
        model: plain ONNX.
        place: names the node in errors.

    Raises:
        ExportError: an operator with weights that has no formula, or a shape that stays unknown.
    """
    proto = onnx.load_model_from_string(model) if isinstance(model, bytes) else model
    shapes = shapes_at_batch_1(proto, place=place)
    constant = _constants(proto.graph)
    layers: list[LayerMacs] = []
    unknown: dict[str, None] = {}
    for node in proto.graph.node:
        macs = macs_of(node, shapes)
        if macs is not None:
            layers.append(LayerMacs(name=node.name, op=node.op_type, macs=macs))
        elif node.op_type in _FREE and node.domain in ("", "ai.onnx"):
            continue
        elif any(name in constant and _real(shapes.get(name)) for name in node.input):
            raise ExportError(
                f"{place}: operator {node.op_type} ({node.name!r}) has weights, "
                "and dynrt has no formula for its multiplications"
            )
        else:
            unknown[node.op_type] = None
    total = sum(layer.macs for layer in layers)
    return MacCount(macs=total, layers=tuple(layers), unknown=tuple(unknown))


def macs_of(node: onnx.NodeProto, shapes: Shapes) -> int | None:
    """Multiply-accumulates of one operator; ``None`` for a kind that has no formula.

    Raises:
        ExportError: an ``Einsum`` that is not one plain product.
        KeyError: a shape that the formula needs is not in ``shapes``.
    """
    formula = _FORMULAS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    return None if formula is None else formula(node, shapes)


def _real(kind: TensorType | None) -> bool:
    """Whether a tensor holds weights rather than indices, sizes or single numbers."""
    return kind is not None and "int64" not in kind.dtype and math.prod(kind.shape) > 1


def _constants(graph: onnx.GraphProto) -> set[str]:
    """Initialisers, and what is computed from them alone."""
    constant = {t.name for t in graph.initializer}
    for node in graph.node:
        if all(name in constant for name in node.input if name):
            constant.update(node.output)
    return constant


def _conv(weight: int) -> Callable[[onnx.NodeProto, Shapes], int]:
    """Outputs times taps of one filter; dilation and uneven padding are in the output's size."""

    def formula(node: onnx.NodeProto, shapes: Shapes) -> int:
        taps = math.prod(shapes[node.input[weight]].shape[1:])
        return math.prod(shapes[node.output[0]].shape) * taps

    return formula


def _conv_transpose(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Every input element meets every tap of its group's filters."""
    taps = math.prod(shapes[node.input[1]].shape[1:])
    return math.prod(shapes[node.input[0]].shape) * taps


def _gemm(node: onnx.NodeProto, shapes: Shapes) -> int:
    a = shapes[node.input[0]].shape
    inner = a[0] if attribute_int(node, "transA", 0) else a[1]
    return math.prod(shapes[node.output[0]].shape) * inner


def _matmul(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Rows times columns times inner length, times the batch of both."""
    return math.prod(shapes[node.output[0]].shape) * shapes[node.input[0]].shape[-1]


def _recurrent(gates: int) -> Callable[[onnx.NodeProto, Shapes], int]:
    """Input and hidden products of every gate, step and direction; peepholes are elementwise."""

    def formula(node: onnx.NodeProto, shapes: Shapes) -> int:
        x, w, r = (shapes[name].shape for name in node.input[:3])
        hidden = r[-1]
        if attribute_int(node, "layout", 0) == 1:
            x = (x[1], x[0], x[2])
        directions = w[0]
        return x[0] * x[1] * directions * gates * hidden * (x[2] + hidden)

    return formula


def _einsum(node: onnx.NodeProto, shapes: Shapes) -> int:
    """One product of two operands: the sizes of all letters, multiplied."""
    equation = attribute_text(node, "equation", "").replace(" ", "")
    terms = equation.split("->")[0].split(",")
    if "." in equation or len(terms) > 2:
        raise ExportError(f"operator Einsum ({node.name!r}): {equation!r} is not one plain product")
    if len(terms) == 1:
        return 0
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input, strict=True):
        sizes.update(zip(term, shapes[name].shape, strict=True))
    return math.prod(sizes.values())


_FORMULAS: Mapping[str, Callable[[onnx.NodeProto, Shapes], int]] = {
    "Conv": _conv(1),
    "ConvInteger": _conv(1),
    "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Einsum": _einsum,
    "LSTM": _recurrent(4),
    "GRU": _recurrent(3),
    "RNN": _recurrent(1),
}
