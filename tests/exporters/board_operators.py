"""One-operator models of every kind that the board has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from tests.exporters.onnx_models import model, op

RNG = np.random.default_rng(0)
B = "batch"


def normal(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(values, np.int64)


def scalar(value: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(value, np.float32)


IMAGE = {"x": (B, 4, 7, 9)}
VECTOR = {"x": (B, 12)}
PAIR = {"x": (B, 3, 4, 5), "z": (B, 3, 4, 5)}
Case = tuple[Sequence[onnx.NodeProto], Mapping[str, Any], Mapping[str, Any]]


def conv(weights: tuple[int, ...], bias: bool = True, **attributes: Any) -> Case:
    constants = {"w": normal(*weights)} | ({"b": normal(weights[0])} if bias else {})
    return [op("Conv", "x w b" if bias else "x w", "y", **attributes)], IMAGE, constants


def unary(kind: str, **attributes: Any) -> Case:
    return [op(kind, "x", "y", **attributes)], VECTOR, {}


def binary(kind: str, constant: Any) -> Case:
    return [op(kind, "x c", "y")], {"x": (B, 3, 4, 5)}, {"c": constant}


def truth(kind: str) -> Case:
    nodes = [op(kind, "x z", "t"), op("Cast", "t", "y", to=1)]
    return nodes, {"x": (B, 3, 4, 5), "z": (B, 3, 4, 5)}, {}


def moved(kind: str, inputs: str, constants: Mapping[str, Any], **attributes: Any) -> Case:
    return [op(kind, f"x {inputs}".strip(), "y", **attributes)], IMAGE, constants


def lstm() -> Case:
    nodes = [
        op("Unsqueeze", "x axes", "steps"),
        op("Unsqueeze", "h axes", "h0"),
        op("Unsqueeze", "c axes", "c0"),
        op("LSTM", "steps w r b _ h0 c0", "_ hn cn", hidden_size=5),
        op("Concat", "hn cn", "both", axis=2),
        op("Squeeze", "both axes", "y"),
    ]
    nodes[3].output[0] = ""
    constants = {"w": normal(1, 20, 6), "r": normal(1, 20, 5), "b": normal(1, 40), "axes": ints(0)}
    return nodes, {"x": (B, 6), "h": (B, 5), "c": (B, 5)}, constants


CASES: Mapping[str, Case] = {
    "conv": conv((6, 4, 3, 3), pads=[1, 1, 1, 1]),
    "conv of one": conv((6, 4, 1, 1), bias=False),
    "conv strided": conv((6, 4, 3, 5), strides=[2, 3], pads=[0, 2, 1, 1]),
    "conv dilated": conv((2, 4, 3, 2), dilations=[2, 3]),
    "conv in groups": conv((6, 2, 3, 3), group=2, pads=[1, 1, 1, 1]),
    "conv by channel": conv((8, 1, 3, 3), group=4),
    "conv padded alike": conv((5, 4, 4, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv padded before": conv((5, 4, 4, 2), auto_pad="SAME_LOWER"),
    "conv along a line": (
        [op("Conv", "x w", "y", strides=[2], pads=[1, 1])],
        {"x": (B, 3, 17)},
        {"w": normal(4, 3, 3)},
    ),
    "conv add relu": (
        [op("Conv", "x w", "a", pads=[1, 1, 1, 1]), op("Add", "x a", "s"), op("Relu", "s", "y")],
        IMAGE,
        {"w": normal(4, 4, 3, 3)},
    ),
    "conv relu add": (
        [op("Conv", "x w", "a", pads=[1, 1, 1, 1]), op("Relu", "a", "r"), op("Add", "r x", "y")],
        IMAGE,
        {"w": normal(4, 4, 3, 3)},
    ),
    "two convs added": (
        [
            op("Conv", "x w", "a", pads=[1, 1, 1, 1]),
            op("Conv", "x v", "b"),
            op("Add", "a b", "s"),
            op("Relu", "s", "y"),
        ],
        IMAGE,
        {"w": normal(4, 4, 3, 3), "v": normal(4, 4, 1, 1)},
    ),
    "conv twice itself": (
        [op("Conv", "x w", "a"), op("Add", "a a", "y")], IMAGE, {"w": normal(2, 4, 1, 1)},
    ),
    "gemm": (
        [op("Gemm", "x w b", "a", transB=1, alpha=0.5, beta=2.0), op("Relu", "a", "y")],
        VECTOR,
        {"w": normal(5, 12), "b": normal(5)},
    ),
    "gemm across": ([op("Gemm", "x w", "y")], VECTOR, {"w": normal(12, 5)}),
    "matmul of rows": (
        [op("MatMul", "x w", "a"), op("Add", "a b", "y")],
        {"x": (B, 3, 12)},
        {"w": normal(12, 5), "b": normal(5)},
    ),
    "matmul and more": (
        [op("MatMul", "x w", "a"), op("Add", "a b", "y")],
        {"x": (B, 3, 12)},
        {"w": normal(12, 5), "b": normal(3, 1)},
    ),
    "batch norm": (
        [op("BatchNormalization", "x s b m v", "a"), op("Relu", "a", "y")],
        IMAGE,
        {"s": normal(4), "b": normal(4), "m": normal(4), "v": np.abs(normal(4)) + 0.1},
    ),
    **{
        kind: unary(kind)
        for kind in ("Relu", "Sigmoid", "Tanh", "Exp", "Neg", "Abs", "HardSigmoid", "HardSwish")
    },
    "leaky relu": unary("LeakyRelu", alpha=0.3),
    "identity": unary("Identity"),
    "root": ([op("Abs", "x", "a"), op("Sqrt", "a", "y")], VECTOR, {}),
    "square": ([op("Pow", "x two", "y")], VECTOR, {"two": scalar(2)}),
    "root by power": (
        [op("Abs", "x", "a"), op("Pow", "a h", "y")], VECTOR, {"h": scalar(0.5)},
    ),
    "reciprocal": ([op("Exp", "x", "a"), op("Reciprocal", "a", "y")], VECTOR, {}),
    "clip": ([op("Clip", "x lo hi", "y")], VECTOR, {"lo": scalar(-0.5), "hi": scalar(0.25)}),
    "clip above": ([op("Clip", "x _ hi", "y")], VECTOR, {"hi": scalar(0.25)}),
    "softmax": ([op("Softmax", "x", "y", axis=-1)], {"x": (B, 3, 12)}, {}),
    "add number": binary("Add", scalar(0.5)),
    "add channel": binary("Add", normal(3, 1, 1)),
    "sub column": binary("Sub", normal(5)),
    "mul row": binary("Mul", normal(4, 1)),
    "div plane": binary("Div", np.abs(normal(4, 5)) + 0.5),
    "max crossed": binary("Max", normal(3, 1, 5)),
    "wider constant": ([op("Mul", "x c", "y")], {"x": (B, 3, 1)}, {"c": normal(3, 4)}),
    "number minus": ([op("Sub", "c x", "y")], VECTOR, {"c": scalar(1)}),
    "row minus": ([op("Sub", "c x", "y")], VECTOR, {"c": normal(1, 12)}),
    "column minus": ([op("Sub", "c x", "y")], {"x": (B, 3, 4)}, {"c": normal(3, 1)}),
    **{
        f"{kind} of two": ([op(kind, "x z", "a"), op("Relu", "a", "y")], PAIR, {})
        for kind in ("Add", "Sub", "Mul", "Max", "Min")
    },
    "max of three": ([op("Max", "x z c", "y")], PAIR, {"c": scalar(0.1)}),
    "min of one": ([op("Min", "x", "y")], VECTOR, {}),
    **{kind: truth(kind) for kind in ("GreaterOrEqual", "Greater", "LessOrEqual", "Less")},
    "truth": (
        [
            op("Less", "x z", "t"), op("GreaterOrEqual", "x c", "u"), op("Not", "u", "n"),
            op("Or", "t n", "o"), op("And", "o t", "a"), op("Where", "a x z", "y"),
        ],
        PAIR,
        {"c": scalar(0)},
    ),
    "where by channel": (
        [op("GreaterOrEqual", "k c", "t"), op("Where", "t x z", "y")],
        {**PAIR, "k": (B, 3, 1, 1)},
        {"c": scalar(0.1)},
    ),
    "max pool": ([op("MaxPool", "x", "y", kernel_shape=[3, 2], strides=[2, 2])], IMAGE, {}),
    "max pool over the end": (
        [op("MaxPool", "x", "y", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)], IMAGE, {},
    ),
    "max pool padded": (
        [op("MaxPool", "x", "y", kernel_shape=[3, 3], pads=[1, 1, 1, 1], dilations=[1, 2])],
        IMAGE,
        {},
    ),
    "average pool": (
        [op("AveragePool", "x", "y", kernel_shape=[3, 3], pads=[1, 0, 1, 2], strides=[2, 2])],
        IMAGE,
        {},
    ),
    "average pool with pads": (
        [op("AveragePool", "x", "y", kernel_shape=[3, 3], pads=[1, 0, 1, 2], count_include_pad=1)],
        IMAGE,
        {},
    ),
    "global mean": ([op("GlobalAveragePool", "x", "y")], IMAGE, {}),
    "global maximum": ([op("GlobalMaxPool", "x", "y")], IMAGE, {}),
    "mean": ([op("ReduceMean", "x", "y", axes=[2, 3], keepdims=0)], IMAGE, {}),
    "mean of channels": ([op("ReduceMean", "x", "y", axes=[1])], IMAGE, {}),
    "sum": ([op("ReduceSum", "x axes", "y")], IMAGE, {"axes": ints(-1, 1)}),
    "flatten": ([op("Flatten", "x", "y")], IMAGE, {}),
    "reshape": moved("Reshape", "s", {"s": ints(0, 9, -1)}),
    "transpose": moved("Transpose", "", {}, perm=[0, 2, 3, 1]),
    "transpose all": (
        [op("Reshape", "x s", "a"), op("Transpose", "a", "y", perm=[0, 5, 3, 1, 4, 2])],
        {"x": (B, 120)},
        {"s": ints(0, 2, 3, 4, 5, 1)},
    ),
    "transpose five": (
        [op("Reshape", "x s", "a"), op("Transpose", "a", "y", perm=[0, 5, 3, 1, 4, 2])],
        {"x": (B, 240)},
        {"s": ints(0, 2, 3, 4, 5, 2)},
    ),
    "slice": moved(
        "Slice", "s e a t", {"s": ints(1, 8), "e": ints(3, 0), "a": ints(1, 3), "t": ints(1, -2)}
    ),
    "slice to the end": moved("Slice", "s e a", {"s": ints(-2), "e": ints(2**62), "a": ints(2)}),
    "slice of all": moved("Slice", "s e a", {"s": ints(0), "e": ints(2**62), "a": ints(1)}),
    "pad": moved("Pad", "p v", {"p": ints(0, 1, 2, 0, 0, 3, 0, 1), "v": scalar(-1.5)}),
    "pad and crop": moved("Pad", "p", {"p": ints(0, 1, -2, 0, 0, -1, 1, -3)}),
    "concat": ([op("Concat", "x z x", "y", axis=2)], PAIR, {}),
    "split": (
        [op("Split", "x s", "p q r", axis=1), op("Concat", "r p q", "y", axis=1)],
        VECTOR,
        {"s": ints(3, 4, 5)},
    ),
    "gather one": moved("Gather", "i", {"i": np.array(2, np.int64)}, axis=1),
    "gather apart": moved("Gather", "i", {"i": ints(0, 3, -1, 1)}, axis=3),
    "gather steps": moved("Gather", "i", {"i": ints(6, 4, 2, 0)}, axis=2),
    "expand": (
        [op("Expand", "x s", "y")], {"x": (B, 3, 1, 5)}, {"s": ints(1, 3, 4, 5)},
    ),
    "lstm": lstm(),
    "integer product": (
        [
            op("QuantizeLinear", "x s z", "q"), op("DequantizeLinear", "q s z", "r"),
            op("DequantizeLinear", "w ws wz", "wr", axis=0),
            op("DequantizeLinear", "b bs bz", "br", axis=0),
            op("Gemm", "r wr br", "p", transB=1), op("Relu", "p", "a"),
            op("QuantizeLinear", "a t zero", "aq"), op("DequantizeLinear", "aq t zero", "y"),
        ],
        VECTOR,
        {
            "s": scalar(0.03), "z": np.array(120, np.uint8), "t": scalar(0.05),
            "zero": np.array(3, np.uint8),
            "w": RNG.integers(-127, 128, (5, 12)).astype(np.int8),
            "ws": np.array([0.01, 0.02, 0.015, 0.005, 0.01], np.float32), "wz": np.zeros(5, np.int8),
            "b": RNG.integers(-900, 900, 5).astype(np.int32),
            "bs": np.array([0.01, 0.02, 0.015, 0.005, 0.01], np.float32) * np.float32(0.03),
            "bz": np.zeros(5, np.int32),
        },
    ),
    "integers with a sign": (
        [op("QuantizeLinear", "x s z", "q"), op("DequantizeLinear", "q s z", "y")],
        VECTOR,
        {"s": scalar(0.01), "z": np.array(-20, np.int8)},
    ),
    "pool and pad of integers": (
        [
            op("QuantizeLinear", "x s z", "q"),
            op("MaxPool", "q", "m", kernel_shape=[2, 2]),
            op("Pad", "m p z", "o"),
            op("Concat", "o o", "c", axis=1),
            op("DequantizeLinear", "c s z", "y"),
        ],
        IMAGE,
        {"s": scalar(0.03), "z": np.array(130, np.uint8), "p": ints(0, 0, 1, 1, 0, 0, 0, 0)},
    ),
    "shapes": (
        [
            op("Shape", "x", "s"), op("Gather", "s i", "n"), op("Concat", "n m", "t", axis=0),
            op("Reshape", "x t", "y"),
        ],
        IMAGE,
        {"i": ints(0), "m": ints(-1)},
    ),
}  # fmt: skip


def model_of(name: str) -> onnx.ModelProto:
    nodes, inputs, constants = CASES[name]
    return model(nodes, inputs, "y", constants)
