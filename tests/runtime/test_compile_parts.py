"""Steps of compiling: what is joined, 8-bit borders, shortcuts, and what verifying finds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dynrt.bundle import Bundle, build_bundle
from dynrt.errors import CompileError
from dynrt.ir.cost import Cost
from dynrt.ir.graph import (
    Accept,
    Array,
    ChannelMask,
    ComputeNode,
    Constant,
    ControlEdge,
    ControlNode,
    DataEdge,
    Exit,
    Graph,
    InputNode,
    Node,
    Port,
    PortRef,
    TensorType,
    Threshold,
)
from dynrt.runtime.compile import compile_bundle
from dynrt.runtime.compile import pipeline as pipeline_module
from dynrt.runtime.compile import small as small_module
from dynrt.runtime.compile.partition import Guards, partition
from dynrt.runtime.compile.probes import Portable, relative_error
from dynrt.runtime.compile.runner import Loaded
from dynrt.runtime.compile.shortcuts import with_convolved_shortcuts
from dynrt.runtime.compile.verify import Verifier
from dynrt.runtime.compiled import PLAIN, Segment
from tests.runtime.compiling import (
    ALWAYS,
    Net,
    actions_of,
    gated_chain,
    probe,
    run_compiled,
    run_portable,
    same_with,
)


def parts_of(bundle: Bundle, alone: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    return partition(bundle.graph, Guards(bundle.graph), alone)


def test_nodes_that_run_together_are_joined() -> None:
    net = Net()
    x = net.conv("a2", net.conv("a1", net.input("image", 3, 4, 4), 4), 4)
    gate = net.pooled("g", x, 2)
    b = net.conv("b2", net.conv("b1", x, 4), 4)  # b2 runs because b1 does
    c = net.conv("c1", x, 4)  # by another action
    d = net.conv("d1", (b, Constant(np.zeros((4, 4, 4), np.float32))), 4)  # always runs
    e = net.conv("e1", d, 4)
    net.decide(gate, [["b1"], ["c1"]])

    def write(m: Any) -> None:
        m.op("Add", ["a", "b"], "y")

    zeros = Constant(np.zeros((4, 4, 4), np.float32))
    net.node("end", {"a": e, "b": (c, zeros)}, {"y": (4, 4, 4)}, write, exit_rule=ALWAYS)
    bundle = net.bundle()
    assert parts_of(bundle) == [("a1", "a2"), ("g",), ("b1", "b2"), ("d1", "e1"), ("c1",), ("end",)]
    assert parts_of(bundle, ("a2",))[:2] == [("a1",), ("a2",)]
    compiled = compile_bundle(bundle)
    for on in ([], *([a] for a in actions_of(bundle)), actions_of(bundle)):
        same_with(bundle, compiled, on)


def test_nodes_that_take_a_tensor_in_two_ways_are_not_joined() -> None:
    net = Net()
    x = net.input("image", 4, 4, 4)
    gate = net.pooled("g", x, 1)
    b = net.conv("b", x, 4)
    net.decide(gate, [["b"]])
    zeros, ones = (Constant(np.full((4, 4, 4), v, np.float32)) for v in (0, 1))
    first, second = net.conv("c", (b, zeros), 4), net.conv("d", (b, ones), 4)
    net.node(
        "end",
        {"a": first, "b": second},
        {"y": (4, 4, 4)},
        lambda m: m.op("Add", ["a", "b"], "y"),
        exit_rule=ALWAYS,
    )
    bundle = net.bundle()
    assert parts_of(bundle) == [("g",), ("b",), ("c",), ("d",), ("end",)]
    compiled = compile_bundle(bundle)
    for on in ([], actions_of(bundle)):
        same_with(bundle, compiled, on)


def test_a_node_that_takes_a_tensor_in_two_ways_stands_alone() -> None:
    net = Net()
    x = net.input("image", 4, 4, 4)
    gate = net.pooled("g", x, 1)
    b = net.conv("b", x, 4)
    net.decide(gate, [["b"]])
    before = net.conv("c", x, 4)
    zeros, ones = (Constant(np.full((4, 4, 4), v, np.float32)) for v in (0, 1))
    two = net.node(
        "d",
        {"p": (b, zeros), "q": (b, ones)},  # one source; two tensors where it does not run
        {"y": (4, 4, 4)},
        lambda m: m.op("Sub", ["p", "q"], "y"),
    )
    after = net.conv("e", two, 4)
    net.node(
        "end",
        {"a": before, "b": after},
        {"y": (4, 4, 4)},
        lambda m: m.op("Add", ["a", "b"], "y"),
        exit_rule=ALWAYS,
    )
    bundle = net.bundle()
    assert ("d",) in parts_of(bundle)
    compiled = compile_bundle(bundle)
    for on in ([], actions_of(bundle)):
        same_with(bundle, compiled, on)


def test_masked_nodes_stand_alone() -> None:
    net = Net()
    x = net.conv("a", net.input("image", 3, 4, 4), 4)
    mask = net.input("mask", 2)
    y = net.node("b", {"x": x, "mask": mask}, {"y": (4, 4, 4)}, lambda m: m.op("Relu", ["x"], "y"))
    net.pooled("final", net.conv("c", y, 4), 3, exit_rule=ALWAYS)
    masked = ChannelMask(port="mask", groups=2, group_macs=1)
    net.nodes = [
        replace(n, mask=masked) if isinstance(n, ComputeNode) and n.name == "b" else n
        for n in net.nodes
    ]
    assert parts_of(net.bundle()) == [("a",), ("b",), ("c",), ("final",)]


SCALE, ZERO = np.float32(0.03), np.uint8(0)
PICTURE = TensorType(dtype="uint8", shape=(16, 8, 8))


class EightBit:
    """Writes one node of 8-bit convolutions."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.stored: dict[str, Array] = {"scale": np.array(SCALE), "zero": np.array(ZERO)}
        self.ops: list[onnx.NodeProto] = []

    def op(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.ops.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def quantised(self, x: str, output: str) -> str:
        return self.op("QuantizeLinear", [x, "scale", "zero"], output)

    def restored(self, x: str) -> str:
        return self.op("DequantizeLinear", [x, "scale", "zero"], f"{x}.float")

    def conv(self, x: str, channels: int, output: str) -> str:
        w = f"{output}.w"
        weight = self.rng.integers(-127, 128, (16, channels, 3, 3)).astype(np.int8)
        self.stored |= {w: weight, f"{w}.s": np.full(16, 2e-3, np.float32)}
        self.stored[f"{w}.z"] = np.zeros(16, np.int8)
        self.op("DequantizeLinear", [w, f"{w}.s", f"{w}.z"], f"{w}.d", axis=0)
        return self.op("Conv", [x, f"{w}.d"], output, pads=[1] * 4)

    def data(self, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> bytes:
        infos = [
            [
                helper.make_tensor_value_info(
                    p.name,
                    helper.np_dtype_to_tensor_dtype(np.dtype(p.type.dtype)),
                    ["batch", *p.type.shape],
                )
                for p in ports
            ]
            for ports in (inputs, outputs)
        ]
        stored = [numpy_helper.from_array(v, n) for n, v in self.stored.items()]
        graph = helper.make_graph(self.ops, "node", infos[0], infos[1], stored)
        opsets = [helper.make_opsetid("", 17)]
        return bytes(
            helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
        )


def eight_bit_chain() -> Bundle:
    """Two gated residual blocks whose features are 8-bit numbers; gates and exit in float."""
    rng = np.random.default_rng(0)
    image = TensorType(dtype="float32", shape=(3, 8, 8))
    nodes: list[Node] = [InputNode(name="image", type=image)]
    data: list[DataEdge] = []
    control: list[ControlEdge] = []
    models: dict[str, bytes] = {}

    def add(name: str, m: EightBit, x: tuple[PortRef, Any], kinds: tuple[TensorType, str]) -> None:
        given, port = kinds
        taken = image if name == "stem" else PICTURE
        inputs, outputs = (Port(name="x", type=taken),), (Port(name=port, type=given),)
        models[name] = m.data(inputs, outputs)
        data.append(DataEdge(source=x[0], target=PortRef(name, "x"), default=x[1]))
        if name == "final":
            rule = Accept(kind="always")
            nodes.append(
                Exit(
                    name=name,
                    inputs=inputs,
                    outputs=outputs,
                    answer=port,
                    accept=rule,
                    cost=Cost(macs=1),
                )
            )
        else:
            nodes.append(ComputeNode(name=name, inputs=inputs, outputs=outputs, cost=Cost(macs=1)))

    def head(name: str, x: tuple[PortRef, Any], n: int) -> None:
        m = EightBit(rng)
        m.stored["w"] = rng.standard_normal((n, 16)).astype(np.float32)
        m.op("Flatten", [m.op("GlobalAveragePool", [m.restored("x")], "p")], "f")
        m.op("Gemm", ["f", "w"], "s", transB=1)
        add(name, m, x, (TensorType(dtype="float32", shape=(n,)), "s"))

    m = EightBit(rng)
    m.quantised("x", "q")
    m.quantised(m.op("Relu", [m.conv(m.restored("q"), 3, "c")], "r"), "y")
    add("stem", m, (PortRef("image", "image"), None), (PICTURE, "y"))
    x: tuple[PortRef, Any] = (PortRef("stem", "y"), None)
    for i in range(2):
        head(f"g{i}", x, 1)
        nodes.append(ControlNode(name=f"k{i}", actions=1, rule=Threshold(thresholds=(0.0,))))
        data.append(DataEdge(source=PortRef(f"g{i}", "s"), target=PortRef(f"k{i}", "scores")))
        control.append(ControlEdge(control=f"k{i}", target=f"b{i}", action=0))
        m = EightBit(rng)
        short = m.restored("x")
        m.quantised(m.op("Relu", [m.conv(short, 16, "c")], "r"), "rq")
        m.quantised(m.conv(m.restored("rq"), 16, "d"), "dq")
        m.op("Add", [m.restored("dq"), short], "e")
        m.quantised(m.op("Relu", ["e"], "er"), "y")
        add(f"b{i}", m, x, (PICTURE, "y"))
        x = (PortRef(f"b{i}", "y"), PortRef(f"b{i}", "x"))
    head("final", x, 5)
    graph = Graph(nodes=tuple(nodes), data=tuple(data), control=tuple(control), exits=("final",))
    return build_bundle(name="eight", graph=graph, models=models)


def test_eight_bit_features_are_handed_on_channels_last() -> None:
    bundle = eight_bit_chain()
    compiled = compile_bundle(bundle)
    assert {g.node for g in compiled.gates} == {"g0", "g1", "final"}
    for name in ("stem", "b0", "b1"):
        assert compiled.layouts[PortRef(name, "y")].kind == "nhwc"
    for segment in compiled.segments[1:]:
        ops = [n.op_type for n in onnx.load_model_from_string(segment.model).graph.node]
        assert "Transpose" not in ops
        assert "QLinearConv" in ops
    for on in ([], actions_of(bundle)[1:], actions_of(bundle)):
        inputs = probe(bundle, 2)
        want, ran = run_portable(bundle, inputs, on)
        for ref, value in run_compiled(bundle, compiled, inputs, ran).items():
            near = np.abs(value.astype(np.float64) - want[ref].astype(np.float64))
            assert near.max() <= (1 if value.dtype == np.uint8 else 0.05), ref


def test_eight_bit_features_that_a_raw_node_reads_stay_plain() -> None:
    bundle = eight_bit_chain()
    model = onnx.load_model_from_string(bundle.models["b1"])
    model.opset_import[0].version = 18
    odd = replace(bundle, models={**bundle.models, "b1": model.SerializeToString()})
    compiled = compile_bundle(odd)
    assert [s.nodes for s in compiled.segments if s.raw] == [("b1",)]
    assert {compiled.layouts[PortRef(n, "y")] for n in ("stem", "b0", "b1")} == {PLAIN}
    inputs = probe(odd, 2)
    want, ran = run_portable(odd, inputs, actions_of(odd))
    got = run_compiled(odd, compiled, inputs, ran)
    assert np.abs(got[PortRef("b1", "y")].astype(int) - want[PortRef("b1", "y")]).max() <= 1


def shortcut(step: int = 2, pads: tuple[int, ...] = (0, 4, 0, 0, 0, 4, 0, 0)) -> onnx.ModelProto:
    stored = {
        "zeros": np.zeros(2, np.int64),
        "ends": np.full(2, np.iinfo(np.int64).max),
        "axes": np.array([2, 3]),
        "steps": np.array([step, step]),
        "half": np.array(pads[:4]),
        "rest": np.array(pads[4:]),
    }
    ops = [
        helper.make_node("Concat", ["half", "rest"], ["pads"], axis=0),
        helper.make_node("Slice", ["x", "zeros", "ends", "axes", "steps"], ["s"]),
        helper.make_node("Pad", ["s", "pads"], ["p"]),
        helper.make_node("Relu", ["p"], ["y"]),
    ]
    size = -(-8 // step)
    graph = helper.make_graph(
        ops,
        "node",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8, 8, 8])],
        [
            helper.make_tensor_value_info(
                "y", TensorProto.FLOAT, ["batch", 8 + sum(pads), size, size]
            )
        ],
        [numpy_helper.from_array(v, n) for n, v in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("pads", [(0, 4, 0, 0, 0, 4, 0, 0), (0, 0, 0, 0, 0, 3, 0, 0)])
def test_padded_shortcuts_become_convolutions(pads: tuple[int, ...]) -> None:
    model = shortcut(pads=pads)
    convolved = with_convolved_shortcuts(model)
    assert "Conv" in [op.op_type for op in convolved.graph.node]
    assert "Conv" not in [op.op_type for op in model.graph.node]
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 8)).astype(np.float32)
    want, got = (
        Loaded(m.SerializeToString(), optimise=True, place="it")({"x": x})["y"]
        for m in (model, convolved)
    )
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "model", [shortcut(step=1), shortcut(step=3), shortcut(pads=(0, 4, 1, 0, 0, 4, 0, 0))]
)
def test_other_pads_stay(model: onnx.ModelProto) -> None:
    assert with_convolved_shortcuts(model) is model


