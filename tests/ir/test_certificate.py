"""Certificates of graphs whose bounds can be derived by hand, and the fallback for huge ones."""

from __future__ import annotations

import numpy as np
import pytest

from dynrt.errors import BudgetError, GraphError
from dynrt.ir.certificate import ExitCost, certify
from dynrt.ir.check import check
from dynrt.ir.completion import Completion, pareto
from dynrt.ir.cost import Budget, Cost
from dynrt.ir.flow import Flow
from dynrt.ir.graph import (
    Accept,
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
from dynrt.runtime import CallableBackend, Network
from tests.graphs import random_case
from tests.ir.test_check import compute, edge, exit_node, high_low

V = TensorType(dtype="float32", shape=(4,))


def skipping_chain(blocks: int) -> Graph:
    """``blocks`` residual blocks of 10 MACs, each with a gate of 1 MAC that may skip it."""
    score = TensorType(dtype="float32", shape=(1,))
    nodes: list[Node] = [InputNode(name="x", type=V)]
    data: list[DataEdge] = []
    control = []
    before, skipped = PortRef("x", "x"), None
    for i in range(blocks):
        gate = ComputeNode(
            name=f"g{i}",
            inputs=(Port(name="a", type=V),),
            outputs=(Port(name="s", type=score),),
            cost=Cost(macs=1),
        )
        rule = Threshold(thresholds=(0.0,))
        nodes += [
            gate,
            ControlNode(name=f"q{i}", actions=1, rule=rule),
            compute(f"b{i}", "a", macs=10),
        ]
        data += [
            DataEdge(source=before, target=PortRef(f"g{i}", "a"), default=skipped),
            DataEdge(source=PortRef(f"g{i}", "s"), target=PortRef(f"q{i}", "scores")),
            DataEdge(source=before, target=PortRef(f"b{i}", "a"), default=skipped),
        ]
        control.append(ControlEdge(control=f"q{i}", target=f"b{i}", action=0))
        before, skipped = PortRef(f"b{i}", "y"), PortRef(f"b{i}", "a")
    data.append(DataEdge(source=before, target=PortRef("e", "a"), default=skipped))
    nodes.append(exit_node("e", Accept(kind="always")))
    return Graph(nodes=tuple(nodes), data=tuple(data), control=tuple(control), exits=("e",))


def test_high_low_bounds() -> None:
    # low path: its 10 + the head's 1, the gate settled; full: gate 5 + high 50 + both heads 2
    certificate = certify(high_low())
    assert certificate.cheapest_macs == 11
    assert certificate.full_macs == 57
    assert certificate.exact
    assert certificate.exits == (
        ExitCost(name="first", cheapest_macs=51, full_macs=56),
        ExitCost(name="last", cheapest_macs=11, full_macs=57),
    )
    assert certificate.cheapest_femtojoules is None


def test_a_skipping_chain_is_exact_at_any_length() -> None:
    certificate = certify(skipping_chain(200))
    assert certificate.exact
    assert certificate.cheapest_macs == 1
    assert certificate.full_macs == 200 * 11 + 1


def test_peak_memory_counts_what_is_alive_at_once() -> None:
    # x and y of one block, then a third tensor: x (16 bytes) dies when b0 has run
    graph = Graph(
        nodes=(
            InputNode(name="x", type=V),
            *(
                ComputeNode(
                    name=f"b{i}",
                    inputs=(Port(name="a", type=V),),
                    outputs=(Port(name="y", type=V),),
                    cost=Cost(macs=1),
                )
                for i in range(3)
            ),
            exit_node("e", Accept(kind="always")),
        ),
        data=(
            edge("x.x", "b0.a"),
            edge("b0.y", "b1.a"),
            edge("b1.y", "b2.a"),
            edge("b2.y", "e.a", PortRef("b0", "y")),
        ),
        exits=("e",),
    )
    # at b2: b0 (kept for the default), b1, b2; at e: b0, b2 and the answer
    assert certify(graph).peak_tensor_bytes == 3 * 16


def test_too_many_states_leave_a_stored_fallback() -> None:
    graph = skipping_chain(12)
    exact, stored = Completion(Flow(graph)), Completion(Flow(graph), limit=20)
    assert exact.exact
    assert not stored.exact
    assert stored.front(0, 0) == exact.front(0, 0) == ((1,),)
    certificate = certify(graph, limit=20)
    assert not certificate.exact
    assert certificate.cheapest_macs == 1
    assert certificate.full_macs == 12 * 11 + 1


def test_a_huge_graph_without_a_sure_exit_is_refused() -> None:
    assert certify(high_low()).answers
    with pytest.raises(GraphError, match="over 3 states") as error:
        certify(high_low(), limit=3)
    assert error.value.codes == ("no-answer",)


def test_fallback_keeps_the_hard_budget_on_random_graphs() -> None:
    for seed in range(60):
        case = random_case(seed, size=10)
        network = Network(case.graph, CallableBackend(case.functions))
        stored = Completion(Flow(case.graph), limit=1)
        if not stored.front(0, 0):
            continue
        network._plan._completions[("macs",)] = stored
        least = stored.front(0, 0)[0][0]
        for extra in (0, 1, 7, 30):
            if least + extra == 0:
                continue
            budget = Budget(macs=least + extra)
            for result in network.run_batch(case.inputs, budget=budget):
                assert result.macs <= least + extra, f"seed {seed}"


def test_unknown_energy_is_no_zero() -> None:
    with pytest.raises(BudgetError, match="energy table"):
        Completion(Flow(high_low()), ("femtojoules",))
    with pytest.raises(BudgetError, match="profile"):
        Completion(Flow(high_low()), ("nanoseconds",))


def test_pareto_keeps_what_nothing_beats() -> None:
    assert pareto([(3, 1), (1, 3), (2, 2), (3, 3)]) == ((1, 3), (2, 2), (3, 1))
    assert pareto([(5,), (4,)]) == ((4,),)
    assert pareto([]) == ()


def test_terminals_that_combine() -> None:
    leaves = tuple(exit_node(f"leaf{i}", Accept(kind="always")) for i in range(2))
    graph = Graph(
        nodes=(InputNode(name="x", type=V), *leaves),
        data=(edge("x.x", "leaf0.a"), edge("x.x", "leaf1.a")),
        exits=("leaf0", "leaf1"),
        combine=Combine(kind="sum"),
    )
    assert check(graph) == []
    certificate = certify(graph)
    assert (certificate.cheapest_macs, certificate.full_macs) == (1, 2)


def test_constants_are_values() -> None:
    one, other = Constant(np.ones(2, "f4")), Constant(np.ones(2, "f4"))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Constant(np.ones(2, "f8"))
    assert one != Constant(np.zeros(2, "f4"))
    with pytest.raises(ValueError, match="read-only"):
        one.value[0] = 2
    assert Constant.zeros(V) == Constant(np.zeros(4, "f4"))
    assert isinstance(high_low().by_name["first"], Exit)
