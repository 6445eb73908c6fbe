"""Forces decisions so that every exit is reached and every gate comes to both its values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from dynrt.ir.graph import (
    Accept,
    Argmax,
    ControlNode,
    Exit,
    Graph,
    Node,
    NodeId,
    PortRef,
    Threshold,
)

_INF = float("inf")
#: Ways to choose among several controllers of a node that are tried.
_PICKS = 4


@dataclass(frozen=True, slots=True, order=True)
class Goal:
    """Something that must have happened: a run ended at an exit, or an action was (not) taken.

    Attributes:
        node: an exit, or a control node.
        action: of a control node; -1 for an exit.
        on: whether the action was taken.
    """

    node: NodeId
    action: int = -1
    on: bool = True

    def __str__(self) -> str:
        if self.action < 0:
            return self.node
        return f"{self.node}[{self.action}]={'on' if self.on else 'off'}"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A graph with its decisions forced, and what that should reach.

    Attributes:
        name: for messages.
        graph: with thresholds of plus or minus infinity.
        aims: what it is for; empty for the network as it is.
        spare: another way to the same aim, of use only if the first one missed it.
    """

    name: str
    graph: Graph
    aims: frozenset[Goal] = frozenset()
    spare: bool = False


def goals(graph: Graph) -> frozenset[Goal]:
    """Every exit, every action of every gate, and of threshold gates its absence too."""
    wanted = {Goal(name) for name in graph.exits}
    for node in graph.nodes:
        if isinstance(node, ControlNode):
            both = (True,) if isinstance(node.rule, Argmax) else (True, False)
            wanted |= {Goal(node.name, a, on) for a in range(node.actions) for on in both}
    return frozenset(wanted)


def reached(
    graph: Graph, decisions: Mapping[NodeId, tuple[int, ...]], path: tuple[NodeId, ...], end: NodeId
) -> frozenset[Goal]:
    """The goals that one run met."""
    met = {Goal(end)}
    for name in path:
        node = graph.by_name[name]
        if isinstance(node, Exit) and node.accept.kind == "always":
            met.add(Goal(name))
    for name, taken in decisions.items():
        node = graph.by_name[name]
        count = node.actions if isinstance(node, ControlNode) else 0
        met |= {Goal(name, a, a in taken) for a in range(count)}
    return frozenset(met)


def coverage_cases(graph: Graph) -> Iterator[Case]:
    """The network as it is, then for each goal several ways to force it; later ones are spares."""
    yield Case(name="own thresholds", graph=graph)
    for goal in sorted(goals(graph)):
        for pick in range(_PICKS):
            for rest_on in (True, False):
                yield Case(
                    name=f"forced {goal}",
                    graph=_forced(graph, goal, pick=pick, rest_on=rest_on),
                    aims=frozenset({goal}),
                    spare=pick > 0 or not rest_on,
                )


def _forced(graph: Graph, goal: Goal, *, pick: int, rest_on: bool) -> Graph:
    actions: dict[NodeId, set[int]] = {}
    _require(graph, goal.node, actions, pick, set())
    nodes: list[Node] = []
    for node in graph.nodes:
        if isinstance(node, Exit):
            nodes.append(_forced_exit(node, accepts=node.name == goal.node))
        elif isinstance(node, ControlNode):
            every = set(range(node.actions))
            if isinstance(node.rule, Argmax):
                every = {0} if rest_on else {node.actions - 1}
            chosen = actions.get(node.name, every if rest_on or _is_argmax(node) else set())
            if node.name == goal.node:
                chosen = {goal.action} if goal.on else every - {goal.action}
            bounds = tuple(-_INF if a in chosen else _INF for a in range(node.actions))
            nodes.append(replace(node, rule=Threshold(thresholds=bounds)))
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _is_argmax(node: ControlNode) -> bool:
    return isinstance(node.rule, Argmax)


def _forced_exit(node: Exit, *, accepts: bool) -> Exit:
    rule = node.accept
    if rule.kind == "always" or (rule.kind == "never" and not accepts):
        return node
    if rule.kind == "never":
        rule = Accept(kind="hinge", port=node.answer)
    return replace(node, accept=replace(rule, threshold=-_INF if accepts else _INF))


def _require(
    graph: Graph, name: NodeId, actions: dict[NodeId, set[int]], pick: int, seen: set[NodeId]
) -> None:
    """Collect into ``actions`` what must be decided for ``name`` to run."""
    if name in seen:
        return
    seen.add(name)
    links = graph.controls_of.get(name, ())
    if links:
        link = links[pick % len(links)]
        owner = graph.by_name[link.control]
        known = actions.setdefault(link.control, set())
        if not (isinstance(owner, ControlNode) and _is_argmax(owner) and known):
            known.add(link.action)
        _require(graph, link.control, actions, pick, seen)
    for port in graph.by_name[name].inputs:
        edge = graph.edge_into[PortRef(name, port.name)]
        if edge.default is None:
            _require(graph, edge.source.node, actions, pick, seen)
