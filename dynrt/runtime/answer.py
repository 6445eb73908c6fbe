"""The answer of a run from the heads that ran."""

from __future__ import annotations

import numpy as np

from dynrt.ir.graph import Array, Exit, Graph
from dynrt.runtime.walk import Outcome


def joined_answer(graph: Graph, outcome: Outcome) -> Array:
    """The answer of the exit that ended the run, one sample without the batch axis.

    Where the graph combines its final exits, those that answered are joined in exit order (as in
    D2NN's hierarchical network, whose leaves each know some of the classes).
    """
    own = outcome.exit
    row = outcome.heads[own.name][own.answer]
    answer: Array = row.base[row.at]
    kind = graph.combine.kind
    if kind in ("first", "last") or own.accept.kind != "always":
        return answer
    parts: list[Array] = []
    for name in graph.exits:
        node = graph.by_name[name]
        if not isinstance(node, Exit) or node.accept.kind != "always":
            continue
        if name in outcome.heads:
            given = outcome.heads[name][node.answer]
            parts.append(given.base[given.at])
        elif kind == "concat":
            shape = next(p.type.shape for p in node.outputs if p.name == node.answer)
            parts.append(np.full(shape, graph.combine.absent, answer.dtype))
    if kind == "concat":
        return np.concatenate(parts)
    joined: Array = parts[0]
    for part in parts[1:]:
        joined = joined + part if kind == "sum" else np.maximum(joined, part)
    return joined
