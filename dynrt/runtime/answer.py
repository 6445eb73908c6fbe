"""The answer of a run from the heads that ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dynrt.ir.cost import Cost
from dynrt.ir.graph import Array, Exit, Graph, NodeId
from dynrt.ir.trace import Trace
from dynrt.runtime.kernels import KERNELS


class Outcome(NamedTuple):
    """Where a run ended; ``heads`` holds one sample of what every head that ran gave."""

    exit: Exit
    heads: Mapping[NodeId, Mapping[str, Array]]
    accepted: bool
    forced: bool
    cost: Cost
    path: tuple[NodeId, ...]
    skipped: tuple[NodeId, ...]
    near_ties: int = 0
    trace: Trace | None = None


def joined_answer(graph: Graph, outcome: Outcome) -> Array:
    """The answer of the exit that ended the run, one sample without the batch axis.

    Where the graph combines its final exits, those that answered are joined in exit order (as in
    D2NN's hierarchical network, whose leaves each know some of the classes).
    """
    own = outcome.exit
    answer: Array = outcome.heads[own.name][own.answer]
    kind = graph.combine.kind
    if kind in ("first", "last") or own.accept.kind != "always":
        return answer
    parts: list[Array] = []
    for name in graph.exits:
        node = graph.by_name[name]
        if not isinstance(node, Exit) or node.accept.kind != "always":
            continue
        if name in outcome.heads:
            parts.append(outcome.heads[name][node.answer])
        elif kind == "concat":
            shape = next(p.type.shape for p in node.outputs if p.name == node.answer)
            parts.append(np.full(shape, graph.combine.absent, answer.dtype))
    if kind == "concat":
        return np.concatenate(parts)
    joined: Array = parts[0]
    for part in parts[1:]:
        joined = joined + part if kind == "sum" else np.maximum(joined, part)
    return joined


def answer_of(values: Array) -> tuple[int, float]:
    """The largest element of an answer, and its softmax probability.

    Args:
        values: any shape.

    Returns:
        Its index in the flat answer (of a tie, the lowest) and the probability, in float64;
        ``(-1, nan)`` if the answer holds NaN.
    """
    return KERNELS.answer_of(values.reshape(-1))
