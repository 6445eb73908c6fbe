"""Convolutions and matrix products, with what follows them: an addition, a ReLU."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx

from dynrt.bundle.board_kinds import Act, Masks, OpKind
from dynrt.bundle.board_ops import NONE, pack_pair
from dynrt.errors import BoardFitError, BundleError
from dynrt.exporters.board_builder import slot_type
from dynrt.exporters.board_integers import quantised_product
from dynrt.exporters.board_lowering import NodeLowering
from dynrt.exporters.draft import attribute_float, attribute_int, attribute_ints, attribute_text
from dynrt.ir.graph import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A sliding window over an image; pairs are vertical, horizontal."""

    in_size: tuple[int, int]
    out_size: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads_begin: tuple[int, int]
    pads_end: tuple[int, int]
    dilations: tuple[int, int]

    def words(self, place: str) -> dict[str, int]:
        """Its words in an operator.

        Raises:
            BoardFitError: a size that does not fit.
        """
        try:
            return {
                "in_height": self.in_size[0],
                "in_width": self.in_size[1],
                "kernel_height": self.kernel[0],
                "kernel_width": self.kernel[1],
                "strides": pack_pair(*self.strides),
                "pads_begin": pack_pair(*self.pads_begin),
                "pads_end": pack_pair(*self.pads_end),
                "out_height": self.out_size[0],
                "out_width": self.out_size[1],
                "dilations": pack_pair(*self.dilations),
            }
        except BundleError as exc:
            raise BoardFitError(f"{place}: {exc}") from exc


def window_of(low: NodeLowering, i: int, kernel: tuple[int, ...]) -> Window:
    """The window of a convolution or pooling; with ``ceil_mode`` it reaches over the end.

    Raises:
        BoardFitError: more than two axes.
    """
    op, graph = low.graph.ops[i], low.graph
    rank = len(kernel)
    if rank not in (1, 2):
        raise BoardFitError(f"{graph.name(i)}: windows over {rank} axes are not on the board")
    size, out = graph.shape(op.input[0])[2:], graph.shape(op.output[0])[2:]
    strides = attribute_ints(op, "strides") or (1,) * rank
    dilations = attribute_ints(op, "dilations") or (1,) * rank
    pads = attribute_ints(op, "pads") or (0,) * 2 * rank
    begin, end = list(pads[:rank]), list(pads[rank:])
    automatic = attribute_text(op, "auto_pad", "NOTSET")
    for axis in range(rank):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        needed = max(0, (out[axis] - 1) * strides[axis] + reach - size[axis])
        if automatic in ("SAME_UPPER", "SAME_LOWER"):
            begin[axis] = (needed + (automatic == "SAME_LOWER")) // 2
            end[axis] = needed - begin[axis]
        elif attribute_int(op, "ceil_mode", 0):
            end[axis] = max(0, needed - begin[axis])

    def pair(values: tuple[int, ...] | list[int], missing: int) -> tuple[int, int]:
        return (values[0], values[1]) if rank == 2 else (missing, values[0])

    return Window(
        in_size=pair(size, 1),
        out_size=pair(out, 1),
        kernel=pair(kernel, 1),
        strides=pair(strides, 1),
        pads_begin=pair(begin, 0),
        pads_end=pair(end, 0),
        dilations=pair(dilations, 1),
    )


