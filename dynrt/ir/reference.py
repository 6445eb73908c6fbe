"""The reference semantics: one sample, plain Python, nothing optimised.

Every plan, batch and fused form is tested against this interpreter on random graphs. It follows
D2NN section 3 (nulls, defaults, several controllers), Shafiee et al. algorithm 1 (accept rules) and
DDI section III-B (stop at the latest exit passed); ``docs/semantics.md`` says it in words. With the
runtime it shares only the graph, the rules on scores and the notion of a gate; what can still be
afforded it finds by trying every decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynrt.errors import BudgetRefusedError, GraphError
from dynrt.ir.certificate import path_violations
from dynrt.ir.cost import ZERO_COST, Budget, Cost
from dynrt.ir.flow import Flow, gates_of
from dynrt.ir.graph import (
    Array,
    ComputeNode,
    Constant,
    ControlNode,
    Exit,
    Graph,
    InputNode,
    NodeId,
    PortRef,
)
from dynrt.ir.masks import charged
from dynrt.ir.rules import accept_score, can_accept, candidates, decisions, rule_thresholds

Function = Callable[[Mapping[str, Array]], Mapping[str, Array]]
Thresholds = Mapping[NodeId, float | tuple[float, ...]]
Env = dict[PortRef, Any]
Left = tuple[tuple[str, float], ...]
NAMES = frozenset[NodeId]


@dataclass(frozen=True, kw_only=True)
class ReferenceResult:
    """What one sample came to: answer ``(1, ...)``, exit, cost, what ran, and every decision."""

    answer: Array
    exit: NodeId
    accepted: bool
    forced: bool
    cost: Cost
    path: tuple[NodeId, ...]
    decisions: Mapping[NodeId, tuple[int, ...]]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all that ran."""
        return self.cost.macs


def _take(graph: Graph, env: Env, name: NodeId) -> Env:
    """What ``name`` would take at each input port: a tensor, or None for null."""
    out: Env = {}
    for port in graph.by_name[name].inputs:
        edge = graph.edge_into[PortRef(name, port.name)]
        value = env.get(edge.source)
        if value is None and isinstance(edge.default, PortRef):
            value = env.get(edge.default)
        elif value is None and isinstance(edge.default, Constant):
            value = edge.default.value[None]
        out[PortRef(name, port.name)] = value
    return out


def _runs(graph: Graph, on: NAMES, name: NodeId, taken: Env) -> bool:
    """Whether a node runs: not controlled or any control edge active, and no input null."""
    switched = name not in graph.controls_of or name in on
    return switched and all(v is not None for v in taken.values())


def _ghost(graph: Graph, name: NodeId) -> Env:
    return {PortRef(name, p.name): True for p in graph.by_name[name].outputs}


def _targets(graph: Graph, name: NodeId, actions: tuple[int, ...]) -> NAMES:
    return frozenset(e.target for e in graph.control if e.control == name and e.action in actions)


def _less(left: Left, cost: Cost) -> Left:
    return tuple((k, v - getattr(cost, k)) for k, v in left)


def _covered(left: Left) -> bool:
    return all(v >= 0 for _, v in left)


