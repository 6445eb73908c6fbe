"""Runs a network with gates on a batch, each sample on its own path, past every exit.

What ``dynrt.calibrate.scores`` cannot do by running every node on everything: gates decide from
features that their own earlier decisions made, so what a later exit says of an input, and what
reaching it costs, is known only on that input's path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dynrt.errors import CalibrationError
from dynrt.ir.completion import Completion
from dynrt.ir.cost import Cost
from dynrt.ir.flow import Flow
from dynrt.ir.graph import (
    Array,
    ComputeNode,
    Constant,
    ControlNode,
    Exit,
    Graph,
    InputNode,
    Node,
    NodeId,
    PortRef,
    Threshold,
)
from dynrt.ir.masks import cost_of_kept, kept_groups
from dynrt.ir.rules import argmax, threshold_actions

Call = Callable[[NodeId, Mapping[str, Array]], Mapping[str, Array]]
Int = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Held(NamedTuple):
    """A tensor of a batch that some samples have.

    Attributes:
        value: ``(n, ...)``; rows of other samples mean nothing.
        there: ``(n,)``: which samples have it.
    """

    value: Array
    there: Bools


class Trip(NamedTuple):
    """What a batch came to.

    Attributes:
        exits: outputs ``(n, ...)`` of every exit's head, by port.
        costs: ``(n, steps)``: what each node of the schedule was charged; inputs are left out.
        needs: ``(n, steps)``: what must be left before a step for a cap to leave it alone, or -1.
    """

    exits: dict[PortRef, Array]
    costs: Int
    needs: Int


class Paths:
    """A network with gates, ready to run batches.

    Args:
        graph: a valid graph whose exits are passed on every path.
        call: runs one node.
        resource: what costs are counted in, a field of :class:`~dynrt.ir.cost.Cost`.

    Raises:
        BudgetError: a node's cost in that resource is unknown.
    """

    def __init__(self, graph: Graph, call: Call, *, resource: str = "macs") -> None:
        self._graph, self._call, self._resource = graph, call, resource
        self._flow = Flow(graph)
        self._completion = Completion(self._flow, (resource,))
        self.nodes = tuple(
            n for n in (graph.by_name[s] for s in graph.order) if not isinstance(n, InputNode)
        )
        self._column = {n.name: i for i, n in enumerate(self.nodes)}
        self._first_exit = graph.order.index(graph.exits[0])
        self._named = {e.default for e in graph.data if isinstance(e.default, PortRef)}
        self._last_use: dict[PortRef, int] = {}
        for at, name in enumerate(graph.order):
            for port in graph.by_name[name].inputs:
                edge = graph.edge_into[PortRef(name, port.name)]
                for ref in (edge.source, edge.default):
                    if isinstance(ref, PortRef):
                        self._last_use[ref] = at

    @property
    def prices(self) -> Int:
        """``(steps,)``: what each node costs with all its channels."""
        index = {s.node.name: i for i, s in enumerate(self._flow.steps)}
        return np.array([self._completion.amounts[index[n.name]][0] for n in self.nodes], np.int64)

    def run(self, inputs: Array) -> Trip:
        """Run a batch ``(n, ...)``.

        Raises:
            CalibrationError: a sample's path leaves out an exit.
            BackendError: a node failed or a score is NaN.
        """
        n, graph = len(inputs), self._graph
        held: dict[PortRef, Held] = {}
        on: dict[NodeId, Bools] = {}
        states = [0] * n
        trip = Trip({}, np.zeros((n, len(self.nodes)), np.int64), np.full((n, len(self.nodes)), -1))
        for at, name in enumerate(graph.order):
            node = graph.by_name[name]
            taken = self._take(node, held, n)
            runs = on.get(name, np.full(n, name not in graph.controls_of))
            for port, got in taken.items():
                runs = runs & got.there
                if PortRef(name, port) in self._named:
                    held[PortRef(name, port)] = got
            rows = np.flatnonzero(runs)
            actions: dict[int, tuple[int, ...]] = {}
            if isinstance(node, InputNode):
                value = inputs if node.param is None else _repeat(node.param.value[None], n)
                held[PortRef(name, name)] = Held(value, runs)
            elif isinstance(node, ControlNode):
                actions = self._decide(node, next(iter(taken.values())).value, rows, on, n)
            else:
                if isinstance(node, Exit) and rows.size != n:
                    raise CalibrationError(
                        f"exit {name!r} is not on every path ({n - rows.size} of {n} inputs pass it "
                        "by): no thresholds can be calibrated from cached scores"
                    )
                self._run(node, taken, rows, held, trip)
            step = self._flow.steps[at]
            for row, ran in enumerate(runs.tolist()):
                switched_on = step.switched_on(actions.get(row, ()))
                states[row] = step.after(states[row], ran=ran, switched_on=switched_on)
            self._note_needs(at, node, rows, states, trip)
            for ref in [r for r in held if self._last_use.get(r, -1) <= at and r.node != name]:
                del held[ref]
        return trip

    def _take(self, node: Node, held: Mapping[PortRef, Held], n: int) -> dict[str, Held]:
        out: dict[str, Held] = {}
        for port in node.inputs:
            edge = self._graph.edge_into[PortRef(node.name, port.name)]
            got, default = held[edge.source], edge.default
            if default is not None and not got.there.all():
                other = (
                    Held(_repeat(default.value[None], n), np.ones(n, np.bool_))
                    if isinstance(default, Constant)
                    else held[default]
                )
                own = got.there.reshape(-1, *[1] * (got.value.ndim - 1))
                got = Held(np.where(own, got.value, other.value), got.there | other.there)
            out[port.name] = got
        return out

    def _run(
        self,
        node: ComputeNode | Exit,
        taken: Mapping[str, Held],
        rows: Int,
        held: dict[PortRef, Held],
        trip: Trip,
    ) -> None:
        """Call a node for the samples that reach it."""
        n = len(trip.costs)
        there = np.zeros(n, np.bool_)
        there[rows] = True
        inputs = {port: got.value[rows] for port, got in taken.items()}
        gave = self._call(node.name, inputs) if rows.size else {}
        for port in node.outputs:
            ref = PortRef(node.name, port.name)
            if rows.size == n:
                value = _repeat(gave[port.name], n)
            else:
                value = np.zeros((n, *port.type.shape), port.type.dtype)
                if rows.size:
                    value[rows] = gave[port.name]
            if isinstance(node, Exit):
                trip.exits[ref] = value
            else:
                held[ref] = Held(value, there)
        column = self._column[node.name]
        if isinstance(node, ComputeNode) and node.mask is not None:
            masks = inputs[node.mask.port]
            for row, mask in zip(rows.tolist(), masks, strict=True):
                kept = cost_of_kept(node.cost, node.mask, len(kept_groups(mask)))
                trip.costs[row, column] = self._amount(kept)
        else:
            trip.costs[rows, column] = self._amount(node.cost)

    def _amount(self, cost: Cost) -> int:
        return int(getattr(cost, self._resource))

    def _decide(
        self, node: ControlNode, scores: Array, rows: Int, on: dict[NodeId, Bools], n: int
    ) -> dict[int, tuple[int, ...]]:
        """Every sample's decision, and what it switches on."""
        out: dict[int, tuple[int, ...]] = {}
        for row in rows.tolist():
            if isinstance(node.rule, Threshold):
                out[row] = threshold_actions(scores[row], node.rule.thresholds)
            else:
                out[row] = (argmax(scores[row]),)
        for edge in self._graph.controlled_by.get(node.name, ()):
            chosen = on.setdefault(edge.target, np.zeros(n, np.bool_))
            for row, actions in out.items():
                chosen[row] |= edge.action in actions
        return out

    def _note_needs(self, at: int, node: Node, rows: Int, states: list[int], trip: Trip) -> None:
        """What a cap asks of a step, as in ``dynrt.runtime.walk``.

        Before the first exit gates and decisions are asked, behind it every node that computes.
        """
        before = at < self._first_exit
        asked = isinstance(node, ControlNode) if before else isinstance(node, ComputeNode)
        if not (asked or (before and self._flow.steps[at].gate)):
            return
        price = self._completion.amounts[at][0]
        for row in rows.tolist():
            front = self._completion.front(at + 1, states[row])
            trip.needs[row, self._column[node.name]] = price + (front[0][0] if front else 0)


def _repeat(value: Array, n: int) -> Array:
    """A parameter, or the output of a node without inputs, is one row: it stands for all."""
    return value if len(value) == n else np.repeat(value, n, axis=0)
