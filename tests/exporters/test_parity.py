"""Parity finds what is broken, says where, and reaches every exit and gate value."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynrt.bundle import Bundle, build_bundle
from dynrt.errors import ParityError
from dynrt.exporters.chains import Gate, d_gate, gated_blocks, sequential_exits
from dynrt.exporters.compare import (
    TOLERANCES,
    Execution,
    Tolerance,
    difference,
    largest_error,
    tie_gap,
)
from dynrt.exporters.lower import lower
from dynrt.exporters.parity import prove
from dynrt.exporters.spec import ExitSpec, NetworkBuilder, NetworkSpec, wire
from dynrt.ir.graph import Accept, Argmax, Array, Graph, TensorType, Threshold
from tests.exporters.networks import Block, TwoHeads, images, pooled_head

IMAGE = TensorType(dtype="float32", shape=(3, 8, 8))
SAMPLES = [{"image": x} for x in images(6, 3, 8, 8)]


def early_exits(seed: int = 0) -> NetworkSpec:
    torch.manual_seed(seed)
    return sequential_exits(
        "early",
        IMAGE,
        [("stem", nn.Conv2d(3, 8, 3, 1, 1)), ("body", Block(8, 8)), ("tail", Block(8, 8))],
        {
            "stem": d_gate(TwoHeads(8), threshold=0.4),
            "body": pooled_head(8),
            "tail": pooled_head(8),
        },
    ).build()


def changed(bundle: Bundle, graph: Graph | None = None, **models: bytes) -> Bundle:
    return build_bundle(
        name=bundle.name,
        graph=graph or bundle.graph,
        models={**bundle.models, **models},
        provenance=bundle.provenance,
    )


def test_the_report_counts_what_was_proven() -> None:
    spec = early_exits()
    report = prove(spec, lower(spec), SAMPLES, forced_inputs=2)
    assert report.inputs == 6
    assert report.runs == 6 + 3 * 2
    assert report.covered == ("exit1", "exit2", "final")
    assert report.paths >= 3
    assert 0 < report.max_abs_error < 1e-5
    assert report.tolerance == TOLERANCES["float32"]
    assert report.max_error_node in {"stem", "body", "tail", "exit1", "exit2", "final"}
    assert str(report).startswith("6 inputs, 12 runs over ")
    assert "(allowed 0.0001 + 0.0001 * largest value)" in str(report)


@pytest.mark.parametrize("node", ["stem", "body", "tail", "exit1", "exit2", "final"])
def test_a_weight_changed_after_the_export_is_found(node: str) -> None:
    spec = early_exits()
    bundle = lower(spec)
    module = spec.modules[node]
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] += 0.5
    with pytest.raises(
        ParityError, match=f"^node '{node}', output .*, input .*differs by"
    ) as caught:
        prove(spec, bundle, SAMPLES)
    assert "(ONNX against modules)" in str(caught.value)
    assert "is allowed" in str(caught.value)


def shut_block() -> NetworkSpec:
    """No input reaches the second block by itself: its gate is shut."""
    shut = Gate(
        module=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)), threshold=1e6
    )
    blocks = [("stem", nn.Conv2d(3, 8, 3, 1, 1)), ("block", Block(8, 8))]
    return gated_blocks("shut", IMAGE, blocks, {"block": shut}, {"block": pooled_head(8)}).build()


def test_a_node_of_a_seldom_path_is_found_by_forcing_it() -> None:
    spec = shut_block()
    bundle = lower(spec)
    report = prove(spec, bundle, SAMPLES)
    assert report.covered == ("block_gate_control[0]=off", "block_gate_control[0]=on", "final")
    with torch.no_grad():
        next(spec.modules["block"].parameters()).add_(0.1)
    says = r"node 'block', output 'y', input \d, forced block_gate_control\[0\]=on"
    with pytest.raises(ParityError, match=says):
        prove(spec, bundle, SAMPLES)


def test_rounded_weights_may_differ_more_where_a_path_is_forced() -> None:
    half = TOLERANCES["float16"]
    torch.manual_seed(0)
    spec = shut_block()
    bundle = lower(spec, weights="float16")
    report = prove(spec, bundle, SAMPLES)
    assert report.forced_tolerance == half.times(4)
    assert "; on forced paths 0.02 + 0.02 * largest value)" in str(report)
    block = spec.modules["block"]
    assert isinstance(block, Block)
    with torch.no_grad():
        block.bn2.bias.add_(0.03)
    prove(spec, bundle, SAMPLES)
    with pytest.raises(ParityError, match="forced block_gate_control"):
        prove(spec, bundle, SAMPLES, tolerance=half)
    with torch.no_grad():
        block.bn2.bias.add_(0.5)
    with pytest.raises(ParityError, match="forced block_gate_control"):
        prove(spec, bundle, SAMPLES)


def test_a_nested_gate_is_reached() -> None:
    net = NetworkBuilder("nested")
    x = net.input("x", (4,))
    outer = net.compute("outer", nn.Linear(4, 2), {"x": x}, ["scores"])
    net.control("outer_choice", outer, Argmax(), [["bypass"], ["inner"]])
    net.compute("bypass", nn.Identity(), {"x": x})
    inner = net.compute("inner", nn.Linear(4, 1), {"x": x}, ["scores"])
    net.control("inner_choice", inner, Threshold(thresholds=(1e6,)), [["deep"]])
    deep = net.compute("deep", nn.Linear(4, 4), {"x": x})
    net.exit("final", Sum(), {"x": wire(deep, default="deep.x"), "y": wire("bypass.y", default="zeros")})  # fmt: skip
    spec = net.build()
    report = prove(spec, lower(spec), [{"x": x} for x in images(3, 4)])
    assert {"inner_choice[0]=on", "inner_choice[0]=off", "outer_choice[1]=on"} <= set(
        report.covered
    )


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.linear(x + y)
        return out


def test_another_decision_in_the_bundle_is_found() -> None:
    """The bundle's gate says the opposite: its outputs differ already."""
    spec = early_exits()
    bundle = lower(spec)
    other = lower(early_exits(seed=1))
    broken = changed(bundle, exit1=other.models["exit1"])
    with pytest.raises(ParityError, match="node 'exit1', output 'logits'"):
        prove(spec, broken, SAMPLES)


