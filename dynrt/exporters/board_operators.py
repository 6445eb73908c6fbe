"""Which operators the board has, and what each becomes."""

from __future__ import annotations

from collections.abc import Mapping

from dynrt.exporters import board_integers as integers
from dynrt.exporters import board_moves as moves
from dynrt.exporters import board_pointwise as pointwise
from dynrt.exporters import board_products as products
from dynrt.exporters import board_recurrent as recurrent
from dynrt.exporters import board_windows as windows
from dynrt.exporters.board_lowering import Rule

#: Operators of ONNX that can be lowered; constants and shapes are folded before.
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(pointwise.FUNCTIONS_1, pointwise.one),
    **dict.fromkeys(pointwise.FUNCTIONS_2, pointwise.two),
    **dict.fromkeys(("Greater", "Less", "LessOrEqual"), pointwise.compare),
    **dict.fromkeys(
        ("Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"), moves.same_words
    ),
    **dict.fromkeys(("AveragePool", "MaxPool"), windows.pooling),
    **dict.fromkeys(("ReduceMean", "ReduceSum"), windows.reduction),
    "BatchNormalization": products.batch_norm,
    "Cast": pointwise.cast,
    "Clip": pointwise.clip,
    "Concat": moves.concat,
    "Conv": products.convolution,
    "DequantizeLinear": integers.dequantise,
    "Expand": pointwise.expand,
    "Gather": moves.gather,
    "Gemm": products.product,
    "GlobalAveragePool": windows.whole_mean,
    "GlobalMaxPool": windows.whole_maximum,
    "HardSigmoid": pointwise.hard_sigmoid,
    "HardSwish": pointwise.hard_swish,
    "LSTM": recurrent.lstm,
    "LeakyRelu": pointwise.leaky_relu,
    "MatMul": products.matrix_product,
    "Not": pointwise.invert,
    "Pad": moves.pad,
    "Pow": pointwise.power,
    "QuantizeLinear": integers.quantise,
    "Reciprocal": pointwise.reciprocal,
    "Slice": moves.slice_,
    "Softmax": pointwise.softmax,
    "Split": moves.split,
    "Transpose": moves.transpose,
    "Where": pointwise.choose,
}
