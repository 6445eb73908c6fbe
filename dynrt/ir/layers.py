"""The layer table: what each operator of a node works on, so that no device parses ONNX for it.

One node has a tuple of layers in the order in which its operators run, at batch 1. A layer says
shapes and word widths, never what hardware makes of them; that is ``dynrt.energy``'s business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dynrt.ir.graph import NodeId

#: Number formats of words, and their bits.
WORD_BITS: Mapping[str, int] = {
    "float64": 64,
    "float32": 32,
    "float16": 16,
    "bfloat16": 16,
    "int64": 64,
    "uint64": 64,
    "int32": 32,
    "uint32": 32,
    "int16": 16,
    "uint16": 16,
    "int8": 8,
    "uint8": 8,
    "bool": 8,
}

#: What a dropped group of a channel mask takes from a layer: filters, channels, words of a pass.
MaskedPart = Literal["filters", "channels", "words"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvLayer:
    """A convolution over two axes (one axis: height 1), one picture.

    Attributes:
        name, op: of the ONNX operator.
        dtype: number format of the words that are multiplied; a key of ``WORD_BITS``.
        in_h, in_w: of the input, without padding.
        out_h, out_w: of the output, as ONNX has them (floor).
        channels, filters: of the input and the output, all groups together.
        groups: independent convolutions; ``channels`` when depthwise.
        kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w: of the filters.
        pad_top, pad_left, pad_bottom, pad_right: zeros around the input; may be uneven.
        masked: what the node's channel mask takes away here; ``None`` without one.
    """

    name: str
    op: str
    dtype: str
    in_h: int
    in_w: int
    out_h: int
    out_w: int
    channels: int
    filters: int
    groups: int = 1
    kernel_h: int
    kernel_w: int
    stride_h: int = 1
    stride_w: int = 1
    dilation_h: int = 1
    dilation_w: int = 1
    pad_top: int = 0
    pad_left: int = 0
    pad_bottom: int = 0
    pad_right: int = 0
    masked: MaskedPart | None = None

    @property
    def macs(self) -> int:
        """Taps of every output, those that meet padding included."""
        taps = self.kernel_h * self.kernel_w * (self.channels // self.groups)
        return self.out_h * self.out_w * self.filters * taps


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmLayer:
    """``repeat`` independent products of ``(m, k)`` with ``(k, n)``.

    A fully connected layer has ``m`` 1; a batched product repeats; a recurrent layer repeats by
    step; a transposed convolution is a product and a pass that adds the overlaps.

    Attributes:
        name, op: of the ONNX operator.
        dtype: number format of the words that are multiplied.
        m, k, n: rows of the input, inner length, columns of the weights.
        repeat: how many such products.
        masked: what the node's channel mask takes away here (``filters``: n, ``channels``: k).
    """

    name: str
    op: str
    dtype: str
    m: int
    k: int
    n: int
    repeat: int = 1
    masked: MaskedPart | None = None

    @property
    def macs(self) -> int:
        """``m * k * n``, repeated."""
        return self.m * self.k * self.n * self.repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class PassLayer:
    """An operator that goes over its tensors once: pooling, element-wise, normalisation, moving.

    Attributes:
        name, op: of the ONNX operator.
        dtype: number format of its widest operand.
        reads_words: words of its inputs, parameters included.
        writes_words: words of its outputs.
        operations: additions, comparisons or other scalar operations; 0 where it only moves.
        fused: applied to the only result of the operator before it, in the same node, on the way
            out (an activation, a batch normalisation): nothing more is read or written.
        view: the same words under another shape: nothing is read or written at all.
        masked: ``words`` where the node's channel mask takes away its share.
    """

    name: str
    op: str
    dtype: str
    reads_words: int
    writes_words: int
    operations: int = 0
    fused: bool = False
    view: bool = False
    masked: MaskedPart | None = None

    @property
    def macs(self) -> int:
        """None at all."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmodelledLayer:
    """An operator that has no model: listed with its share, never taken as zero.

    Attributes:
        name, op: of the ONNX operator.
        macs: multiply-accumulates, as far as they are counted at all.
        bytes_moved: of its inputs, parameters and outputs; ``None`` where a shape is not known.
        reason: why, for a person.
    """

    name: str
    op: str
    macs: int
    bytes_moved: int | None
    reason: str


Layer = ConvLayer | GemmLayer | PassLayer | UnmodelledLayer
LayerTable = Mapping[NodeId, tuple[Layer, ...]]


def weight_words(layer: Layer) -> int:
    """Words of weights of a convolution or product; 0 for others."""
    if isinstance(layer, ConvLayer):
        per_filter = layer.kernel_h * layer.kernel_w * (layer.channels // layer.groups)
        return layer.filters * per_filter
    if isinstance(layer, GemmLayer):
        return math.prod((layer.k, layer.n, layer.repeat))
    return 0
