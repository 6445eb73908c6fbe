"""Convolutions of an ONNX graph as layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx

from dynrt.exporters.draft import attribute_int, attribute_ints, attribute_text
from dynrt.exporters.layers_facts import Facts
from dynrt.exporters.layers_formats import multiplied_format
from dynrt.ir.layers import ConvLayer, GemmLayer, Layer, PassLayer

#: The layers of an operator, or why there is no model of it.
Made = tuple[Layer, ...] | str
Maker = Callable[[onnx.NodeProto, Facts, str], Made]
#: A convolution over more pictures than this is not written out picture by picture.
MOST_PICTURES = 256


def conv(weights: int) -> Maker:
    """``weights``: position of the filters among the inputs."""

    def layers(node: onnx.NodeProto, facts: Facts, name: str) -> Made:
        x, w = facts.shape(node.input[0]), facts.shape(node.input[weights])
        out = facts.shape(node.output[0])
        axes = len(x) - 2
        if axes not in (1, 2):
            return f"a convolution over {axes} axes"
        if x[0] > MOST_PICTURES:
            return f"a convolution over {x[0]} pictures at once; at most {MOST_PICTURES} are listed"
        strides = attribute_ints(node, "strides") or (1,) * axes
        dilations = attribute_ints(node, "dilations") or (1,) * axes
        begin, end = _pads(node, x[2:], w[2:], strides, dilations)
        in_h, in_w = _two(x[2:])
        out_h, out_w = _two(out[2:])
        kernel_h, kernel_w = _two(w[2:])
        stride_h, stride_w = _two(strides)
        dilation_h, dilation_w = _two(dilations)
        pad_top, pad_left = _two(begin, 0)
        pad_bottom, pad_right = _two(end, 0)
        layer = ConvLayer(
            name=name,
            op=node.op_type,
            dtype=multiplied_format(facts, node.input[0], node.input[weights]),
            in_h=in_h,
            in_w=in_w,
            out_h=out_h,
            out_w=out_w,
            channels=x[1],
            filters=w[0],
            groups=attribute_int(node, "group", 1),
            kernel_h=kernel_h,
            kernel_w=kernel_w,
            stride_h=stride_h,
            stride_w=stride_w,
            dilation_h=dilation_h,
            dilation_w=dilation_w,
            pad_top=pad_top,
            pad_left=pad_left,
            pad_bottom=pad_bottom,
            pad_right=pad_right,
        )
        return (layer,) * x[0] if layer.macs else ()

    return layers


def _two(values: Sequence[int], missing: int = 1) -> tuple[int, int]:
    """Of both axes; a convolution over one axis has height 1."""
    return (missing, values[0]) if len(values) == 1 else (values[0], values[1])


def _pads(
    node: onnx.NodeProto,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Zeros before and behind each axis."""
    axes = len(sizes)
    auto = attribute_text(node, "auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        begin, end = [], []
        for size, taps, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
            reach = dilation * (taps - 1) + 1
            total = max(0, (math.ceil(size / stride) - 1) * stride + reach - size)
            less, more = total // 2, total - total // 2
            begin.append(less if auto == "SAME_UPPER" else more)
            end.append(more if auto == "SAME_UPPER" else less)
        return tuple(begin), tuple(end)
    given = attribute_ints(node, "pads") if auto == "NOTSET" else ()
    pads = given or (0,) * (2 * axes)
    return pads[:axes], pads[axes:]


def conv_transpose(node: onnx.NodeProto, facts: Facts, name: str) -> Made:
    """Each input position times all taps of its group; then a pass adds what falls together."""
    x, w = facts.shape(node.input[0]), facts.shape(node.input[1])
    out = facts.shape(node.output[0])
    groups = attribute_int(node, "group", 1)
    dtype = multiplied_format(facts, node.input[0], node.input[1])
    positions, taps = math.prod(x[2:]), math.prod(w[2:])
    product = GemmLayer(
        name=name,
        op=node.op_type,
        dtype=dtype,
        m=positions,
        k=x[1] // groups,
        n=w[1] * taps,
        repeat=x[0] * groups,
    )
    biased = len(node.input) > 2 and node.input[2] != ""
    out_words, results = math.prod(out), x[0] * positions * out[1] * taps
    adds = PassLayer(
        name=f"{name}/overlaps",
        op=node.op_type,
        dtype=facts.types[node.output[0]].dtype,
        reads_words=results + (facts.words(node.input[2]) if biased else 0),
        writes_words=out_words,
        operations=x[0] * out[1] * _overlaps(node, x[2:], w[2:], out[2:])
        + (out_words if biased else 0),
    )
    return (product, adds) if product.macs else (adds,)


def _overlaps(
    node: onnx.NodeProto, sizes: Sequence[int], kernel: Sequence[int], out: Sequence[int]
) -> int:
    """Additions of one channel: results that land inside, less the places that they land on."""
    axes = len(sizes)
    strides = attribute_ints(node, "strides") or (1,) * axes
    dilations = attribute_ints(node, "dilations") or (1,) * axes
    extra = attribute_ints(node, "output_padding") or (0,) * axes
    auto = attribute_text(node, "auto_pad", "NOTSET")
    begin = (attribute_ints(node, "pads") or (0,) * (2 * axes))[:axes]
    landed, places = 1, 1
    for a in range(axes):
        first = begin[a]
        if auto != "NOTSET" or attribute_ints(node, "output_shape"):
            # The padding follows from the output's size; the odd one goes before, or behind.
            full = strides[a] * (sizes[a] - 1) + extra[a] + dilations[a] * (kernel[a] - 1) + 1
            cut = max(0, full - out[a])
            first = cut // 2 if auto == "SAME_UPPER" else cut - cut // 2
        steps, taps = np.arange(sizes[a]) * strides[a], np.arange(kernel[a]) * dilations[a]
        at = (steps[:, None] + taps - first).ravel()
        at = at[(at >= 0) & (at < out[a])]
        landed *= len(at)
        places *= len(np.unique(at))
    return landed - places
