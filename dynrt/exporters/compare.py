"""Compares two executions of one input: outputs of every node, every decision, the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dynrt.errors import ParityError
from dynrt.exporters.plain import Weights
from dynrt.ir.graph import Argmax, Array, ControlNode, Exit, Graph, NodeId, PortRef
from dynrt.ir.rules import accept_score, rule_thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Most that two executions may differ: ``absolute + relative * largest reference value``.

    A decision may only differ where its score is within this of its threshold: a near-tie.
    """

    absolute: float
    relative: float

    def allowed(self, reference: Array) -> float:
        """The limit for a tensor with the reference's values."""
        values = np.abs(reference[np.isfinite(reference)].astype(np.float64))
        return self.absolute + self.relative * float(np.max(values, initial=0.0))

    def times(self, factor: float) -> Tolerance:
        """So many times as wide."""
        return Tolerance(absolute=factor * self.absolute, relative=factor * self.relative)

    def __str__(self) -> str:
        return f"{self.absolute:g} + {self.relative:g} * largest value"


#: float32 sums in another order; float16 weights have 11 bits.
TOLERANCES: Mapping[Weights, Tolerance] = {
    "float32": Tolerance(absolute=1e-4, relative=1e-4),
    "float16": Tolerance(absolute=5e-3, relative=5e-3),
}
#: A forced path may run what training never ran together, and rounding grows in features so made: float16
#: weights are let through there at so many times the tolerance. That the path is wired as the modules
#: are is proven with float32 weights, at their tolerance.
FORCED_FLOAT16 = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One run of one input.

    Attributes:
        who: what ran it, for messages.
        gave: outputs, ``(1, ...)``, of each node that ran.
        decisions: actions of each control node that decided.
        exit, answer, macs, path: where it ended, with what, at what cost, over what.
    """

    who: str
    gave: Mapping[NodeId, Mapping[str, Array]]
    decisions: Mapping[NodeId, tuple[int, ...]]
    exit: NodeId
    answer: Array
    macs: int
    path: tuple[NodeId, ...]

    def verdict(self, name: NodeId) -> tuple[int, ...] | None:
        """What was decided at a control node or exit; ``None`` if nothing was."""
        if name in self.decisions:
            return self.decisions[name]
        return (int(name == self.exit),) if name in self.path else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How two executions compare.

    Attributes:
        max_abs_error: largest difference of any output compared, and the node where it was.
        node: where it was.
        turned: the control node or exit whose near-tie was decided differently, if any; what came
            after it was not compared.
    """

    max_abs_error: float
    node: NodeId
    turned: NodeId | None


def difference(
    graph: Graph, reference: Execution, other: Execution, limit: Tolerance, *, place: str
) -> Difference:
    """Compare ``other`` with ``reference``, node by node in the order of the schedule.

    Raises:
        ParityError: an output differs by more than ``limit`` allows, a decision that is no
            near-tie differs, or the runs end differently.
    """
    place = f"{place} ({other.who} against {reference.who})"
    worst, where = 0.0, ""
    for name in graph.order:
        if (name in reference.gave) != (name in other.gave):
            raise ParityError(
                f"node {name!r}, {place}: ran in only one of the two, though all before it agrees"
            )
        if name in reference.gave:
            error = _outputs(name, reference.gave[name], other.gave[name], limit, place)
            if error > worst:
                worst, where = error, name
        mine, theirs = reference.verdict(name), other.verdict(name)
        if isinstance(graph.by_name[name], ControlNode | Exit) and mine != theirs:
            gap = tie_gap(graph, name, reference, limit)
            if gap is None or gap > 0:
                far = "no score" if gap is None else f"{gap:.3g} beyond rounding distance"
                raise ParityError(
                    f"node {name!r}, {place}: decided {theirs} instead of {mine} ({far})"
                )
            return Difference(max_abs_error=worst, node=where, turned=name)
    _ends(reference, other, limit, place)
    return Difference(max_abs_error=worst, node=where, turned=None)


def tie_gap(graph: Graph, name: NodeId, run: Execution, limit: Tolerance) -> float | None:
    """How far a decision's score is from its threshold beyond rounding; at most 0 is a near-tie.

    ``None`` where no score of a computed tensor was compared (an exit that always accepts).
    """
    node = graph.by_name[name]
    if isinstance(node, Exit):
        if not node.accept.scored or name not in run.gave:
            return None
        values = run.gave[name][node.accept.port]
        score = accept_score(node.accept.kind, values[0])
        return _gap(score, node.accept.threshold) - limit.allowed(values)
    if not isinstance(node, ControlNode) or name not in run.decisions:
        return None
    source = graph.edge_into[PortRef(name, "scores")].source
    if source.node not in run.gave:
        return None
    values = run.gave[source.node][source.port]
    scores = values[0].tolist()
    if isinstance(node.rule, Argmax):
        if len(scores) < 2:
            return None
        second, first = sorted(scores)[-2:]
        return _gap(first, second) - 2 * limit.allowed(values)
    gaps = map(_gap, scores, rule_thresholds(node))
    return min(gaps) - limit.allowed(values)


def _gap(score: float, threshold: float) -> float:
    """Distance of two numbers; what is infinite is far from everything, so is no near-tie."""
    finite = math.isfinite(score) and math.isfinite(threshold)
    return abs(score - threshold) if finite else math.inf


def _outputs(
    name: NodeId,
    want: Mapping[str, Array],
    got: Mapping[str, Array],
    limit: Tolerance,
    place: str,
) -> float:
    worst = 0.0
    for port, reference in want.items():
        value = got[port]
        if value.shape != reference.shape or value.dtype != reference.dtype:
            raise ParityError(
                f"node {name!r}, output {port!r}, {place}: {value.dtype}{value.shape} instead of "
                f"{reference.dtype}{reference.shape}"
            )
        error, allowed = largest_error(reference, value), limit.allowed(reference)
        if not error <= allowed:
            raise ParityError(
                f"node {name!r}, output {port!r}, {place}: differs by {error:.3g}; "
                f"at most {allowed:.3g} is allowed ({limit})"
            )
        worst = max(worst, error)
    return worst


def largest_error(a: Array, b: Array) -> float:
    """Largest absolute difference; equal infinities and NaN in both count as equal."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(invalid="ignore"):
        gaps = np.where(same, 0.0, np.abs(x - y))
    return float(np.max(gaps, initial=0.0))


def _ends(reference: Execution, other: Execution, limit: Tolerance, place: str) -> None:
    if reference.path != other.path or reference.exit != other.exit:
        raise ParityError(
            f"exit {other.exit!r}, {place}: path {' '.join(other.path)} instead of "
            f"{' '.join(reference.path)}"
        )
    if reference.macs != other.macs:
        raise ParityError(
            f"exit {other.exit!r}, {place}: {other.macs} MACs instead of {reference.macs}"
        )
    error, allowed = largest_error(reference.answer, other.answer), limit.allowed(reference.answer)
    if not error <= allowed:
        raise ParityError(
            f"exit {other.exit!r}, {place}: the answer differs by {error:.3g}; "
            f"at most {allowed:.3g} is allowed ({limit})"
        )
