"""Expected energies on random graphs, against the reference on every outcome of every decision."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dynrt.ir.graph import (
    Argmax,
    Array,
    ComputeNode,
    ControlNode,
    Exit,
    Graph,
    PortRef,
    Threshold,
)
from dynrt.ir.reference import Function, interpret
from dynrt.ir.rules import can_accept
from dynrt.train.energy_loss import PathEnergy
from tests.graphs import random_case
from tests.train.chains import energies


def _outcomes(
    graph: Graph, p: Mapping[tuple[str, int], float], a: Mapping[str, float]
) -> Iterator[tuple[float, dict[str, tuple[int, ...]], dict[str, bool]]]:
    """Every outcome of every decision, taken or not: (probability, actions, which exits accept)."""
    choices: list[list[tuple[float, str, tuple[int, ...] | bool]]] = []
    for node in graph.nodes:
        if isinstance(node, ControlNode):
            chances = [p[node.name, i] for i in range(node.actions)]
            if isinstance(node.rule, Argmax):
                choices.append([(chance, node.name, (i,)) for i, chance in enumerate(chances)])
            else:
                bits = itertools.product((False, True), repeat=node.actions)
                choices.append(
                    [
                        (
                            float(
                                np.prod(
                                    [c if b else 1 - c for c, b in zip(chances, on, strict=True)]
                                )
                            ),
                            node.name,
                            tuple(i for i, b in enumerate(on) if b),
                        )
                        for on in bits
                    ]
                )
        elif node.name in a:
            choices.append([(a[node.name], node.name, True), (1 - a[node.name], node.name, False)])
    for outcome in itertools.product(*choices):
        decided = {name: what for _, name, what in outcome if isinstance(what, tuple)}
        accepts = {name: what for _, name, what in outcome if isinstance(what, bool)}
        yield float(np.prod([c for c, _, _ in outcome])), decided, accepts


def _steered(
    graph: Graph, decided: Mapping[str, tuple[int, ...]], accepts: Mapping[str, bool]
) -> tuple[str, ...]:
    """What the reference interpreter runs when decisions come out so."""
    fed = {e.target.node: e.source for e in graph.data if e.target.port == "scores"}
    scores: dict[PortRef, list[float]] = {}
    for control, source in fed.items():
        node = graph.by_name[control]
        assert isinstance(node, ControlNode)
        scores[source] = [1.0 if i in decided[control] else 0.0 for i in range(node.actions)]

    def function(node: ComputeNode | Exit) -> Function:
        def run(_: Mapping[str, Array]) -> dict[str, Array]:
            out: dict[str, Array] = {}
            for port in node.outputs:
                value = np.zeros((1, *port.type.shape), np.float32)
                given = scores.get(PortRef(node.name, port.name))
                if given is not None:
                    value[0] = given
                out[port.name] = value
            if isinstance(node, Exit) and node.name in accepts:
                out[node.accept.port] = np.array(
                    [[99.0, 0, 0]] if accepts[node.name] else [[0.0] * 3]
                )
            return out

        return run

    bounds: dict[str, float | tuple[float, ...]] = {
        c: (0.5,) * n.actions
        for c, n in ((c, graph.by_name[c]) for c in fed)
        if isinstance(n, ControlNode) and isinstance(n.rule, Threshold)
    }
    exits: dict[str, float] = dict.fromkeys(accepts, 0.5)
    functions = {n.name: function(n) for n in graph.nodes if isinstance(n, ComputeNode | Exit)}
    inputs = {n.name: np.zeros((1, *n.type.shape), np.float32) for n in graph.inputs()}
    result = interpret(graph, functions, inputs, thresholds=bounds | exits)
    return result.path


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_random_graphs_match_every_outcome_of_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_case(seed, size=int(rng.integers(2, 7))).graph
    controls = [n for n in graph.nodes if isinstance(n, ControlNode)]
    assume(sum(n.actions for n in controls) + len(graph.exits) <= 8)  # 256 outcomes
    taken = energies(graph, rng)
    energy = PathEnergy(graph, taken)
    p: dict[tuple[str, int], float] = {}
    for node in controls:
        drawn = rng.uniform(0, 1, node.actions)
        if isinstance(node.rule, Argmax):
            drawn /= drawn.sum()
        p |= {(node.name, i): float(v) for i, v in enumerate(drawn)}
    scored = [
        n.name
        for n in graph.nodes
        if isinstance(n, Exit) and n.accept.scored and can_accept(n.accept, n.accept.threshold)
    ]
    a = {name: float(rng.uniform(0, 1)) for name in scored}
    wanted = 0.0
    runs = dict.fromkeys(taken, 0.0)
    for chance, decided, accepts in _outcomes(graph, p, a):
        path = _steered(graph, decided, accepts)
        wanted += chance * sum(taken[name] for name in path)
        for name in path:
            runs[name] += chance
    gates = torch.tensor([[p[key] for key in energy.actions]], dtype=torch.float64)
    exits = torch.tensor([[a[name] for name in energy.exits]], dtype=torch.float64)
    got = energy(gates, exits=exits)
    assert got.item() == pytest.approx(wanted, rel=1e-12)
    assert got.item() <= energy.full * (1 + 1e-12)
    running = {n: t.item() for n, t in energy.running(gates, exits=exits).items()}
    assert running == pytest.approx({n: runs[n] for n in running}, abs=1e-12)
