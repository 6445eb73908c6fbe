"""The compiled mode's machine, on plain functions: what it calls, and when it must think again."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dynrt.errors import BackendError, BudgetRefusedError
from dynrt.ir.cost import Budget, Cost
from dynrt.ir.graph import (
    Accept,
    Array,
    ComputeNode,
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
from dynrt.runtime import Network
from dynrt.runtime.backends import Function
from dynrt.runtime.machine import automaton as automata
from dynrt.runtime.machine import machine as machines
from tests.machines import FunctionEngine, compiled_network, compiled_of, portable_network

KIND = TensorType(dtype="float32", shape=(2,))
SCORE = TensorType(dtype="float32", shape=(1,))


def _cost(macs: int) -> Cost:
    return Cost(macs=macs, femtojoules=macs)


def _bit(i: int) -> Function:
    return lambda v: {"s": (v["a"][:, :1].astype(np.int64) >> i & 1).astype(np.float32)}


def skipper(blocks: int, *, bits: bool = False) -> tuple[Graph, dict[str, Function]]:
    """A chain of blocks that add one each; block ``i`` runs where ``x[0] >= i``.

    With ``bits``, it runs where bit ``i`` of ``x[0]`` is set.
    """
    nodes: list[Node] = [InputNode(name="x", type=KIND)]
    data, control = [], []
    functions: dict[str, Function] = {}
    source, default = PortRef("x", "x"), None
    for i in range(blocks):
        gate, rule, block = f"g{i}", f"q{i}", f"b{i}"
        nodes += [
            ComputeNode(
                name=gate,
                inputs=(Port(name="a", type=KIND),),
                outputs=(Port(name="s", type=SCORE),),
                cost=_cost(1),
            ),
            ControlNode(
                name=rule, actions=1, rule=Threshold(thresholds=(0.5 if bits else float(i),))
            ),
            ComputeNode(
                name=block,
                inputs=(Port(name="a", type=KIND),),
                outputs=(Port(name="y", type=KIND),),
                cost=_cost(10),
            ),
        ]
        for target in (PortRef(gate, "a"), PortRef(block, "a")):
            data.append(DataEdge(source=source, target=target, default=default))
        data.append(DataEdge(source=PortRef(gate, "s"), target=PortRef(rule, "scores")))
        control.append(ControlEdge(control=rule, target=block, action=0))
        functions[gate] = _bit(i) if bits else lambda v: {"s": v["a"][:, :1]}
        functions[block] = lambda v: {"y": v["a"] + np.array([0, 1], np.float32)}
        source, default = PortRef(block, "y"), PortRef(block, "a")
    port = Port(name="y", type=KIND)
    nodes.append(
        Exit(
            name="end",
            inputs=(Port(name="a", type=KIND),),
            outputs=(port,),
            answer="y",
            accept=Accept(kind="always"),
            cost=_cost(1),
        )
    )
    data.append(DataEdge(source=source, target=PortRef("end", "a"), default=default))
    functions["end"] = lambda v: {"y": v["a"] * np.float32(1)}
    graph = Graph(nodes=tuple(nodes), data=tuple(data), control=tuple(control), exits=("end",))
    return graph, functions


def counted(graph: Graph, functions: Mapping[str, Function]) -> tuple[Network, FunctionEngine]:
    network = portable_network(graph, functions)
    compiled = compiled_of(graph)
    engine = FunctionEngine(graph, compiled.segments, functions)
    network.compile(compiled, engine)
    return network, engine


def vector(first: float, second: float = 0.0) -> Array:
    return np.array([first, second], np.float32)


def test_a_skipped_block_is_not_called() -> None:
    network, engine = counted(*skipper(6))
    for first in (2.5, 2.5, 0.0, 9.0):
        engine.calls.clear()
        result = network.run(vector(first))
        ran = min(6, int(first) + 1)
        assert [c for c in engine.calls if c.startswith("b")] == [f"b{i}" for i in range(ran)]
        assert result.answer.tolist() == [first, ran]
        assert result.path == tuple(engine.calls)
        assert result.macs == 6 + 10 * ran + 1


def test_a_known_way_is_followed_without_exploring() -> None:
    graph, functions = skipper(8)
    network, _ = counted(graph, functions)
    network.run(vector(3))
    (machine,) = idle(network)
    before = len(machine.automaton(machine_task(network)).legs)
    for second in range(20):
        network.run(vector(3, second))
    assert len(machine.automaton(machine_task(network)).legs) == before


def idle(network: Network) -> tuple[machines.Machine, ...]:
    assert network._runs is not None
    return network._runs.idle_machines()


def machine_task(network: Network) -> machines.Task:
    return network._task(network.policy, 0)


def test_hops_grow_with_blocks_and_not_with_ways() -> None:
    blocks = 10  # 1,024 ways
    network, _ = counted(*skipper(blocks, bits=True))
    for first in range(1 << blocks):
        assert network.run(vector(first)).answer[1] == first.bit_count()
    (machine,) = idle(network)
    legs = machine.automaton(machine_task(network)).legs
    assert len(legs) <= 6 * blocks
    assert len(machine.buffers.arrays) < 3 * blocks


def test_nan_is_refused_and_the_network_goes_on() -> None:
    graph, functions = skipper(2)
    bad = {"on": False}
    honest = functions["g1"]
    functions["g1"] = lambda v: {"s": v["a"][:, :1] * np.float32("nan")} if bad["on"] else honest(v)
    network, _ = counted(graph, functions)
    network.run(vector(1))
    bad["on"] = True
    for run in (
        lambda: network.run(vector(1)),
        lambda: network.run(vector(1), trace=True),
        lambda: network.run_batch(vector(1)[None]),
        lambda: network.run_batch(np.stack([vector(1)] * 3)),
    ):
        with pytest.raises(BackendError, match="control node 'q1'"):
            run()
    bad["on"] = False
    assert network.run(vector(1)).answer.tolist() == [1, 2]


@pytest.mark.parametrize("trace", [False, True])
def test_near_ties_are_counted(trace: bool) -> None:
    network, _ = counted(*skipper(3))
    assert network.run(vector(1.5), trace=trace).near_ties == 0
    near = network.run(vector(1.0 + 2e-6), trace=trace)
    assert (near.near_ties, near.answer[1]) == (1, 2)  # decided by the score itself
    below = network.run(vector(1.0 - 2e-6), trace=trace)
    assert (below.near_ties, below.answer[1]) == (1, 1)
    assert network.near_ties == 2
    together = network.run_batch(np.stack([vector(1.0 + 2e-6), vector(1.5)]))
    assert [r.near_ties for r in together] == [1, 0]


def test_threads_have_machines_of_their_own() -> None:
    network, _ = counted(*skipper(12))
    wanted = {f: [f, min(12, int(f) + 1)] for f in range(12)}
    with ThreadPoolExecutor(4) as pool:
        firsts = [i % 12 for i in range(400)]
        results = list(pool.map(lambda f: network.run(vector(f)).answer.tolist(), firsts))
    assert results == [wanted[f] for f in firsts]
    assert len(idle(network)) <= 4


def test_many_policies_do_not_pile_up() -> None:
    network, _ = counted(*skipper(3))
    for bound in range(50):
        network.set(thresholds={"q0": float(bound)})
        assert network.run(vector(20)).answer[1] == (3 if bound <= 20 else 2)
    (machine,) = idle(network)
    assert len(machine._automata) <= machines._KEPT_POLICIES


def test_many_budgets_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automata, "MAX_EXACT", 20)
    graph, functions = skipper(8)
    network, _ = counted(graph, functions)
    plain = portable_network(graph, functions)
    for macs in list(range(1, 95)) * 2:
        try:
            want = plain.run(vector(5), budget=Budget(macs=macs))
        except BudgetRefusedError:
            with pytest.raises(BudgetRefusedError):
                network.run(vector(5), budget=Budget(macs=macs))
            continue
        got = network.run(vector(5), budget=Budget(macs=macs))
        assert (got.path, got.macs, got.forced) == (want.path, want.macs, want.forced)
        assert got.answer.tolist() == want.answer.tolist()
    (machine,) = idle(network)
    task = network._task(network.policy, 0)
    assert len(machine.automaton(task)._exact) <= 40


def test_what_one_budget_left_is_not_taken_for_anothers() -> None:
    graph, functions = skipper(5, bits=True)
    network, _ = counted(graph, functions)
    plain = portable_network(graph, functions)
    rng = np.random.default_rng(3)
    forced = 0
    for _ in range(400):
        first, macs = float(rng.integers(32)), int(rng.integers(6, 60))
        want = plain.run(vector(first), budget=Budget(macs=macs))
        got = network.run(vector(first), budget=Budget(macs=macs))
        assert (got.path, got.macs, got.forced) == (want.path, want.macs, want.forced)
        forced += got.forced
    assert 50 < forced < 350


def test_a_time_cap_is_kept_by_the_clock() -> None:
    network, _ = counted(*skipper(6))
    result = network.run(vector(9), budget=Budget(seconds=1.0))
    assert result.answer[1] == 6
    assert not result.forced
    hurried = network.run(
        vector(9), budget=Budget(seconds=network.cheapest(Budget(seconds=1.0)).seconds)
    )
    assert hurried.forced
    assert len(hurried.path) < len(result.path)


def test_another_networks_parts_are_refused() -> None:
    graph, functions = skipper(2)
    other, _ = skipper(3)
    compiled = compiled_of(other)
    network = portable_network(graph, functions)
    with pytest.raises(BackendError, match="not of this bundle"):
        network.compile(compiled, FunctionEngine(graph, compiled.segments, functions))
    assert network.mode == "portable"


def test_batches_of_any_size_are_in_order() -> None:
    network = compiled_network(*skipper(5))
    rng = np.random.default_rng(1)
    for size in (1, 2, 3, 7, 63, 64, 65, 130, 256):
        x = rng.integers(0, 6, (size, 2)).astype(np.float32)
        for _ in range(3):  # one at a time, together, whichever was quicker
            results = network.run_batch(x)
            assert [r.answer[0] for r in results] == x[:, 0].tolist()
            assert [r.answer[1] - x[i, 1] for i, r in enumerate(results)] == [
                min(5, int(v) + 1) for v in x[:, 0]
            ]
    assert network.run_batch(np.zeros((0, 2), np.float32)) == []
