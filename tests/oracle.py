"""Compares the runtime with the reference interpreter on one case."""

from __future__ import annotations

import numpy as np

from dynrt.errors import BudgetRefusedError
from dynrt.ir.certificate import certify
from dynrt.ir.cost import Budget
from dynrt.ir.graph import ControlNode, Exit, Graph
from dynrt.ir.reference import ReferenceResult, interpret
from dynrt.runtime import Network, Result
from tests.graphs import Case, random_case
from tests.machines import compiled_network, portable_network


def differences(result: Result, expected: ReferenceResult) -> list[str]:
    """What differs between the runtime and the reference, in words."""
    out = []
    for name in ("exit", "accepted", "forced", "macs", "path"):
        got, want = getattr(result, name), getattr(expected, name)
        if got != want:
            out.append(f"{name}: {got!r}, not {want!r}")
    for name in ("femtojoules", "milli_mac_equivalents"):
        got, want = getattr(result, name), getattr(expected.cost, name)
        if got != want:
            out.append(f"{name}: {got!r}, not {want!r}")
    if result.answer.tobytes() != expected.answer[0].tobytes():
        out.append(f"answer: {result.answer}, not {expected.answer[0]}")
    if result.trace is not None:
        decided = {s.node: s.actions for s in result.trace.steps if s.kind == "control" and s.ran}
        if decided != dict(expected.decisions):
            out.append(f"decisions: {decided}, not {dict(expected.decisions)}")
        if result.trace.macs != result.macs:
            out.append(f"trace: {result.trace.macs} MACs, not {result.macs}")
    return out


def random_thresholds(
    graph: Graph, rng: np.random.Generator
) -> dict[str, float | tuple[float, ...]]:
    """New thresholds for some of the nodes that have any."""
    out: dict[str, float | tuple[float, ...]] = {}
    choices = [-np.inf, -1.0, 0.0, 0.5, 1.0, np.inf]
    for node in graph.nodes:
        if rng.random() < 0.5:
            continue
        if isinstance(node, Exit) and node.accept.scored:
            out[node.name] = float(rng.choice(choices))
        elif isinstance(node, ControlNode) and not hasattr(node.rule, "thresholds"):
            continue
        elif isinstance(node, ControlNode):
            out[node.name] = tuple(float(rng.choice(choices)) for _ in range(node.actions))
    return out


def random_budget(graph: Graph, rng: np.random.Generator) -> Budget:
    """A cap on MACs, energy or both, from a little below the cheapest to above the dearest."""
    bounds = certify(graph)
    macs = int(rng.integers(bounds.cheapest_macs - 2, bounds.full_macs + 3))
    low, high = bounds.cheapest_femtojoules, bounds.full_femtojoules
    if low is None or high is None:
        return Budget(macs=max(1, macs))
    joules = max(1, int(rng.integers(low - 2, high + 3))) / 1e15
    kind = rng.random()
    if kind < 0.6:
        return Budget(macs=max(1, macs))
    least, most = bounds.cheapest_milli_mac_equivalents, bounds.full_milli_mac_equivalents
    if least is not None and most is not None and rng.random() < 0.5:
        milli = max(1, int(rng.integers(least - 2, most + 3)))
        return Budget(mac_equivalents=milli / 1000, macs=max(1, macs) if kind > 0.8 else None)
    return Budget(joules=joules) if kind < 0.8 else Budget(macs=max(1, macs), joules=joules)


def compare(seed: int, *, size: int | None = None) -> list[str]:
    """Run a random case with and without a budget, alone and in a batch; what went wrong."""
    case = random_case(seed, size=size)
    rng = np.random.default_rng(seed + 1)
    found: list[str] = []
    thresholds = random_thresholds(case.graph, rng)
    # several: what is remembered under one budget must not be taken for another's
    budgets = (None, *(random_budget(case.graph, rng) for _ in range(3)))
    for network in (
        portable_network(case.graph, case.functions),
        compiled_network(case.graph, case.functions),
    ):
        network.set(thresholds=thresholds)
        for budget in budgets:
            found += [
                f"seed {seed}, {network.mode}, {budget}: {line}"
                for line in _compare(case, network, thresholds, budget)
            ]
    return found


