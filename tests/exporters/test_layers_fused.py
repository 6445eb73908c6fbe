"""What is applied on the way out of an operator, or on the way into its readers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from dynrt.ir.layers import ConvLayer, GemmLayer, Layer, PassLayer
from tests.exporters.onnx_models import Shape, layers, model, op

X: Shape = ("batch", 4, 6, 6)
W = {"w": (4, 4, 1, 1), "b": (4, 1, 1), "n": (4,)}
CONV = op("Conv", "x w", "c")


def flags(
    nodes: list[onnx.NodeProto], outputs: str = "y", constants: dict[str, Any] | None = None
) -> dict[str, bool]:
    """By operator behind the first: whether it is fused."""
    made = layers(model(nodes, {"x": X}, outputs, {**W, **(constants or {})}))
    return {f"{p.op}": p.fused for p in made if isinstance(p, PassLayer) and not p.view}


def test_a_chain_behind_a_convolution_is_fused() -> None:
    chain = [
        CONV,
        op("BatchNormalization", "c n n n n", "1"),
        op("Add", "1 b", "2"),
        op("Relu", "2", "3"),
        op("Flatten", "3", "4"),
        op("Clip", "4", "5"),
        op("Cast", "5", "y", to=TensorProto.FLOAT16),
    ]
    assert flags(chain) == dict.fromkeys(
        ("BatchNormalization", "Add", "Relu", "Clip", "Cast"), True
    )


def test_the_activation_of_a_residual_sum_is_fused_with_the_sum() -> None:
    nodes = [CONV, op("Add", "c x", "s"), op("Relu", "s", "y")]
    assert flags(nodes) == {"Add": False, "Relu": True}


def test_nothing_is_fused_with_what_enters_the_node() -> None:
    assert flags([op("Relu", "x", "r"), op("Conv", "r w", "y")]) == {"Relu": False}


def test_what_is_stored_twice_is_not_fused() -> None:
    both = [CONV, op("Relu", "c", "y"), op("Sigmoid", "c", "z")]
    assert flags(both, "y z") == {"Relu": False, "Sigmoid": False}
    seen = [CONV, op("Relu", "c", "y")]
    assert flags(seen, "y c") == {"Relu": False}
    # Pre-activation: the normalised tensor goes to the shortcut too; only what comes before it fits.
    shared = [
        CONV,
        op("BatchNormalization", "c n n n n", "1"),
        op("Relu", "1", "2"),
        op("Conv", "2 w", "3"),
        op("Add", "3 1", "y"),
    ]
    assert flags(shared) == {"BatchNormalization": True, "Relu": False, "Add": False}


def test_one_result_that_many_read_is_stored_once() -> None:
    nodes = [CONV, op("Relu", "c", "r"), op("Conv", "r w", "d"), op("Add", "d r", "y")]
    assert flags(nodes) == {"Relu": True, "Add": False}


def test_asking_for_a_shape_reads_nothing() -> None:
    nodes = [
        CONV,
        op("Relu", "c", "r"),
        op("Shape", "c", "s"),
        op("Reshape", "r s", "y"),
    ]
    assert flags(nodes) == {"Relu": True}


def test_an_activation_of_several_operators_is_fused_whole() -> None:
    silu = [CONV, op("Sigmoid", "c", "s"), op("Mul", "c s", "y")]
    assert flags(silu) == {"Sigmoid": True, "Mul": True}
    gate = [CONV, op("GlobalAveragePool", "c", "p"), op("Sigmoid", "p", "s"), op("Mul", "c s", "y")]
    assert flags(gate) == {"GlobalAveragePool": False, "Sigmoid": True, "Mul": False}


def test_only_parameters_are_read_on_the_way() -> None:
    whole = {"map": (1, 4, 6, 6)}
    assert flags([CONV, op("Add", "c map", "y")], constants=whole) == {"Add": False}
    wider = {"wide": (2, 1, 1, 1)}
    assert flags([CONV, op("Add", "c wide", "y")], constants=wider) == {"Add": False}
    split = [op("Split", "x", "c d", axis=1), op("Relu", "c", "y")]
    assert flags(split, "y d") == {"Split": False, "Relu": False}


def test_a_very_long_stretch_is_cut() -> None:
    chain = [op("Relu", "c" if i == 0 else f"r{i}", f"r{i + 1}") for i in range(40)]
    made = layers(model([CONV, *chain], {"x": X}, "r40", W))
    fused = [p.fused for p in made[1:] if isinstance(p, PassLayer)]
    assert fused == [True] * 32 + [False] + [True] * 7


QUANTISED = {
    "s": np.array(0.5, np.float32),
    "z": np.array(3, np.uint8),
    "ws": np.ones(4, np.float32),
    "wz": np.zeros(4, np.int8),
}


def quantised(
    nodes: list[onnx.NodeProto], inputs: dict[str, Shape], weight: tuple[int, ...], **more: Any
) -> tuple[Layer, ...]:
    constants = {**QUANTISED, "q": np.ones(weight, np.int8)}
    proto = model(nodes, inputs, more.pop("outputs", "y"), constants, **more)
    return layers(proto)


WHOLE = {"x": TensorProto.UINT8}
WEIGHT = op("DequantizeLinear", "q ws wz", "w", axis=0)


def test_a_convolution_between_quantisations_multiplies_integers() -> None:
    nodes = [
        WEIGHT,
        op("DequantizeLinear", "x s z", "xr"),
        op("Conv", "xr w", "c"),
        op("Relu", "c", "r"),
        op("QuantizeLinear", "r s z", "y"),
    ]
    into, conv, relu, out = quantised(nodes, {"x": X}, (4, 4, 1, 1), dtypes=WHOLE)
    assert isinstance(conv, ConvLayer)
    assert conv.dtype == "int8"
    assert [p.fused for p in (into, relu, out) if isinstance(p, PassLayer)] == [True] * 3


def test_weights_alone_in_integers_are_multiplied_as_floats() -> None:
    made = quantised([WEIGHT, op("Conv", "x w", "y")], {"x": X}, (4, 4, 1, 1))
    assert [(type(p), p.dtype) for p in made if isinstance(p, ConvLayer)] == [
        (ConvLayer, "float32")
    ]


def test_floats_times_wide_integers_are_floats() -> None:
    wide = {"q": np.ones((6, 2), np.int32), "s": np.array(0.5, np.float32)}
    nodes = [op("DequantizeLinear", "q s", "w"), op("MatMul", "x w", "y")]
    (product,) = layers(model(nodes, {"x": ("batch", 6)}, constants=wide))
    assert isinstance(product, GemmLayer)
    assert product.dtype == "float32"


def test_integers_are_found_behind_views_and_transpositions() -> None:
    nodes = [
        WEIGHT,
        op("Transpose", "w", "t"),
        op("QuantizeLinear", "x s z", "xq"),
        op("DequantizeLinear", "xq s z", "xr"),
        op("Flatten", "xr", "f"),
        op("MatMul", "f t", "y"),
    ]
    made = quantised(nodes, {"x": ("batch", 8, 1)}, (4, 8))
    quantise, dequantise, _, product = made
    assert isinstance(quantise, PassLayer)
    # Floats enter the node: 8 words, a scale and an offset are read, integers are written.
    assert (quantise.fused, quantise.dtype) == (False, "float32")
    assert (quantise.reads_words, quantise.writes_words, quantise.operations) == (10, 8, 24)
    assert isinstance(dequantise, PassLayer)
    assert (dequantise.fused, dequantise.dtype) == (True, "uint8")
    assert isinstance(product, GemmLayer)
    assert product.dtype == "int8"


def test_a_sum_of_integers_moves_integers() -> None:
    nodes = [
        op("DequantizeLinear", "x s z", "a"),
        op("DequantizeLinear", "v s z", "b"),
        op("Add", "a b", "c"),
        op("Relu", "c", "r"),
        op("QuantizeLinear", "r s z", "y"),
    ]
    kinds = {"x": TensorProto.UINT8, "v": TensorProto.UINT8}
    made = quantised(nodes, {"x": X, "v": X}, (1,), dtypes=kinds)
    add = next(p for p in made if p.op == "Add")
    assert isinstance(add, PassLayer)
    assert (add.dtype, add.reads_words, add.writes_words, add.fused) == ("uint8", 288, 144, False)
    floats = quantised(nodes[:3], {"x": X, "v": X}, (1,), dtypes=kinds, outputs="c")
    assert [p.dtype for p in floats if isinstance(p, PassLayer) and p.op == "Add"] == [
        "float32"
    ]  # what it writes


def test_reading_integers_only_to_give_floats_is_a_pass() -> None:
    nodes = [op("DequantizeLinear", "x s z", "r"), op("Flatten", "r", "y")]
    first, _ = quantised(nodes, {"x": X}, (1,), dtypes=WHOLE)
    assert isinstance(first, PassLayer)
    assert (first.fused, first.dtype, first.writes_words) == (False, "float32", 144)


def test_a_requantisation_of_what_enters_the_node_is_a_pass() -> None:
    nodes = [op("DequantizeLinear", "x s z", "r"), op("QuantizeLinear", "r s z", "y")]
    made = quantised(nodes, {"x": X}, (1,), dtypes=WHOLE)
    assert [(p.fused, p.dtype) for p in made if isinstance(p, PassLayer)] == [
        (True, "uint8"),
        (False, "uint8"),
    ]