class _Affordable:
    """Whether an answer can still be passed, found by trying every decision."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.gates = gates_of(graph)
        self.known: dict[object, bool] = {}

    def __call__(self, i: int, env: Env, on: NAMES, left: Left) -> bool:
        later = set(self.graph.order[i:])
        edges = [e for e in self.graph.data if e.target.node in later]
        asked = {r for e in edges for r in (e.source, e.default)}
        held = frozenset(r for r, v in env.items() if v is not None and r in asked)
        key = (i, held, on & later, left)
        if key not in self.known:
            self.known[key] = self._try(i, dict.fromkeys(held, True), on, left)
        return self.known[key]

    def _try(self, i: int, env: Env, on: NAMES, left: Left) -> bool:
        if not _covered(left) or i == len(self.graph.order):
            return False
        name = self.graph.order[i]
        node = self.graph.by_name[name]
        taken = _take(self.graph, env, name)
        env = {**env, **taken}
        if not isinstance(node, InputNode) and not _runs(self.graph, on, name, taken):
            return self(i + 1, env, on, left)
        if isinstance(node, ControlNode):
            options = (on | _targets(self.graph, name, a) for a in decisions(node))
            return any(self(i + 1, env, option, left) for option in options)
        if isinstance(node, Exit) and _covered(_less(left, node.cost)):
            return True
        if isinstance(node, ComputeNode) and name not in self.gates:
            left = _less(left, node.cost)
        return self(i + 1, {**env, **_ghost(self.graph, name)}, on, left)


def interpret(
    graph: Graph,
    functions: Mapping[NodeId, Function],
    inputs: Mapping[str, Array],
    *,
    budget: Budget | None = None,
    thresholds: Thresholds | None = None,
) -> ReferenceResult:
    """Run one sample.

    Args:
        graph: a valid graph.
        functions: for each compute node and exit, ports in, ports out; arrays ``(1, ...)``.
        inputs: arrays ``(1, ...)`` by input name; parameters may be left out.
        budget: hard cap, on what the nodes' costs say.
        thresholds: by exit (a number) or control node (one number per action), instead of the
            graph's.

    Raises:
        BudgetRefusedError: no decisions reach an answer within ``budget``.
    """
    fits = _Affordable(graph)
    left: Left = tuple((k, float(v)) for k, v in (budget.limits() if budget else {}).items())
    env: Env = {}
    for source in graph.inputs():
        given = inputs.get(source.name)
        if given is None and source.param is not None:
            given = source.param.value[None]
        env[PortRef(source.name, source.name)] = given
    on: NAMES = frozenset()
    if left and not fits(0, env, on, left):
        raise BudgetRefusedError(f"no decisions reach an answer within {budget}")
    spent, path, decided = ZERO_COST, list[NodeId](), dict[NodeId, tuple[int, ...]]()
    heads: dict[NodeId, Mapping[str, Array]] = {}
    passed: Exit | None = None
    settled = forced = False

    def call(node: ComputeNode | Exit) -> Mapping[str, Array]:
        nonlocal spent, left
        taken = {p.name: env[PortRef(node.name, p.name)] for p in node.inputs}
        cost = charged(node, taken)
        spent, left = spent + cost, _less(left, cost)
        path.append(node.name)
        return functions[node.name](taken)

    for i, name in enumerate(graph.order):
        node = graph.by_name[name]
        if isinstance(node, InputNode):
            continue
        taken = _take(graph, env, name)
        env.update(taken)
        if not _runs(graph, on, name, taken):
            continue
        if isinstance(node, ComputeNode):
            behind = {**env, **_ghost(graph, name)}
            after, gate = _less(left, node.cost), name in fits.gates
            owed = passed.cost if passed is not None and passed.name not in heads else ZERO_COST
            go = fits(i + 1, behind, on, after) or not fits(i + 1, behind, on, ())
            if left and passed is not None and not (go and _covered(_less(after, owed))):
                forced = True
                break
            settled = settled or (bool(left) and gate and not go)
            if settled and gate:
                env = behind
            else:
                env.update({PortRef(name, k): v for k, v in call(node).items()})
        elif isinstance(node, ControlNode):
            options = decisions(node)
            if not settled:
                scores = next(iter(taken.values()))[0].tolist()
                options = (*candidates(node, scores, _bounds(node, thresholds)), *options)
            choice = options[0]
            if left and passed is None:
                tries = ((a, on | _targets(graph, name, a)) for a in options)
                choice = next(a for a, option in tries if fits(i + 1, env, option, left))
            forced = forced or settled or choice != options[0]
            decided[name] = choice
            on |= _targets(graph, name, choice)
        elif _covered(_less(left, node.cost)):
            passed = node
            last = node.accept.kind == "always" and graph.combine.kind == "last"
            if settled:
                break
            if can_accept(node.accept, _bounds(node, thresholds)[0]) and not last:
                heads[name] = call(node)
                joins = node.accept.kind == "always" and graph.combine.kind != "first"
                if _accepts(node, heads[name], thresholds) and not joins:
                    break
    if passed is None:
        raise GraphError(path_violations(Flow(graph)), place="a graph that was not checked")
    if passed.name not in heads:
        heads[passed.name] = call(passed)
    return ReferenceResult(
        answer=_joined(graph, passed, heads),
        exit=passed.name,
        accepted=_accepts(passed, heads[passed.name], thresholds),
        forced=forced or settled,
        cost=spent,
        path=tuple(path),
        decisions=decided,
    )


def _bounds(node: ControlNode | Exit, thresholds: Thresholds | None) -> tuple[float, ...]:
    """The thresholds in force at a node, one per action (an exit has one)."""
    changed = (thresholds or {}).get(node.name)
    if changed is not None:
        return changed if isinstance(changed, tuple) else (changed,)
    return (node.accept.threshold,) if isinstance(node, Exit) else rule_thresholds(node)


def _accepts(node: Exit, gave: Mapping[str, Array], thresholds: Thresholds | None) -> bool:
    if not node.accept.scored:
        return node.accept.kind == "always"
    score = accept_score(node.accept.kind, gave[node.accept.port][0])
    return score >= _bounds(node, thresholds)[0]


def _joined(graph: Graph, passed: Exit, heads: Mapping[NodeId, Mapping[str, Array]]) -> Array:
    """The answer of the exit passed last, joined with the other terminals' where the graph says."""
    kind = graph.combine.kind
    own = heads[passed.name][passed.answer]
    if kind in ("first", "last") or passed.accept.kind != "always":
        return own
    parts: list[Array] = []
    for name in graph.exits:
        node = graph.by_name[name]
        if isinstance(node, Exit) and node.accept.kind == "always":
            size = next(p.type.shape for p in node.outputs if p.name == node.answer)
            if name in heads:
                parts.append(heads[name][node.answer])
            elif kind == "concat":
                parts.append(np.full((1, *size), graph.combine.absent, own.dtype))
    if kind == "concat":
        return np.concatenate(parts, axis=1)
    total = parts[0]
    for part in parts[1:]:
        total = total + part if kind == "sum" else np.maximum(total, part)
    return total
