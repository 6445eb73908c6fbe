"""A short profile of this device: what each node takes, so that a time cap can look ahead."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from dynrt.ir.graph import ComputeNode, Exit, Graph, Node
from dynrt.runtime.backends import CheckedBackend

ROUNDS = 12


def measured_graph(graph: Graph, backend: CheckedBackend, *, rounds: int = ROUNDS) -> Graph:
    """``graph`` with every node's time: the longest of ``rounds`` calls on zeros after two warm-ups.

    Raises:
        BackendError: a node fails on zeros.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        if not isinstance(node, ComputeNode | Exit):
            nodes.append(node)
            continue
        inputs = {p.name: np.zeros((1, *p.type.shape), p.type.dtype) for p in node.inputs}
        times = []
        for _ in range(rounds + 2):
            start = time.perf_counter_ns()
            backend.call(node.name, inputs, batch=1)
            times.append(time.perf_counter_ns() - start)
        nodes.append(replace(node, cost=replace(node.cost, nanoseconds=max(times[2:]))))
    return replace(graph, nodes=tuple(nodes))
