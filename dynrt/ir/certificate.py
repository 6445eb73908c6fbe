"""What can be promised of a graph without running it: an answer on every path, and the bounds.

Every bundle carries its certificate and every reader recomputes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dynrt.errors import GraphError
from dynrt.ir.completion import MAX_STATES, Completion, reachable
from dynrt.ir.flow import Flow
from dynrt.ir.graph import Exit, Graph, NodeId, PortRef
from dynrt.ir.violation import Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitCost:
    """Bounds of answering at one exit.

    Attributes:
        name: the exit.
        cheapest_macs: least MACs to an answer there: decisions settled beforehand, no gate and no
            earlier head run.
        full_macs: most MACs on the way there: every gate, and every earlier head that may accept,
            run in passing. (A budget that stops a run behind the exit may spend more.)
    """

    name: NodeId
    cheapest_macs: int
    full_macs: int


class ExitBounds(NamedTuple):
    """Least and most of one resource to answer at an exit."""

    name: NodeId
    cheapest: int
    full: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Bounds over all paths, at batch 1.

    Attributes:
        answers: every path gives an answer.
        cheapest_macs: the cheapest answer; a budget below it is refused.
        full_macs: no run spends more, whatever is capped, stopped or not.
        cheapest_femtojoules, full_femtojoules: the same as energy; ``None`` without a table in
            joules.
        peak_tensor_bytes: most bytes of tensors between nodes alive at once if everything runs.
        exact: the bounds are exact; otherwise ``cheapest`` is reached by a stored fallback and
            ``full`` is an upper bound.
        exits: bounds per exit, in exit order.
        cheapest_milli_mac_equivalents, full_milli_mac_equivalents: the same as energy in
            thousandths of a MAC-equivalent; ``None`` without a normalised table.
    """

    answers: bool
    cheapest_macs: int
    full_macs: int
    cheapest_femtojoules: int | None
    full_femtojoules: int | None
    peak_tensor_bytes: int
    exact: bool
    exits: tuple[ExitCost, ...]
    cheapest_milli_mac_equivalents: int | None = None
    full_milli_mac_equivalents: int | None = None


def certify(graph: Graph, *, limit: int = MAX_STATES) -> Certificate:
    """Compute the certificate of a graph that breaks no structural invariant.

    Raises:
        GraphError: some path gives no answer (``no-answer``), or an exit can never answer
            (``unreachable-exit``).
    """
    flow = Flow(graph)
    problems = path_violations(flow, limit=limit)
    if problems:
        raise GraphError(problems)
    cheapest, full, exits, exact = _bounds(flow, "macs", limit)
    joules = _known_bounds(flow, "femtojoules", limit)
    normalised = _known_bounds(flow, "milli_mac_equivalents", limit)
    return Certificate(
        answers=True,
        cheapest_macs=cheapest,
        full_macs=full,
        cheapest_femtojoules=joules[0],
        full_femtojoules=joules[1],
        peak_tensor_bytes=_peak_tensor_bytes(graph),
        exact=exact,
        exits=tuple(ExitCost(name=n, cheapest_macs=low, full_macs=high) for n, low, high in exits),
        cheapest_milli_mac_equivalents=normalised[0],
        full_milli_mac_equivalents=normalised[1],
    )


def _known_bounds(flow: Flow, resource: str, limit: int) -> tuple[int, int] | tuple[None, None]:
    """(cheapest answer, dearest path) in a resource, if every node's cost says it."""
    if any(getattr(step.cost, resource) is None for step in flow.steps):
        return None, None
    return _bounds(flow, resource, limit)[:2]


def exit_bounds(graph: Graph, resource: str, *, limit: int = MAX_STATES) -> tuple[ExitBounds, ...]:
    """Least and most of a resource at each exit, in exit order, as :class:`ExitCost` has MACs.

    Args:
        graph: valid.
        resource: a field of :class:`~dynrt.ir.cost.Cost`.
        limit: as for :func:`certify`.

    Raises:
        BudgetError: a node's cost in it is not known.
    """
    return _bounds(Flow(graph), resource, limit)[2]


def _ends_here(flow: Flow, exit_node: Exit) -> bool:
    """Whether an ``always`` exit ends every run that reaches it."""
    return exit_node.accept.kind == "always" and flow.graph.combine.kind == "first"


def _unasked(flow: Flow, exit_node: Exit) -> bool:
    """Whether an exit's head never runs in passing."""
    kind = exit_node.accept.kind
    return kind == "never" or (kind == "always" and flow.graph.combine.kind == "last")


