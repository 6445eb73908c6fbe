"""Passes, views, what is left out, and what has no model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dynrt.errors import ExportError
from dynrt.exporters.layers import layers_of
from dynrt.exporters.layers_facts import VIEWS
from dynrt.exporters.layers_passes import PASSES
from dynrt.exporters.layers_products import PRODUCTS
from dynrt.exporters.macs import _FREE
from dynrt.ir.layers import GemmLayer, PassLayer, UnmodelledLayer
from tests.exporters.onnx_models import Shape, int64, layers, model, only, op

X: Shape = ("batch", 4, 6, 6)


def one(node: onnx.NodeProto, constants: dict[str, Any] | None = None, **more: Any) -> PassLayer:
    layer = only(model([node], more.pop("inputs", {"x": X}), constants=constants, **more))
    assert isinstance(layer, PassLayer)
    assert not layer.view
    assert not layer.fused
    return layer


@pytest.mark.parametrize(
    ("node", "constants", "reads", "writes", "operations"),
    [
        (op("Relu", "x", "y"), {}, 144, 144, 144),
        (op("Add", "x x", "y"), {}, 288, 144, 144),
        (op("Sum", "x x x", "y"), {}, 432, 144, 288),
        (op("Mean", "x x x", "y"), {}, 432, 144, 432),
        (op("PRelu", "x b", "y"), {"b": (4, 1, 1)}, 148, 144, 144),
        (op("BatchNormalization", "x b b b b", "y"), {"b": (4,)}, 160, 144, 288),
        (op("InstanceNormalization", "x b b", "y"), {"b": (4,)}, 152, 144, 7 * 144),
        (op("LayerNormalization", "x b b", "y"), {"b": (6,)}, 156, 144, 7 * 144),
        (op("Softmax", "x", "y"), {}, 144, 144, 5 * 144),
        (op("LRN", "x", "y", size=3), {}, 144, 144, 8 * 144),
        # 4 windows of 9 of each channel: 8 comparisons; 8 additions and a division
        (op("MaxPool", "x", "y", kernel_shape=[3, 3], strides=[3, 3]), {}, 144, 16, 128),
        (op("AveragePool", "x", "y", kernel_shape=[3, 3], strides=[3, 3]), {}, 144, 16, 144),
        (op("GlobalAveragePool", "x", "y"), {}, 144, 4, 144),
        (op("ReduceMean", "x", "y", axes=[2, 3]), {}, 144, 4, 144),
        (op("ReduceL2", "x", "y", axes=[2, 3]), {}, 144, 4, 288),
        (op("ReduceSum", "x a", "y"), {"a": int64(1)}, 144, 36, 144),
        (op("ArgMax", "x", "y", axis=1), {}, 144, 36, 144),
        (op("TopK", "x k", "y i"), {"k": int64(3)}, 144, 144, 2 * 144),
        (op("Concat", "x x", "y", axis=1), {}, 288, 288, 0),
        (op("Split", "x", "y z", axis=1), {}, 144, 144, 0),
        (op("Transpose", "x", "y", perm=[0, 2, 3, 1]), {}, 144, 144, 0),
        # every other row: only those are read
        (
            op("Slice", "x b e a s", "y"),
            {"b": int64(0), "e": int64(6), "a": int64(2), "s": int64(2)},
            72,
            72,
            0,
        ),
        (op("Pad", "x p", "y"), {"p": int64(0, 1, 0, 0, 0, 1, 0, 0)}, 144, 216, 0),
        (op("Expand", "x e", "y"), {"e": int64(3, 1, 1, 1, 1)}, 144, 432, 0),
        (op("Tile", "x t", "y"), {"t": int64(1, 2, 1, 1)}, 144, 288, 0),
        (op("Gather", "x i", "y", axis=1), {"i": int64(0, 2)}, 74, 72, 0),
        (op("DepthToSpace", "x", "y", blocksize=2), {}, 144, 144, 0),
        # two rows and two columns of each channel are resized; 4 places, or 16, or one that is copied
        (op("Resize", "x _ s", "y", mode="linear"), {"s": (4,)}, 144, 576, 4 * 576),
        (op("Resize", "x _ s", "y", mode="cubic"), {"s": (4,)}, 144, 576, 16 * 576),
        (op("Resize", "x _ s", "y", mode="nearest"), {"s": (4,)}, 144, 576, 0),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else "",
)
def test_words_and_operations_of_a_pass(
    node: onnx.NodeProto, constants: dict[str, Any], reads: int, writes: int, operations: int
) -> None:
    if node.op_type == "Resize":
        constants = {"s": np.array([1, 1, 2, 2], np.float32)}
    outputs = " ".join(n for n in node.output)
    layer = one(node, constants, outputs=outputs)
    found = (layer.reads_words, layer.writes_words, layer.operations)
    assert found == (reads, writes, operations)
    assert (layer.op, layer.dtype, layer.masked) == (node.op_type, "float32", None)


def test_the_widest_operand_gives_the_format_and_indices_do_not() -> None:
    kinds = {"x": TensorProto.FLOAT16}
    assert one(op("Cast", "x", "y", to=TensorProto.FLOAT), dtypes=kinds).dtype == "float32"
    assert one(op("ArgMax", "x", "y", axis=1), dtypes=kinds).dtype == "float16"
    assert one(op("IsNaN", "x", "y"), dtypes=kinds).dtype == "float16"
    rows = np.ones((1000, 16), np.float16)
    taken = one(
        op("Gather", "t x", "y"),
        {"t": rows},
        inputs={"x": ("batch", 5)},
        dtypes={"x": TensorProto.INT64},
    )
    # 5 rows of 16 of a table of 16,000 words, and 5 indices
    assert (taken.dtype, taken.reads_words, taken.writes_words) == ("float16", 85, 80)


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (op("Reshape", "x s", "y"), {"s": int64(0, -1)}),
        (op("Flatten", "x", "y"), {}),
        (op("Squeeze", "x a", "y"), {"a": int64(0)}),
        (op("Unsqueeze", "x a", "y"), {"a": int64(1)}),
        (op("Identity", "x", "y"), {}),
        (op("Dropout", "x", "y"), {}),
        (op("Cast", "x", "y", to=TensorProto.FLOAT), {}),
        (op("Transpose", "x", "y", perm=[1, 0, 2, 3]), {}),  # the batch is 1
        (op("Expand", "x e", "y"), {"e": int64(1, 1, 1, 1, 1)}),
        (op("Concat", "x", "y", axis=1), {}),
        (op("Sum", "x", "y"), {}),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else "",
)
def test_views_move_nothing(node: onnx.NodeProto, constants: dict[str, Any]) -> None:
    layer = only(model([node], {"x": X}, constants=constants))
    assert isinstance(layer, PassLayer)
    assert (layer.view, layer.fused, layer.operations) == (True, False, 0)
    assert (layer.reads_words, layer.writes_words) == (144, 144)


def test_shape_arithmetic_and_constants_are_left_out() -> None:
    nodes = [
        op("Shape", "x", "s"),
        op("Gather", "s zero", "n"),
        op("Concat", "n rest", "to", axis=0),
        op("Cast", "half", "w", to=TensorProto.FLOAT),
        op("Reshape", "x to", "flat"),
        op("MatMul", "flat w", "y"),
    ]
    constants = {"zero": int64(0), "rest": int64(-1), "half": np.ones((144, 2), np.float16)}
    made = layers(model(nodes, {"x": X}, constants=constants))
    assert [layer.op for layer in made] == ["Reshape", "MatMul"]


def test_a_product_of_constants_is_listed_since_it_is_counted() -> None:
    proto = model(
        [op("MatMul", "a b", "c"), op("Add", "x c", "y")],
        {"x": ("batch", 4)},
        constants={"a": (2, 3), "b": (3, 4)},
    )
    assert [type(layer) for layer in layers(proto)] == [GemmLayer, PassLayer]


def test_every_operator_that_counts_as_free_is_known() -> None:
    data_shaped = {"Compress", "NonZero", "Unique"}
    assert (
        PASSES.keys() | PRODUCTS.keys() | VIEWS | data_shaped | {"Constant", "Shape", "Size"}
        >= _FREE
    )


def test_an_operator_of_another_domain_is_listed() -> None:
    strange = op("Odd", "x w", "h", domain="com.example")
    proto = model(
        [strange, op("Relu", "h", "y")],
        {"x": ("batch", 4)},
        constants={"w": (4, 4)},
        declared={"y": ("batch", 3)},
    )
    proto.graph.value_info.append(
        helper.make_tensor_value_info("h", TensorProto.FLOAT, ["batch", 3])
    )
    first, second = layers_of(proto, place="n")
    assert first == UnmodelledLayer(
        name="Odd:h",
        op="com.example::Odd",
        macs=0,
        bytes_moved=4 * (4 + 16 + 3),
        reason="an operator of com.example; its multiplications are not counted",
    )
    # Nothing is applied on the way out of what is not known.
    assert isinstance(second, PassLayer)
    assert (second.fused, second.reads_words) == (False, 3)


def test_what_follows_an_unknown_shape_is_listed_too() -> None:
    strange = op("Odd", "x", "h", domain="com.example")
    proto = model([strange, op("Relu", "h", "y")], {"x": ("batch", 4)})
    made = layers_of(proto, place="n")
    assert [layer.bytes_moved for layer in made if isinstance(layer, UnmodelledLayer)] == [None] * 2
    assert isinstance(made[1], UnmodelledLayer)
    assert made[1].reason == "the shape of 'h' is not known"


def test_a_standard_operator_without_a_model_is_listed() -> None:
    grid = model([op("GridSample", "x g", "y")], {"x": X, "g": ("batch", 2, 2, 2)})
    layer = only(grid)
    assert isinstance(layer, UnmodelledLayer)
    assert layer.bytes_moved == 4 * (144 + 8 + 16)
    assert layer.reason == "dynrt has no model of it; its multiplications are not counted"


def test_shapes_that_depend_on_data_are_listed() -> None:
    # The sum of x says how often a row is repeated; what follows keeps a measured count.
    nodes = [
        op("ReduceSum", "x", "s", keepdims=1),
        op("Cast", "s", "n", to=TensorProto.INT64),
        op("Reshape", "n one", "flat"),
        op("Add", "flat three", "times"),
        op("Concat", "times one", "repeats", axis=0),
        op("Tile", "x repeats", "t"),
        op("MatMul", "t w", "y"),
    ]
    constants = {"one": int64(1), "three": int64(3), "w": (4, 2)}
    made = layers(model(nodes, {"x": ("batch", 4)}, constants=constants))
    tile, product = made[-2:]
    assert isinstance(tile, UnmodelledLayer)
    assert isinstance(product, UnmodelledLayer)
    assert tile.reason == product.reason.replace("'y'", "'t'") == "the shape of 't' depends on data"
    assert (product.macs, product.bytes_moved) == (3 * 4 * 2, None)  # measured on zeros


def test_what_is_selected_by_data_is_listed_up_to_where_its_shape_ends() -> None:
    nodes = [
        op("NonZero", "x", "n"),
        op("Cast", "n", "c", to=TensorProto.FLOAT),
        op("Relu", "c", "r"),
        op("ReduceSum", "r axis", "s"),
        op("Relu", "s", "y"),
    ]
    made = layers(model(nodes, {"x": X}, constants={"axis": int64(1)}))
    assert [layer.op for layer in made] == ["NonZero", "Cast", "Relu", "ReduceSum", "Relu"]
    assert [type(layer) for layer in made] == [*[UnmodelledLayer] * 4, PassLayer]


def test_a_branch_is_listed_with_what_it_reads_outside() -> None:
    inner = [
        helper.make_graph([op(kind, "x w", "z")], kind, [], [onnx.ValueInfoProto(name="z")])
        for kind in ("Add", "Mul")
    ]
    for graph in inner:
        graph.output[0].CopyFrom(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4]))
    branch = op("If", "c", "y", then_branch=inner[0], else_branch=inner[1])
    proto = model(
        [op("Relu", "a", "x"), op("Sigmoid", "x", "v"), branch],
        {"a": ("batch", 4), "c": (1,)},
        "y v",
        {"w": (4,)},
        dtypes={"c": TensorProto.BOOL},
    )
    _, sigmoid, layer = layers(proto)
    # The condition, one tensor and the weights from outside, and the result.
    assert isinstance(layer, UnmodelledLayer)
    assert layer.bytes_moved == 1 + 4 * (4 + 4 + 4)
    assert layer.reason == "it has a subgraph; what that multiplies is not counted"
    # The branch reads x too, so x is stored.
    assert isinstance(sigmoid, PassLayer)
    assert not sigmoid.fused


def test_words_without_a_width_are_listed() -> None:
    node = op("Cast", "x", "y", to=TensorProto.FLOAT8E4M3FN)
    layer = only(model([node], {"x": X}, opset=19))
    assert isinstance(layer, UnmodelledLayer)
    assert (layer.bytes_moved, layer.reason) == (None, "its words are float8_e4m3fn")


def test_sequences_are_listed() -> None:
    nodes = [op("SequenceConstruct", "x x", "s"), op("ConcatFromSequence", "s", "y", axis=1)]
    made = layers(model(nodes, {"x": X}))
    assert [type(layer) for layer in made] == [UnmodelledLayer] * 2


def test_operators_without_a_name_get_one_each() -> None:
    nodes = [op(kind, a, b, name=n) for kind, a, b, n in [
        ("Relu", "x", "a", ""), ("Relu", "a", "b", "same"), ("Relu", "b", "y", "same")]]  # fmt: skip
    made = layers(model(nodes, {"x": X}))
    assert [layer.name for layer in made] == ["Relu_0", "same", "same_2"]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (("batch", 3, "height", 8), r"n: axis 2 \('height'\) of input 'x' has no fixed size"),
        (("batch", None, 3), "n: axis 1 of input 'x' has no fixed size; only the first, the batch"),
    ],
)
def test_another_dynamic_axis_is_refused(shape: tuple[Any, ...], message: str) -> None:
    proto = model([op("Relu", "x", "y")], {"x": shape})
    with pytest.raises(ExportError, match=message):
        layers_of(proto, place="n")


def test_an_input_without_a_shape_is_refused() -> None:
    proto = model([op("Relu", "x", "y")], {"x": X})
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ExportError, match="n: input 'x' has no shape"):
        layers_of(proto, place="n")


def test_shapes_that_do_not_fit_are_refused() -> None:
    proto = model([op("MatMul", "x w", "y")], {"x": ("batch", 4)}, constants={"w": (3, 3)})
    with pytest.raises(ExportError, match="n: shapes do not fit"):
        layers_of(proto, place="n")
