"""From ONNX to kernels: what is recognised computes what onnxruntime does, the rest is left alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from dynrt.exporters.onnx_node import export_node
from dynrt.ir.graph import Array, Port, TensorType
from dynrt.runtime.compile.recognise import recognise
from dynrt.runtime.compiled import PLAIN
from dynrt.runtime.kernels.program import Program
from tests.kernel_programs import back_ends

RNG = np.random.default_rng(3)
Ports = Mapping[str, tuple[int, ...]]


def weight(*shape: int) -> Array:
    return RNG.normal(0, 0.4, shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Array],
    inputs: Ports,
    outputs: Ports,
    *,
    opset: int = 17,
    dtype: str = "float32",
) -> tuple[onnx.ModelProto, list[Port], list[Port]]:
    kinds = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int8": TensorProto.INT8}

    def info(ports: Ports, kind: int) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(n, kind, ["batch", *s]) for n, s in ports.items()]

    graph = helper.make_graph(
        list(nodes),
        "gate",
        info(inputs, kinds[dtype]),
        info(outputs, TensorProto.FLOAT),
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return model, ports_of(inputs, dtype), ports_of(outputs)


def ports_of(shapes: Ports, dtype: str = "float32") -> list[Port]:
    return [Port(name=n, type=TensorType(dtype=dtype, shape=s)) for n, s in shapes.items()]


def kernel_outputs(
    kernels: Any, program: Program, takes: dict[str, Array], outputs: Sequence[Port]
) -> dict[str, Array]:
    vectors: dict[str, Array] = {}
    for port in program.takes:
        vectors[port] = takes[port].reshape(-1)
        if port in program.pools:
            shape = program.pools[port].shape
            vectors[port] = np.zeros(shape[0], np.float32)
            kernels.bind_pool(takes[port], shape=shape, layout=PLAIN, out=vectors[port])()
    gives = {p.name: np.zeros(math.prod(p.type.shape), np.float32) for p in outputs}
    kernels.bind_program(program, vectors, gives)()
    return gives


def check(model: onnx.ModelProto, inputs: Sequence[Port], outputs: Sequence[Port]) -> Program:
    """The program, after both back ends gave what onnxruntime gives."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options)
    program = recognise(model, inputs, outputs)
    assert program is not None
    assert Program.from_bytes(program.to_bytes()) == program
    assert recognise(model.SerializeToString(), inputs, outputs) == program
    for seed in range(3):
        rng = np.random.default_rng(seed)
        takes = {
            p.name: (rng.normal(0, 1, p.type.shape) * (1 if p.type.dtype == "float32" else 50))
            .astype(p.type.dtype)
            for p in inputs
        }  # fmt: skip
        names = [p.name for p in outputs]
        want = session.run(names, {n: v[None] for n, v in takes.items()})
        for kernels in back_ends():
            got = kernel_outputs(kernels, program, takes, outputs)
            for name, value in zip(names, want, strict=True):
                np.testing.assert_allclose(got[name], value.reshape(-1), rtol=1e-4, atol=1e-5)
    return program


def lstm(layout: int = 0, **more: Any) -> tuple[onnx.ModelProto, list[Port], list[Port]]:
    """The layer gate: pool, 10 features, LSTM of 10 units, one score."""
    nodes = [
        node("GlobalAveragePool", "x", "pooled"),
        node("Flatten", "pooled", "flat"),
        node("Gemm", "flat w b", "seen", transB=1),
        node("Unsqueeze", "seen zero", "sequence"),
        node("Unsqueeze", "h zero", "h0"),
        node("Unsqueeze", "c zero", "c0"),
        helper.make_node(
            "LSTM", ["sequence", "wx", "rh", "bias", "", "h0", "c0"], ["", "hn", "cn"],
            hidden_size=10, **more,
        ),
        node("Squeeze", "hn zero", "h2"),
        node("Squeeze", "cn zero", "c2"),
        node("Gemm", "h2 last shift", "raw", transB=1),
        node("Sigmoid", "raw", "score"),
    ]  # fmt: skip
    assert layout == 0
    constants = {
        "w": weight(10, 24), "b": weight(10), "zero": ints(0), "wx": weight(1, 40, 10),
        "rh": weight(1, 40, 10), "bias": weight(1, 80), "last": weight(1, 10), "shift": weight(1),
    }  # fmt: skip
    inputs = {"x": (24, 8, 8), "h": (10,), "c": (10,)}
    return model_of(nodes, constants, inputs, {"h2": (10,), "c2": (10,), "score": (1,)})


def test_lstm_layer_gate() -> None:
    program = check(*lstm())
    assert [o.kind for o in program.operations] == ["linear", "lstm", "linear", "sigmoid"]
    assert set(program.pools) == {"x"}
    assert program.takes == ("x", "h", "c")
    assert program.macs == 240 + 800 + 10


