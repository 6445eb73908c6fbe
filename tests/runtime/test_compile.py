"""Bundles compiled on this machine, run with any nodes skipped."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynrt.bundle import Bundle, read_bundle, resolve
from dynrt.errors import CompileError
from dynrt.ir.graph import Accept, Argmax, ComputeNode, Constant, Exit, PortRef
from dynrt.runtime.compile import compile_bundle
from dynrt.runtime.compile.runner import channel_block
from dynrt.runtime.compiled import Compiled
from tests.runtime.compiling import (
    ALWAYS,
    Model,
    Net,
    actions_of,
    gated_chain,
    random_bundle,
    run_segment,
    same_with,
    weights,
)

BLOCK = channel_block()


def nodes_of(compiled: Compiled) -> list[tuple[str, ...]]:
    return [s.nodes for s in compiled.segments]


def everything(bundle: Bundle, compiled: Compiled) -> None:
    """Each node of the schedule is in exactly one part."""
    parts = [n for s in compiled.segments for n in s.nodes] + [g.node for g in compiled.gates]
    graph = bundle.graph
    want = [n for n in graph.order if isinstance(graph.by_name[n], ComputeNode | Exit)]
    assert sorted(parts) == sorted(want)


def test_packaged_bundle_is_cut_at_its_exits_only() -> None:
    bundle = read_bundle(resolve("resnet38-ddi"))
    compiled = compile_bundle(bundle)
    everything(bundle, compiled)
    blocks = [n for n in nodes_of(compiled) if not n[0].startswith(("exit", "final"))]
    assert blocks[0] == ("stem", "block1")
    assert [n[-1] for n in blocks] == [f"block{i}" for i in (1, 4, 7, 10, 13, 16, 18)]
    assert not any(s.raw for s in compiled.segments)
    if BLOCK > 1:  # option A's shortcuts do not leave the blocked layout
        given = [
            g.port for s in compiled.segments for g in s.gives if g.port.node in sum(blocks, ())
        ]
        assert {compiled.layouts[p].kind for p in given} == {"nchwc"}
    same_with(bundle, compiled, [])


@pytest.mark.parametrize("channels", [8, 16, 24])
def test_skipped_blocks_hand_their_features_on(channels: int) -> None:
    bundle = gated_chain(3, channels)
    compiled = compile_bundle(bundle)
    everything(bundle, compiled)
    assert nodes_of(compiled) == [("stem",), ("b0",), ("b1",), ("b2",)]
    assert [g.node for g in compiled.gates] == ["g0", "g1", "g2", "final"]
    assert all(0 < g.tie_distance < 1e-3 for g in compiled.gates)
    features = {compiled.layouts[PortRef(n, "y")] for n in ("stem", "b0", "b1", "b2")}
    assert len(features) == 1
    if BLOCK > 1:
        assert next(iter(features)).kind == "nchwc"
        assert [s.overwrites for s in compiled.segments] == [(), *[((0, 0),)] * 3]
    actions = actions_of(bundle)
    for on in ([], actions, actions[1:2], actions[::2]):
        same_with(bundle, compiled, on)


@given(seed=st.integers(0, 2000), data=st.data())
@settings(max_examples=25, deadline=None)
def test_random_graphs(seed: int, data: st.DataObject) -> None:
    bundle = random_bundle(seed)
    compiled = compile_bundle(bundle)
    everything(bundle, compiled)
    on = data.draw(st.lists(st.sampled_from(actions_of(bundle) or [("none", 0)]), unique=True))
    same_with(bundle, compiled, on)


def test_two_branches_by_argmax() -> None:
    net = Net()
    x = net.conv("n1", net.input("image", 3, 8, 8), 16)
    scores = net.pooled("q", x, 2)
    high = net.conv("high2", net.conv("high1", x, 16), 16, relu=False)
    low = net.conv("low", x, 16, relu=False)
    net.decide(scores, [["high1"], ["low"]], Argmax())
    zeros = Constant(np.zeros((16, 8, 8), np.float32))

    def joined(m: Model) -> None:
        m.op("Add", ["a", "b"], "s")
        m.op("Relu", ["s"], "r")
        m.op("Conv", ["r", weights(net.rng, 4, 16, 1, 1)], "y")

    net.node(
        "end", {"a": (high, zeros), "b": (low, zeros)}, {"y": (4, 8, 8)}, joined, exit_rule=ALWAYS
    )
    bundle = net.bundle()
    compiled = compile_bundle(bundle)
    assert nodes_of(compiled) == [("n1",), ("high1", "high2"), ("low",), ("end",)]
    for on in ([("q_control", 0)], [("q_control", 1)], [], actions_of(bundle)):
        same_with(bundle, compiled, on)


def test_a_default_between_unlike_layouts_keeps_both_plain() -> None:
    """The features of a vector node stand in for those of a convolution."""
    net = Net()
    image = net.input("image", 16, 8, 8)
    gate = net.pooled("g", image, 1)
    after = net.conv("b", image, 16)
    net.decide(gate, [["b"]])
    net.conv("last", (after, PortRef("b", "x")), 16, relu=False)
    net.pooled("final", PortRef("last", "y"), 3, exit_rule=ALWAYS)
    bundle = net.bundle()
    compiled = compile_bundle(bundle)
    assert compiled.layouts[PortRef("image", "image")].kind == "plain"
    assert compiled.layouts[PortRef("b", "y")].kind == "plain"
    for on in ([], actions_of(bundle)):
        same_with(bundle, compiled, on)


def test_identity_between_borders_is_not_bypassed() -> None:
    """onnxruntime lets the reader of a copy read the original; a default must still reach it."""
    net = Net()
    x = net.conv("stem", net.input("image", 3, 8, 8), 16)
    gate = net.pooled("g", x, 1)
    copy = net.node("copy", {"x": x}, {"y": (16, 8, 8)}, lambda m: m.op("Identity", ["x"], "y"))
    net.decide(gate, [["copy"]])
    ones = Constant(np.ones((16, 8, 8), np.float32))

    def both(m: Model) -> None:
        m.op("Sub", ["a", "b"], "s")
        m.op("Relu", ["s"], "y")

    net.node("end", {"a": x, "b": (copy, ones)}, {"y": (16, 8, 8)}, both, exit_rule=ALWAYS)
    bundle = net.bundle()
    compiled = compile_bundle(bundle)
    for on in ([], actions_of(bundle)):
        same_with(bundle, compiled, on)


def test_what_cannot_be_joined_stays_as_it_is() -> None:
    """Another operator set, a branch inside, no inputs, one tensor in two ways."""
    net = Net()
    image = net.input("image", 3, 8, 8)
    x = net.conv("stem", image, 16)
    y = net.conv("old", x, 16, opset=13)
    z = net.conv("new", y, 16)
    one = net.node(
        "one",
        {},
        {"y": (16, 8, 8)},
        lambda m: m.op("Identity", [np.ones((1, 16, 8, 8), np.float32)], "y"),
    )
    gate = net.pooled("g", z, 2)
    skipped = net.conv("skipped", z, 16)
    net.decide(gate, [["skipped"], ["one"]])
    zeros, twos = (Constant(np.full((16, 8, 8), v, np.float32)) for v in (0, 2))
    twice = net.node(
        "twice",
        {"a": (skipped, zeros), "b": (skipped, twos), "c": (one, zeros)},
        {"y": (16, 8, 8)},
        lambda m: (m.op("Mul", ["a", "b"], "p"), m.op("Add", ["p", "c"], "y")),
    )
    net.pooled("final", twice, 3, exit_rule=ALWAYS)
    bundle = net.bundle()
    compiled = compile_bundle(bundle)
    everything(bundle, compiled)
    assert {s.nodes for s in compiled.segments if s.raw} == {("old",), ("one",), ("twice",)}
    assert all(s.model == bundle.models[s.nodes[0]] for s in compiled.segments if s.raw)
    for on in ([], [("g_control", 0)], [("g_control", 1)], actions_of(bundle)):
        same_with(bundle, compiled, on)


def test_constant_and_passed_on_outputs() -> None:
    net = Net()
    x = net.conv("stem", net.input("image", 3, 8, 8), 16)
    gate = net.pooled("g", x, 1)

    def write(m: Model) -> None:
        m.op("Identity", ["x"], "same")
        m.op("Relu", ["x"], "other")

    net.node("n", {"x": x}, {"same": (16, 8, 8), "other": (16, 8, 8)}, write)
    net.decide(gate, [["n"]])
    same = (PortRef("n", "same"), PortRef("n", "x"))
    net.pooled("e1", same, 3, exit_rule=Accept(kind="max_softmax", port="s", threshold=2.0))
    net.pooled("e2", (PortRef("n", "other"), PortRef("n", "x")), 3, exit_rule=ALWAYS)
    bundle = net.bundle()
    compiled = compile_bundle(bundle)
    for on in ([], actions_of(bundle)):
        same_with(bundle, compiled, on)


def test_overwriting_changes_nothing() -> None:
    bundle = gated_chain(2, 16)
    compiled = compile_bundle(bundle)
    segment = next(s for s in compiled.segments if s.nodes == ("b0",))
    if BLOCK == 1:
        assert segment.overwrites == ()
        return
    stored = np.random.default_rng(0).standard_normal((2, 16, 8, 8)).astype(np.float32)
    want = run_segment(segment, {segment.takes[0].name: stored})[PortRef("b0", "y")]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(segment.model, options)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(stored)
    binding = session.io_binding()
    binding.bind_ortvalue_input(segment.takes[0].name, value)
    binding.bind_ortvalue_output(segment.gives[0].name, value)
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(stored, want)


def test_compiling_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    compile_bundle(gated_chain(1, 16))
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(CompileError, match=r"^bundle 'chain1': the joined graph: it cannot be opt"):
        compile_bundle(gated_chain(1, 16))


def test_refused_bundles() -> None:
    bundle = gated_chain(1, 16)
    with pytest.raises(CompileError, match="threads=0: at least 1"):
        compile_bundle(bundle, threads=0)
    broken = replace(bundle, models={**bundle.models, "b0": b"\xff" * 9})
    with pytest.raises(CompileError, match="node 'b0': its model is no ONNX"):
        compile_bundle(broken)
    model = onnx.load_model_from_string(bundle.models["b0"])
    model.graph.node[0].op_type = "Convolve"
    unknown = replace(bundle, models={**bundle.models, "b0": model.SerializeToString()})
    with pytest.raises(CompileError, match=r"node 'b0': onnxruntime refuses it: .*Convolve"):
        compile_bundle(unknown)


def test_a_node_of_undeclared_size_is_refused() -> None:
    net = Net()
    image = net.input("image", 4, 8, 8)
    net.node(
        "e", {"x": image}, {"y": (5, 8, 8)}, lambda m: m.op("Relu", ["x"], "y"), exit_rule=ALWAYS
    )
    with pytest.raises(CompileError, match="bundle 'net': node 'e': "):
        compile_bundle(net.bundle())


def test_the_same_bundle_compiles_to_the_same_bytes() -> None:
    first, second = (compile_bundle(gated_chain(2, 16)) for _ in range(2))
    assert first == second


def test_many_nodes() -> None:
    bundle = gated_chain(60, 16, size=4)
    compiled = compile_bundle(bundle)
    everything(bundle, compiled)
    sizes = {len(s.model) for s in compiled.segments[1:]}
    assert max(sizes) - min(sizes) < 100  # a cut holds its own part only


def test_loading_the_runtime_loads_no_onnx() -> None:
    code = "import sys, dynrt.runtime; print('onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_threads_share_the_pool_of_the_process() -> None:
    code = """
from dynrt.errors import CompileError
from dynrt.runtime.compile import compile_bundle
from tests.runtime.compiling import actions_of, gated_chain, same_with
bundle = gated_chain(1, 16)
one = compile_bundle(bundle)
print(compile_bundle(bundle, threads=2) == one)
print(compile_bundle(bundle) == one)
try:
    compile_bundle(bundle, threads=3)
except CompileError as exc:
    print(exc)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    said = done.stdout.splitlines()
    assert said[:2] == ["True", "True"]
    assert said[2].startswith("bundle 'chain1': threads=3: this process already runs")
    assert len(said) == 3
