"""Which nodes can run: the graph's schedule with nulls and control edges, but without tensors.

A *state* is an integer whose bits say which nodes ran, which input ports hold a tensor and which
nodes are switched on, kept only as long as a later step asks. Chains and trees have a handful of
states per step, so costs to the next answer are exact there (``dynrt.ir.completion``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

from dynrt.ir.cost import ZERO_COST, Cost
from dynrt.ir.graph import (
    ComputeNode,
    Constant,
    ControlNode,
    DataEdge,
    Exit,
    Graph,
    Node,
    NodeId,
    PortRef,
)
from dynrt.ir.rules import decisions


def gates_of(graph: Graph) -> frozenset[NodeId]:
    """Compute nodes that serve decisions only: all that read them are control nodes or gates.

    Such a node need not run when the budget has settled the decisions beforehand.
    """
    gates: set[NodeId] = set()
    for name in reversed(graph.order):  # readers come before what they read
        if isinstance(graph.by_name[name], ComputeNode):
            readers = list(_readers(graph, name, beyond=gates))
            if readers and all(r in gates or _decides(graph, r) for r in readers):
                gates.add(name)
    return frozenset(gates)


def _decides(graph: Graph, name: NodeId) -> bool:
    return isinstance(graph.by_name[name], ControlNode)


def _readers(graph: Graph, name: NodeId, *, beyond: Collection[NodeId]) -> Iterator[NodeId]:
    """Nodes that may take what ``name`` gave, also by way of a port that a default names.

    Stops behind the first one that is neither a control node nor among ``beyond``.
    """
    carriers = {PortRef(name, p.name) for p in graph.by_name[name].outputs}
    todo = list(carriers)
    while todo:
        for edge in graph.edges_naming.get(todo.pop(), ()):
            reader = edge.target.node
            yield reader
            if reader not in beyond and not _decides(graph, reader):
                return
            if edge.target not in carriers:
                carriers.add(edge.target)
                todo.append(edge.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowStep:
    """One node of the schedule, as bit masks over states.

    Attributes:
        node: the node itself.
        cost: what running it is charged.
        gate: whether a settled run leaves it out (see :func:`gates_of`).
        control_bit: bit that must be set for it to be switched on; 0 if nothing controls it.
        needs: for each input that can be null, the bits of which at least one must be set.
        ran_bit: bit set when it runs; 0 if nobody asks.
        ports: ``(needed bits or 0 for never null, bit)`` of input ports that later edges name.
        choices: every decision of a control node, with the bits that it switches on.
        masks: the bits that each action of a control node switches on.
        live: bits that later steps ask for.
    """

    node: Node
    cost: Cost
    gate: bool
    control_bit: int
    needs: tuple[int, ...]
    ran_bit: int
    ports: tuple[tuple[int, int], ...]
    choices: tuple[tuple[tuple[int, ...], int], ...]
    masks: tuple[int, ...]
    live: int

    def runs(self, state: int) -> bool:
        """Whether the node runs in ``state`` (D2NN section 3: switched on, no null input)."""
        if self.control_bit and not state & self.control_bit:
            return False
        return all(state & need for need in self.needs)

    def switched_on(self, actions: tuple[int, ...]) -> int:
        """The bits that ``actions`` of a control node switch on."""
        mask = 0
        for action in actions:
            mask |= self.masks[action]
        return mask

    def after(self, state: int, *, ran: bool, switched_on: int = 0) -> int:
        """The state behind this step."""
        state |= switched_on
        if ran:
            state |= self.ran_bit
        for need, bit in self.ports:
            if not need or state & need:
                state |= bit
        return state & self.live


class Flow:
    """The schedule of a valid graph as masks.

    Attributes:
        graph: the graph.
        steps: one per node of ``graph.order``.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._bits: dict[tuple[str, object], int] = {}
        gates = gates_of(graph)
        order = graph.order
        scheduled = set(order)
        named = {e.default for e in graph.data if isinstance(e.default, PortRef)}
        guards: list[tuple[int, tuple[int, ...], tuple[tuple[int, int], ...]]] = []
        for name in order:
            node = graph.by_name[name]
            needs: list[int] = []
            ports: list[tuple[int, int]] = []
            for port in node.inputs:
                ref = PortRef(name, port.name)
                mask = self._alternatives(graph.edge_into[ref])
                if mask:
                    needs.append(mask)
                if ref in named:
                    ports.append((mask, self._bit("port", ref)))
            control_bit = self._bit("on", name) if name in graph.controls_of else 0
            guards.append((control_bit, tuple(needs), tuple(ports)))
        live = 0
        steps: list[FlowStep] = []
        for i in range(len(order) - 1, -1, -1):
            node = graph.by_name[order[i]]
            control_bit, all_needs, named_ports = guards[i]
            masks = self._masks(node, scheduled)
            steps.append(
                FlowStep(
                    node=node,
                    cost=node.cost if isinstance(node, ComputeNode | Exit) else ZERO_COST,
                    gate=node.name in gates,
                    control_bit=control_bit,
                    needs=all_needs,
                    ran_bit=self._bits.get(("ran", node.name), 0),
                    ports=named_ports,
                    choices=tuple(
                        (actions, reduce(or_, (masks[a] for a in actions), 0))
                        for actions in (decisions(node) if isinstance(node, ControlNode) else ())
                    ),
                    masks=masks,
                    live=live,
                )
            )
            live |= control_bit
            for need in all_needs:
                live |= need
        self.steps: Sequence[FlowStep] = tuple(reversed(steps))

    def _bit(self, kind: str, what: object) -> int:
        return self._bits.setdefault((kind, what), 1 << len(self._bits))

    def _alternatives(self, edge: DataEdge) -> int:
        """Bits of which one must be set for the edge to carry a tensor; 0 if it always does."""
        if isinstance(edge.default, Constant):
            return 0
        mask = self._bit("ran", edge.source.node)
        if isinstance(edge.default, PortRef):
            owner = self.graph.by_name[edge.default.node]
            if any(p.name == edge.default.port for p in owner.outputs):
                mask |= self._bit("ran", owner.name)
            else:
                mask |= self._bit("port", edge.default)
        return mask

    def _masks(self, node: Node, scheduled: set[NodeId]) -> tuple[int, ...]:
        """What each action of a control node switches on; nodes that no exit needs are left out."""
        if not isinstance(node, ControlNode):
            return ()
        out = [0] * node.actions
        for edge in self.graph.controlled_by.get(node.name, ()):
            if edge.target in scheduled:
                out[edge.action] |= self._bit("on", edge.target)
        return tuple(out)

    def successors(self, i: int, state: int) -> list[tuple[bool, tuple[int, ...], int]]:
        """What can follow step ``i``: (whether it ran, actions, state behind it)."""
        step = self.steps[i]
        runs = step.runs(state)
        if step.choices and runs:
            return [
                (True, actions, step.after(state, ran=True, switched_on=mask))
                for actions, mask in step.choices
            ]
        return [(runs, (), step.after(state, ran=runs))]