CASES: dict[str, Callable[[], tuple[onnx.ModelProto, list[Port], list[Port]]]] = {}


def case(
    name: str, nodes: Sequence[onnx.NodeProto], constants: dict[str, Array], inputs: Ports,
    outputs: Ports, **more: Any,
) -> None:  # fmt: skip
    CASES[name] = lambda: model_of(nodes, constants, inputs, outputs, **more)


X, V = {"x": (12, 6, 5)}, {"v": (9,)}
case(
    "mean over pixels, matmul and add, softmax",
    [node("ReduceMean", "x", "p", axes=[2, 3], keepdims=0), node("MatMul", "p w", "q"),
     node("Add", "q b", "r"), node("Softmax", "r", "y", axis=1)],
    {"w": weight(12, 5), "b": weight(5)}, X, {"y": (5,)},
)  # fmt: skip
case(
    "axes as an input, 1x1 convolution, batch norm, relu",
    [node("ReduceMean", "x axes", "p"), node("Conv", "p w b", "q"),
     node("BatchNormalization", "q s t m u", "n"), node("Relu", "n", "r"),
     node("Conv", "r last", "z"), node("Flatten", "z", "y")],
    {"axes": ints(-1, -2), "w": weight(8, 12, 1, 1), "b": weight(8), "s": weight(8),
     "t": weight(8), "m": weight(8), "u": np.abs(weight(8)) + 1, "last": weight(2, 8, 1, 1)},
    X, {"y": (2,)}, opset=18,
)  # fmt: skip
case(
    "the d-gate: the highest of the distances",
    [node("AveragePool", "x", "p", kernel_shape=[6, 5]), node("Flatten", "p", "f"),
     node("Gemm", "f w b", "d", alpha=0.5, beta=2.0), node("ReduceMax", "d", "y", axes=[1])],
    {"w": weight(12, 10), "b": weight(10)}, X, {"y": (1,), "d": (10,)},
)  # fmt: skip
case(
    "pixels in one axis, batch by Shape",
    [node("Shape", "x", "s"), node("Gather", "s zero", "n"), node("Unsqueeze", "n zeros", "m"),
     node("Concat", "m c rest", "shape", axis=0), node("Reshape", "x shape", "flat"),
     node("ReduceMean", "flat", "p", axes=[2], keepdims=0), node("Tanh", "p", "y")],
    {"zero": np.array(0, np.int64), "zeros": ints(0), "c": ints(12), "rest": ints(-1)},
    X, {"y": (12,)},
)  # fmt: skip
case(
    "an LSTM cell spelt out",
    [node("Gemm", "v w b", "z", transB=1), node("Split", "z four", "i f g o", axis=1),
     node("Sigmoid", "i", "si"), node("Sigmoid", "f", "sf"), node("Tanh", "g", "tg"),
     node("Sigmoid", "o", "so"), node("Mul", "sf c", "k"), node("Mul", "si tg", "n"),
     node("Add", "k n", "c2"), node("Tanh", "c2", "t"), node("Mul", "so t", "h2")],
    {"w": weight(20, 9), "b": weight(20), "four": ints(5, 5, 5, 5)},
    {"v": (9,), "c": (5,)}, {"c2": (5,), "h2": (5,)},
)  # fmt: skip
case(
    "elementwise of all kinds",
    [node("Clip", "v lo hi", "a"), node("HardSigmoid", "a", "b", alpha=0.3, beta=0.4),
     node("LeakyRelu", "v", "c", alpha=0.1), node("Abs", "c", "d"), node("Neg", "d", "e"),
     node("Exp", "e", "f"), node("Sqrt", "f", "g"), node("Pow", "g two", "h"),
     node("Max", "h b v", "i"), node("Min", "i hi", "j"), node("Sum", "j a b", "k"),
     node("Div", "k ones", "l"), node("Sub", "half l", "m"), node("Identity", "m", "y")],
    {"lo": np.array(-0.5, np.float32), "hi": np.array(0.8, np.float32),
     "two": np.array(2, np.float32), "ones": weight(9) + 3, "half": weight(1, 1)},
    V, {"y": (9,)},
)  # fmt: skip
case(
    "cut and joined",
    [node("Slice", "v a b axis", "head"), node("Slice", "v b end axis", "tail"),
     node("Concat", "tail head k", "turned", axis=1), node("Gather", "turned two", "one", axis=1),
     node("Unsqueeze", "one axis", "col"), node("Mul", "turned col", "wide"),
     node("Transpose", "wide", "long", perm=[1, 0]), node("Squeeze", "long axis", "flat"),
     node("Reshape", "flat shape", "y"), node("ReduceSum", "y axis", "sum"),
     node("ReduceMean", "y", "mean", axes=[1])],
    {"a": ints(0), "b": ints(4), "end": ints(2**62), "axis": ints(1), "k": weight(1, 3),
     "two": np.array(-2, np.int64), "shape": ints(-1, 12)},
    V, {"y": (12,), "sum": (1,), "mean": (1,)},
)  # fmt: skip
case(
    "matrix on the left, an input that nobody reads, a constant output",
    [node("Unsqueeze", "v axis", "col"), node("MatMul", "w col", "p"), node("Flatten", "p", "y"),
     node("Expand", "k one", "z")],
    {"axis": ints(2), "w": weight(4, 9), "k": weight(1, 3), "one": ints(1, 1)},
    {"v": (9,), "unread": (3, 4, 4)}, {"y": (4,), "z": (3,)},
)  # fmt: skip
case("a picture of one pixel", [node("Flatten", "x", "f"), node("Gemm", "f w", "y")],
     {"w": weight(7, 3)}, {"x": (7, 1, 1)}, {"y": (3,)})  # fmt: skip
