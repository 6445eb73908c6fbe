"""The network around its nodes: which run, what they take, what decides, and who answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from dynrt.bundle.board_kinds import Accepts, Combines, OpKind
from dynrt.bundle.board_ops import NONE
from dynrt.bundle.board_table import INPUT_ALIGNMENT, BoardNode, NodeKind
from dynrt.errors import BoardFitError
from dynrt.exporters.board_builder import TableBuilder, float_bits, slot_type
from dynrt.ir.graph import (
    Argmax,
    ComputeNode,
    Constant,
    ControlNode,
    Exit,
    Graph,
    InputNode,
    NodeId,
    PortRef,
    TensorType,
)

_ACCEPTS = {
    "always": Accepts.ALWAYS_ACCEPT,
    "hinge": Accepts.HINGE,
    "max_softmax": Accepts.MAX_SOFTMAX,
    "margin": Accepts.MARGIN,
    "entropy": Accepts.ENTROPY,
}
_COMBINES = {
    "last": Combines.LAST,
    "sum": Combines.SUM,
    "max": Combines.MAXIMUM,
    "concat": Combines.JOIN,
}
#: Lowers a node's operators: the slots of its inputs by port to those of its outputs.
LowerNode = Callable[[ComputeNode | Exit, Mapping[str, int]], Mapping[str, int]]


class FlowLowering:
    """A whole network while it is lowered.

    Args:
        builder: what operators are added to.
        graph: valid.
        lower_node: what lowers the operators of a node.

    Attributes:
        nodes: of the table.
        node_names: what each is called; the last one stands for what comes behind the others.
        decisions: names of control nodes, then of exits in their order.
        thresholds: where the thresholds of each node that has any are, and how many.
        input_at: byte offset of each real input in a sample.
        param_slots: slot of each parameter.
        input_bytes: of a sample.
        answers: type of the answer of each exit.
    """

    def __init__(self, builder: TableBuilder, graph: Graph, lower_node: LowerNode) -> None:
        self.builder, self.graph, self._lower_node = builder, graph, lower_node
        controls = [n for n in graph.order if isinstance(graph.by_name[n], ControlNode)]
        self.decisions: tuple[NodeId, ...] = (*controls, *graph.exits)
        self._decision = {name: i for i, name in enumerate(self.decisions)}
        self.nodes: list[BoardNode] = []
        self.node_names: list[str] = []
        self.thresholds: dict[NodeId, tuple[int, int]] = {}
        self.input_at: dict[NodeId, int] = {}
        self.param_slots: dict[NodeId, int] = {}
        self.input_bytes = 0
        self.answers: dict[NodeId, TensorType] = {}
        self._answer_slot: dict[NodeId, int] = {}
        self._slots: dict[PortRef, int] = {}
        self._maybe_null: set[int] = set()

    def run(self) -> None:
        """Lower everything.

        Raises:
            BoardFitError: something that the board does not have.
        """
        self._inputs()
        late: list[Exit] = []
        for name in self.graph.order:
            node = self.graph.by_name[name]
            if isinstance(node, Exit) and self._only_at_the_end(node):
                late.append(node)
            elif not isinstance(node, InputNode):
                self._node(node)
        self._ending(late)

    def _inputs(self) -> None:
        inputs = self.graph.inputs()
        for source in (*(n for n in inputs if n.param), *(n for n in inputs if not n.param)):
            place = f"input {source.name!r}"
            self.builder.label = place
            dtype = slot_type(source.type.dtype, place)
            count = math.prod(source.type.shape)
            if not count:
                raise BoardFitError(f"{place}: has no elements")
            if source.param is not None:
                slot = self.builder.parameter(source.param.value, dtype)
                self.param_slots[source.name] = slot
            else:
                self.input_at[source.name] = self.input_bytes
                slot = self.builder.input(self.input_bytes, count, dtype)
                size = source.type.size_bytes
                self.input_bytes += size + -size % INPUT_ALIGNMENT
            self._slots[PortRef(source.name, source.name)] = slot
            self._table_node(NodeKind.INPUT, source.name, len(self.builder.ops))

    def _table_node(self, kind: NodeKind, name: str, first: int, decision: int = NONE) -> None:
        count = len(self.builder.ops) - first
        self.nodes.append(BoardNode(kind=kind, first=first, count=count, decision=decision))
        self.node_names.append(name)
        self.builder.node = len(self.nodes)

    # --- what a node takes

    def _taken(self, ref: PortRef) -> int:
        """The slot of what a node takes at an input port; made when it is first asked for."""
        if ref in self._slots:
            return self._slots[ref]
        edge = self.graph.edge_into[ref]
        slot = self._slots[edge.source]
        if edge.default is not None and slot in self._maybe_null:
            place = f"the default of {ref}"
            if isinstance(edge.default, Constant):
                value = edge.default.value
                other = self.builder.constant(value, slot_type(value.dtype.name, place))
            elif edge.default in self._slots:
                other = self._slots[edge.default]
            else:
                other = self._taken(edge.default)
            slot = self.builder.select(slot, other)
            if other in self._maybe_null:
                self._maybe_null.add(slot)
        self._slots[ref] = slot
        return slot

    def _begin(self, node: ComputeNode | ControlNode | Exit) -> tuple[dict[str, int], int, bool]:
        """What a node takes, its NODE operator, and whether it may not run."""
        self.builder.label = f"node {node.name!r}"
        taken = {p.name: self._taken(PortRef(node.name, p.name)) for p in node.inputs}
        self.builder.label = f"node {node.name!r}"
        edges = self.graph.controls_of.get(node.name, ())
        controls = [self._decision[e.control] << 8 | e.action for e in edges]
        needs = sorted({slot for slot in taken.values() if slot in self._maybe_null})
        at = self.builder.add(
            OpKind.NODE,
            controls=self.builder.put(controls),
            n_controls=len(controls),
            needs=self.builder.put(needs),
            n_needs=len(needs),
        )
        return taken, at, bool(controls or needs)

    def _end(self, at: int) -> None:
        """Where a node goes on that does not run."""
        self.builder.ops[at] = self.builder.ops[at].replaced(jump=len(self.builder.ops))

    # --- nodes

    def _node(self, node: ComputeNode | ControlNode | Exit) -> None:
        first = len(self.builder.ops)
        if isinstance(node, ControlNode):
            self._control(node)
            self._table_node(NodeKind.CONTROL, node.name, first, self._decision[node.name])
        elif isinstance(node, Exit):
            at = self._head(node)
            if not self._joins(node):
                self._accept(node)
            self._end(at)
            self._table_node(NodeKind.EXIT, node.name, first, self._decision[node.name])
        else:
            taken, at, may_not_run = self._begin(node)
            for port, slot in self._lower_node(node, taken).items():
                self._slots[PortRef(node.name, port)] = slot
                if may_not_run:
                    self._maybe_null.add(slot)
            self._end(at)
            self._table_node(NodeKind.COMPUTE, node.name, first)

    def _control(self, node: ControlNode) -> None:
        taken, at, _ = self._begin(node)
        if node.dtype != "float32":
            raise BoardFitError(f"node {node.name!r}: scores of {node.dtype} are not on the board")
        decision = self._decision[node.name]
        words = {"a": taken["scores"], "n": node.actions, "decision": decision}
        if isinstance(node.rule, Argmax):
            self.builder.add(OpKind.ARGMAX, **words)
        else:
            where = self._thresholds(node.name, node.rule.thresholds)
            self.builder.add(OpKind.THRESHOLD, threshold=where, **words)
        self._end(at)

    def _thresholds(self, name: NodeId, values: tuple[float, ...]) -> int:
        self.thresholds[name] = len(self.builder.thresholds), len(values)
        self.builder.thresholds += [float(v) for v in values]
        return self.thresholds[name][0]

    # --- exits

    def _head(self, node: Exit) -> int:
        """NODE and the operators of a head; where its answer is, is noted."""
        taken, at, may_not_run = self._begin(node)
        given = self._lower_node(node, taken)
        types = {p.name: p.type for p in node.outputs}
        kind = types[node.answer]
        if kind.dtype != "float32":
            raise BoardFitError(
                f"node {node.name!r}: an answer of {kind.dtype} is not on the board"
            )
        self.answers[node.name] = kind
        slot = given[node.answer]
        self._answer_slot[node.name] = slot
        if may_not_run:
            self._maybe_null.add(slot)
        if node.accept.scored:
            scored = types[node.accept.port]
            if scored.dtype != "float32":
                raise BoardFitError(f"node {node.name!r}: scores of {scored.dtype}")
            self._slots[PortRef(node.name, node.accept.port)] = given[node.accept.port]
        return at

    def _accept(self, node: Exit) -> None:
        words = {"rule": int(_ACCEPTS[node.accept.kind]), "decision": self._decision[node.name]}
        if node.accept.scored:
            scores = self._slots[PortRef(node.name, node.accept.port)]
            shape = next(p.type.shape for p in node.outputs if p.name == node.accept.port)
            words |= {
                "a": scores,
                "n": math.prod(shape),
                "threshold": self._thresholds(node.name, (node.accept.threshold,)),
            }
        self.builder.add(OpKind.ACCEPT, b=self._answer_slot[node.name], **words)

    def _joins(self, node: Exit) -> bool:
        """Whether an exit's answer is joined with others at the end."""
        return node.accept.kind == "always" and self.graph.combine.kind != "first"

    def _only_at_the_end(self, node: Exit) -> bool:
        """Whether a head runs only where no other exit has answered (``can_accept`` is false)."""
        last = node.accept.kind == "always" and self.graph.combine.kind == "last"
        return node.accept.kind == "never" or last

    def _ending(self, late: list[Exit]) -> None:
        """Behind all nodes: join, or the exit that was passed last answers all the same."""
        joined = [
            n
            for n in map(self.graph.by_name.__getitem__, self.graph.exits)
            if isinstance(n, Exit) and self._joins(n)
        ]
        first = len(self.builder.ops)
        if joined and self.graph.combine.kind != "last":
            self.builder.label = "answer"
            self._combine(_COMBINES[self.graph.combine.kind], joined, accepted=1)
        names = {n.name for n in late} | {n.name for n in joined}
        for name in reversed(self.graph.exits):
            node = self.graph.by_name[name]
            if not isinstance(node, Exit) or (name in names and node not in late):
                continue
            if node in late:
                if len(self.builder.ops) > first:
                    self._table_node(NodeKind.COMPUTE, f"answer before {name}", first)
                first = len(self.builder.ops)
                at = self._head(node)
                self._combine(Combines.LAST, [node], accepted=int(node.accept.kind == "always"))
                self._end(at)
                self._table_node(NodeKind.EXIT, name, first, self._decision[name])
                first = len(self.builder.ops)
            else:
                self.builder.label = "answer"
                always = node.accept.kind == "always"
                self._combine(Combines.LAST, [node], accepted=int(always))
        self.builder.label = "answer"
        self.builder.add(OpKind.STOP)
        self._table_node(NodeKind.COMPUTE, "answer", first)

    def _combine(self, rule: Combines, exits: list[Exit], *, accepted: int) -> None:
        pairs: list[int] = []
        for node in exits:
            pairs += [self._answer_slot[node.name], math.prod(self.answers[node.name].shape)]
        absent = self.graph.combine.absent if rule is Combines.JOIN else 0.0
        self.builder.add(
            OpKind.COMBINE,
            rule=int(rule),
            answers=self.builder.put(pairs),
            n_answers=len(exits),
            absent=float_bits(absent),
            decision=self._decision[exits[0].name],
            accepted=accepted,
        )
