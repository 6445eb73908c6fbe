"""Hops of one network under one set of thresholds, found as they are first taken."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from dynrt.errors import BackendError
from dynrt.ir.completion import Completion
from dynrt.ir.cost import ZERO_COST, Cost
from dynrt.ir.graph import Argmax, ControlNode, NodeId
from dynrt.runtime.kernels import Hop
from dynrt.runtime.machine.binding import NEAR_TIE, Binder
from dynrt.runtime.machine.buffers import Buffers
from dynrt.runtime.machine.ops import GateOp, Op, Placer, gives_of
from dynrt.runtime.machine.parts import Parts
from dynrt.runtime.needs import Call, Ended, Kept, Scores, Verdict
from dynrt.runtime.plan import Feed, Plan
from dynrt.runtime.policy import Policy
from dynrt.runtime.purse import Ample, Purse
from dynrt.runtime.walk import Walk

#: Hops that hold for one exact remainder of a budget are forgotten above this many.
MAX_EXACT = 4096


@dataclass(slots=True, kw_only=True, eq=False)
class Leg:
    """A hop, and what it means.

    Attributes:
        hop: what is run.
        ops: the same in numbers.
        path: nodes that it runs.
        cost: of those.
        needs: with so much left of each capped resource, no budget interferes before its decision.
        exact: whether it was found with a known remainder instead.
        question: what it asks, or ``None`` at the end.
        end: the answer, if it is the last.
        asked: the walk at the question.
        begun: the walk before the first op.
        pooled: pooled vectors that are up to date at the question.
        gate: the small gate that gives what is asked about, if one does.
    """

    hop: Hop
    ops: tuple[Op, ...]
    path: tuple[NodeId, ...]
    cost: Cost
    needs: tuple[int, ...]
    exact: bool
    question: Kept | Scores | Verdict | None
    end: Ended | None
    asked: Walk
    begun: Walk
    pooled: frozenset[int]
    gate: GateOp | None


class Automaton:
    """The legs of one network.

    Args:
        parts: the network.
        plan: its plan, with times if time is capped.
        buffers, binder: of one machine.
        inputs: the buffer of each input node.
        policy: whose thresholds are in force.
        completion: costs to the next answer in the capped resources; ``None`` without a budget.
    """

    def __init__(
        self,
        parts: Parts,
        plan: Plan,
        buffers: Buffers,
        binder: Binder,
        inputs: Mapping[NodeId, int],
        policy: Policy,
        completion: Completion | None,
    ) -> None:
        self._parts, self._buffers, self._binder = parts, buffers, binder
        self._policy = policy
        self.resources = completion.resources if completion is not None else ()
        self.legs: dict[Hop, Leg] = {}
        self._ample: dict[Hashable, Leg] = {}
        self._exact: dict[Hashable, Leg] = {}
        #: What follows a hop's outcome with just so much left of a limit, where it interferes.
        self.shortcuts: dict[tuple[Hop | None, int, int, int], Leg] = {}
        first = Walk(
            plan,
            policy,
            inputs,
            constant=self.constant,
            completion=completion,
            purse=Ample(self.resources),
        )
        self.first = self.leg(first, frozenset())

    def constant(self, feed: Feed) -> int | None:
        """The buffer of a feed's constant default."""
        if feed.default is None:
            return None
        return self._buffers.constant(feed.default, self._parts.taken_kind(feed.target))

    def leg(self, walk: Walk, pooled: frozenset[int], purse: Purse | None = None) -> Leg:
        """The leg that begins where ``walk`` stands.

        Args:
            walk: with all needs answered; it is used up.
            pooled: pooled vectors that are up to date.
            purse: what is really left, or ``None`` for a leg that holds for whoever has its needs.
        """
        walk.trim()
        key: Hashable
        if purse is None:
            ample = Ample(self.resources)
            walk.purse, walk.cost = ample, ZERO_COST
            walk.look_ahead()
            table, key = self._ample, (walk.key(), pooled, ())
        else:
            ample, walk.purse = None, purse
            left = purse.left(walk.cost, in_time="nanoseconds" not in self.resources)
            # the cost too: what is left later is counted from it
            table, key = self._exact, (walk.key(), pooled, left, walk.cost)
        timed = purse is not None and "nanoseconds" in self.resources
        if not timed and key in table:
            return table[key]
        leg = self._explore(walk, pooled, ample)
        if not timed:
            table[key] = leg
            self.legs[leg.hop] = leg
        return leg

    def _explore(self, walk: Walk, pooled: frozenset[int], ample: Ample | None) -> Leg:
        walk.path = []
        spent = walk.cost
        begun = walk.clone()
        placer = Placer(self._parts, self._buffers, pooled)
        ops: list[Op] = []
        while isinstance(need := walk.advance(), Call):
            outputs, done = placer.place(walk, need)
            ops += done
            walk.give_outputs(outputs)
        ops += placer.stop()
        end = need if isinstance(need, Ended) else None
        question = None if isinstance(need, Ended) else need
        gate = self._gate_of(ops, question)
        cost = walk.cost - spent
        runs, kernels = self._binder.bind(ops)
        hop = Hop()
        hop.runs, hop.kernels, hop.decide, hop.next = runs, kernels, None, []
        hop.macs = hop.need_macs = 0
        needs = tuple(ample.needs) if ample is not None else ()
        if len(self.resources) == 1:
            hop.macs = getattr(cost, self.resources[0]) or 0
            hop.need_macs = needs[0] if needs else 0
        if question is not None:
            tie = gate.gate.tie_distance if gate is not None else NEAR_TIE
            hop.decide = self._binder.decide(question, self._policy, tie, 0)
            hop.next = [None] * self._binder.outcome_count(question)
        return Leg(
            hop=hop,
            ops=tuple(ops),
            path=tuple(walk.path),
            cost=cost,
            needs=needs,
            exact=ample is None,
            question=question,
            end=end,
            asked=walk,
            begun=begun,
            pooled=frozenset(placer.pooled),
            gate=gate,
        )

    def _gate_of(self, ops: list[Op], question: Kept | Scores | Verdict | None) -> GateOp | None:
        """The small gate whose result is asked about."""
        if question is None:
            return None
        ref = question[-1]
        for op in reversed(ops):
            if ref in gives_of(op):
                return op if isinstance(op, GateOp) else None
        return None

    def follow_up(self, leg: Leg, outcome: int) -> Leg:
        """The leg behind an outcome, for whoever has its needs; remembered in the hop."""
        walk = leg.asked.clone()
        answer(walk, leg, outcome)
        ahead = self.leg(walk, leg.pooled)
        if not leg.exact and outcome < len(leg.hop.next):
            leg.hop.next[outcome] = ahead.hop
        return ahead

    def forget(self) -> None:
        """Drop exact legs if there are too many; only between runs."""
        if len(self._exact) > MAX_EXACT:
            self._exact.clear()
            self.shortcuts.clear()
            self.legs = {leg.hop: leg for leg in self._ample.values()}


def answer(walk: Walk, leg: Leg, outcome: int) -> None:
    """Give a walk the outcome of the question at which it stands."""
    need = leg.question
    if isinstance(need, Kept):
        walk.give_kept(outcome)
    elif isinstance(need, Scores):
        walk.give_actions(actions_of(need.node, outcome))
    elif isinstance(need, Verdict):
        walk.give_verdict(accepted=bool(outcome))
    else:
        raise BackendError("nothing was asked")


def actions_of(node: ControlNode, outcome: int) -> tuple[int, ...]:
    """Active actions from what a kernel returned: an index for argmax, else a mask."""
    if isinstance(node.rule, Argmax):
        return (outcome,)
    return tuple(a for a in range(node.actions) if outcome >> a & 1)
