"""One ONNX file with ``If`` answers as the runtime does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import dynrt.runtime
from dynrt.bundle import Bundle, build_bundle
from dynrt.errors import ExportError
from dynrt.exporters.chains import Head, gated_blocks, sequential_exits
from dynrt.exporters.fused import fuse
from dynrt.exporters.lower import lower
from dynrt.exporters.spec import NetworkBuilder, NetworkSpec, wire
from dynrt.ir.graph import (
    Accept,
    Argmax,
    Combine,
    Exit,
    Graph,
    ScoreKind,
    TensorType,
    Threshold,
)
from dynrt.ir.rules import accept_score
from tests.exporters.networks import (
    Block,
    Floats,
    TwoHeads,
    bright_images,
    images,
    pooled_head,
    recurrent_modules,
)

IMAGE = TensorType(dtype="float32", shape=(3, 8, 8))
STATE = {name: TensorType(dtype="float32", shape=(5,)) for name in ("h", "c")}


def chain(kind: ScoreKind) -> NetworkSpec:
    torch.manual_seed(0)
    port = "distances" if kind == "hinge" else "logits"
    outputs = ("logits", "distances")
    heads = {
        name: Head(
            module=TwoHeads(c),
            outputs=outputs,
            accept=Accept(kind=kind, port=port, threshold=threshold),
        )
        for name, c, threshold in (("stem", 8, 0.3), ("body", 8, 0.28))
    }
    last = Head(module=TwoHeads(8), outputs=outputs)
    return sequential_exits(
        "chain",
        IMAGE,
        [("stem", nn.Conv2d(3, 8, 3, 1, 1)), ("body", Block(8, 8)), ("tail", Block(8, 8))],
        {**heads, "tail": last},
    ).build()


CHAINS: dict[ScoreKind, Bundle] = {}
KINDS: tuple[ScoreKind, ...] = ("hinge", "max_softmax", "margin", "entropy", "never")


def bundle_of(kind: ScoreKind) -> Bundle:
    if kind not in CHAINS:
        CHAINS[kind] = lower(chain(kind))
    return CHAINS[kind]


def rebuilt(bundle: Bundle, graph: Graph) -> Bundle:
    return build_bundle(name=bundle.name, graph=graph, models=bundle.models)


def with_thresholds(bundle: Bundle, **thresholds: float) -> Bundle:
    nodes = tuple(
        replace(n, accept=replace(n.accept, threshold=thresholds[n.name]))
        if isinstance(n, Exit) and n.name in thresholds
        else n
        for n in bundle.graph.nodes
    )
    return rebuilt(bundle, replace(bundle.graph, nodes=nodes))


def same(bundle: Bundle, samples: Floats) -> set[str]:
    """Compare on each sample; the exits that were taken."""
    session = onnxruntime.InferenceSession(fuse(bundle))
    network = dynrt.runtime.load(bundle)
    (name,) = (n.name for n in bundle.graph.inputs() if n.param is None)
    taken = set()
    for x in samples:
        answer, index = session.run(["answer", "exit"], {name: x[None]})
        result = network.run(x)
        assert bundle.graph.exits[int(index[0])] == result.exit
        np.testing.assert_allclose(answer[0], result.answer, atol=1e-5)
        taken.add(result.exit)
    return taken


@settings(max_examples=12)
@given(
    kind=st.sampled_from(KINDS),
    first=st.floats(0, 1.2),
    second=st.floats(0, 1.2),
    seed=st.integers(0, 1000),
)
def test_exits_at_any_threshold(kind: ScoreKind, first: float, second: float, seed: int) -> None:
    """Also at thresholds that no probability reaches."""
    bundle = with_thresholds(bundle_of(kind), exit1=first, exit2=second)
    same(bundle, images(4, 3, 8, 8, seed=seed))


@pytest.mark.parametrize("kind", ["hinge", "max_softmax", "margin", "entropy"])
def test_every_exit_is_taken(kind: ScoreKind) -> None:
    """Thresholds at the median score of each exit, so that about half leave there."""
    spec, samples = chain(kind), images(16, 3, 8, 8)
    functions = spec.functions()
    x, medians = samples, []
    for segment, head in (("stem", "exit1"), ("body", "exit2")):
        x = functions[segment]({"x": x})["y"]
        values = functions[head]({"x": x})["distances" if kind == "hinge" else "logits"]
        medians.append(float(np.median([accept_score(kind, row) for row in values])))
    bundle = with_thresholds(bundle_of(kind), exit1=medians[0], exit2=medians[1])
    assert same(bundle, samples) == {"exit1", "exit2", "final"}


def test_only_weights_of_branches_stand_in_branches() -> None:
    model = onnx.load_model_from_string(fuse(bundle_of("margin")))
    assert [n.op_type for n in model.graph.node].count("If") == 1
    outer = sum(np.prod(t.dims) for t in model.graph.initializer)
    # the stem, 27 x 8 and bias, and the first exit's two heads of 8 x 5 and bias
    assert outer < 27 * 8 + 8 + 2 * (40 + 5) + 30
    assert fuse(bundle_of("margin")) == fuse(bundle_of("margin"))


def gated() -> Bundle:
    stem, blocks, gates, head = recurrent_modules()
    return lower(
        gated_blocks(
            "gated",
            IMAGE,
            [("stem", stem), *((f"b{i}", block) for i, block in enumerate(blocks))],
            {f"b{i}": gate for i, gate in enumerate(gates)},
            {"b1": pooled_head(8), "b3": head},
            state=STATE,
        ).build()
    )


def test_skipped_blocks_and_recurrent_gates() -> None:
    samples = bright_images(12)
    bundle = gated()
    session = onnxruntime.InferenceSession(fuse(bundle), quiet())
    network = dynrt.runtime.load(bundle)
    paths = set()
    for x in samples:
        answer, index = session.run(None, {"image": x[None]})
        result = network.run(x)
        assert bundle.graph.exits[int(index[0])] == result.exit
        np.testing.assert_allclose(answer[0], result.answer, atol=1e-5)
        paths.add(result.path)
    assert len(paths) >= 3


def quiet() -> onnxruntime.SessionOptions:
    """It warns that inputs with defaults cannot be folded; that is what they are for."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


