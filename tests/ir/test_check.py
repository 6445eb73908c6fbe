"""Every violation provoked on an otherwise valid graph, and named with its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dynrt.errors import GraphError
from dynrt.ir.check import check, require_valid
from dynrt.ir.cost import Cost
from dynrt.ir.graph import (
    Accept,
    Argmax,
    Combine,
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

V = TensorType(dtype="float32", shape=(4,))
W = TensorType(dtype="float32", shape=(5,))
D = TensorType(dtype="float64", shape=(4,))
S = TensorType(dtype="float32", shape=(2,))


def ref(text: str) -> PortRef:
    node, port = text.split(".")
    return PortRef(node, port)


def compute(name: str, *inputs: str, out: TensorType = V, macs: int = 5) -> ComputeNode:
    return ComputeNode(
        name=name,
        inputs=tuple(Port(name=i, type=V) for i in inputs),
        outputs=(Port(name="y", type=out),),
        cost=Cost(macs=macs),
    )


def exit_node(name: str, accept: Accept, out: TensorType = V) -> Exit:
    return Exit(
        name=name,
        inputs=(Port(name="a", type=V),),
        outputs=(Port(name="y", type=out),),
        answer="y",
        accept=accept,
        cost=Cost(macs=1),
    )


def edge(source: str, target: str, default: Constant | PortRef | None = None) -> DataEdge:
    return DataEdge(source=ref(source), target=ref(target), default=default)


def high_low() -> Graph:
    """D2NN figure 3a: a control node picks the high or the low path; both may answer."""
    return Graph(
        nodes=(
            InputNode(name="x", type=V),
            compute("gate", "a", out=S),
            ControlNode(name="q", actions=2, rule=Argmax()),
            compute("high", "a", macs=50),
            compute("low", "a", macs=10),
            exit_node("first", Accept(kind="hinge", port="y", threshold=1.0)),
            exit_node("last", Accept(kind="always")),
        ),
        data=(
            edge("x.x", "gate.a"),
            edge("gate.y", "q.scores"),
            edge("x.x", "high.a"),
            edge("x.x", "low.a"),
            edge("high.y", "first.a"),
            edge("low.y", "last.a", ref("high.y")),
        ),
        control=(
            ControlEdge(control="q", target="high", action=0),
            ControlEdge(control="q", target="low", action=1),
        ),
        exits=("first", "last"),
    )


Change = Callable[[Graph], Graph]


def node(name: str, **changes: object) -> Change:
    def change(graph: Graph) -> Graph:
        nodes = (replace(n, **changes) if n.name == name else n for n in graph.nodes)  # type: ignore[arg-type]
        return replace(graph, nodes=tuple(nodes))

    return change


def add(*nodes: object, data: tuple[DataEdge, ...] = (), **changes: object) -> Change:
    def change(graph: Graph) -> Graph:
        grown = replace(graph, nodes=graph.nodes + nodes, data=graph.data + data)  # type: ignore[operator]
        return replace(grown, **changes)  # type: ignore[arg-type]

    return change


def edges(*, drop: str = "", **new: DataEdge) -> Change:
    def change(graph: Graph) -> Graph:
        kept = tuple(e for e in graph.data if str(e.target) != drop)
        return replace(graph, data=kept + tuple(new.values()))

    return change


def controls(*extra: ControlEdge, drop: int | None = None) -> Change:
    def change(graph: Graph) -> Graph:
        kept = tuple(e for i, e in enumerate(graph.control) if i != drop)
        return replace(graph, control=kept + extra)

    return change


def switch(control: str, target: str, action: int) -> ControlEdge:
    return ControlEdge(control=control, target=target, action=action)


BROKEN: list[tuple[str, str, Change]] = [
    ("duplicate-node", "low", add(compute("low", "a"))),
    ("bad-name", "'no name'", add(compute("no name"))),
    ("bad-name", "'low.a b'", node("low", outputs=(Port(name="a b", type=V),))),
    ("duplicate-port", "low.a", node("low", outputs=(Port(name="a", type=V),))),
    ("no-output", "low", node("low", outputs=())),
    ("bad-dtype", "x.x", node("x", type=TensorType(dtype="complex64", shape=(4,)))),
    ("bad-shape", "x.x", node("x", type=TensorType(dtype="float32", shape=(0,)))),
    ("negative-cost", "low", node("low", cost=Cost(macs=-1))),
    ("negative-cost", "low", node("low", cost=Cost(macs=1, femtojoules=-1))),
    ("no-action", "q", node("q", actions=0)),
    ("threshold-count", "q", node("q", rule=Threshold(thresholds=(0.0,)))),
    ("bad-threshold", "q", node("q", rule=Threshold(thresholds=(0.0, float("nan"))))),
    ("bad-threshold", "last", node("last", accept=Accept(kind="always", threshold=float("nan")))),
    ("unknown-answer", "last", node("last", answer="z")),
    ("unknown-score", "first", node("first", accept=Accept(kind="margin", port="z"))),
    ("bad-rule", "first", node("first", accept=Accept(kind="mood", port="y"))),  # type: ignore[arg-type]
    ("exit-order", "graph", lambda g: replace(g, exits=("first",))),
    ("no-exit", "graph", lambda g: replace(g, nodes=g.nodes[:3], exits=())),
    ("default-shape", "k", add(InputNode(name="k", type=V, param=Constant(np.zeros(3, "f4"))))),
    ("default-dtype", "k", add(InputNode(name="k", type=V, param=Constant(np.zeros(4, "f8"))))),
    ("duplicate-edge", "low.a", edges(e=edge("x.x", "low.a"))),
    ("duplicate-edge", "q[1]->low", controls(switch("q", "low", 1))),
    ("unknown-node", "ghost.y", edges(e=edge("ghost.y", "low.a"))),
    ("unknown-node", "q[1]->ghost", controls(switch("q", "ghost", 1))),
    ("unknown-port", "low.z", edges(e=edge("x.x", "low.z"))),
    ("unknown-port", "high.z", edges(drop="last.a", e=edge("low.y", "last.a", ref("high.z")))),
    ("dangling-port", "low.a", edges(drop="low.a")),
    ("mixed-outgoing", "gate[1]->low", controls(switch("gate", "low", 1))),
    ("edge-without-action", "q[2]->low", controls(switch("q", "low", 2))),
    ("control-under-control", "q[1]->q", controls(switch("q", "q", 1))),
    ("controlled-input", "q[1]->x", controls(switch("q", "x", 1))),
    ("action-without-edge", "q[1]", controls(drop=1)),
    ("shape", "low.y->last.a", node("low", outputs=(Port(name="y", type=W),))),
    ("dtype", "low.y->last.a", node("low", outputs=(Port(name="y", type=D),))),
    (
        "default-shape",
        "last.a",
        edges(drop="last.a", e=edge("low.y", "last.a", Constant(np.zeros(5, "f4")))),
    ),
    (
        "default-dtype",
        "last.a",
        edges(drop="last.a", e=edge("low.y", "last.a", Constant(np.zeros(4, "f8")))),
    ),
    (
        "default-shape",
        "gate.y->last.a",
        edges(drop="last.a", e=edge("low.y", "last.a", ref("gate.y"))),
    ),
    ("answer-type", "last", node("last", outputs=(Port(name="y", type=W),))),
    (
        "answer-type",
        "last",
        lambda g: replace(
            node("last", outputs=(Port(name="y", type=D),))(g), combine=Combine(kind="concat")
        ),
    ),
    ("cycle", "low", edges(drop="low.a", e=edge("low.y", "low.a"))),
    ("cycle", "q", edges(drop="gate.a", e=edge("low.y", "gate.a"))),
    ("exit-feeds", "first", edges(drop="low.a", e=edge("first.y", "low.a"))),
    ("dead-node", "idle", add(compute("idle", "a"), data=(edge("x.x", "idle.a"),))),
    ("combine", "graph", lambda g: replace(g, combine=Combine(kind="sum"))),
    ("no-answer", "last", node("q", rule=Threshold(thresholds=(0.0, 0.0)))),
    (
        "unreachable-exit",
        "last",
        lambda g: node("first", accept=Accept(kind="always"))(
            edges(drop="first.a", e=edge("high.y", "first.a", ref("x.x")))(g)
        ),
    ),
]


def test_the_graph_they_start_from_is_valid() -> None:
    assert check(high_low()) == []


@pytest.mark.parametrize(
    ("code", "place", "change"), BROKEN, ids=[f"{c}@{p}" for c, p, _ in BROKEN]
)
def test_violation_is_named(code: str, place: str, change: Change) -> None:
    found = check(change(high_low()))
    assert code in {v.code for v in found}
    mine = next(v for v in found if v.code == code)
    assert place in mine.place
    assert mine.message
    assert mine.mend


def test_error_carries_all_violations_and_the_place() -> None:
    broken = add(compute("low", "a"), compute("no name"))(high_low())
    with pytest.raises(
        GraphError, match=r"after pass 'x': duplicate-node at low.*\(\+1 more\)"
    ) as e:
        require_valid(broken, "after pass 'x'")
    assert e.value.codes == ("duplicate-node", "bad-name")


def test_a_long_cycle_is_shown_whole() -> None:
    nodes: list[Node] = [InputNode(name="x", type=V)]
    nodes += [compute(f"n{i}", "a") for i in range(300)]
    data = [edge(f"n{i}.y", f"n{(i + 1) % 300}.a") for i in range(300)]
    graph = Graph(
        nodes=(*nodes, exit_node("e", Accept(kind="always"))),
        data=(*data, edge("n0.y", "e.a")),
        exits=("e",),
    )
    (violation,) = check(graph)
    assert violation.code == "cycle"
    assert violation.place.count("->") == 300
