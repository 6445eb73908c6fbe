"""How scores become decisions: argmax, thresholds, and the accept scores of exits.

Pure, one sample at a time, in float64, so that every mode of the runtime decides alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynrt.errors import BackendError
from dynrt.ir.graph import Accept, Argmax, Array, ControlNode, ScoreKind, Threshold


def softmax(values: Array) -> Array:
    """Softmax of a vector ``(classes,)`` in float64."""
    x = np.asarray(values, dtype=np.float64)
    e: Array = np.exp(x - x.max())
    p: Array = e / e.sum()
    return p


def accept_score(kind: ScoreKind, values: Array) -> float:
    """The score that an exit's threshold is compared with; larger is surer.

    Args:
        kind: a kind that is scored (``hinge``, ``max_softmax``, ``entropy``, ``margin``).
        values: ``(classes,)``: distances ``w'x - b`` for ``hinge`` (Shafiee et al., algorithm 1),
            logits for the others. ``entropy`` is ``1 - H(p) / ln(classes)``, so that all four grow
            with certainty.

    Raises:
        BackendError: ``values`` is empty, holds NaN, or the kind has no score.
    """
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    if not flat.size or np.isnan(flat).any():
        raise BackendError(f"no {kind} score of {'NaN' if flat.size else 'nothing'}")
    if kind == "hinge":
        return float(flat.max())
    if not np.isfinite(flat).all():
        raise BackendError(f"no {kind} score of infinite logits")
    p = softmax(flat)
    if kind == "max_softmax":
        return float(p.max())
    if kind == "margin":
        if p.size == 1:
            return 1.0
        second, first = np.partition(p, -2)[-2:]
        return float(first - second)
    if kind == "entropy":
        if p.size == 1:
            return 1.0
        inside = p[p > 0]
        return float(1.0 + (inside * np.log(inside)).sum() / np.log(p.size))
    raise BackendError(f"an exit that accepts {kind!r} has no score")


def can_accept(accept: Accept, threshold: float) -> bool:
    """Whether any score could reach ``threshold``, so that running the head in passing has a use."""
    if accept.kind == "never":
        return False
    if accept.kind == "always":
        return True
    top = float("inf") if accept.kind == "hinge" else 1.0
    return threshold <= top and threshold != float("inf")


def argmax(scores: Sequence[float] | Array) -> int:
    """The highest score's index; a tie goes to the lowest index.

    Raises:
        BackendError: a score is NaN.
    """
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    if np.isnan(values).any():
        raise BackendError("a control score is NaN")
    return int(values.argmax())


def threshold_actions(
    scores: Sequence[float] | Array, thresholds: Sequence[float]
) -> tuple[int, ...]:
    """Every action whose score is at least its threshold, in rising order.

    Raises:
        BackendError: a score is NaN.
    """
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    if np.isnan(values).any():
        raise BackendError("a control score is NaN")
    return tuple(i for i, t in enumerate(thresholds) if values[i] >= t)


def candidates(
    node: ControlNode, scores: Sequence[float], thresholds: Sequence[float]
) -> tuple[tuple[int, ...], ...]:
    """Decisions of ``node`` in order of preference: its own first, then what a budget may force.

    Argmax goes down the scores; a threshold rule drops its lowest scores first.
    """
    if isinstance(node.rule, Argmax):
        argmax(scores)
        ranked = sorted(range(node.actions), key=lambda a: (-scores[a], a))
        return tuple((a,) for a in ranked)
    kept = threshold_actions(scores, thresholds)
    falling = sorted(kept, key=lambda a: (-scores[a], a))
    return tuple(tuple(sorted(falling[:n])) for n in range(len(falling), -1, -1))


#: Above so many actions a threshold rule's settled decisions are none, all, and each alone.
MAX_SUBSET_ACTIONS = 6


def decisions(node: ControlNode) -> tuple[tuple[int, ...], ...]:
    """Every decision that ``node`` can come to, in a fixed order (a few of them if too many)."""
    if isinstance(node.rule, Argmax):
        return tuple((a,) for a in range(node.actions))
    n = node.actions
    if n > MAX_SUBSET_ACTIONS:
        return ((), *((a,) for a in range(n)), tuple(range(n)))
    subsets = (tuple(a for a in range(n) if bits >> a & 1) for bits in range(1 << n))
    return tuple(sorted(subsets, key=lambda s: (len(s), s)))


def rule_thresholds(node: ControlNode) -> tuple[float, ...]:
    """The thresholds of a control node's rule; empty for argmax."""
    return node.rule.thresholds if isinstance(node.rule, Threshold) else ()
