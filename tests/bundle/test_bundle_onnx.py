"""The wire walker takes what onnx takes, for the models that bundles hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dynrt.bundle.limits import DEFAULT_LIMITS
from dynrt.bundle.onnx_check import MAX_OPSET, MIN_OPSET, ModelChecker
from dynrt.bundle.onnx_wire import GRAPH, MODEL, NODE, TENSOR, Walker
from dynrt.errors import BundleModelError
from dynrt.ir.cost import Cost
from dynrt.ir.graph import DTYPES, ComputeNode, Port, TensorType
from tests.bundle.mutations import change_protobuf
from tests.bundle.samples import plain_onnx, port

TYPES = st.builds(
    TensorType,
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(1, 300), max_size=4).map(tuple),
)


def node(inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> ComputeNode:
    return ComputeNode(name="n", inputs=inputs, outputs=outputs, cost=Cost(macs=0))


def check(data: bytes, of: ComputeNode) -> None:
    ModelChecker(DEFAULT_LIMITS).check(data, of)


@given(
    inputs=st.lists(TYPES, max_size=3),
    outputs=st.lists(TYPES.filter(lambda t: t.size_bytes < 1 << 16), min_size=1, max_size=3),
    opset=st.integers(MIN_OPSET, MAX_OPSET),
)
def test_plain_models_are_taken(inputs: Any, outputs: Any, opset: int) -> None:
    ins = tuple(Port(name=f"i{k}", type=t) for k, t in enumerate(inputs))
    outs = tuple(Port(name=f"o{k}", type=t) for k, t in enumerate(outputs))
    data = plain_onnx(ins, outs, opset=opset)
    check(data, node(ins, outs))
    renamed = (*outs[:-1], Port(name="other", type=outs[-1].type))
    with pytest.raises(BundleModelError, match="its outputs are"):
        check(data, node(ins, renamed))


ELEMENTS = [
    k
    for k in helper.get_all_tensor_dtypes()
    if 1 <= k <= 22 and k not in (TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128)
]


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0,)], ids=str)
@pytest.mark.parametrize("kind", ELEMENTS, ids=lambda k: TensorProto.DataType.Name(k))
def test_each_element_type_is_counted_as_onnx_counts_it(
    kind: int, shape: tuple[int, ...], raw: bool
) -> None:
    x, y = (port("x", 2),), (port("y", 2),)
    model = onnx.load_model_from_string(plain_onnx(x, y))
    values = np.ones(shape, np.float32)
    kept = helper.make_tensor("kept", kind, shape, values.reshape(-1))
    if raw:
        array = numpy_helper.to_array(kept)
        kept = numpy_helper.from_array(array, "kept")
        assert kept.data_type == kind
    model.graph.initializer.append(kept)
    check(model.SerializeToString(), node(x, y))
    model.graph.initializer[-1].dims[:] = [*shape, 7] if 0 not in shape else [7]
    with pytest.raises(BundleModelError, match="its shape needs"):
        check(model.SerializeToString(), node(x, y))


def test_numbers_may_be_packed_or_not() -> None:
    def dims(packed: bool) -> bytes:
        body = b"\x0a\x02\x02\x03" if packed else b"\x08\x02\x08\x03"
        floats = b"\x22\x18" + bytes(24) if packed else (b"\x25" + bytes(4)) * 6
        ints = b"\x3a\x06" + b"\x01" * 6 if packed else b"\x38\x01" * 6
        return body + floats + ints

    walk = Walker("m", DEFAULT_LIMITS)
    for packed in (True, False):
        tensor = walk.decode(memoryview(dims(packed)), TENSOR, "t")
        assert tensor.ints["dims"] == [2, 3]
        assert tensor.counts == {"float_data": 6, "int64_data": 6}


def test_large_packed_numbers_are_counted_in_pieces() -> None:
    tensor = helper.make_tensor("t", TensorProto.INT64, [90_000], list(range(90_000)))
    walk = Walker("m", DEFAULT_LIMITS)
    decoded = walk.decode(memoryview(tensor.SerializeToString()), TENSOR, "t")
    assert decoded.counts == {"int64_data": 90_000}


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x0a\x81\x02", "ends within its field 'dims'"),
        (b"\x22\x03abc", "within a number of its field 'float_data'"),
        (b"\x52\x07abcdefg", "within a number of its field 'double_data'"),
        (b"\x3a\x02\x01\x80", "within a number of its field 'int64_data'"),
        (b"\x25\x00\x00", "ends within its field 'float_data'"),
        (b"\x51\x00\x00", "ends within its field 'double_data'"),
    ],
)
def test_cut_numbers(raw: bytes, text: str) -> None:
    with pytest.raises(BundleModelError, match=text):
        Walker("m", DEFAULT_LIMITS).decode(memoryview(raw), TENSOR, "t")


def test_negative_numbers_are_signed() -> None:
    tensor = TensorProto(dims=[-5])
    decoded = Walker("m", DEFAULT_LIMITS).decode(
        memoryview(tensor.SerializeToString()), TENSOR, "t"
    )
    assert decoded.ints["dims"] == [-5]


@given(seed=st.integers(0, 2**32 - 1))
def test_what_is_taken_means_the_same_to_onnx(seed: int) -> None:
    """Of damaged models: those that are taken, protobuf takes too, and sees the same."""
    import random

    x, y = (port("x", 2),), (port("y", 2, 3),)
    rng = random.Random(seed)  # noqa: S311 - damage, not secrets
    for _ in range(20):
        data = change_protobuf(rng, plain_onnx(x, y))
        try:
            check(data, node(x, y))
        except Exception as exc:  # noqa: BLE001 - which errors may be raised is the soak's business
            assert type(exc).__module__ == "dynrt.errors"  # noqa: PT017
            continue
        model = onnx.load_model_from_string(data)
        walk = Walker("m", DEFAULT_LIMITS)
        ours = walk.decode(
            walk.decode(memoryview(data), MODEL, "m").blobs["graph"][0], GRAPH, "the graph"
        )
        assert model.graph.name == ours.text("name")
        assert len(model.graph.node) == len(ours.blobs["node"])
        for theirs, raw in zip(model.graph.node, ours.blobs["node"], strict=True):
            mine = walk.decode(raw, NODE, "a node")
            assert theirs.op_type == mine.text("op_type")
            assert list(theirs.input) == mine.texts.get("input", [])
            assert list(theirs.output) == mine.texts.get("output", [])
            assert theirs.domain in ("", "ai.onnx")
        for tensor in model.graph.initializer:
            assert not tensor.external_data
            assert numpy_helper.to_array(tensor).shape == tuple(tensor.dims)
        assert not model.functions
        assert {i.name for i in model.graph.input} == {"x"}
        assert {o.name for o in model.graph.output} == {"y"}


def test_dummy_nodes_may_have_a_batch_of_one() -> None:
    y = (port("y", 2),)
    model = onnx.load_model_from_string(plain_onnx((), y))
    check(model.SerializeToString(), node((), y))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2]))
    check(model.SerializeToString(), node((), y))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2]))
    with pytest.raises(BundleModelError, match=r"has the shape \[2, 2\]"):
        check(model.SerializeToString(), node((), y))
