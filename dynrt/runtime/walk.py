"""One sample's way through a plan, as a machine that stops wherever it needs something.

The decisions, the budget and the exits are all here, per sample. What a tensor is, is not: a walk
hands on *references*, rows of arrays in the portable mode and numbers of buffers in a compiled one,
and asks for whatever it must know of their contents. A walk can be copied where it stands, so that
one walk can be followed under several outcomes (``dynrt.runtime.machine``). Semantics:
``docs/semantics.md``; the oracle is ``dynrt.ir.reference``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Self

from dynrt.errors import BackendError, GraphError
from dynrt.ir.certificate import path_violations
from dynrt.ir.completion import Amounts, Completion
from dynrt.ir.cost import ZERO_COST
from dynrt.ir.graph import ComputeNode, ControlNode, Exit, InputNode, NodeId
from dynrt.ir.masks import cost_of_kept
from dynrt.ir.rules import can_accept, candidates
from dynrt.runtime.needs import Call, Ended, Kept, Need, Ref, Scores, Verdict
from dynrt.runtime.plan import Feed, Plan, PlanStep
from dynrt.runtime.policy import Policy
from dynrt.runtime.purse import Purse
from dynrt.runtime.record import Record


class Walk:
    """One run of one sample: ``advance`` until it has :class:`Ended`, giving what it asks for.

    Args:
        plan: the network.
        policy: what is in force.
        inputs: a reference for every input node.
        constant: a reference for a feed's constant default.
        completion: costs to the next answer in the capped resources; ``None`` without a budget.
        purse: what may be spent; not asked without ``completion``.
        record: keeps every step, or ``None``.

    Attributes:
        cost: what was charged.
        path: compute nodes and exits that ran, in order.
        record: what keeps its steps, or ``None``.
        forced: the budget settled or changed a decision, or stopped the run.
    """

    def __init__(
        self,
        plan: Plan,
        policy: Policy,
        inputs: Mapping[NodeId, Ref],
        *,
        constant: Callable[[Feed], Ref],
        completion: Completion | None,
        purse: Purse,
        record: Record | None = None,
    ) -> None:
        self.plan, self.policy, self._completion = plan, policy, completion
        self.purse, self._constant = purse, constant
        self._values: dict[int, Ref] = {}
        for name, slot in plan.input_slots.items():
            self._values[slot] = inputs[name]
        self.cost, self.path = ZERO_COST, list[NodeId]()
        self._at = self._state = 0
        self._heads: dict[NodeId, Mapping[str, Ref]] = {}
        self._accepted: dict[NodeId, bool] = {}
        self._passed: PlanStep | None = None
        self._passed_inputs: dict[str, Ref] = {}
        self._settled = self.forced = self._answering = False
        self._call: Call | None = None
        self.record = record

    def clone(self) -> Self:
        """A copy that goes its own way from here. Not for walks that are recorded."""
        other = copy.copy(self)
        other._values = self._values.copy()
        other.path = self.path.copy()
        other._heads = self._heads.copy()
        other._accepted = self._accepted.copy()
        return other

    def key(self) -> Hashable:
        """Equal for walks with one future: all but cost, path and purse."""
        return (
            self._at,
            self._state,
            frozenset(self._values.items()),
            -1 if self._passed is None else self._passed.index,
            tuple(self._passed_inputs.items()),
            tuple((n, tuple(refs.items())) for n, refs in self._heads.items()),
            tuple(self._accepted.items()),
            (self._settled, self.forced, self._answering),
            None if self._call is None else (self._call.step.index, self._call.kept),
        )

    @property
    def position(self) -> int:
        """The step at hand."""
        return self._at

    def advance(self) -> Need:
        """Go on to the next thing that is needed.

        Raises:
            GraphError: no exit was passed: the graph was not checked.
        """
        need: Need | None = self._call
        while need is None:
            if self._answering or self._at >= len(self.plan.steps):
                return self._answer()
            need = self._enter(self.plan.steps[self._at])
        return need

    def _enter(self, step: PlanStep) -> Need | None:
        """Begin a step; ``None`` once it is done."""
        flow, node = step.flow, step.flow.node
        runs = flow.runs(self._state)
        inputs = self._resolve(step, needed=runs)
        if isinstance(node, InputNode):
            self._note(step, ran=True)
            return self._leave(step, ran=True)
        if not runs:
            off = flow.control_bit and not self._state & flow.control_bit
            self._note(step, reason="not active" if off else "null input")
            return self._leave(step, ran=False)
        if isinstance(node, ComputeNode):
            if self._must_stop(step):
                self.forced = self._answering = True
                return None
            if self._settled and flow.gate:
                self._note(step, reason="settled", forced=True)
                return self._leave(step, ran=True)
            self._call = Call(step, inputs)
            if node.mask is not None:
                return Kept(step, inputs[node.mask.port])
            return self._call
        if isinstance(node, ControlNode):
            if not self._settled:
                return Scores(step, node, inputs["scores"])
            self._settle(step, (), None)
            return None
        return self._pass(step, node, inputs)

    def _leave(self, step: PlanStep, *, ran: bool, switched_on: int = 0) -> Need | None:
        self._state = step.flow.after(self._state, ran=ran, switched_on=switched_on)
        for slot in step.done:
            self._values.pop(slot, None)
        self._at = step.index + 1
        return None  # what every step comes to that needs nothing

    # --- what was asked for

    def give_kept(self, kept: int) -> None:
        """Answer :class:`Kept`."""
        if self._call is None:
            raise GraphError((), place="no mask was asked for")
        self._call = self._call._replace(kept=kept)

    def give_outputs(self, outputs: Mapping[str, Ref], nanoseconds: int | None = None) -> None:
        """Answer :class:`Call`: a reference for each output port."""
        if self._call is None:
            raise GraphError((), place="no call was asked for")
        (step, _, kept), self._call = self._call, None
        cost, node = step.flow.cost, step.flow.node
        if kept is not None and isinstance(node, ComputeNode) and node.mask is not None:
            cost = cost_of_kept(cost, node.mask, kept)
        self.cost = self.cost + cost
        self.path.append(step.name)
        self._note(step, ran=True, cost=cost, nanoseconds=nanoseconds)
        if isinstance(node, Exit):
            self._heads[node.name] = dict(outputs)
            if self._passed is step:
                self._passed_inputs = {}
            return
        self._values.update((slot, outputs[port]) for port, slot in step.gives)
        self._leave(step, ran=True)

    def give_scores(self, scores: Sequence[float]) -> None:
        """Answer :class:`Scores`.

        Raises:
            BackendError: a score is NaN.
        """
        step = self.plan.steps[self._at]
        node = step.flow.node
        if not isinstance(node, ControlNode):
            raise GraphError((), place="no scores were asked for")
        values = tuple(float(s) for s in scores)
        try:
            options = candidates(node, values, self.policy.thresholds.get(node.name, ()))
        except BackendError as exc:
            raise BackendError(f"control node {node.name!r}: {exc}") from exc
        for actions in options:
            if self.may(actions):
                self._decide(step, actions, values, forced=actions != options[0])
                return
        self._settle(step, values, options[0])

    def may(self, actions: tuple[int, ...]) -> bool:
        """Whether the budget leaves this decision of the control node at hand to its scores."""
        if self._completion is None or self._passed is not None:
            return True
        flow = self.plan.steps[self._at].flow
        after = flow.after(self._state, ran=True, switched_on=flow.switched_on(actions))
        zero = (0,) * len(self._completion.resources)
        return self.purse.fits(self.cost, zero, self._completion.front(self._at + 1, after))

    def give_actions(self, actions: tuple[int, ...]) -> None:
        """Answer :class:`Scores` by the decision itself, which :meth:`may` be taken."""
        self._decide(self.plan.steps[self._at], actions, (), forced=False)

    def give_verdict(self, *, accepted: bool, score: float | None = None) -> None:
        """Answer :class:`Verdict`."""
        step = self._passed if self._answering else self.plan.steps[self._at]
        if step is None:
            raise GraphError((), place="no verdict was asked for")
        self._judge(step, accepted=accepted, score=score)

    # --- tensors

    def _resolve(self, step: PlanStep, *, needed: bool) -> dict[str, Ref]:
        """What the node takes at each port; also kept where a later edge names the port."""
        out: dict[str, Ref] = {}
        for feed in step.feeds:
            if not needed and feed.keep < 0:
                continue
            ref = self._values.get(feed.source)
            if ref is None and feed.fallback >= 0:
                ref = self._values.get(feed.fallback)
            elif ref is None and feed.constant is not None:
                ref = self._constant(feed)
            if ref is not None:
                out[feed.port] = ref
                if feed.keep >= 0:
                    self._values[feed.keep] = ref
        return out

    def live_after(self, index: int, produced: frozenset[int] = frozenset()) -> set[Ref]:
        """References that may still be read behind step ``index``.

        Args:
            index: a step at hand or ahead, with no decision before it.
            produced: slots that will hold something by then.
        """
        out = {ref for slot, ref in self._values.items() if self._read_after(slot, index, produced)}
        out.update(self._passed_inputs.values())
        for refs in self._heads.values():
            out.update(refs.values())
        return out

    def look_ahead(self) -> None:
        """Have an ample purse note what an answer from here takes, before any exit was passed."""
        if self._completion is not None and self._passed is None:
            zero = (0,) * len(self._completion.resources)
            self.purse.fits(self.cost, zero, self._completion.front(self._at, self._state))

    def trim(self) -> None:
        """Forget what nobody will read: a stand-in for something that is there."""
        unread = [s for s in self._values if not self._read_after(s, self._at - 1, frozenset())]
        for slot in unread:
            del self._values[slot]

    def _read_after(self, slot: int, index: int, produced: frozenset[int]) -> bool:
        return any(
            at > index and (source < 0 or (source not in self._values and source not in produced))
            for at, source in self.plan.readers[slot]
        )

    # --- budget

    def _must_stop(self, step: PlanStep) -> bool:
        """Whether running ``step`` would leave no budget for an answer that was not there before.

        Settles the run, instead, when a gate cannot be afforded before the first exit.
        """
        completion = self._completion
        if completion is None or (self._passed is None and not step.flow.gate):
            return False
        after = step.flow.after(self._state, ran=True)
        price = completion.amounts[step.index]
        ahead = completion.front(step.index + 1, after)
        go = not ahead or self.purse.fits(self.cost, price, ahead)
        if self._passed is None:
            self._settled = self._settled or not go
            return False
        if self._passed.name not in self._heads:
            owed = completion.amounts[self._passed.index]
            price = tuple(a + b for a, b in zip(price, owed, strict=True))
        return not (go and self.purse.covers(self.cost, price))

    def _settle(
        self, step: PlanStep, scores: tuple[float, ...], wish: tuple[int, ...] | None
    ) -> None:
        """Take a decision that the budget leaves, whatever the scores say."""
        choice: tuple[tuple[int, ...], int] | None = None
        if self._completion is not None:
            for in_time in (True, False):  # time is up: the other caps still hold
                left: Amounts = self.purse.left(self.cost, in_time=in_time)
                choice = choice or self._completion.settled(step.index, self._state, left)
        actions = choice[0] if choice is not None else ()
        self._decide(step, actions, scores, forced=wish is None or actions != wish)

    def _decide(
        self, step: PlanStep, actions: tuple[int, ...], scores: tuple[float, ...], *, forced: bool
    ) -> None:
        self.forced = self.forced or forced
        bounds = self.policy.thresholds.get(step.name, ())
        self._note(step, ran=True, scores=scores, thresholds=bounds, actions=actions, forced=forced)
        self._leave(step, ran=True, switched_on=step.flow.switched_on(actions))

    # --- exits

    def _pass(self, step: PlanStep, node: Exit, inputs: dict[str, Ref]) -> Need | None:
        """Pass an exit; ``None`` if its head need not run now."""
        if node.name in self._heads:  # the head has run: is that an answer?
            if node.name not in self._accepted:
                return self._ask(step, node)
            joins = node.accept.kind == "always" and self.plan.graph.combine.kind
            self._answering = self._accepted[node.name] and joins in (False, "first")
            return self._leave(step, ran=True)
        if self._completion is not None:
            price = self._completion.amounts[step.index]
            # a late answer beats none
            if not self.purse.covers(self.cost, price, in_time=self._passed is not None):
                self._note(step, reason="cannot accept", forced=True)
                return self._leave(step, ran=True)
        self._passed, self._passed_inputs = step, inputs
        joins = node.accept.kind == "always" and self.plan.graph.combine.kind
        if self._settled or not can_accept(node.accept, self.bound(node)) or joins == "last":
            self._answering = self._settled
            self._note(step, reason="cannot accept", forced=self._settled)
            return self._leave(step, ran=True)
        self._call = Call(step, inputs)
        return self._call

    def bound(self, node: Exit) -> float:
        """The threshold in force at an exit that is scored."""
        return self.policy.thresholds.get(node.name, (node.accept.threshold,))[0]

    def _ask(self, step: PlanStep, node: Exit) -> Need | None:
        """Whether an exit's rule accepts what its head gave; ``None`` if that needs no score."""
        if node.accept.scored:
            return Verdict(step, node, self._heads[node.name][node.accept.port])
        self._judge(step, accepted=node.accept.kind == "always", score=None)
        return None

    def _judge(self, step: PlanStep, *, accepted: bool, score: float | None) -> None:
        self._accepted[step.name] = accepted
        node = step.flow.node
        if self.record is not None and isinstance(node, Exit):
            bounds = (self.bound(node),) if node.accept.scored else ()
            self.record.judge(step.name, accepted=accepted, score=score, bounds=bounds)

    def _answer(self) -> Need:
        """The last thing that is needed: the head of the exit passed last, or nothing any more."""
        step = self._passed
        if step is None or not isinstance(step.flow.node, Exit):
            place = "a graph that was not checked"
            raise GraphError(path_violations(self.plan.flow), place=place)
        self._answering = True
        node = step.flow.node
        if node.name not in self._heads:
            self._call = Call(step, self._passed_inputs)
            return self._call
        if node.name not in self._accepted and (need := self._ask(step, node)) is not None:
            return need
        return Ended(node, self._heads, self._accepted[node.name], self.forced or self._settled)

    def _note(self, step: PlanStep, **what: Any) -> None:
        if self.record is not None:
            self.record.note(step, **what)