def verifier_of(bundle: Bundle) -> tuple[Verifier, list[Segment], list[Any]]:
    compiled = compile_bundle(bundle)
    inputs = probe(bundle, 2)
    own, _ = run_portable(bundle, inputs, actions_of(bundle))
    portable = Portable(bundle.graph, bundle.models)
    segment = next(s for s in compiled.segments if s.nodes == ("b0",))
    stem = next(s for s in compiled.segments if s.nodes == ("stem",))
    flat = run_compiled(bundle, compiled, inputs, ("stem", "b0"))
    check = Verifier(bundle.graph, compiled.layouts, portable, loose=False)
    return check, [stem, segment], [flat, own]


def test_verifying_finds_one_wrong_bit() -> None:
    check, both, (flat, own) = verifier_of(gated_chain(1, 16))
    check.same_bits(both, [flat], [own])
    wrong = flat[PortRef("b0", "y")].copy()
    wrong.reshape(-1)[7] = np.nextafter(wrong.reshape(-1)[7], np.float32(9))
    with pytest.raises(CompileError, match=r"segment of 'b0' does not give b0\.y as the uncut"):
        check.same_bits(both, [{**flat, PortRef("b0", "y"): wrong}], [own])


def test_verifying_finds_unlike_values() -> None:
    check, _, (flat, own) = verifier_of(gated_chain(1, 16))
    check.same_values(flat, own)
    wrong = {PortRef("b0", "y"): flat[PortRef("b0", "y")] * np.float32(1.01)}
    with pytest.raises(CompileError, match=r"b0\.y: the joined graph deviates by 0\.01"):
        check.same_values(wrong, own)


