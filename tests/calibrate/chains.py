"""Hypothesis strategies: random chains with exits, thresholds and budgets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from dynrt.ir.check import require_valid
from dynrt.ir.graph import Graph, ScoreKind
from tests.calibrate.made import chain

BOUNDS = st.sampled_from([float("-inf"), -1.0, 0.0, 0.34, 0.5, 0.75, 1.0, 1.5, float("inf")])
SCORED: tuple[ScoreKind, ...] = ("hinge", "max_softmax", "entropy", "margin")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A chain, what its exits say of each row, and the rows' labels."""

    graph: Graph
    values: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    exits = draw(st.integers(1, 4))
    early = st.sampled_from([*SCORED, "never"])
    kinds = [draw(early) for _ in range(exits - 1)]
    kinds.append(draw(st.sampled_from(["always", "always", *SCORED, "never"])))
    macs = st.integers(0, 9)
    graph = chain(
        kinds=tuple(kinds),
        thresholds=tuple(draw(BOUNDS) for _ in kinds),
        segments=tuple(
            tuple(draw(st.lists(macs, min_size=0 if i else 1, max_size=3))) for i in range(exits)
        ),
        heads=tuple(draw(macs) for _ in kinds),
    )
    require_valid(graph)
    rows = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Few different values: many ties between scores and thresholds.
    values = rng.integers(-3, 4, (rows, exits, 2, 3)).astype(np.float32) / np.float32(2)
    return Case(graph=graph, values=values, labels=rng.integers(0, 3, rows))
