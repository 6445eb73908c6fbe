"""A short profile of this device: what each node takes, so that a time cap can look ahead."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dynrt.ir.graph import ComputeNode, Exit, Graph, Node, NodeId
from dynrt.runtime.backends import CheckedBackend
from dynrt.runtime.machine import Parts, part_times_ns

ROUNDS = 12
#: What a dispatch adds to a part, at most: a decision, the call, the loop.
_DISPATCH_NS = 5_000


def measured_graph(graph: Graph, backend: CheckedBackend, *, rounds: int = ROUNDS) -> Graph:
    """``graph`` with every node's time: the longest of ``rounds`` calls on zeros after two warm-ups.

    Raises:
        BackendError: a node fails on zeros.
    """
    times: dict[NodeId, int] = {}
    for node in graph.nodes:
        if not isinstance(node, ComputeNode | Exit):
            continue
        inputs = {p.name: np.zeros((1, *p.type.shape), p.type.dtype) for p in node.inputs}
        taken = []
        for _ in range(rounds + 2):
            start = time.perf_counter_ns()
            backend.call(node.name, inputs, batch=1)
            taken.append(time.perf_counter_ns() - start)
        times[node.name] = max(taken[2:])
    return _with_times(graph, times)


def measured_parts(graph: Graph, parts: Parts, *, rounds: int = ROUNDS) -> Graph:
    """The same for a compiled network: a part's time is charged to the first node that it runs."""
    times: dict[NodeId, int] = {}
    for nodes, taken in part_times_ns(parts, rounds).items():
        times[nodes[0]] = max(taken) + _DISPATCH_NS
    return _with_times(graph, times)


def _with_times(graph: Graph, times: Mapping[NodeId, int]) -> Graph:
    nodes: list[Node] = [
        replace(n, cost=replace(n.cost, nanoseconds=times.get(n.name, 0)))
        if isinstance(n, ComputeNode | Exit)
        else n
        for n in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes))
