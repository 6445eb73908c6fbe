"""A graph flattened to numbered steps and slots: what a run needs, computed once per network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from dynrt.ir.completion import Completion
from dynrt.ir.flow import Flow, FlowStep
from dynrt.ir.graph import Array, ComputeNode, Constant, Graph, InputNode, NodeId, PortRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Where an input port finds its tensor.

    Attributes:
        port: the port's name.
        source: slot of the edge's source.
        fallback: slot of the port that the edge's default names, or -1.
        default: the constant default, or ``None``.
        constant: the same as ``(1, ...)``.
        target: the input port itself.
        keep: slot to store what was found in, because a later edge names this port; or -1.
    """

    port: str
    source: int
    fallback: int
    default: Constant | None
    constant: Array | None
    target: PortRef
    keep: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """One node of the schedule.

    Attributes:
        index: its place in the schedule.
        flow: its guard and cost.
        feeds: one per input port.
        gives: ``(output port, slot)``, one per output port.
        done: slots that nobody reads any more behind this step.
    """

    index: int
    flow: FlowStep
    feeds: tuple[Feed, ...]
    gives: tuple[tuple[str, int], ...]
    done: tuple[int, ...]

    @property
    def name(self) -> NodeId:
        """The node's name."""
        return self.flow.node.name


class Plan:
    """The schedule of a graph, with slots for tensors and the costs to the next answer.

    Args:
        graph: a valid graph.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.flow = Flow(graph)
        slots: dict[PortRef, int] = {}
        named = {e.default for e in graph.data if isinstance(e.default, PortRef)}
        for name in graph.order:
            node = graph.by_name[name]
            for port in (*node.outputs, *node.inputs):
                ref = PortRef(name, port.name)
                if port in node.outputs or ref in named:
                    slots[ref] = len(slots)
        last: dict[int, int] = {}
        rows: list[tuple[FlowStep, tuple[Feed, ...], tuple[tuple[str, int], ...]]] = []
        for i, step in enumerate(self.flow.steps):
            name = step.node.name
            feeds = tuple(self._feed(PortRef(name, p.name), slots) for p in step.node.inputs)
            gives = tuple((p.name, slots[PortRef(name, p.name)]) for p in step.node.outputs)
            for feed in feeds:
                for slot in (feed.source, feed.fallback, feed.keep):
                    last[slot] = i
            for _, slot in gives:
                last[slot] = i
            rows.append((step, feeds, gives))
        self.slots = len(slots)
        readers: list[list[tuple[int, int]]] = [[] for _ in slots]
        for i, (_, feeds, _) in enumerate(rows):
            for feed in feeds:
                readers[feed.source].append((i, -1))
                if feed.fallback >= 0:
                    readers[feed.fallback].append((i, feed.source))
        #: Per slot, the steps that read it, each with the slot it stands in for, or -1.
        self.readers = tuple(tuple(r) for r in readers)
        ends: dict[int, list[int]] = {}
        for slot, i in last.items():
            if slot >= 0:
                ends.setdefault(i, []).append(slot)
        self.steps = tuple(
            PlanStep(
                index=i,
                flow=step,
                feeds=feeds,
                gives=gives,
                done=tuple(ends.get(i, ())),
            )
            for i, (step, feeds, gives) in enumerate(rows)
        )
        self.input_slots: Mapping[NodeId, int] = {
            n.name: slots[PortRef(n.name, n.name)]
            for n in graph.nodes
            if isinstance(n, InputNode) and PortRef(n.name, n.name) in slots
        }
        self.compute_names = tuple(
            s.name for s in self.steps if isinstance(s.flow.node, ComputeNode)
        )
        self._completions: dict[tuple[str, ...], Completion] = {}
        self._lock = Lock()

    def _feed(self, ref: PortRef, slots: Mapping[PortRef, int]) -> Feed:
        edge = self.graph.edge_into[ref]
        default = edge.default
        return Feed(
            port=ref.port,
            source=slots[edge.source],
            fallback=slots[default] if isinstance(default, PortRef) else -1,
            default=default if isinstance(default, Constant) else None,
            constant=default.value[None] if isinstance(default, Constant) else None,
            target=ref,
            keep=slots.get(ref, -1),
        )

    def skipped(self, path: Sequence[NodeId]) -> tuple[NodeId, ...]:
        """Compute nodes that are not on a path."""
        ran = set(path)
        return tuple(n for n in self.compute_names if n not in ran)

    def completion(self, resources: tuple[str, ...]) -> Completion:
        """Costs to the next answer in ``resources``; computed on first use.

        Raises:
            BudgetError: a node's cost in a resource is unknown.
        """
        with self._lock:
            if resources not in self._completions:
                self._completions[resources] = Completion(self.flow, resources)
            return self._completions[resources]