def _compare(
    case: Case,
    network: Network,
    thresholds: dict[str, float | tuple[float, ...]],
    budget: Budget | None,
) -> list[str]:
    rows = [{n: v[i] for n, v in case.inputs.items()} for i in range(case.batch)]
    expected = []
    for row in rows:
        try:
            expected.append(
                interpret(
                    case.graph,
                    case.functions,
                    {n: v[None] for n, v in row.items()},
                    budget=budget,
                    thresholds=thresholds,
                )
            )
        except BudgetRefusedError:
            return _must_refuse(network, case, budget)
    found = []
    together = network.run_batch(case.inputs, budget=budget, trace=True)
    # without a trace the compiled mode goes by remembered hops: found, then followed; and batches
    # go either way in turn
    batches = [network.run_batch(case.inputs, budget=budget) for _ in range(3)]
    for i, want in enumerate(expected):
        for result in (*(network.run(rows[i], budget=budget) for _ in range(2)),):
            found += [f"sample {i}, no trace: {line}" for line in differences(result, want)]
        for batch in batches:
            found += [f"sample {i}, batch, no trace: {d}" for d in differences(batch[i], want)]
        alone = network.run(rows[i], budget=budget, trace=True)
        found += [f"sample {i} alone: {line}" for line in differences(alone, want)]
        found += [f"sample {i} in a batch: {line}" for line in differences(together[i], want)]
        found += over_budget(alone, budget)
    return found


def _must_refuse(network: Network, case: Case, budget: Budget | None) -> list[str]:
    try:
        network.run_batch(case.inputs, budget=budget)
    except BudgetRefusedError:
        return []
    return ["answered where the reference refuses"]


def over_budget(result: Result, budget: Budget | None) -> list[str]:
    """How a result breaks its budget."""
    if budget is None:
        return []
    spent = {
        "macs": result.macs,
        "femtojoules": result.femtojoules,
        "milli_mac_equivalents": result.milli_mac_equivalents,
    }
    return [
        f"{name}: {spent[name]} over {limit}"
        for name, limit in budget.limits().items()
        if (spent[name] or 0) > limit
    ]


def hard_budget(seed: int) -> tuple[int, list[str]]:
    """Many budgets on one random case: (cases, what went wrong).

    Never over budget, never refused from the cheapest figure on, always an answer, and refused
    below that figure with that figure.
    """
    rng = np.random.default_rng(seed + 2)
    case = random_case(seed, size=int(rng.integers(2, 16)))
    make = compiled_network if seed % 2 else portable_network
    network = make(case.graph, case.functions)
    network.set(thresholds=random_thresholds(case.graph, rng))
    bounds = certify(case.graph)
    cheapest = bounds.cheapest_macs
    cases, found = 0, []
    for _ in range(10):
        budget = random_budget(case.graph, rng)
        limits = budget.limits()
        try:
            results = network.run_batch(case.inputs, budget=budget)
        except BudgetRefusedError as exc:
            cases += 1
            if tuple(limits) == ("macs",) and limits["macs"] >= cheapest:
                found.append(f"seed {seed}: {budget} refused, the cheapest is {cheapest} MACs")
            if tuple(limits) == ("macs",) and exc.cheapest != 2 * max(1, cheapest):
                found.append(f"seed {seed}: refusal names {exc.cheapest}, not {2 * cheapest}")
            continue
        for result in results:
            cases += 1
            found += [f"seed {seed}, {budget}: {line}" for line in over_budget(result, budget)]
            for what in ("macs", "femtojoules", "milli_mac_equivalents"):
                most = getattr(bounds, f"full_{what}")
                if most is not None and getattr(result, what) > most:
                    found.append(f"seed {seed}: {getattr(result, what)} {what}, above {most}")
            if not np.isfinite(result.answer).all():
                found.append(f"seed {seed}: no answer")
        if tuple(limits) == ("macs",) and limits["macs"] < cheapest:
            found.append(f"seed {seed}: {budget} answered below the cheapest {cheapest} MACs")
    if cheapest:
        network.run_batch(case.inputs, budget=Budget(macs=cheapest))
    return cases, found
