"""One compiled network's memory, and runs on it: one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dynrt.errors import BackendError
from dynrt.ir.completion import Completion
from dynrt.ir.cost import ZERO_COST, Cost
from dynrt.ir.graph import Array, InputNode, NodeId, PortRef
from dynrt.runtime.answer import Outcome
from dynrt.runtime.executor import settle
from dynrt.runtime.kernels import KERNELS, Hop, follow
from dynrt.runtime.kernels.hop import ENDED, SHORT, UNDECIDED
from dynrt.runtime.machine.automaton import Automaton, Leg, actions_of, answer
from dynrt.runtime.machine.binding import NEAR_TIE, Binder, Decide, call_all
from dynrt.runtime.machine.buffers import Buffers
from dynrt.runtime.machine.parts import Parts
from dynrt.runtime.needs import Ended, Scores
from dynrt.runtime.plan import Plan
from dynrt.runtime.policy import Policy
from dynrt.runtime.purse import Limits
from dynrt.runtime.walk import Walk

#: Sets of thresholds whose hops are kept.
_KEPT_POLICIES = 8
#: Ways through the network whose sums are kept.
_KEPT_WAYS = 4096
_NO_CAP = 1 << 62


class Way(NamedTuple):
    """A chain of legs: where it ended, and its sums."""

    end: Ended
    path: tuple[NodeId, ...]
    skipped: tuple[NodeId, ...]
    cost: Cost


class Task(NamedTuple):
    """What is in force for one run.

    Attributes:
        plan: the network's, with times if time is capped.
        policy: thresholds and budget.
        completion: costs to the next answer in the capped resources; ``None`` without a budget.
        limits: the caps by resource.
        elapsed_ns: nanoseconds since the input began.
    """

    plan: Plan
    policy: Policy
    completion: Completion | None
    limits: Mapping[str, int]
    elapsed_ns: Callable[[], int]

    def purse(self) -> Limits:
        """What may really be spent."""
        return Limits(self.limits, self.elapsed_ns)


class Machine:
    """Runs a compiled network on its own buffers. Not for two threads at once.

    Args:
        parts: the network.
        rows: samples per buffer.
    """

    def __init__(self, parts: Parts, rows: int = 1) -> None:
        self.parts = parts
        self.buffers = Buffers(rows, parts.engine.handle)
        self.binder = Binder(parts, self.buffers)
        self.inputs = {
            n.name: self.buffers.own(parts.kind(PortRef(n.name, n.name)))
            for n in parts.plan.graph.nodes
            if isinstance(n, InputNode)
        }
        self._only_name, self._only = self._only_input()
        if self._only is not None:
            self._copy = KERNELS.bind_finite_copy(self._only.shape, self._only)
        self._params: Mapping[NodeId, Array] | None = None
        self._automata: dict[object, Automaton] = {}
        self._recent: tuple[object, tuple[str, ...], Automaton] | None = None
        self._joins = parts.plan.graph.combine.kind not in ("first", "last")
        self._ways: dict[tuple[Leg, ...] | tuple[Hop, ...], Way] = {}

    def _only_input(self) -> tuple[NodeId, Array | None]:
        """The name and buffer of the network's one real input, if it has one and it is float32."""
        real = [n for n in self.parts.plan.graph.inputs() if n.param is None]
        if len(real) != 1 or real[0].type.dtype != "float32":
            return "", None
        row: Array = self.buffers.arrays[self.inputs[real[0].name]][0]
        return real[0].name, row

    def put(self, inputs: object, params: Mapping[NodeId, Array]) -> bool:
        """Take over the only input, if it is just what the network takes; whether it was.

        Args:
            inputs: as the caller gave them.
            params: of the policy.
        """
        only = self._only
        if type(inputs) is dict and len(inputs) == 1:
            inputs = inputs.get(self._only_name)
        if (
            only is None
            or type(inputs) is not np.ndarray
            or inputs.shape != only.shape
            or inputs.dtype != np.float32
            or not inputs.flags.c_contiguous
        ):
            return False
        if params is not self._params:
            self.put_arrays(params)
            self._params = params
        return self._copy(inputs)

    def put_arrays(self, arrays: Mapping[NodeId, Array], row: int = 0, at: int = 0) -> None:
        """Take over one checked sample of inputs and parameters."""
        self._params = None
        for name, value in arrays.items():
            self.buffers.arrays[self.inputs[name]][row] = value[at if len(value) > 1 else 0]

    def automaton(self, task: Task) -> Automaton:
        """The hops under these thresholds and these kinds of cap."""
        resources = task.completion.resources if task.completion is not None else ()
        thresholds = task.policy.thresholds
        recent = self._recent
        if recent is not None and recent[0] is thresholds and recent[1] == resources:
            return recent[2]
        key = (tuple(thresholds.items()), resources)
        found = self._automata.pop(key, None)
        if found is None:
            found = Automaton(
                self.parts,
                task.plan,
                self.buffers,
                self.binder,
                self.inputs,
                task.policy,
                task.completion,
            )
            if len(self._automata) >= _KEPT_POLICIES:
                self._automata.pop(next(iter(self._automata)))
                self._ways.clear()
        self._automata[key] = found
        self._recent = (thresholds, resources, found)
        return found

    # --- one run

    def run(self, task: Task) -> Outcome:
        """Answer what lies in the input buffers.

        Raises:
            BackendError: a segment failed, or a score is NaN.
        """
        automaton = self.automaton(task)
        automaton.forget()
        guarded = len(task.limits) > 1 or "nanoseconds" in task.limits
        run = self._run_guarded if guarded else self._run_fast
        way, ties = run(automaton, task)
        return self._outcome(way, ties, 0)

    def outcome(self, legs: Sequence[Leg], ties: int, row: int) -> Outcome:
        """What a chain of legs came to on one row."""
        key = tuple(legs)
        way = self._ways.get(key)
        if way is None:
            way = self._ways[key] = self._new_way(legs)
        return self._outcome(way, ties, row)

    def _outcome(self, way: Way, ties: int, row: int) -> Outcome:
        end = way.end
        return Outcome(
            end.exit,
            self.heads(end, row),
            end.accepted,
            end.forced,
            way.cost,
            way.path,
            way.skipped,
            ties,
        )

    def heads(self, end: Ended, row: int) -> dict[NodeId, dict[str, Array]]:
        """What the answer is made of, out of the buffers."""
        arrays, own = self.buffers.arrays, end.exit
        if self._joins and own.accept.kind == "always":
            return {
                name: {port: arrays[ref][row].copy() for port, ref in refs.items()}
                for name, refs in end.heads.items()
            }
        return {own.name: {own.answer: arrays[end.heads[own.name][own.answer]][row].copy()}}

    def _run_fast(self, automaton: Automaton, task: Task) -> tuple[Way, int]:
        """Follow hops; leave the loop only for what is new, near a tie, or near the cap."""
        left = next(iter(task.limits.values())) if task.limits else _NO_CAP
        known = automaton.legs
        leg, ties = automaton.first, 0
        trail: list[Hop] = []
        while True:
            before = len(trail)
            status, _, outcome = follow(leg.hop, left, trail)
            if status == ENDED:
                break
            left -= sum(hop.macs for hop in trail[before:])
            if status == SHORT:
                leg = self._short(automaton, task, trail, left)
                continue
            last = known[trail[-1]]
            if status == UNDECIDED:
                outcome, ties = self.redecided(last, 0), ties + 1
            leg = self.ahead(automaton, task, last, outcome, 0)
        key = tuple(trail)
        way = self._ways.get(key)
        if way is None:
            way = self._ways[key] = self._new_way([known[hop] for hop in trail])
        return way, ties

    def _short(self, automaton: Automaton, task: Task, trail: list[Hop], left: int) -> Leg:
        """What follows a trail where a budget may interfere; remembered for what is left."""
        legs, outcome = [automaton.legs[hop] for hop in trail], -1
        if legs and legs[-1].hop.decide is not None:
            outcome = legs[-1].hop.decide()
        if legs and outcome < 0:  # near a tie: it has been decided exactly
            return self.squeezed(automaton, task, legs, total_cost(legs), 0)
        limit = next(iter(task.limits.values()))
        key = (trail[-1] if trail else None, outcome, left, limit)
        leg = automaton.shortcuts.get(key)
        if leg is None:
            leg = self.squeezed(automaton, task, legs, total_cost(legs), 0)
            if not leg.begun.forced:  # a forced decision goes by all scores, not by the outcome
                automaton.shortcuts[key] = leg
        return leg

    def _run_guarded(self, automaton: Automaton, task: Task) -> tuple[Way, int]:
        """The same for several caps at once, or a cap on time: every leg's needs are compared."""
        leg, ties, spent = automaton.first, 0, ZERO_COST
        legs: list[Leg] = []
        purse = task.purse()
        while True:
            if not leg.exact and not purse.covers(spent, leg.needs):
                leg = self.squeezed(automaton, task, legs, spent, 0)
            call_all(leg.hop.runs, leg.hop.kernels)
            legs.append(leg)
            spent = spent + leg.cost
            if leg.hop.decide is None:
                return self._new_way(legs), ties
            outcome = leg.hop.decide()
            if outcome < 0:
                outcome, ties = self.redecided(leg, 0), ties + 1
            leg = self.ahead(automaton, task, leg, outcome, 0)

    def ahead(self, automaton: Automaton, task: Task, last: Leg, outcome: int, row: int) -> Leg:
        """What follows a leg's outcome."""
        if not last.exact:
            return automaton.follow_up(last, outcome)
        return self._exact_ahead(automaton, task, last, last.asked.clone(), outcome, row)

    def _exact_ahead(
        self, automaton: Automaton, task: Task, last: Leg, walk: Walk, outcome: int, row: int
    ) -> Leg:
        """What follows an outcome with what is really left."""
        walk.purse = purse = task.purse()
        need = last.question
        if isinstance(need, Scores) and not walk.may(actions_of(need.node, outcome)):
            walk.give_scores(self.binder.flat(need.scores, row).tolist())
        else:
            answer(walk, last, outcome)
        return automaton.leg(walk, last.pooled, purse)

    def squeezed(
        self, automaton: Automaton, task: Task, legs: list[Leg], spent: Cost, row: int
    ) -> Leg:
        """The next leg where a budget may interfere: the last decision again, as it leaves it."""
        if not legs:
            return automaton.leg(automaton.first.begun.clone(), frozenset(), task.purse())
        last = legs[-1]
        walk = last.asked.clone()
        walk.cost = spent
        outcome = self._exact_outcome(last, row)
        return self._exact_ahead(automaton, task, last, walk, outcome, row)

    def decide(self, leg: Leg, row: int) -> Decide:
        """What reads a leg's decision off a row."""
        if leg.question is None:
            raise BackendError("nothing was asked")
        tie = leg.gate.gate.tie_distance if leg.gate is not None else NEAR_TIE
        return self.binder.decide(leg.question, leg.asked.policy, tie, row)

    def redecided(self, leg: Leg, row: int) -> int:
        """Decide what a kernel left open: a near tie, or NaN."""
        if leg.gate is not None:
            self.binder.exact_gate(leg.gate, row)
        return self._exact_outcome(leg, row)

    def _exact_outcome(self, leg: Leg, row: int) -> int:
        """The outcome by the rules themselves.

        Raises:
            BackendError: a score is NaN.
        """
        need = leg.question
        if need is None:
            raise BackendError("nothing was asked")
        outcome = self.binder.decide(need, leg.asked.policy, 0.0, row)()
        if outcome < 0:  # NaN: let the rules say so
            settle(leg.asked.clone(), need, self.binder.flat(need[-1], row))
        return outcome

    def _new_way(self, legs: Sequence[Leg]) -> Way:
        """The sums of a chain of legs."""
        end = legs[-1].end
        if end is None:
            raise BackendError("the run came to no end")
        if len(self._ways) >= _KEPT_WAYS:
            self._ways.clear()
        path = tuple(n for leg in legs for n in leg.path)
        return Way(end, path, self.parts.plan.skipped(path), total_cost(legs))


def total_cost(legs: Sequence[Leg]) -> Cost:
    """What a chain of legs costs."""
    total = ZERO_COST
    for leg in legs:
        total = total + leg.cost
    return total