case("softmax before opset 13",
     [node("Softmax", "v", "s", axis=0), node("Squeeze", "s", "q", axes=[0]),
      node("Unsqueeze", "q", "y", axes=[0])], {}, V, {"y": (9,)}, opset=11)  # fmt: skip
for kind in ("uint8", "int8"):
    case(
        f"{kind} features",
        [node("DequantizeLinear", "x scale zero", "f"), node("GlobalAveragePool", "f", "p"),
         node("Flatten", "p", "q"), node("Gemm", "q w", "y")],
        {"scale": np.array(0.03, np.float32), "zero": np.array(11, kind), "w": weight(12, 3)},
        X, {"y": (3,)}, dtype=kind,
    )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_recognised(name: str) -> None:
    program = check(*CASES[name]())
    assert "unread" not in program.takes


def test_a_bias_that_follows_is_folded_in() -> None:
    program = recognise(*CASES["mean over pixels, matmul and add, softmax"]())
    assert program is not None
    assert [o.kind for o in program.operations] == ["linear", "softmax"]


def test_a_bias_is_not_folded_into_what_others_read() -> None:
    nodes = [node("MatMul", "v w", "q"), node("Add", "q b", "y")]
    built = model_of(nodes, {"w": weight(9, 5), "b": weight(5)}, V, {"y": (5,), "q": (5,)})
    assert [o.kind for o in check(*built).operations] == ["linear", "add"]
    nodes = [node("MatMul", "v w", "q"), node("Add", "q b", "r"), node("Mul", "q r", "y")]
    built = model_of(nodes, {"w": weight(9, 5), "b": weight(5)}, V, {"y": (5,)})
    assert [o.kind for o in check(*built).operations] == ["linear", "add", "mul"]


