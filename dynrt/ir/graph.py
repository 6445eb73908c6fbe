"""What a dynamic network is: nodes, data and control edges, exits and their order.

This is the D2NN of Liu & Deng (section 3) made general: several exits with accept rules, threshold
rules beside argmax, identity defaults, runtime parameters. Values are frozen; nothing here knows a
file or a backend. Shapes leave out the batch axis, which is always first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dynrt.ir.cost import Cost

NodeId = str
Array = npt.NDArray[Any]

#: What tensors between nodes may hold.
DTYPES = ("float32", "float16", "float64", "int8", "uint8", "int32", "int64", "bool")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorType:
    """Element type and shape of one sample; the batch axis is left out."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of one sample."""
        count = 1
        for n in self.shape:
            count *= n
        return count * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{self.dtype}[{'x'.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One named tensor that a node takes or gives; a node's input and output names differ."""

    name: str
    type: TensorType


@dataclass(frozen=True, slots=True, order=True)
class PortRef:
    """A port of a node, written ``node.port``."""

    node: NodeId
    port: str

    def __str__(self) -> str:
        return f"{self.node}.{self.port}"


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A constant for a missing tensor: one sample, without the batch axis."""

    value: Array

    def __post_init__(self) -> None:
        frozen = np.array(self.value)
        frozen.setflags(write=False)
        object.__setattr__(self, "value", frozen)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Constant)
            and self.value.dtype == other.value.dtype
            and self.value.shape == other.value.shape
            and self.value.tobytes() == other.value.tobytes()
        )

    def __hash__(self) -> int:
        return hash((str(self.value.dtype), self.value.shape, self.value.tobytes()))

    @classmethod
    def zeros(cls, kind: TensorType) -> Constant:
        """The paper's usual default (appendix C: "default value zero")."""
        return cls(np.zeros(kind.shape, kind.dtype))


#: What an edge carries when its source did not run: a constant, or what another port holds. A
#: reference to an *input* port means the tensor that this node would take there (the identity path
#: of a skipped block), to an *output* port what that node gave; null if that is null.
Default = Constant | PortRef


@dataclass(frozen=True, slots=True, kw_only=True)
class InputNode:
    """Where data enters. With ``param`` it is a runtime parameter that may be left out.

    Attributes:
        name: also the name of its only output port.
        type: one sample.
        param: value when the caller gives none (McGill's ``k_cpt``); ``None`` for a real input.
    """

    name: NodeId
    type: TensorType
    param: Constant | None = None

    @property
    def inputs(self) -> tuple[Port, ...]:
        """None."""
        return ()

    @property
    def outputs(self) -> tuple[Port, ...]:
        """One port, named like the node."""
        return (Port(name=self.name, type=self.type),)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelMask:
    """Channels of a node that may be left out, in groups: between two convolutions, or its outputs.

    The mask is data, not a rule: it comes by an input port, and costs nothing by itself.

    Attributes:
        port: the node's input port that takes the mask, float32 ``(groups,)``: a group is kept
            where its value is at least 0.5.
        groups: of how many channels each is the node's affair; all alike.
        group_macs: multiplications that one dropped group saves. The node's cost counts all
            groups; what is charged to a run is what the kept groups cost.
        kept_femtojoules, kept_milli_mac_equivalents: energy of the whole node with 0, 1, ... all
            groups kept (it is no multiple of a group's); empty where it is not modelled. The
            node's cost is at least the most of them.
    """

    port: str
    groups: int
    group_macs: int
    kept_femtojoules: tuple[int, ...] = ()
    kept_milli_mac_equivalents: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeNode:
    """A subgraph that turns inputs into outputs; without inputs it is a dummy node.

    Attributes:
        name: its name.
        inputs, outputs: its ports.
        cost: of one run, all channels kept.
        mask: channels that may be left out inside, or ``None``.
    """

    name: NodeId
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    cost: Cost
    mask: ChannelMask | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Argmax:
    """Exactly one action, the highest score; a tie goes to the lowest action (D2NN section 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Each action whose score is at least its threshold: none, one or several."""

    thresholds: tuple[float, ...]


Rule = Argmax | Threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlNode:
    """Turns scores into active control edges; costs nothing by itself.

    Attributes:
        name: its name.
        actions: how many scores its only input port, ``scores``, holds.
        rule: how scores become active actions.
        dtype: element type of the scores.
    """

    name: NodeId
    actions: int
    rule: Rule
    dtype: str = "float32"

    @property
    def inputs(self) -> tuple[Port, ...]:
        """One port, ``scores``: ``(actions,)``."""
        return (Port(name="scores", type=TensorType(dtype=self.dtype, shape=(self.actions,))),)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """None: control edges are not data."""
        return ()


ScoreKind = Literal["hinge", "max_softmax", "entropy", "margin", "always", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """When an exit's answer is good enough: ``score >= threshold`` (see ``dynrt.ir.rules``).

    Attributes:
        kind: ``hinge`` the largest distance ``max(w'x - b)`` (Shafiee et al., algorithm 1);
            ``max_softmax``, ``margin`` (best minus second probability) and ``entropy`` (one minus
            entropy over its maximum) of the port's softmax; ``always``; ``never``: answers only
            when stopped there.
        port: the exit's output port that holds what is scored, ``(classes,)``; unused by
            ``always`` and ``never``.
        threshold: the least score that is accepted; unused by ``always`` and ``never``.
    """

    kind: ScoreKind
    port: str = ""
    threshold: float = 0.0

    @property
    def scored(self) -> bool:
        """Whether a score is compared at all."""
        return self.kind not in ("always", "never")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A subgraph that gives an answer, and the rule by which it ends the run.

    Attributes:
        name: its name.
        inputs, outputs: its ports.
        answer: the output port that is the answer.
        accept: when it ends the run.
        cost: of the head.
    """

    name: NodeId
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    answer: str
    accept: Accept
    cost: Cost


Node = InputNode | ComputeNode | ControlNode | Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class DataEdge:
    """Carries a tensor from ``source`` (an output port) to ``target`` (an input port)."""

    source: PortRef
    target: PortRef
    default: Default | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlEdge:
    """Action ``action`` of ``control`` switches ``target`` on."""

    control: NodeId
    target: NodeId
    action: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Combine:
    """How the ``always`` exits at the end of the order join when more than one of them answers.

    Attributes:
        kind: ``first`` ends the run at the first; ``last``, ``sum`` and ``max`` join answers of one
            shape; ``concat`` joins along the first axis, in exit order.
        absent: what ``concat`` puts for an exit that gave no answer.
    """

    kind: Literal["first", "last", "sum", "max", "concat"] = "first"
    absent: float = float(np.finfo(np.float32).min)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes and edges. Build it freely; ``dynrt.ir.check.check`` says what is wrong with it.

    Attributes:
        nodes: in any order; names are unique.
        data: data edges, at most one into each input port.
        control: control edges.
        exits: names of all exits in the one total order in which they are tried.
        combine: how several final answers join.
    """

    nodes: tuple[Node, ...]
    data: tuple[DataEdge, ...]
    control: tuple[ControlEdge, ...] = ()
    exits: tuple[NodeId, ...] = ()
    combine: Combine = field(default_factory=Combine)

    @cached_property
    def by_name(self) -> Mapping[NodeId, Node]:
        """Nodes by name; of two with one name, the last (``check`` reports it)."""
        return {n.name: n for n in self.nodes}

    @cached_property
    def edge_into(self) -> Mapping[PortRef, DataEdge]:
        """The data edge into each input port that has one."""
        return {e.target: e for e in self.data}

    @cached_property
    def edges_naming(self) -> Mapping[PortRef, tuple[DataEdge, ...]]:
        """The data edges that each port feeds, as their source or as their default."""
        out: dict[PortRef, list[DataEdge]] = {}
        for edge in self.data:
            out.setdefault(edge.source, []).append(edge)
            if isinstance(edge.default, PortRef) and edge.default != edge.source:
                out.setdefault(edge.default, []).append(edge)
        return {k: tuple(v) for k, v in out.items()}

    @cached_property
    def controls_of(self) -> Mapping[NodeId, tuple[ControlEdge, ...]]:
        """Incoming control edges of each node that has any."""
        out: dict[NodeId, list[ControlEdge]] = {}
        for edge in self.control:
            out.setdefault(edge.target, []).append(edge)
        return {k: tuple(v) for k, v in out.items()}

    @cached_property
    def controlled_by(self) -> Mapping[NodeId, tuple[ControlEdge, ...]]:
        """Outgoing control edges of each node that has any."""
        out: dict[NodeId, list[ControlEdge]] = {}
        for edge in self.control:
            out.setdefault(edge.control, []).append(edge)
        return {k: tuple(v) for k, v in out.items()}

    @cached_property
    def parents_of(self) -> Mapping[NodeId, tuple[NodeId, ...]]:
        """Nodes that must come before each node: sources, owners of default ports, controllers."""
        out: dict[NodeId, dict[NodeId, None]] = {n.name: {} for n in self.nodes}
        for edge in self.data:
            before = out.setdefault(edge.target.node, {})
            before[edge.source.node] = None
            if isinstance(edge.default, PortRef):
                before[edge.default.node] = None
        for link in self.control:
            out.setdefault(link.target, {})[link.control] = None
        return {k: tuple(v) for k, v in out.items()}

    @cached_property
    def order(self) -> tuple[NodeId, ...]:
        """The static schedule: for each exit in order, what it still needs, then the exit.

        Nodes that no exit needs are left out. Means nothing for a graph with cycles.
        """
        done: dict[NodeId, None] = {}
        entered: set[NodeId] = set()
        for name in self.exits:
            stack = [(name, False)]
            while stack:
                here, ready = stack.pop()
                if ready:
                    done[here] = None
                    continue
                if here in entered:
                    continue
                entered.add(here)
                stack.append((here, True))
                parents = self.parents_of.get(here, ())
                stack.extend((p, False) for p in reversed(parents))
        return tuple(done)

    def inputs(self) -> tuple[InputNode, ...]:
        """The input nodes, parameters included."""
        return tuple(n for n in self.nodes if isinstance(n, InputNode))