def threshold_at(spec: NetworkSpec, score: float) -> NetworkSpec:
    nodes = tuple(
        replace(n, accept=replace(n.accept, threshold=score))
        if isinstance(n, ExitSpec) and n.name == "exit1"
        else n
        for n in spec.nodes
    )
    return replace(spec, nodes=nodes)


def test_near_ties_are_counted_and_need_not_agree() -> None:
    spec = early_exits()
    gates = spec.functions()
    features = gates["stem"]({"x": SAMPLES[0]["image"][None]})["y"]
    score = float(gates["exit1"]({"x": features})["distances"].max())
    # a threshold between the score of torch and that of a bundle whose last bits differ
    nudged = copy.deepcopy(spec)
    with torch.no_grad():
        nudged.modules["exit1"].gate.bias.sub_(2e-5)  # type: ignore[operator, union-attr]
    tight = threshold_at(spec, score - 1e-5)
    report = prove(tight, lower(threshold_at(nudged, score - 1e-5)), SAMPLES[:1])
    assert report.near_ties >= 1
    assert report.turned == 1
    far = threshold_at(spec, score - 1.0)
    assert prove(far, lower(far), SAMPLES[:1]).near_ties == 0


def test_no_inputs_no_proof() -> None:
    spec = early_exits()
    with pytest.raises(ParityError, match="bundle 'early': no inputs"):
        prove(spec, lower(spec), [])