def test_a_segment_that_ignores_what_it_takes_is_left_to_its_own_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = Net()
    x = net.conv("stem", net.input("image", 3, 8, 8), 16)
    y = net.conv("more", x, 16)
    gate = net.pooled("g", x, 1)
    net.decide(gate, [["more"]])
    net.node(
        "end",
        {"a": x, "b": (y, PortRef("more", "x"))},
        {"y": (16, 8, 8)},
        lambda m: m.op("Sub", ["a", "b"], "y"),
        exit_rule=ALWAYS,
    )
    bundle = net.bundle()
    assert not any(s.raw for s in compile_bundle(bundle).segments)
    sound = Verifier.reads_what_it_takes
    monkeypatch.setattr(
        Verifier,
        "reads_what_it_takes",
        lambda self, s, values: s.nodes != ("end",) and sound(self, s, values),
    )
    compiled = compile_bundle(bundle)
    assert [s.nodes for s in compiled.segments if s.raw] == [("end",)]
    for on in ([], actions_of(bundle)):
        same_with(bundle, compiled, on)


def test_a_segment_that_swaps_what_it_takes_is_found() -> None:
    net = Net()
    image = net.input("image", 4, 4, 4)
    x, y = net.conv("a", image, 4), net.conv("b", image, 4)
    gate = net.pooled("g", image, 1)
    net.decide(gate, [["a"]])
    zeros = Constant(np.zeros((4, 4, 4), np.float32))
    net.node(
        "end",
        {"a": (x, zeros), "b": y},
        {"y": (4, 4, 4)},
        lambda m: m.op("Sub", ["a", "b"], "y"),
        exit_rule=ALWAYS,
    )
    bundle = net.bundle()
    compiled = compile_bundle(bundle)
    end = next(s for s in compiled.segments if s.nodes == ("end",))
    check = Verifier(
        bundle.graph, compiled.layouts, Portable(bundle.graph, bundle.models), loose=False
    )
    own, _ = run_portable(bundle, probe(bundle, 2), actions_of(bundle))
    assert check.reads_what_it_takes(end, own)
    ports = [replace(t, name=o.name) for t, o in zip(end.takes, end.takes[::-1], strict=True)]
    assert not check.reads_what_it_takes(replace(end, takes=tuple(ports)), own)


