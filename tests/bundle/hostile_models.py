"""Hostile kinds of a node's ONNX; the hashes are right, so that the model itself is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
from onnx import TensorProto, helper

from dynrt.errors import BundleModelError, BundleSizeError
from tests.bundle.hostile import Hostile, by_model

Change = Callable[[onnx.ModelProto], bytes | None]


def _field(number: int, wire: int, payload: bytes) -> bytes:
    """One protobuf field."""
    return _varint(number << 3 | wire) + (_varint(len(payload)) if wire == 2 else b"") + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _append(raw: bytes) -> Change:
    """The model with ``raw`` behind it."""
    return lambda model: model.SerializeToString() + raw


def _node(op: str, domain: str = "", **attributes: Any) -> Change:
    """A node more."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node(op, ["x"], ["more"], domain=domain, **attributes))

    return change


def _external(tensor: TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")


def _external_initializer(model: onnx.ModelProto) -> None:
    _external(model.graph.initializer[0])


def _external_location(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def _constant() -> TensorProto:
    return helper.make_tensor("c", TensorProto.FLOAT, [1], [1.0])


def _external_constant(model: onnx.ModelProto) -> None:
    value = _constant()
    _external(value)
    model.graph.node.append(helper.make_node("Constant", [], ["more"], value=value))


def _branch(*nodes: onnx.NodeProto, inputs: int = 0) -> onnx.GraphProto:
    info = [helper.make_tensor_value_info(f"i{i}", TensorProto.FLOAT, [1]) for i in range(inputs)]
    out = [helper.make_tensor_value_info("b", TensorProto.FLOAT, [1])]
    return helper.make_graph(list(nodes), "branch", info, out, [_constant()])


def _if(inner: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node("If", ["x"], ["b"], then_branch=inner, else_branch=inner)


def _nested_if(levels: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        node = helper.make_node("Identity", ["c"], ["b"])
        for _ in range(levels):
            node = helper.make_node("If", ["x"], ["b"], then_branch=_branch(node))
        model.graph.node.append(node)

    return change


def _in_branch(node: onnx.NodeProto) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node.append(_if(_branch(node)))

    return change


def _external_in_branch(model: onnx.ModelProto) -> None:
    inner = _branch(helper.make_node("Identity", ["c"], ["b"]))
    _external(inner.initializer[0])
    model.graph.node.append(_if(inner))


def _branch_inputs(model: onnx.ModelProto) -> None:
    model.graph.node.append(_if(_branch(helper.make_node("Identity", ["c"], ["b"]), inputs=1)))


def _function(model: onnx.ModelProto) -> None:
    opset = [helper.make_opsetid("", 17)]
    node = helper.make_node("Neg", ["a"], ["b"])
    model.functions.append(helper.make_function("", "Identity", ["a"], ["b"], [node], opset))


def _sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


def _training(model: onnx.ModelProto) -> None:
    model.training_info.add()


def _opset(version: int, domain: str = "") -> Change:
    def change(model: onnx.ModelProto) -> None:
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, version))
        else:
            model.opset_import[0].version = version

    return change


def _dims(*dims: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].dims[:] = dims

    return change


def _no_data(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].ClearField("raw_data")


def _element(kind: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].data_type = kind

    return change


def _two_kinds_of_data(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].float_data.append(1.0)


def _wrong_data(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.int64_data.extend([1] * 6)


def _texts(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.string_data.append(b"x")


def _rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "other"


def _more_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch"]))


def _same_input_twice(model: onnx.ModelProto) -> None:
    model.graph.input.append(model.graph.input[0])


def _no_output(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


def _stored_input(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("x", TensorProto.FLOAT, [1], [1.0]))


def _computed_input(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", ["y"], ["x"]))


def _never_computed(model: onnx.ModelProto) -> None:
    model.graph.node[-1].output[0] = "elsewhere"


def _shape(*shape: int | str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, shape))

    return change


def _type(kind: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.output[0].type.tensor_type.elem_type = kind

    return change


def _no_shape(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.ClearField("shape")


def _no_type(model: onnx.ModelProto) -> None:
    model.graph.output[0].ClearField("type")


def _no_kind(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.ClearField("tensor_type")
    model.graph.output[0].type.SetInParent()


def _size_and_name(model: onnx.ModelProto) -> bytes:
    """An axis with both: protobuf keeps the last, other readers the first."""
    raw = model.SerializeToString()
    batch = _field(2, 2, b"batch")
    both = _field(2, 2, b"bat") + _field(1, 0, b"\x07")
    assert len(both) == len(batch)
    return bytes(raw.replace(batch, both, 1))


def _typeless_value(model: onnx.ModelProto) -> None:
    """A value without a type is no harm; what comes behind it is still looked at."""
    model.graph.value_info.add(name="y_n")
    model.graph.input[0].name = "other"


def _sequence(model: onnx.ModelProto) -> None:
    kind = model.graph.output[0].type.tensor_type
    model.graph.output[0].type.sequence_type.elem_type.tensor_type.CopyFrom(kind)


def _deep_type(model: onnx.ModelProto) -> bytes:
    """A value's type, a sequence of a sequence of ...: protobuf readers recurse, some without end."""
    kind = b""
    for _ in range(5000):
        kind = _field(4, 2, _field(1, 2, kind))
    value = _field(1, 2, b"v") + _field(2, 2, kind)
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    graph = model.graph.SerializeToString() + _field(13, 2, value)
    rest.ClearField("graph")
    return bytes(rest.SerializeToString() + _field(7, 2, graph))


def _many_nodes(model: onnx.ModelProto) -> None:
    node = helper.make_node("Identity", ["x"], ["more"])
    model.graph.node.extend([node] * 70_000)


def _long_text(model: onnx.ModelProto) -> None:
    model.doc_string = "a" * 70_000


def _half(model: onnx.ModelProto) -> bytes:
    raw = model.SerializeToString()
    return bytes(raw[: len(raw) // 2])


def _no_graph(model: onnx.ModelProto) -> None:
    model.ClearField("graph")


def _ir(version: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.ir_version = version

    return change


def _is(raw: bytes) -> Change:
    return lambda _: raw


def _loop() -> onnx.NodeProto:
    return helper.make_node("Loop", ["", ""], ["b"], body=_branch())


KINDS: list[tuple[str, str, Change]] = [
    ("empty model", "IR version 0", _is(b"")),
    ("model of text", "the model", _is(b"print('hello')\n")),
    ("pickle as model", "the model", _is(b"\x80\x04\x95\x1d\x00\x00\x00")),
    ("half a model", "ends within its field 'graph'", _half),
    ("no graph", "holds no graph", _no_graph),
    ("old IR", "IR version 3 is not in", _ir(3)),
    ("unknown IR", "IR version 99 is not in", _ir(99)),
    ("negative IR", "IR version -1 is not in", _ir(-1)),
    ("old operators", "operator set 6 is not in", _opset(6)),
    ("operators of the future", "operator set 999 is not in", _opset(999)),
    (
        "another domain imported",
        "imports the operators of 'com.microsoft'",
        _opset(1, "com.microsoft"),
    ),
    ("ai.onnx imported twice", "imports ai.onnx 2 times", _opset(17, "ai.onnx")),
    ("custom operator", "operator 'Run' is of 'evil'", _node("Run", "evil")),
    ("contrib operator", "is of 'com.microsoft'", _node("QAttention", "com.microsoft")),
    (
        "custom operator in a branch",
        "is of 'evil'",
        _in_branch(helper.make_node("Run", ["c"], ["b"], domain="evil")),
    ),
    ("function over an operator", "a model-local function", _function),
    ("training", "training information", _training),
    ("sparse", "a sparse initializer", _sparse),
    ("external data", "external data", _external_initializer),
    ("external data by location", "external data", _external_location),
    ("external data in an attribute", "external data", _external_constant),
    ("external data in a branch", "external data", _external_in_branch),
    ("loop", "'Loop' runs a subgraph", _node("Loop", body=_branch())),
    ("loop in a branch", "'Loop' runs a subgraph", _in_branch(_loop())),
    ("scan", "'Scan' runs a subgraph", _node("Scan", body=_branch(), num_scan_inputs=1)),
    ("branch with inputs", "has inputs", _branch_inputs),
    ("graphs in an attribute", "a list of subgraphs", _node("If", bodies=[_branch()])),
    ("tensor shorter than its shape", "its shape needs 400", _dims(10, 10)),
    ("tensor of petabytes", "its shape needs", _dims(1 << 50, 3)),
    ("negative axis in a tensor", "has an axis of -6", _dims(-1, -6)),
    ("tensor without data", "has 0 numbers, and its shape needs 6", _no_data),
    ("tensor of texts", "a tensor of texts", _texts),
    ("tensor of no type", "element type 0", _element(0)),
    ("tensor of complex numbers", "element type 14", _element(14)),
    ("tensor with data twice", "raw data", _two_kinds_of_data),
    ("tensor with data of another type", "has numbers in int64_data", _wrong_data),
    ("input renamed", "its inputs are [other], and the graph declares [x]", _rename_input),
    ("input more", "its inputs are [x, z]", _more_inputs),
    ("input twice", "its inputs are [x, x]", _same_input_twice),
    ("no output", "its outputs are []", _no_output),
    ("input with a stored value", "'x' is also computed or stored", _stored_input),
    ("input computed", "'x' is also computed or stored", _computed_input),
    ("output never computed", "'y' is never computed", _never_computed),
    ("input of another shape", "has the shape [batch, 2, 4]", _shape("batch", 2, 4)),
    ("input of another rank", "has the shape [batch, 2]", _shape("batch", 2)),
    ("batch fixed", "has the shape [1, 2, 3]", _shape(1, 2, 3)),
    ("batch of another name", "has the shape [N, 2, 3]", _shape("N", 2, 3)),
    ("axis without size", "has the shape [batch, h, 3]", _shape("batch", "h", 3)),
    ("output of another type", "element type 11, and the graph declares float32 (1)", _type(11)),
    ("output without shape", "has no shape", _no_shape),
    ("output without type", "has no type", _no_type),
    ("output of no kind", "'y' is no tensor", _no_kind),
    ("axis with size and name", "both a size and a name", _size_and_name),
    ("value without a type", "its inputs are [other]", _typeless_value),
    ("output is a sequence", "a sequence type", _sequence),
    ("deep type", "a sequence type", _deep_type),
    ("unknown protobuf field", "the unknown field 99", _append(_field(99, 2, b"hidden"))),
    ("field number zero", "the unknown field 0", _append(b"\x02\x00")),
    ("second graph to be merged", "has the field 'graph' twice", _append(_field(7, 2, b""))),
    (
        "field of another wire type",
        "wire type 5 in its field 'producer_name'",
        _append(_field(2, 5, b"abcd")),
    ),
    ("number as bytes", "wire type 2 in its field 'model_version'", _append(_field(5, 2, b"\x01"))),
    ("protobuf group", "wire type 3 in its field 'domain'", _append(_field(4, 3, b""))),
    ("endless number", "holds no number", _append(_varint(5 << 3) + b"\xff" * 20)),
    ("number of 70 bits", "holds no number", _append(_varint(5 << 3) + b"\xff" * 9 + b"\x7f")),
    ("number cut", "holds no number", _append(_varint(5 << 3) + b"\xff")),
    (
        "length beyond the end",
        "ends within its field 'domain'",
        _append(b"\x22\xff\xff\xff\xff\x0f"),
    ),
    ("text not utf-8", "producer_version is not UTF-8", _append(_field(3, 2, b"\xff"))),
]

MODELS: list[Hostile] = [
    *(h for kind, text, change in KINDS for h in by_model(kind, BundleModelError, text, change)),
    *by_model("many fields", BundleSizeError, "fields; the limit is 250000", _many_nodes),
    *by_model("many axes in a model", BundleSizeError, "dims: 65 numbers", _dims(*[1] * 65)),
    *by_model("long text", BundleSizeError, "doc_string: 70000 bytes", _long_text),
    *by_model("if inside if", BundleSizeError, "'If' inside 'If': 5 levels", _nested_if(5)),
]
