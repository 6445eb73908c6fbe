"""Which nodes always run together, and so make one segment.

Nodes are joined only if they follow one another in the schedule without a decision between them:
no control node, exit, gate or masked node. What remains is to show that each runs if and only if
the others do. A node's *guard* says when it runs: clauses of which all must hold, each a set of
facts of which one must.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from dynrt.ir.flow import gates_of
from dynrt.ir.graph import (
    ComputeNode,
    Constant,
    ControlNode,
    DataEdge,
    Default,
    Exit,
    Graph,
    InputNode,
    NodeId,
    PortRef,
)

#: ``("ran", node)``, ``("port", input port)`` or ``("action", control node, action)``.
Fact = tuple[object, ...]
Guard = frozenset[frozenset[Fact]]
_ALWAYS: Guard = frozenset()


class Guards:
    """When each node of a schedule runs, leaving out what is always true.

    Args:
        graph: a valid graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.gates = gates_of(graph)
        self._always_full: set[PortRef] = set()
        self._certain: set[NodeId] = set()
        self._guards: dict[NodeId, Guard] = {}
        for name in graph.order:  # what a default names comes before
            self._guards[name] = self._find(name)

    def of(self, name: NodeId) -> Guard:
        """The guard of ``name``; empty if it always runs."""
        return self._guards[name]

    def default_of(self, target: PortRef) -> Default | None:
        """The default of the edge into ``target``, unless its source always runs."""
        edge = self._graph.edge_into[target]
        return None if edge.source.node in self._certain else edge.default

    def _find(self, name: NodeId) -> Guard:
        graph, node = self._graph, self._graph.by_name[name]
        clauses: set[frozenset[Fact]] = set()
        if name in graph.controls_of:
            links = graph.controls_of[name]
            clauses.add(frozenset(("action", e.control, e.action) for e in links))
        for port in node.inputs:
            ref = PortRef(name, port.name)
            facts = self._facts(graph.edge_into[ref])
            if facts is None:
                self._always_full.add(ref)
            else:
                clauses.add(facts)
        guard = frozenset(clauses)
        # an exit's head may be left out, and a gate whose decision the budget has settled
        optional = isinstance(node, Exit | ControlNode) or name in self.gates
        if guard == _ALWAYS and not optional:
            self._certain.add(name)
        return guard

    def _facts(self, edge: DataEdge) -> frozenset[Fact] | None:
        """Facts of which one must hold for the edge to carry a tensor; ``None`` if it always does."""
        default = edge.default
        if isinstance(default, Constant) or edge.source.node in self._certain:
            return None
        facts: set[Fact] = {("ran", edge.source.node)}
        if default is not None:
            owner = self._graph.by_name[default.node]
            if any(p.name == default.port for p in owner.outputs):
                if owner.name in self._certain:
                    return None
                facts.add(("ran", owner.name))
            elif default in self._always_full:
                return None
            else:
                facts.add(("port", default))
        return frozenset(facts)


@dataclass(slots=True)
class _Open:
    """A segment that may still grow."""

    guard: Guard
    nodes: list[NodeId] = field(default_factory=list)
    ran: set[Fact] = field(default_factory=set)
    defaults: dict[PortRef, Default | None] = field(default_factory=dict)


def partition(graph: Graph, guards: Guards, alone: Collection[NodeId]) -> list[tuple[NodeId, ...]]:
    """The compute nodes and exits of the schedule, in order, by segment.

    Args:
        graph: a valid graph.
        guards: of that graph.
        alone: nodes that must not be joined with others.
    """
    parts: list[list[NodeId]] = []
    last: _Open | None = None
    for name in graph.order:
        node = graph.by_name[name]
        if isinstance(node, InputNode):
            continue
        if isinstance(node, ControlNode):
            last = None
            continue
        lonely = (
            not isinstance(node, ComputeNode)
            or node.mask is not None
            or name in guards.gates
            or name in alone
            or _torn(graph, guards, name)
        )
        if lonely:
            last = None
            parts.append([name])
            continue
        if last is None or not _joins(graph, guards, last, name):
            last = _Open(guard=guards.of(name))
            parts.append(last.nodes)
        _add(graph, guards, last, name)
    return [tuple(part) for part in parts]


def _torn(graph: Graph, guards: Guards, name: NodeId) -> bool:
    """Whether two ports of a node take one source with different defaults: two tensors, at times."""
    defaults: dict[PortRef, Default | None] = {}
    for port in graph.by_name[name].inputs:
        ref = PortRef(name, port.name)
        default = guards.default_of(ref)
        if defaults.setdefault(graph.edge_into[ref].source, default) != default:
            return True
    return False


def _outside(graph: Graph, part: _Open, name: NodeId) -> Iterable[tuple[PortRef, PortRef]]:
    """Input ports of ``name``, each with its source, that are fed from outside the segment."""
    for port in graph.by_name[name].inputs:
        ref = PortRef(name, port.name)
        source = graph.edge_into[ref].source
        if ("ran", source.node) not in part.ran:
            yield ref, source


def _add(graph: Graph, guards: Guards, part: _Open, name: NodeId) -> None:
    for ref, source in _outside(graph, part, name):
        part.defaults.setdefault(source, guards.default_of(ref))
    part.nodes.append(name)
    part.ran.add(("ran", name))


def _joins(graph: Graph, guards: Guards, part: _Open, name: NodeId) -> bool:
    """Whether ``name`` runs just when the segment does, and takes the same tensors."""
    for ref, source in _outside(graph, part, name):
        if part.defaults.get(source, default := guards.default_of(ref)) != default:
            return False
        if default is not None and any(r.node in part.nodes for r in _carried(graph, default)):
            return False  # a segment cannot take what it gives itself
    own = guards.of(name)
    rest = [clause for clause in own if clause.isdisjoint(part.ran)]
    if not all(any(held <= clause for held in part.guard) for clause in rest):
        return False
    return any(clause <= part.ran for clause in own) or all(
        any(clause <= held for clause in own) for held in part.guard
    )


def _carried(graph: Graph, default: Default) -> Iterable[PortRef]:
    """Output ports of which a default may carry the tensor."""
    todo = [default]
    while todo:
        ref = todo.pop()
        if isinstance(ref, Constant):
            continue
        edge = graph.edge_into.get(ref)
        if edge is None:  # an output port
            yield ref
        else:  # what this input port would take
            yield edge.source
            if edge.default is not None:
                todo.append(edge.default)
