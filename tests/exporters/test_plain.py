"""Cleaning ONNX graphs that torch would not write."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dynrt.errors import ExportError
from dynrt.exporters.plain import plain_model
from dynrt.exporters.shapes import shapes_at_batch_1
from dynrt.ir.graph import Array
from tests.exporters.networks import images, operators, port


def model_of(
    nodes: Sequence[onnx.NodeProto],
    outputs: Sequence[str] = ("y",),
    constants: dict[str, Array] | None = None,
) -> onnx.ModelProto:
    held = [numpy_helper.from_array(v, k) for k, v in (constants or {}).items()]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in ("x", *outputs)]
    return helper.make_model(
        helper.make_graph(nodes, "g", infos[:1], infos[1:], held),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def cleaned(model: onnx.ModelProto, **results: str) -> bytes:
    return plain_model(
        model,
        sources={"x": "x"},
        results=results,
        inputs=[port("x", 4)],
        outputs=[port(name, 4) for name in results],
        place="n",
    )


def run(model: bytes) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(model)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": images(2, 4)}), strict=True))


def test_one_tensor_under_two_names_and_an_input_as_output() -> None:
    made = cleaned(model_of([helper.make_node("Neg", ["x"], ["y"])]), a="y", b="y", same="x")
    got = run(made)
    np.testing.assert_array_equal(got["a"], -images(2, 4))
    np.testing.assert_array_equal(got["b"], got["a"])
    np.testing.assert_array_equal(got["same"], images(2, 4))


def test_a_constant_beside_the_others() -> None:
    row = np.ones((1, 4), np.float32)
    model = model_of([helper.make_node("Neg", ["x"], ["y"])], constants={"c": row})
    np.testing.assert_array_equal(run(cleaned(model, y="y", c="c"))["c"], row)


def test_constants_in_every_form_become_initialisers() -> None:
    nodes = [
        helper.make_node("Constant", [], ["one"], value_float=2.0),
        helper.make_node("Constant", [], ["row"], value_floats=[1.0, 2.0, 3.0, 4.0]),
        helper.make_node("Constant", [], ["axes"], value_ints=[1]),
        helper.make_node("Identity", ["row"], ["again"]),
        helper.make_node("Mul", ["x", "one"], ["twice"]),
        helper.make_node("Add", ["twice", "again"], ["sum"]),
        helper.make_node("ReduceSum", ["sum", "axes"], ["total"], keepdims=1),
        helper.make_node("Dropout", ["sum"], ["kept"]),
        helper.make_node("Sub", ["kept", "total"], ["y"]),
    ]
    made = cleaned(model_of(nodes), y="y")
    assert operators(made) == ["Mul", "Add", "ReduceSum", "Sub"]
    x = images(2, 4)
    want = 2 * x + np.arange(1, 5, dtype=np.float32)
    np.testing.assert_allclose(run(made)["y"], want - want.sum(1, keepdims=True), rtol=1e-5)


def test_what_the_outputs_do_not_need_is_dropped() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Tanh", ["x"], ["dead"])]
    unused = {"w": np.ones(9, np.float32)}
    made = onnx.load_model_from_string(cleaned(model_of(nodes, constants=unused), y="y"))
    assert [n.op_type for n in made.graph.node] == ["Neg"]
    assert not made.graph.initializer


def without_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].domain = "com.example"


def with_sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


def with_text_constant(model: onnx.ModelProto) -> None:
    text = helper.make_node("Constant", [], ["t"], value_string="text")
    model.graph.node.insert(0, text)


def with_missing_tensor(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nowhere"


def with_unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "NoSuchOperator"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without_opset, "imports no standard operator set"),
        (with_sparse, "has sparse initialisers"),
        (with_text_constant, "constant 't' holds no tensor of numbers"),
        (with_missing_tensor, "needs tensor 'nowhere', which nothing gives"),
        (with_unknown_operator, "the ONNX graph is not sound: .*NoSuchOperator"),
    ],
)
def test_what_cannot_be_plain(change: Callable[[onnx.ModelProto], None], says: str) -> None:
    model = model_of([helper.make_node("Neg", ["x"], ["y"])])
    change(model)
    with pytest.raises(ExportError, match=f"^n: .*{says}"):
        cleaned(model, y="y")


def test_an_axis_of_unknown_size_cannot_be_measured() -> None:
    model = model_of([helper.make_node("Neg", ["x"], ["y"])])
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"
    with pytest.raises(ExportError, match="n: input 'x' has an axis of unknown size"):
        shapes_at_batch_1(model, place="n")
