"""The reference semantics on hand-derived cases: D2NN section 3, DDI section III-B, d-gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from dynrt.errors import BudgetRefusedError, GraphError
from dynrt.ir.cost import Budget
from dynrt.ir.graph import (
    Accept,
    Argmax,
    Array,
    Combine,
    ComputeNode,
    Constant,
    ControlNode,
    DataEdge,
    Exit,
    Graph,
    InputNode,
    PortRef,
    Threshold,
)
from dynrt.ir.reference import Function, interpret
from tests.ir.test_certificate import skipping_chain
from tests.ir.test_check import V, compute, edge, edges, exit_node, high_low, node, switch

X = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)


def plus(n: float, port: str = "y") -> Function:
    return lambda inputs: {port: next(iter(inputs.values())) + np.float32(n)}


def scores(*values: float) -> Function:
    return lambda _: {"y": np.array([values], np.float32)}


def high_low_functions(*gate: float) -> dict[str, Function]:
    same = plus(0)
    return {"gate": scores(*gate), "high": plus(10), "low": plus(1), "first": same, "last": same}


@pytest.mark.parametrize(("gate", "ran"), [((1, 0), "high"), ((0, 1), "low"), ((2, 2), "high")])
def test_one_path_runs_and_a_tie_takes_the_lowest_action(gate: tuple[float, ...], ran: str) -> None:
    result = interpret(high_low(), high_low_functions(*gate), {"x": X})
    assert ("high" in result.path, "low" in result.path) == (ran == "high", ran == "low")
    assert result.answer.tolist() == (X + (10 if ran == "high" else 1)).tolist()


def test_identity_default_hands_on_what_the_skipped_block_would_have_taken() -> None:
    graph = skipping_chain(3)
    functions: dict[str, Function] = {"e": plus(0)}
    for i, keep in enumerate((True, False, True)):
        score = np.array([[0.5 if keep else -0.5]], np.float32)
        functions[f"g{i}"] = lambda _, s=score: {"s": s}  # type: ignore[misc]
        functions[f"b{i}"] = plus(10**i)
    result = interpret(graph, functions, {"x": X})
    assert result.path == ("g0", "b0", "g1", "g2", "b2", "e")
    assert result.answer.tolist() == (X + 101).tolist()
    assert result.macs == 3 + 2 * 10 + 1
    assert result.decisions == {"q0": (0,), "q1": (), "q2": (0,)}


def test_null_propagates_and_a_constant_default_stops_it() -> None:
    # n2 is skipped: n3 has no default and is null, n4 has one and runs (D2NN figure 1)
    graph = Graph(
        nodes=(
            InputNode(name="x", type=V),
            compute("gate", "a", out=replace(V, shape=(2,))),
            ControlNode(name="q", actions=2, rule=Argmax()),
            compute("n2", "a"),
            compute("dummy"),
            compute("n3", "a"),
            compute("n4", "a", "b"),
            exit_node("e", Accept(kind="always")),
        ),
        data=(
            edge("x.x", "gate.a"),
            edge("gate.y", "q.scores"),
            edge("x.x", "n2.a"),
            edge("n2.y", "n3.a"),
            edge("n3.y", "n4.a", Constant(np.full(4, 7, "f4"))),
            edge("dummy.y", "n4.b"),
            edge("n4.y", "e.a"),
        ),
        control=(switch("q", "n2", 0), switch("q", "dummy", 1)),
        exits=("e",),
    )
    functions: dict[str, Function] = {
        "gate": scores(0, 1),
        "n2": plus(1),
        "n3": plus(1),
        "dummy": lambda _: {"y": np.zeros((1, 4), np.float32)},
        "n4": lambda i: {"y": i["a"] + i["b"]},
        "e": plus(0),
    }
    result = interpret(graph, functions, {"x": X})
    assert result.path == ("gate", "dummy", "n4", "e")
    assert result.answer.tolist() == [[7, 7, 7, 7]]


def test_any_active_edge_of_several_controllers_is_enough() -> None:
    base = high_low()
    both = replace(base, control=(*base.control, switch("q", "high", 1)))
    for gate in ((1, 0), (0, 1)):
        result = interpret(
            both, high_low_functions(*gate), {"x": X}, thresholds={"first": float("inf")}
        )
        assert ("high" in result.path, "low" in result.path) == (True, gate == (0, 1))


def test_thresholds_may_switch_none_one_or_several() -> None:
    graph = node("q", rule=Threshold(thresholds=(0.0, 0.0)))(
        edges(drop="first.a", e=edge("high.y", "first.a", PortRef("x", "x")))(high_low())
    )
    for gate, ran in (((-1, -1), set()), ((1, -1), {"high"}), ((0, 0), {"high", "low"})):
        result = interpret(graph, high_low_functions(*gate), {"x": X}, thresholds={"first": 99.0})
        assert set(result.path) & {"high", "low"} == ran


def test_thresholds_given_by_the_caller() -> None:
    functions = high_low_functions(1, 0)
    assert interpret(high_low(), functions, {"x": X}, thresholds={"first": 15.0}).exit == "last"
    strict = interpret(high_low(), functions, {"x": X}, thresholds={"first": 14.0})
    assert (strict.exit, strict.accepted) == ("first", True)


def exits_chain(*kinds: Accept) -> tuple[Graph, dict[str, Function]]:
    """Blocks of 10 MACs, an exit of 1 MAC after each; block i adds 1."""
    nodes: list[ComputeNode | Exit | InputNode] = [InputNode(name="x", type=V)]
    data: list[DataEdge] = []
    functions: dict[str, Function] = {}
    before = "x.x"
    for i, accept in enumerate(kinds):
        nodes += [compute(f"b{i}", "a", macs=10), exit_node(f"e{i}", accept)]
        data += [edge(before, f"b{i}.a"), edge(f"b{i}.y", f"e{i}.a")]
        before = f"b{i}.y"
        functions |= {f"b{i}": plus(1), f"e{i}": plus(0)}
    names = tuple(f"e{i}" for i in range(len(kinds)))
    return Graph(nodes=tuple(nodes), data=tuple(data), exits=names), functions


NEVER, ALWAYS = Accept(kind="never"), Accept(kind="always")


@pytest.mark.parametrize(
    ("macs", "end", "spent"),
    [
        (11, "e0", 11),
        (20, "e0", 11),
        (21, "e1", 21),
        (30, "e1", 21),
        (31, "e2", 31),
        (99, "e2", 31),
    ],
)
def test_stop_at_the_latest_exit_that_the_budget_reaches(macs: int, end: str, spent: int) -> None:
    graph, functions = exits_chain(NEVER, NEVER, ALWAYS)
    result = interpret(graph, functions, {"x": X}, budget=Budget(macs=macs))
    assert (result.exit, result.macs) == (end, spent)
    assert result.forced is (end != "e2")


def test_below_the_cheapest_answer_is_refused() -> None:
    graph, functions = exits_chain(NEVER, ALWAYS)
    with pytest.raises(BudgetRefusedError):
        interpret(graph, functions, {"x": X}, budget=Budget(macs=10))


def test_a_head_runs_only_if_it_may_accept_or_is_the_stop() -> None:
    rule = Accept(kind="hinge", port="y", threshold=100.0)
    graph, functions = exits_chain(rule, NEVER, ALWAYS)
    asked = interpret(graph, functions, {"x": X})
    assert asked.path == ("b0", "e0", "b1", "b2", "e2")
    unasked = interpret(graph, functions, {"x": X}, thresholds={"e0": float("inf")})
    assert unasked.path == ("b0", "b1", "b2", "e2")


def test_a_gate_that_the_budget_settles_is_not_run() -> None:
    graph = skipping_chain(2)
    functions: dict[str, Function] = {"e": plus(0), "b0": plus(1), "b1": plus(1)}
    functions |= {f"g{i}": lambda _: {"s": np.ones((1, 1), np.float32)} for i in range(2)}
    spent = {
        macs: interpret(graph, functions, {"x": X}, budget=Budget(macs=macs))
        for macs in (1, 2, 12, 13)
    }
    assert spent[1].path == ("e",)  # both skipped unseen
    assert spent[2].path == ("g0", "e")  # the first gate asks for its block, which is too dear
    assert spent[12].path == ("g0", "b0", "e")
    assert spent[13].path == ("g0", "b0", "g1", "e")
    assert all(r.forced for r in spent.values())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("last", [2, 3, 4, 5]),
        ("sum", [3, 5, 7, 9]),
        ("max", [2, 3, 4, 5]),
        ("concat", [1, 2, 3, 4, 2, 3, 4, 5]),
    ],
)
def test_terminals_combine(kind: str, expected: list[float]) -> None:
    graph = Graph(
        nodes=(InputNode(name="x", type=V), exit_node("e0", ALWAYS), exit_node("e1", ALWAYS)),
        data=(edge("x.x", "e0.a"), edge("x.x", "e1.a")),
        exits=("e0", "e1"),
        combine=Combine(kind=kind),  # type: ignore[arg-type]
    )
    result = interpret(graph, {"e0": plus(0), "e1": plus(1)}, {"x": X})
    assert result.answer[0].tolist() == expected
    assert result.macs == (1 if kind == "last" else 2)


def test_concat_fills_in_for_a_leaf_that_did_not_answer() -> None:
    base = edges(drop="last.a", e=edge("low.y", "last.a"))(high_low())
    leaves = replace(
        node("first", accept=ALWAYS)(base), combine=Combine(kind="concat", absent=-9.0)
    )
    result = interpret(leaves, high_low_functions(0, 1), {"x": X})
    assert result.answer[0].tolist() == [-9, -9, -9, -9, 2, 3, 4, 5]


def test_parameters_may_be_left_out() -> None:
    graph = Graph(
        nodes=(
            InputNode(name="x", type=V),
            InputNode(name="k", type=V, param=Constant(np.full(4, 5, "f4"))),
            compute("n", "a", "b"),
            exit_node("e", ALWAYS),
        ),
        data=(edge("x.x", "n.a"), edge("k.k", "n.b"), edge("n.y", "e.a")),
        exits=("e",),
    )

    def add(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"y": inputs["a"] + inputs["b"]}

    functions = {"n": add, "e": plus(0)}
    assert interpret(graph, functions, {"x": X}).answer.tolist() == (X + 5).tolist()
    given = interpret(graph, functions, {"x": X, "k": np.zeros((1, 4), np.float32)})
    assert given.answer.tolist() == X.tolist()


def test_an_unchecked_graph_without_an_answer_is_named() -> None:
    graph = node("q", rule=Threshold(thresholds=(9.0, 9.0)))(high_low())
    with pytest.raises(GraphError, match="no-answer"):
        interpret(graph, high_low_functions(0, 0), {"x": X})