class CellGate(nn.Module):
    """Pool, features, LSTM cell, score."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.first, self.cell, self.last = nn.Linear(12, 10), cell, nn.Linear(10, 1)

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> Any:
        seen = self.first(x.mean((2, 3)))
        if isinstance(self.cell, nn.LSTM):
            _, (h2, c2) = self.cell(seen[None], (h[None], c[None]))
            h2, c2 = h2[0], c2[0]
        else:
            h2, c2 = self.cell(seen, (h, c))
        return torch.sigmoid(self.last(h2)), h2, c2


@pytest.mark.parametrize("weights", ["float32", "float16"])
@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.LSTM])
def test_exported_lstm_gate(cell: type[nn.Module], weights: Any) -> None:
    torch.manual_seed(0)
    inputs = ports_of({"x": (12, 6, 5), "h": (10,), "c": (10,)})
    names = ("score", "h2", "c2")
    exported = export_node(CellGate(cell(10, 10)), inputs, names, weights=weights, place="gate")
    check(onnx.load_from_string(exported.model), exported.inputs, exported.outputs)


def refused(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, Array], inputs: Ports, outputs: Ports,
    **more: Any,
) -> bool:  # fmt: skip
    return recognise(*model_of(nodes, constants, inputs, outputs, **more)) is None


W = {"w": weight(12, 3)}
REFUSED: dict[str, tuple[Any, ...]] = {
    "features read directly": ([node("Flatten", "x", "f"), node("Gemm", "f w", "y")],
                               {"w": weight(360, 3)}, X, {"y": (3,)}),
    "features before the pool": ([node("Relu", "x", "r"), node("GlobalAveragePool", "r", "p"),
                                  node("Flatten", "p", "y")], {}, X, {"y": (12,)}),
    "a largest instead of a mean": ([node("ReduceMax", "x", "y", axes=[2, 3], keepdims=0)], {}, X,
                                    {"y": (12,)}),
    "a mean over channels": ([node("ReduceMean", "x", "p", axes=[1, 2, 3]),
                              node("Flatten", "p", "y")], {}, X, {"y": (1,)}),
    "a window that is not whole": ([node("AveragePool", "x", "p", kernel_shape=[3, 5]),
                                    node("Flatten", "p", "y")], {}, X, {"y": (24,)}),
    "a 3x3 convolution": ([node("Conv", "x w", "c"), node("GlobalAveragePool", "c", "p"),
                           node("Flatten", "p", "y")], {"w": weight(4, 12, 3, 3)}, X, {"y": (4,)}),
    "a convolution in groups": ([node("GlobalAveragePool", "x", "p"),
                                 node("Conv", "p w", "c", group=2), node("Flatten", "c", "y")],
                                {"w": weight(4, 6, 1, 1)}, X, {"y": (4,)}),
    "an unknown operator": ([node("Erf", "v", "y")], {}, V, {"y": (9,)}),
    "another domain": ([helper.make_node("Relu", ["v"], ["y"], domain="mine")], {}, V, {"y": (9,)}),
    "too many multiplications": ([node("Gemm", "v w", "y")], {"w": weight(9, 30_000)}, V,
                                 {"y": (30_000,)}),
    "an output of features": ([node("Identity", "x", "y")], {}, X, {"y": (12, 6, 5)}),
    "an output of another size": ([node("Identity", "v", "y")], {}, V, {"y": (3,)}),
    "an output that is missing": ([node("Relu", "v", "z")], {}, V, {"y": (9,)}),
    "an input that is missing": ([node("Relu", "u", "y")], {}, V, {"y": (9,)}),
    "too few operands": ([node("Gemm", "v", "y")], {}, V, {"y": (9,)}),
    "weights that are computed": ([node("MatMul", "v u", "y")], {}, {"v": (9,), "u": (9,)},
                                  {"y": (9,)}),
    "quantised by channels": ([node("DequantizeLinear", "x s z", "f", axis=1),
                               node("GlobalAveragePool", "f", "p"), node("Flatten", "p", "y")],
                              {"s": weight(12), "z": np.zeros(12, np.uint8)}, X, {"y": (12,)}),
    "a transpose that moves": ([node("Reshape", "v s", "q"), node("Transpose", "q", "t",
                                perm=[0, 2, 1]), node("Flatten", "t", "y")], {"s": ints(1, 3, 3)},
                               V, {"y": (9,)}),
    "a step": ([node("Slice", "v a e x two", "y")],
               {"a": ints(0), "e": ints(9), "x": ints(1), "two": ints(2)}, V, {"y": (5,)}),
    "huge constants": ([node("ConstantOfShape", "s", "k"), node("Add", "v k", "y")],
                       {"s": ints(1 << 40, 9)}, V, {"y": (9,)}),
    "a huge broadcast": ([node("Expand", "k s", "y")], {"s": ints(1 << 40, 9), "k": weight(1, 1)},
                         V, {"y": (9,)}),
    "a softmax of rows": ([node("Reshape", "v s", "q"), node("Softmax", "q", "t", axis=2),
                           node("Flatten", "t", "y")], {"s": ints(1, 3, 3)}, V, {"y": (9,)}),
    "a sum of rows": ([node("Reshape", "v s", "q"), node("ReduceSum", "q a", "t"),
                       node("Flatten", "t", "y")], {"s": ints(1, 3, 3), "a": ints(2)}, V,
                      {"y": (3,)}),
    "an axis that is not there": ([node("Concat", "v v", "y", axis=7)], {}, V, {"y": (18,)}),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    dtype = "uint8" if "quantised" in name else "float32"
    assert refused(*REFUSED[name], dtype=dtype)


@pytest.mark.parametrize(
    "more",
    [
        {"direction": "reverse"},
        {"activations": ["Sigmoid", "Relu", "Tanh"]},
        {"clip": 1.0},
        {"input_forget": 1},
    ],
)
def test_other_lstms_are_refused(more: dict[str, Any]) -> None:
    assert recognise(*lstm(**more)) is None


def test_bytes_that_are_no_onnx() -> None:
    port = Port(name="y", type=TensorType(dtype="float32", shape=(1,)))
    for raw in (b"", b"\xff" * 40, b"PK\x03\x04"):
        assert recognise(raw, [], [port]) is None


def test_changed_bytes_never_raise() -> None:
    model, inputs, outputs = lstm()
    raw = model.SerializeToString()
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(raw)
        # the structure is at the beginning, behind it the weights
        for at in rng.integers(0, 1200, 3):
            changed[at] = int(rng.integers(256))
        program = recognise(bytes(changed), inputs, outputs)
        assert program is None or isinstance(program, Program)