class Mean(nn.Module):
    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        return x.mean(1, keepdim=True) - k


class Sum(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def routed() -> NetworkBuilder:
    """An argmax gate between two nodes, one also switched on by a threshold gate; constants."""
    torch.manual_seed(0)
    net = NetworkBuilder("routed")
    x, k = net.input("x", (4,)), net.param("k", 0.0)
    net.gate("route", nn.Linear(4, 2), {"x": x}, actions=[["a"], ["b"]], rule=Argmax())
    net.gate("more", Mean(), {"x": x, "k": k}, actions=[["b"]], rule=Threshold(thresholds=(0.2,)))
    a = net.compute("a", nn.Linear(4, 4), {"x": x})
    b = net.compute("b", nn.Linear(4, 4), {"x": x})
    both = {
        "x": wire(a, default="zeros"),
        "y": wire(b, default=np.ones(4, np.float32)),
    }
    joined = net.compute("join", Sum(), both, ["sum"])
    net.exit("final", nn.Linear(4, 3), {"x": joined})
    return net


def test_routes_several_controllers_constants_and_parameters() -> None:
    bundle = lower(routed().build())
    session = onnxruntime.InferenceSession(fuse(bundle), quiet())
    network = dynrt.runtime.load(bundle)
    paths = set()
    for k in (None, -1.0, 1.0):
        for x in images(8, 4):
            feeds = {"x": x[None]} | ({} if k is None else {"k": np.array([[k]], np.float32)})
            result = network.run({n: v[0] for n, v in feeds.items()})
            np.testing.assert_allclose(
                session.run(["answer"], feeds)[0][0], result.answer, atol=1e-6
            )
            paths.add(result.path)
    assert len(paths) == 3


def test_a_last_exit_that_rejects_still_answers() -> None:
    net = NetworkBuilder("unsure")
    x = net.input("x", (4,))
    net.exit(
        "a", nn.Linear(4, 3), {"x": x}, accept=Accept(kind="margin", port="logits", threshold=0.1)
    )
    net.exit(
        "b", nn.Linear(4, 3), {"x": x}, accept=Accept(kind="margin", port="logits", threshold=2.0)
    )
    assert same(lower(net.build()), images(12, 4)) == {"a", "b"}


def controlled_exit() -> Bundle:
    net = NetworkBuilder("controlled")
    x = net.input("x", (4,))
    net.gate("g", nn.Linear(4, 1), {"x": x}, actions=[["first"]])
    net.exit("first", nn.Linear(4, 2), {"x": x})
    net.exit("final", nn.Linear(4, 2), {"x": x})
    return lower(net.build())


def null_travels() -> Bundle:
    net = NetworkBuilder("null")
    x = net.input("x", (4,))
    net.gate("g", nn.Linear(4, 1), {"x": x}, actions=[["a"]])
    a = net.compute("a", nn.Identity(), {"x": x})
    b = net.compute("b", nn.Tanh(), {"x": a})
    net.exit("final", nn.Linear(4, 2), {"x": wire(b, default="zeros")})
    return lower(net.build())


def summed() -> Bundle:
    net = NetworkBuilder("summed")
    x = net.input("x", (4,))
    net.exit("a", nn.Linear(4, 2), {"x": x})
    net.exit("b", nn.Linear(4, 2), {"x": x})
    return lower(net.build(combine=Combine(kind="sum")))


def two_operator_sets() -> Bundle:
    bundle = bundle_of("margin")
    model = onnx.load_model_from_string(bundle.models["stem"])
    model.opset_import[0].version = 16
    models = {**bundle.models, "stem": model.SerializeToString()}
    return build_bundle(name="old", graph=bundle.graph, models=models)


@pytest.mark.parametrize(
    ("bundle", "says"),
    [
        (controlled_exit, "exit 'first' is under control; no fused form"),
        (null_travels, r"a\.y may be skipped and b\.x has no default"),
        (summed, "answers joined by 'sum' have no fused form"),
        (two_operator_sets, r"operator sets \[16, 17\]; one is needed"),
    ],
)
def test_what_has_no_fused_form(bundle: Callable[[], Bundle], says: str) -> None:
    with pytest.raises(ExportError, match=says):
        fuse(bundle())
