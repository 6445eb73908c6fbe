"""A network of Python functions: inputs, policy, traces, batches, streams, threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from dynrt.errors import (
    BackendError,
    BudgetError,
    BudgetRefusedError,
    InputError,
    PolicyError,
    QuantityError,
)
from dynrt.ir.cost import Budget, Cost
from dynrt.ir.graph import Accept, Array, ComputeNode, Constant, Exit, Graph, InputNode
from dynrt.runtime import AverageBudget, CallableBackend, FixedBudget, Network, ScheduleBudget
from dynrt.runtime.backends import Function
from tests.ir.test_certificate import skipping_chain
from tests.ir.test_check import V, add, edge, high_low
from tests.ir.test_reference import ALWAYS, NEVER, exits_chain, high_low_functions, plus

X = np.array([1.0, 2.0, 3.0, 4.0], np.float32)


def chain(*kinds: Accept) -> Network:
    graph, functions = exits_chain(*kinds)
    return Network(graph, CallableBackend(functions))


def hinge(threshold: float) -> Accept:
    return Accept(kind="hinge", port="y", threshold=threshold)


def test_result_says_what_happened() -> None:
    result = chain(hinge(6.0), hinge(6.0), ALWAYS).run(X, trace=True)
    assert result.answer.tolist() == [3, 4, 5, 6]
    assert (result.exit, result.accepted, result.forced) == ("e1", True, False)
    assert (result.index, result.label) == (3, None)
    assert result.score == pytest.approx(np.exp(6) / np.exp([3, 4, 5, 6]).sum())
    assert (result.macs, result.flops, result.femtojoules, result.joules) == (22, 44, None, None)
    assert result.path == ("b0", "e0", "b1", "e1")
    assert result.skipped == ("b2",)
    assert result.thresholds == {"e0": (6.0,), "e1": (6.0,)}
    assert result.budget == Budget()
    assert result.seconds > 0
    assert result.trace is not None
    steps = {s.node: s for s in result.trace.steps}
    assert list(steps) == ["x", "b0", "e0", "b1", "e1", "b2", "e2"]
    assert (steps["e0"].scores, steps["e0"].accepted) == ((5.0,), False)
    assert (steps["e1"].scores, steps["e1"].thresholds, steps["e1"].accepted) == (
        (6.0,),
        (6.0,),
        True,
    )
    assert (steps["b2"].ran, steps["b2"].reason) == (False, "after the answer")
    assert steps["b0"].nanoseconds is not None
    assert result.trace.macs == result.macs == sum(s.cost.macs for s in result.trace.steps if s.ran)


def test_trace_names_every_reason() -> None:
    graph = skipping_chain(2)
    functions: dict[str, Function] = {"e": plus(0), "b0": plus(1), "b1": plus(1)}
    functions |= {f"g{i}": lambda _: {"s": -np.ones((1, 1), np.float32)} for i in range(2)}
    network = Network(graph, CallableBackend(functions))
    free = network.run(X, trace=True)
    tight = network.run(X, budget=Budget(macs=2), trace=True)
    assert free.trace is not None
    assert tight.trace is not None
    assert {s.node: s.reason for s in free.trace.steps if not s.ran} == {
        "b0": "not active",
        "b1": "not active",
    }
    assert {s.node: s.reason for s in tight.trace.steps if not s.ran} == {
        "b0": "not active",
        "g1": "settled",
        "b1": "not active",
    }
    decided = {
        s.node: (s.scores, s.actions, s.forced) for s in tight.trace.steps if s.kind == "control"
    }
    assert decided == {"q0": ((-1.0,), (), False), "q1": ((), (), True)}
    nulls = Network(high_low(), CallableBackend(high_low_functions(0, 1))).run(X, trace=True)
    assert nulls.trace is not None
    assert {s.node: s.reason for s in nulls.trace.steps if not s.ran} == {
        "high": "not active",
        "first": "null input",
    }


def test_a_stopped_run_keeps_its_reserved_head() -> None:
    result = chain(NEVER, NEVER, ALWAYS).run(X, budget="60", trace=True)
    assert (result.exit, result.macs, result.forced, result.accepted) == ("e1", 21, True, False)
    assert result.trace is not None
    assert result.trace.macs == 21


def test_refusal_names_the_cheapest_answer() -> None:
    network = chain(NEVER, ALWAYS)
    with pytest.raises(BudgetRefusedError, match=r"20 FLOPs.*22 FLOPs \(11 MACs\)") as error:
        network.run(X, budget="20")
    assert error.value.cheapest == 22
    assert network.cheapest(Budget(macs=1)) == Budget(macs=11)
    with pytest.raises(BudgetError, match="nothing is capped"):
        network.cheapest(Budget())


def test_joule_budgets_need_a_table_and_hold_with_one() -> None:
    graph, functions = exits_chain(NEVER, ALWAYS)
    with pytest.raises(BudgetError, match="energy table"):
        Network(graph, CallableBackend(functions)).run(X, budget="1J")
    priced = tuple(
        replace(n, cost=Cost(macs=n.cost.macs, femtojoules=1000 * n.cost.macs))
        if isinstance(n, ComputeNode | Exit)
        else n
        for n in graph.nodes
    )
    network = Network(replace(graph, nodes=priced), CallableBackend(functions))
    result = network.run(X, budget=Budget(joules=20e-12))
    assert (result.exit, result.femtojoules, result.joules) == ("e0", 11_000, 11e-12)
    assert network.run(X, budget=Budget(joules=21e-12)).exit == "e1"
    assert network.run(X, budget=Budget(joules=21e-12, macs=20)).exit == "e0"
    with pytest.raises(BudgetRefusedError, match=r"1\.1e-11 J") as error:
        network.run(X, budget=Budget(joules=10e-12))
    assert error.value.cheapest == pytest.approx(11e-12)


def slow(seconds: float) -> Function:
    def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        time.sleep(seconds)
        return {"y": inputs["a"]}

    return run


def test_time_budgets_stop_early_and_count_misses() -> None:
    graph, functions = exits_chain(NEVER, NEVER, ALWAYS)
    naps = {"b0": 0.001, "b1": 0.02, "b2": 0.2}
    functions |= {name: slow(s) for name, s in naps.items()}
    network = Network(graph, CallableBackend(functions))
    assert network.run(X, budget="5s").exit == "e2"
    early = network.run(X, budget="120ms")
    assert early.exit in ("e0", "e1")
    assert not early.late
    with pytest.raises(BudgetRefusedError):
        network.run(X, budget="1us")
    functions["b0"] = slow(0.15)  # slower than its profile said
    unlucky = Network(graph, CallableBackend({**functions}))
    unlucky._timed_plan = network._timed_plan
    result = unlucky.run(X, budget="120ms")
    assert (result.exit, result.late, unlucky.late) == ("e0", True, 1)
    results = network.run_batch(np.stack([X, X]), budget="5s")
    assert [r.exit for r in results] == ["e2", "e2"]


def test_a_late_gate_is_forced_to_the_least() -> None:
    graph = skipping_chain(2)
    functions: dict[str, Function] = {"e": plus(0), "b0": plus(1), "b1": plus(1)}
    functions |= {f"g{i}": lambda _: {"s": np.ones((1, 1), np.float32)} for i in range(2)}
    network = Network(graph, CallableBackend(functions))
    network.run(X, budget="10s")

    def nap(_: Mapping[str, Array]) -> Mapping[str, Array]:
        time.sleep(0.06)
        return {"s": np.ones((1, 1), np.float32)}

    late = Network(graph, CallableBackend({**functions, "g0": nap}))
    late._timed_plan = network._timed_plan
    result = late.run(X, budget="50ms,200")
    assert result.late
    assert result.forced
    assert result.path == ("g0", "e")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(5, np.float32), r"shape \(5,\)"),
        (np.zeros((1, 4), np.float32), r"shape \(1, 4\)"),
        (np.array([1, 2, np.nan, 4], np.float32), "NaN"),
        (np.array([1, 2, np.inf, 4]), "NaN or infinity"),
        (np.array([1e300, 0, 0, 0]), "infinity"),
        (np.array([1, 2, 3, 4]), "int64"),
        (["a", "b", "c", "d"], "input 'x'"),
        ([[1.0], [1.0, 2.0]], "input 'x'"),
        ({"z": X}, "no input 'z'"),
        ({}, "'x' is missing"),
    ],
)
def test_bad_inputs_are_named(value: Array, message: str) -> None:
    with pytest.raises(InputError, match=message):
        chain(ALWAYS).run(value)


def test_double_precision_is_taken_as_single() -> None:
    assert chain(ALWAYS).run(X.astype(np.float64)).answer.dtype == np.float32


def two_inputs() -> Network:
    graph, functions = exits_chain(ALWAYS)
    ports = graph.by_name["b0"].inputs
    nodes = tuple(
        replace(n, inputs=(*ports, replace(ports[0], name="b")))
        if isinstance(n, ComputeNode)
        else n
        for n in graph.nodes
    )
    grown = add(InputNode(name="z", type=V), data=(edge("z.z", "b0.b"),))(
        replace(graph, nodes=nodes)
    )
    functions["b0"] = lambda i: {"y": i["a"] + i["b"]}
    return Network(grown, CallableBackend(functions))


def test_several_inputs_go_by_name_and_share_a_batch() -> None:
    network = two_inputs()
    assert network.run({"x": X, "z": X}).answer.tolist() == (2 * X).tolist()
    with pytest.raises(InputError, match="give them by name"):
        network.run(X)
    with pytest.raises(InputError, match="batch size"):
        network.run_batch({"x": np.stack([X, X]), "z": np.stack([X] * 3)})


def with_parameter() -> Network:
    graph, functions = exits_chain(ALWAYS)
    ports = graph.by_name["b0"].inputs
    nodes = tuple(
        replace(n, inputs=(*ports, replace(ports[0], name="k", type=replace(V, shape=(1,)))))
        if isinstance(n, ComputeNode)
        else n
        for n in graph.nodes
    )
    parameter = InputNode(
        name="k", type=replace(V, shape=(1,)), param=Constant(np.array([5.0], np.float32))
    )
    grown = add(parameter, data=(edge("k.k", "b0.k"),))(replace(graph, nodes=nodes))
    functions["b0"] = lambda i: {"y": i["a"] + i["k"]}
    return Network(grown, CallableBackend(functions))


def test_parameters_are_policy() -> None:
    network = with_parameter()
    assert network.run(X).answer.tolist() == (X + 5).tolist()
    network.set(params={"k": 1.0})
    batch = network.run_batch(np.stack([X, 2 * X, 3 * X]))
    assert [r.answer.tolist() for r in batch] == [(n * X + 1).tolist() for n in (1, 2, 3)]
    one = network.run({"x": X, "k": np.array([2.0], np.float32)})
    assert one.answer.tolist() == (X + 2).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thresholds": {"ghost": 1.0}}, "no threshold at 'ghost'; this network has: e0"),
        ({"thresholds": {"e0": float("nan")}}, "NaN"),
        ({"thresholds": {"e0": (1.0, 2.0)}}, "2 values where 1"),
        ({"thresholds": {"e0": "high"}}, "'high' is no number"),
        ({"params": {"ghost": 1.0}}, "no parameter 'ghost'; this network has: none"),
    ],
)
def test_bad_policies_change_nothing(change: dict[str, dict[str, float]], message: str) -> None:
    network = chain(hinge(1.0), ALWAYS)
    before = network.policy
    with pytest.raises(PolicyError, match=message):
        network.set(budget="100M", **change)
    assert network.policy is before


@pytest.mark.parametrize("value", ["x", [1.0, 2.0], float("nan")])
def test_bad_parameters(value: float) -> None:
    with pytest.raises(PolicyError, match="parameter 'k'"):
        with_parameter().set(params={"k": value})


def test_bad_budgets() -> None:
    with pytest.raises(QuantityError):
        chain(ALWAYS).set(budget="abc")
    with pytest.raises(BudgetError, match="no budget"):
        chain(ALWAYS).run(X, budget=5)  # type: ignore[arg-type]


def test_policy_is_in_force_until_changed_and_echoed() -> None:
    network = chain(hinge(99.0), NEVER, ALWAYS)
    network.set(budget="60")
    assert network.run(X).exit == "e1"
    network.set(thresholds={"e0": 0.0})
    result = network.run(X)
    assert (result.exit, result.budget.flops, result.thresholds["e0"]) == ("e0", 60, (0.0,))
    network.set(budget=Budget(), thresholds={"e0": float("inf")})
    assert network.run(X).exit == "e2"


def test_policies_change_whole_while_other_threads_run() -> None:
    # thresholds and budget always change together: every result must show one pair or the other
    network = chain(hinge(99.0), NEVER, ALWAYS)
    pairs = {(60, 99.0): "e1", (200, 0.0): "e0"}
    network.set(budget="60")
    seen: list[tuple[int | None, float, str]] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            r = network.run(X)
            seen.append((r.budget.flops, r.thresholds["e0"][0], r.exit))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for i in range(300):
        flops, bound = list(pairs)[i % 2]
        network.set(budget=str(flops), thresholds={"e0": bound})
    stop.set()
    for t in threads:
        t.join()
    assert seen
    assert all(pairs[flops, bound] == end for flops, bound, end in seen if flops is not None)


def test_batches_regroup_survivors_and_keep_the_order() -> None:
    sizes: dict[str, list[int]] = {}
    graph, functions = exits_chain(hinge(10.0), ALWAYS)

    def watched(name: str) -> Function:
        def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            sizes.setdefault(name, []).append(len(inputs["a"]))
            return functions[name](inputs)

        return run

    network = Network(graph, CallableBackend({n: watched(n) for n in functions}))
    batch = np.stack([X, 9 * X, 2 * X, 8 * X, X])
    results = network.run_batch(batch, trace=True)
    assert [r.exit for r in results] == ["e1", "e0", "e1", "e0", "e1"]
    assert sizes == {"b0": [5], "e0": [5], "b1": [3], "e1": [3]}
    alone = [network.run(x) for x in batch]
    assert [r.answer.tolist() for r in results] == [r.answer.tolist() for r in alone]
    assert [r.macs for r in results] == [r.macs for r in alone]
    assert network.run_batch(np.zeros((0, 4), np.float32)) == []


@pytest.mark.parametrize(
    ("gave", "message"),
    [
        ({"z": np.zeros((1, 4), np.float32)}, "gave no 'y'"),
        ({"y": np.zeros((1, 5), np.float32)}, r"float32\[1, 5\]"),
        ({"y": np.zeros((1, 4))}, "float64"),
        ({"y": np.full((1, 4), np.nan, np.float32)}, "NaN"),
    ],
)
def test_what_a_node_gives_is_checked(gave: dict[str, Array], message: str) -> None:
    graph, functions = exits_chain(ALWAYS)
    for name in ("b0", "e0"):
        if name == "b0" and message == "NaN":
            continue
        network = Network(graph, CallableBackend({**functions, name: lambda _: gave}))
        with pytest.raises(BackendError, match=message):
            network.run(X)


def test_failing_nodes_are_named() -> None:
    graph, functions = exits_chain(hinge(1.0), ALWAYS)

    def fails(_: Mapping[str, Array]) -> Mapping[str, Array]:
        raise ZeroDivisionError("oh")

    with pytest.raises(BackendError, match="node 'b0': ZeroDivisionError: oh"):
        Network(graph, CallableBackend({**functions, "b0": fails})).run(X)
    with pytest.raises(BackendError, match="no function for node 'b0'"):
        Network(graph, CallableBackend({})).run(X)
    nan = {"y": np.full((1, 4), np.nan, np.float32)}
    with pytest.raises(BackendError, match="exit 'e0': no hinge score of NaN"):
        Network(graph, CallableBackend({**functions, "e0": lambda _: nan})).run(X)
    bad_gate = high_low_functions(float("nan"), 0)
    with pytest.raises(BackendError, match=r"control node 'q'.*NaN"):
        Network(high_low(), CallableBackend(bad_gate)).run(X)


def test_a_closed_network_says_so() -> None:
    with chain(ALWAYS) as network:
        network.run(X)
    with pytest.raises(BackendError, match="closed"):
        network.run(X)


def test_streams_answer_in_order_under_the_budget_of_the_moment() -> None:
    network = chain(NEVER, NEVER, ALWAYS)
    assert [r.exit for r in network.stream([X, X])] == ["e2", "e2"]
    assert [r.exit for r in network.stream([X], budget="60")] == ["e1"]
    network.set(budget="30")
    assert [r.exit for r in network.stream([X], budget=None)] == ["e0"]
    clock = iter([0.0, 5.0, 10.0]).__next__
    plan = ScheduleBudget([(0, Budget(macs=11)), (10, Budget(macs=50))], clock=clock)
    assert [r.exit for r in network.stream([X] * 3, budget=plan)] == ["e0", "e0", "e2"]
    fixed = FixedBudget(Budget(macs=21))
    assert [r.exit for r in network.stream([X], budget=fixed)] == ["e1"]


def test_refused_inputs_of_a_stream_are_told_or_raised() -> None:
    network = chain(NEVER, ALWAYS)
    told: list[BudgetError] = []
    assert list(network.stream([X, X], budget="4", on_refusal=told.append)) == []
    assert len(told) == 2
    with pytest.raises(BudgetRefusedError):
        list(network.stream([X], budget="4"))


def test_an_average_is_kept_over_any_time() -> None:
    # rate 12 MAC/s, capacity 40: over t seconds at most 40 + 12 t MACs
    now = [0.0]
    bucket = AverageBudget("macs", rate_per_s=12, capacity=40, clock=lambda: now[0])
    network = chain(NEVER, NEVER, ALWAYS)
    told: list[BudgetError] = []

    def inputs() -> object:
        for _ in range(200):
            now[0] += 0.25
            yield X

    spent = 0
    for result in network.stream(inputs(), budget=bucket, on_refusal=told.append):  # type: ignore[arg-type]
        spent += result.macs
        assert spent <= 40 + 12 * now[0] + 1e-6
    assert told
    assert spent > 0.9 * 12 * now[0]
    assert bucket.wait_s(41) == float("inf")
    assert bucket.wait_s(0) == 0.0


def test_sources_that_cannot_be() -> None:
    with pytest.raises(BudgetError, match="rise"):
        ScheduleBudget([(1, Budget()), (1, Budget())])
    with pytest.raises(BudgetError, match="there and rise"):
        ScheduleBudget([])
    with pytest.raises(BudgetError, match="not begun"):
        ScheduleBudget([(5, Budget())], clock=lambda: 1.0).next()
    with pytest.raises(BudgetError, match="rate_per_s=0"):
        AverageBudget("joules", rate_per_s=0, capacity=1)
    with pytest.raises(BudgetError, match="capacity=inf"):
        AverageBudget("joules", rate_per_s=1, capacity=float("inf"))


def test_joule_buckets() -> None:
    bucket = AverageBudget("joules", rate_per_s=1.0, capacity=2.0, clock=lambda: 0.0)
    assert bucket.next() == Budget(joules=2.0)
    result = chain(ALWAYS).run(X)
    with pytest.raises(BudgetError, match="modelled energy"):
        bucket.spent(result)
    bucket.spent(replace(result, femtojoules=2 * 10**15))
    with pytest.raises(BudgetError, match="empty"):
        bucket.next()
    macs = AverageBudget("macs", rate_per_s=1.0, capacity=11, clock=lambda: 0.0)
    macs.spent(result)
    with pytest.raises(BudgetError, match=r"0 MACs; wait 1 s"):
        macs.next()


def test_a_graph_may_be_shared_by_networks() -> None:
    graph: Graph = high_low()
    one = Network(graph, CallableBackend(high_low_functions(1, 0)))
    two = Network(graph, CallableBackend(high_low_functions(0, 1)))
    assert one.run(X).path != two.run(X).path