def path_violations(flow: Flow, *, limit: int = MAX_STATES) -> list[Violation]:
    """Paths without an answer, and exits on no path."""
    mend_answer = "add an exit that needs no decision, or a default on the edge that goes null"
    if reachable(flow, limit=limit) is None:
        if _unconditional_exit(flow):
            return []
        return [
            Violation(
                code="no-answer",
                place=flow.graph.exits[-1],
                message=f"over {limit} states, and no exit runs whatever is decided",
                mend=mend_answer,
            )
        ]
    level: set[tuple[int, bool]] = {(0, False)}  # state, has an exit been passed
    met: set[NodeId] = set()
    for i, step in enumerate(flow.steps):
        following: set[tuple[int, bool]] = set()
        for state, passed in level:
            for ran, _, after in flow.successors(i, state):
                if ran and isinstance(step.node, Exit):
                    met.add(step.node.name)
                    if not _ends_here(flow, step.node):
                        following.add((after, True))
                else:
                    following.add((after, passed))
        level = following
    out = [
        Violation(
            code="unreachable-exit",
            place=name,
            message="no path answers at this exit",
            mend="remove it, or move it before the exit that always accepts",
        )
        for name in flow.graph.exits
        if name not in met
    ]
    if any(not passed for _, passed in level):
        out.append(
            Violation(
                code="no-answer",
                place=flow.graph.exits[-1],
                message="some decisions lead past every exit without an answer",
                mend=mend_answer,
            )
        )
    return out


def _unconditional_exit(flow: Flow) -> bool:
    """Whether some exit runs even if no controlled node ever does."""
    state = 0
    for step in flow.steps:
        ran = not step.control_bit and step.runs(state)
        if ran and isinstance(step.node, Exit):
            return True
        state = step.after(state, ran=ran)
    return False


def _bounds(flow: Flow, resource: str, limit: int) -> tuple[int, int, tuple[ExitBounds, ...], bool]:
    """(cheapest answer, dearest path, bounds per exit, exact) in one resource."""
    completion = Completion(flow, (resource,), limit=limit)
    cheapest = completion.front(0, 0)[0][0]
    amounts = [a[0] for a in completion.amounts]
    if not completion.exact:
        full = sum(amounts)
        rows = tuple(
            ExitBounds(s.node.name, cheapest, full) for s in flow.steps if isinstance(s.node, Exit)
        )
        return cheapest, full, rows, False
    level: dict[int, tuple[int, int]] = {0: (0, 0)}  # state -> least, most amounts
    rows_exact: list[ExitBounds] = []
    for i, step in enumerate(flow.steps):
        following: dict[int, tuple[int, int]] = {}
        at_exit: list[tuple[int, int]] = []
        for state, (least, most) in level.items():
            for ran, _, after in flow.successors(i, state):
                low, high = least, most
                if ran and isinstance(step.node, Exit):
                    at_exit.append((least + amounts[i], most + amounts[i]))
                    if _ends_here(flow, step.node):
                        continue
                    if not _unasked(flow, step.node):
                        high = most + amounts[i]
                elif ran:
                    low = least if step.gate else least + amounts[i]
                    high = most + amounts[i]
                old = following.get(after)
                if old is not None:
                    low, high = min(low, old[0]), max(high, old[1])
                following[after] = (low, high)
        if at_exit:
            least, most = min(a for a, _ in at_exit), max(b for _, b in at_exit)
            rows_exact.append(ExitBounds(step.node.name, least, most))
        level = following
    return cheapest, _dearest(flow, amounts), tuple(rows_exact), True


def _dearest(flow: Flow, amounts: Sequence[int]) -> int:
    """The most that a run can spend, whatever is capped and wherever it is stopped.

    A cap on another resource may leave any exit out whose head it does not cover, and may stop the
    run anywhere to run the head of the exit passed last, if that did not run in passing.
    """
    level: dict[tuple[int, int], int] = {(0, 0): 0}  # (state, such a head's amount) -> most
    full = 0
    for i, step in enumerate(flow.steps):
        following: dict[tuple[int, int], int] = {}
        for (state, owed), most in level.items():
            for ran, _, after in flow.successors(i, state):
                ways = [(owed, most)]
                if ran and isinstance(step.node, Exit):
                    full = max(full, most + amounts[i])
                    if _unasked(flow, step.node):
                        ways.append((amounts[i], most))
                    elif not _ends_here(flow, step.node):
                        ways.append((0, most + amounts[i]))
                elif ran:
                    ways = [(owed, most + amounts[i])]
                for owes, high in ways:
                    following[after, owes] = max(high, following.get((after, owes), 0))
        level = following
        full = max([full, *(most + owed for (_, owed), most in level.items())])
    return full


def _peak_tensor_bytes(graph: Graph) -> int:
    """Most bytes of tensors between nodes alive at once, one sample, if every node runs."""
    order = graph.order
    last: dict[NodeId, int] = {}
    for i, name in enumerate(order):
        last.setdefault(name, i)
        for port in graph.by_name[name].inputs:
            edge = graph.edge_into[PortRef(name, port.name)]
            last[edge.source.node] = i
            default = edge.default
            while isinstance(default, PortRef):
                last[default.node] = i
                behind = graph.edge_into.get(default)
                if behind is None:
                    break
                last[behind.source.node] = i
                default = behind.default
    sizes = {n: sum(p.type.size_bytes for p in graph.by_name[n].outputs) for n in order}
    peak = 0
    for i in range(len(order)):
        peak = max(peak, sum(sizes[n] for j, n in enumerate(order[: i + 1]) if last[n] >= i))
    return peak