def test_a_kernel_that_deviates_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = gated_chain(2, 16)
    sound = small_module._run

    def wrong(*args: Any) -> dict[str, Array]:
        given = sound(*args)
        factor = 1.01 if args[1].name == "g0" else 1 + 1e-4 if args[1].name == "g1" else 1
        return {n: v * np.float32(factor) for n, v in given.items()}

    tie = {g.node: g.tie_distance for g in compile_bundle(bundle).gates}
    monkeypatch.setattr(small_module, "_run", wrong)
    compiled = compile_bundle(bundle)
    assert [g.node for g in compiled.gates] == ["g1", "final"]
    assert ("g0",) in [s.nodes for s in compiled.segments]
    assert compiled.gates[0].tie_distance > 5 * tie["g1"]
    for on in ([], actions_of(bundle)):
        same_with(bundle, compiled, on)


def test_without_any_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_module, "recognise", lambda *_: None)
    bundle = gated_chain(2, 16)
    compiled = compile_bundle(bundle)
    assert compiled.gates == ()
    for on in ([], actions_of(bundle)):
        same_with(bundle, compiled, on)


def test_on_a_machine_without_a_blocked_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its borders are plain, whatever onnxruntime does inside a segment."""
    monkeypatch.setattr(pipeline_module, "channel_block", lambda: 1)
    bundle = gated_chain(2, 16)
    compiled = compile_bundle(bundle)
    assert set(compiled.layouts.values()) == {PLAIN}
    for on in ([], actions_of(bundle)):
        same_with(bundle, compiled, on)


def test_relative_error() -> None:
    a = np.array([1.0, -2.0, np.inf], np.float32)
    assert relative_error(a, a) == 0
    assert relative_error(a, np.array([1.0, -1.5, np.inf], np.float32)) == 0.25
    assert relative_error(a, np.array([1.0, -2.0, 5.0], np.float32)) == np.inf
    assert relative_error(a[:2], np.array([1.0, np.nan], np.float32)) == np.inf
    assert relative_error(a, a.astype(np.float64)) == np.inf
    assert relative_error(a[2:], a[2:]) == 0


def test_a_default_reaches_into_a_segment() -> None:
    """It names what a node in the middle of a segment takes."""
    net = Net()
    image = net.input("image", 3, 8, 8)
    x = net.conv("a2", net.conv("a1", image, 16), 16)
    gate = net.pooled("g", x, 1)
    y = net.conv("b", x, 16)
    net.decide(gate, [["b"]])
    net.pooled("final", (y, PortRef("a2", "x")), 3, exit_rule=ALWAYS)
    bundle = net.bundle()
    compiled = compile_bundle(bundle)
    assert [s.nodes for s in compiled.segments] == [("a1", "a2"), ("b",)]
    assert {g.port for g in compiled.segments[0].gives} == {PortRef("a1", "y"), PortRef("a2", "y")}
    for on in ([], actions_of(bundle)):
        same_with(bundle, compiled, on)


def test_what_is_read_again_is_not_overwritten() -> None:
    net = Net()
    x = net.conv("stem", net.input("image", 3, 8, 8), 16)
    gate = net.pooled("g", x, 1)
    kernels = [np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1) * k for k in (2, 3)]

    def write(m: Any) -> None:
        m.op("Conv", ["x", kernels[0]], "a")
        m.op("Relu", ["a"], "b")
        m.op("Conv", ["b", kernels[1]], "c")
        m.op("Add", ["c", "x"], "y")
        m.op("Conv", ["x", kernels[1]], "z")

    net.node("n", {"x": x}, {"y": (16, 8, 8), "z": (16, 8, 8)}, write)
    net.decide(gate, [["n"]])
    zeros = Constant(np.zeros((16, 8, 8), np.float32))
    net.node(
        "end",
        {"a": (PortRef("n", "y"), PortRef("n", "x")), "b": (PortRef("n", "z"), zeros)},
        {"y": (16, 8, 8)},
        lambda m: m.op("Sub", ["a", "b"], "y"),
        exit_rule=ALWAYS,
    )
    bundle = net.bundle()
    compiled = compile_bundle(bundle)
    assert next(s for s in compiled.segments if s.nodes == ("n",)).overwrites == ()
    for on in ([], actions_of(bundle)):
        same_with(bundle, compiled, on)


def test_two_ports_of_one_tensor() -> None:
    """Equal operators become one, whose result two ports give; each is read by itself."""
    net = Net()
    x = net.conv("stem", net.input("image", 3, 8, 8), 16)
    gate = net.pooled("g", x, 1)
    kernel = np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1) * 2

    def write(m: Any) -> None:
        m.stored["k"] = kernel
        m.op("Conv", ["x", "k"], "y")
        m.op("Conv", ["x", "k"], "z")

    net.node("n", {"x": x}, {"y": (16, 8, 8), "z": (16, 8, 8)}, write)
    net.decide(gate, [["n"]])
    zeros, ones = (Constant(np.full((16, 8, 8), v, np.float32)) for v in (0, 1))

    def ends(m: Any) -> None:
        m.op("Conv", ["a", kernel], "c")
        m.op("Conv", ["b", kernel * 3], "d")
        m.op("Sub", ["c", "d"], "y")

    net.node(
        "end",
        {"a": (PortRef("n", "y"), zeros), "b": (PortRef("n", "z"), ones)},
        {"y": (16, 8, 8)},
        ends,
        exit_rule=ALWAYS,
    )
    bundle = net.bundle()
    compiled = compile_bundle(bundle)
    for on in ([], actions_of(bundle)):
        same_with(bundle, compiled, on)