def convolution(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Conv, and then Add, ReLU or QuantizeLinear."""
    weights = low.require_constant(i, 1, "the kernel")
    bias = low.require_constant(i, 2, "the bias") if len(op.input) > 2 and op.input[2] else None
    window = window_of(low, i, weights.shape[2:])
    fields = {
        "in_channels": low.graph.shape(op.input[0])[1],
        "out_channels": weights.shape[0],
        "groups": attribute_int(op, "group", 1),
        **window.words(low.graph.name(i)),
    }
    if quantised_product(low, i, OpKind.QCONV, fields, weights_axis=0):
        return
    slot_type(low.graph.types[op.input[0]].dtype, low.graph.name(i))
    pointers = {
        "weights": low.builder.data(weights.astype(np.float32)),
        "bias": 0 if bias is None else low.builder.data(bias.astype(np.float32)),
    }
    use = low.masked.get(i)
    if use is not None:
        fields |= {"mask": use.slot, "mask_groups": use.groups, "mask_mode": use.mode}
    end, last = op.output[0], i
    residual, act = "", Act.NONE
    add = low.follower(end, "Add")
    if add is not None and (use is None or use.mode != Masks.OUT):
        residual = _other(low, add, end)
        if residual:
            low.take(add)
            end, last = low.graph.ops[add].output[0], add
    relu = low.follower(end, "Relu")
    if relu is not None:
        low.take(relu)
        act, end, last = Act.RELU, low.graph.ops[relu].output[0], relu

    def emit() -> None:
        source = low.slot_of(op.input[0])
        behind = low.slot_of(residual) if residual else NONE
        low.builder.label = low.graph.name(i)
        low.builder.add(
            OpKind.CONV,
            **{"dst": low.result(end), "a": source, "b": behind, "act": int(act)},
            **fields,
            **pointers,
        )

    if last == i:
        emit()
    else:
        low.postpone(last, emit)


def _other(low: NodeLowering, add: int, tensor: str) -> str:
    """The other operand of an addition, if it is a tensor of the same shape that is not constant."""
    names = [n for n in low.graph.ops[add].input if n != tensor]
    if len(names) != 1 or low.constant(names[0]) is not None:
        return ""
    same = low.graph.types[names[0]] == low.graph.types[tensor]
    return names[0] if same else ""


def product(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """Gemm."""
    if attribute_int(op, "transA", 0) and min(low.graph.shape(op.input[0])) > 1:
        raise BoardFitError(f"{low.graph.name(i)}: transA is not on the board")
    weights = low.require_constant(i, 1, "the second operand")
    weights = weights if attribute_int(op, "transB", 0) else weights.T
    bias = None
    if len(op.input) > 2 and op.input[2]:
        bias = low.require_constant(i, 2, "the bias")
        if low.graph.shape(op.output[0])[0] != 1 and bias.ndim > 1 and bias.shape[0] != 1:
            raise BoardFitError(f"{low.graph.name(i)}: a bias for each row is not on the board")
        bias = np.broadcast_to(bias.reshape(-1), weights.shape[:1])
        bias = bias * np.float32(attribute_float(op, "beta", 1.0))
    alpha = attribute_float(op, "alpha", 1.0)
    axis = 0 if attribute_int(op, "transB", 0) else 1
    _gemm(low, i, weights * np.float32(alpha) if alpha != 1 else weights, bias, axis, op.output[0])


def matrix_product(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """MatMul with a constant; a constant that is then added is its bias."""
    weights = low.require_constant(i, 1, "the second operand")
    if weights.ndim != 2:
        raise BoardFitError(f"{low.graph.name(i)}: a product of stacks is not on the board")
    end, bias = op.output[0], None
    add = low.follower(end, "Add")
    if add is not None:
        names = [n for n in low.graph.ops[add].input if n != end]
        value = low.constant(names[0]) if len(names) == 1 else None
        same = low.graph.count(low.graph.ops[add].output[0]) == low.graph.count(end)
        if value is not None and same and value.size == value.shape[-1] == weights.shape[1]:
            low.take(add)
            bias, end = value.reshape(-1), low.graph.ops[add].output[0]
    _gemm(low, i, weights.T, bias, 1, end)


def _gemm(
    low: NodeLowering, i: int, weights: Array, bias: Array | None, axis: int, end: str
) -> None:
    op = low.graph.ops[i]
    m, k = weights.shape
    rows = low.graph.count(op.input[0]) // k
    if rows == 1 and quantised_product(low, i, OpKind.QGEMM, {"k": k, "m": m}, weights_axis=axis):
        return
    end, act = low.with_relu(end)
    source = low.slot_of(op.input[0])
    low.builder.add(
        OpKind.GEMM,
        dst=low.result(end),
        a=source,
        act=act,
        k=k,
        m=m,
        rows=rows,
        weights=low.builder.data(np.asarray(weights, np.float32)),
        bias=0 if bias is None else low.builder.data(np.asarray(bias, np.float32)),
    )


def batch_norm(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """BatchNormalization: a factor and an offset for each channel."""
    names = ("the scale", "the offset", "the mean", "the variance")
    scale, offset, mean, variance = (
        low.require_constant(i, k + 1, name).astype(np.float64) for k, name in enumerate(names)
    )
    if attribute_int(op, "training_mode", 0):
        raise BoardFitError(f"{low.graph.name(i)}: training mode is not on the board")
    factor = scale / np.sqrt(variance + attribute_float(op, "epsilon", 1e-5))
    end, act = low.with_relu(op.output[0])
    source = low.slot_of(op.input[0])
    shape = low.graph.shape(op.input[0])
    low.builder.add(
        OpKind.AFFINE,
        dst=low.result(end),
        a=source,
        act=act,
        channels=shape[1],
        inner=math.prod(shape[2:]),
        scale=low.builder.data(factor.astype(np.float32)),
        shift=low.builder.data((offset - mean * factor).astype(np.float32)),
    )