def test_what_cannot_be_reached_is_an_error() -> None:
    """Scores that are infinite cannot be forced."""

    class Infinite(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((1, 2, 3))[:, None] * 0 + float("inf")

    blocks = [("stem", nn.Conv2d(3, 8, 3, 1, 1)), ("block", Block(8, 8))]
    gates = {"block": Infinite()}
    spec = gated_blocks("stuck", IMAGE, blocks, gates, {"block": pooled_head(8)}).build()
    with pytest.raises(
        ParityError, match=r"could not be made to reach block_gate_control\[0\]=off"
    ):
        prove(spec, lower(spec), SAMPLES)


# --- the comparison itself, on executions made by hand


def execution(who: str = "a", **change: object) -> Execution:
    base = Execution(
        who=who,
        gave={"stem": {"y": np.zeros((1, 2), np.float32)}, "final": logits(1.0, 0.0)},
        decisions={},
        exit="final",
        answer=np.array([[1.0, 0.0]], np.float32),
        macs=5,
        path=("stem", "final"),
    )
    return replace(base, **change)  # type: ignore[arg-type]


def logits(*values: float) -> dict[str, Array]:
    return {"logits": np.array([values], np.float32)}


def two_step_graph() -> Graph:
    net = NetworkBuilder("two")
    stem = net.compute("stem", nn.Linear(2, 2), {"x": net.input("x", (2,))})
    net.exit("final", nn.Linear(2, 2), {"x": stem})
    return lower(net.build()).graph


LIMIT = Tolerance(absolute=1e-3, relative=0.0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"gave": {"final": logits(1.0, 0.0)}}, "node 'stem', here .*: ran in only one of the two"),
        (
            {"gave": {"stem": {"y": np.zeros((1, 3), np.float32)}, "final": logits(1, 0)}},
            r"node 'stem', output 'y', here .*: float32\(1, 3\) instead of float32\(1, 2\)",
        ),
        ({"macs": 6}, "exit 'final', here .*: 6 MACs instead of 5"),
        ({"path": ("final",)}, "path final instead of stem final"),
        ({"answer": np.array([[2.0, 0.0]], np.float32)}, "the answer differs by 1; at most 0.001"),
        (
            {"exit": "other"},
            r"node 'final', here .*: decided \(0,\) instead of \(1,\) \(no score\)",
        ),
    ],
)
def test_each_way_to_differ(change: dict[str, object], says: str) -> None:
    with pytest.raises(ParityError, match=says):
        difference(two_step_graph(), execution(), execution("b", **change), LIMIT, place="here")


def test_equal_executions_do_not_differ() -> None:
    found = difference(two_step_graph(), execution(), execution("b"), LIMIT, place="here")
    assert (found.max_abs_error, found.turned) == (0.0, None)


def test_errors_of_values_that_are_not_finite() -> None:
    inf, nan = float("inf"), float("nan")
    assert largest_error(np.array([inf, nan, 1.0]), np.array([inf, nan, 1.5])) == 0.5
    assert largest_error(np.array([inf]), np.array([-inf])) == inf
    assert np.isnan(largest_error(np.array([nan]), np.array([1.0])))
    assert largest_error(np.zeros((0,)), np.zeros((0,))) == 0.0
    assert Tolerance(absolute=1.0, relative=0.5).allowed(np.array([inf, -4.0])) == 3.0


def scored(rule: Argmax | Threshold) -> tuple[Graph, Execution]:
    """A control node or exit whose score is 0.3 above its threshold or its rival."""
    net = NetworkBuilder("scored")
    x = net.input("x", (2,))
    gate = net.compute("gate", nn.Linear(2, 2), {"x": x}, ["scores"])
    net.control("choice", gate, rule, [["a"], ["b"]])
    net.compute("a", nn.Identity(), {"x": x})
    net.compute("b", nn.Identity(), {"x": x})
    wires = {"p": wire("a.y", default="zeros"), "q": wire("b.y", default="zeros")}
    net.exit("final", Sum2(), wires)
    graph = lower(net.build()).graph
    gave = {"gate": {"scores": np.array([[0.5, 0.2]], np.float32)}}
    return graph, execution(gave=gave, decisions={"choice": (0,)}, path=("gate",))


class Sum2(nn.Module):
    def forward(self, p: Tensor, q: Tensor) -> Tensor:
        return p + q


def test_gaps_of_gates() -> None:
    limit = Tolerance(absolute=0.01, relative=0.0)
    graph, run = scored(Argmax())
    assert tie_gap(graph, "choice", run, limit) == pytest.approx(0.3 - 0.02)
    graph, run = scored(Threshold(thresholds=(0.1, 0.205)))
    assert tie_gap(graph, "choice", run, limit) == pytest.approx(0.005 - 0.01)
    assert tie_gap(graph, "final", run, limit) is None
    assert tie_gap(graph, "gate", run, limit) is None


def test_every_accept_rule_is_forced_both_ways() -> None:
    for kind in ("hinge", "max_softmax", "margin", "entropy", "never"):
        accept = Accept(kind=kind, port="logits" if kind != "never" else "", threshold=0.5)
        net = NetworkBuilder(kind)
        stem = net.compute("stem", nn.Linear(4, 4), {"x": net.input("x", (4,))})
        net.exit("early", nn.Linear(4, 3), {"x": stem}, accept=accept)
        net.exit("final", nn.Linear(4, 3), {"x": stem})
        spec = net.build()
        report = prove(spec, lower(spec), [{"x": x} for x in images(3, 4)])
        assert report.covered == ("early", "final"), kind
