"""The schedule of a dynamic network as linear maps over probabilities of its states.

``dynrt.ir.flow`` says which nodes can run in which state. Here each step becomes index vectors: which
states run it, and which state follows with what probability. ``dynrt.train.energy_loss`` applies
them to whole batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dynrt.errors import EnergyError
from dynrt.ir.completion import MAX_STATES
from dynrt.ir.flow import Flow, FlowStep
from dynrt.ir.graph import Argmax, ComputeNode, ControlNode, Exit, Graph, NodeId
from dynrt.ir.rules import can_accept

#: A state of the schedule, and the exit whose head is still owed; for a control node that draws its
#: actions one by one, also the bits that are switched on so far (``None``: it does not run).
_Key = tuple[int, NodeId | None, int | None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Charge:
    """The states in which a node runs.

    Attributes:
        node: its name.
        states: their columns, int64 ``(n,)``.
    """

    node: NodeId
    states: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Move:
    """From the states before to the states behind; a run that ends has no state behind.

    Attributes:
        sources, targets: columns of the states before and behind, int64 ``(moves,)``.
        factors: columns of the factors by which they are weighted, int64 ``(moves,)``.
        size: how many states there are behind.
    """

    sources: Tensor
    targets: Tensor
    factors: Tensor
    size: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Program:
    """A network's schedule.

    The factors of a move are columns of ``[1, p, 1 - p]``, with ``p`` the probabilities of
    ``actions`` and, behind them, of ``exits``.

    Attributes:
        steps: in order.
        actions: (control node, action), in order of the schedule.
        argmax: the control nodes that choose exactly one action.
        exits: those whose acceptance decides what else runs, in order.
        nodes: everything that may run, in order of the schedule.
    """

    steps: tuple[Charge | Move, ...]
    actions: tuple[tuple[NodeId, int], ...]
    argmax: frozenset[NodeId]
    exits: tuple[NodeId, ...]
    nodes: tuple[NodeId, ...]


class _Writer:
    """Builds the steps, and keeps the states that are alive behind the last of them."""

    def __init__(self, limit: int) -> None:
        self.steps: list[Charge | Move] = []
        self.keys: list[_Key] = [(0, None, None)]
        self._left = limit
        self._limit = limit

    def charge(self, node: NodeId, runs: Sequence[bool]) -> None:
        """``node`` runs in the states, in the order of ``keys``, for which ``runs``."""
        states = [i for i, yes in enumerate(runs) if yes]
        if states:
            self.steps.append(Charge(node=node, states=torch.tensor(states)))

    def move(self, follow: Callable[[_Key], Sequence[tuple[_Key, int]]]) -> None:
        """``follow`` gives the states behind a state, each with the column of its factor."""
        columns: dict[_Key, int] = {}
        sources, targets, factors = list[int](), list[int](), list[int]()
        for i, key in enumerate(self.keys):
            for behind, factor in follow(key):
                sources.append(i)
                targets.append(columns.setdefault(behind, len(columns)))
                factors.append(factor)
        self._left -= len(sources)
        if self._left < 0:
            raise EnergyError(
                f"the network has over {self._limit} states: its expected energy is not computed; "
                "fewer gates that wait for one another, or gates of one action each, have fewer"
            )
        kept = sources == targets == list(range(len(self.keys))) and not any(factors)
        self.keys = list(columns)
        if not kept:
            self.steps.append(
                Move(
                    sources=torch.tensor(sources, dtype=torch.int64),
                    targets=torch.tensor(targets, dtype=torch.int64),
                    factors=torch.tensor(factors, dtype=torch.int64),
                    size=len(columns),
                )
            )


def _deferred(graph: Graph, node: Exit) -> bool:
    """Whether the head does not run in passing, only if the run ends behind it."""
    accept = node.accept
    if accept.kind == "always":
        return graph.combine.kind == "last"
    return not can_accept(accept, accept.threshold)


def _ends_here(graph: Graph, node: Exit) -> bool:
    return node.accept.kind == "always" and graph.combine.kind == "first"


def write_program(graph: Graph, *, limit: int = MAX_STATES) -> Program:
    """Compile the schedule of a valid graph; without a budget, so nothing is forced.

    Raises:
        EnergyError: it has more states than ``limit``.
    """
    flow = Flow(graph)
    controls = [s.node for s in flow.steps if isinstance(s.node, ControlNode)]
    actions = [(c.name, a) for c in controls for a in range(c.actions)]
    asked = [
        s.node.name
        for s in flow.steps[:-1]
        if isinstance(s.node, Exit)
        and s.node.accept.scored
        and can_accept(s.node.accept, s.node.accept.threshold)
    ]
    columns: Mapping[object, int] = {k: 1 + i for i, k in enumerate([*actions, *asked])}
    size = len(columns)
    writer = _Writer(limit)
    for step in flow.steps:
        node = step.node
        if isinstance(node, Exit):
            _write_exit(writer, graph, step, node, columns.get(node.name), size)
        elif isinstance(node, ControlNode):
            _write_control(writer, step, node, columns, size)
        else:
            if isinstance(node, ComputeNode):
                writer.charge(node.name, [step.runs(key[0]) for key in writer.keys])
            writer.move(partial(_passed, step))
    for name in graph.exits:  # the run ended behind a head that did not run in passing
        writer.charge(name, [owed == name for _, owed, _ in writer.keys])
    return Program(
        steps=tuple(writer.steps),
        actions=tuple(actions),
        argmax=frozenset(c.name for c in controls if isinstance(c.rule, Argmax)),
        exits=tuple(asked),
        nodes=tuple(s.node.name for s in flow.steps if isinstance(s.node, ComputeNode | Exit)),
    )


def _passed(step: FlowStep, key: _Key) -> list[tuple[_Key, int]]:
    state, owed, _ = key
    return [((step.after(state, ran=step.runs(state)), owed, None), 0)]


def _write_exit(
    writer: _Writer, graph: Graph, step: FlowStep, node: Exit, column: int | None, size: int
) -> None:
    deferred, ends = _deferred(graph, node), _ends_here(graph, node)
    if not deferred:
        writer.charge(node.name, [step.runs(key[0]) for key in writer.keys])

    def follow(key: _Key) -> list[tuple[_Key, int]]:
        state = key[0]
        if not step.runs(state):
            return _passed(step, key)
        if ends:
            return []
        refused = 0 if column is None else column + size
        return [((step.after(state, ran=True), node.name if deferred else None, None), refused)]

    writer.move(follow)


def _write_control(
    writer: _Writer,
    step: FlowStep,
    node: ControlNode,
    columns: Mapping[object, int],
    size: int,
) -> None:
    if isinstance(node.rule, Argmax):

        def choose(key: _Key) -> list[tuple[_Key, int]]:
            state, owed, _ = key
            if not step.runs(state):
                return _passed(step, key)
            return [
                ((step.after(state, ran=True, switched_on=mask), owed, None), columns[node.name, a])
                for a, mask in enumerate(step.masks)
            ]

        writer.move(choose)
        return

    def start(key: _Key) -> list[tuple[_Key, int]]:
        state, owed, _ = key
        return [((state, owed, 0 if step.runs(state) else None), 0)]

    def draw(action: int, mask: int) -> Callable[[_Key], list[tuple[_Key, int]]]:
        yes = columns[node.name, action]

        def follow(key: _Key) -> list[tuple[_Key, int]]:
            state, owed, on = key
            if on is None:
                return [(key, 0)]
            return [((state, owed, on | mask), yes), ((state, owed, on), yes + size)]

        return follow

    def end(key: _Key) -> list[tuple[_Key, int]]:
        state, owed, on = key
        return [((step.after(state, ran=on is not None, switched_on=on or 0), owed, None), 0)]

    writer.move(start)
    for action, mask in enumerate(step.masks):
        if mask:
            writer.move(draw(action, mask))
    writer.move(end)
