"""One sample's way through a plan, as a coroutine that asks for nodes to be run.

The decisions, the budget and the exits are all here, per sample; who runs the nodes, alone or
together with other samples, is the executor's business. Semantics: ``docs/semantics.md``; the
oracle is ``dynrt.ir.reference``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

from dynrt.errors import BackendError, GraphError
from dynrt.ir.certificate import path_violations
from dynrt.ir.completion import Amounts, Completion
from dynrt.ir.cost import ZERO_COST, Cost
from dynrt.ir.graph import Array, ComputeNode, ControlNode, Exit, InputNode, NodeId
from dynrt.ir.rules import accept_score, can_accept, candidates
from dynrt.ir.trace import SkipReason, Step
from dynrt.runtime.plan import Plan, PlanStep
from dynrt.runtime.policy import Policy


class Row(NamedTuple):
    """One sample of a batch: ``base[at]``."""

    base: Array
    at: int


class Call(NamedTuple):
    """A walk asks for ``step`` to be run on its row of each input."""

    step: PlanStep
    inputs: dict[str, Row]


class Gave(NamedTuple):
    """What a call gave: a row of each output, and the time if this sample was alone."""

    outputs: Mapping[str, Row]
    nanoseconds: int | None


class Outcome(NamedTuple):
    """Where a walk ended. ``heads`` holds what every head that ran gave."""

    exit: Exit
    heads: Mapping[NodeId, Mapping[str, Row]]
    accepted: bool
    forced: bool
    cost: Cost
    path: tuple[NodeId, ...]
    steps: tuple[Step, ...] | None


_NO_CAP = 1 << 62

Steps = Generator[Call, Gave, Outcome]


class Walk:
    """One run of one sample.

    Args:
        plan: the network.
        policy: what is in force.
        inputs: a row for every input node.
        completion: costs to the next answer in the capped resources; ``None`` without a budget.
        elapsed_ns: nanoseconds since this input began.
        record: whether to keep every step.
    """

    def __init__(
        self,
        plan: Plan,
        policy: Policy,
        inputs: Mapping[NodeId, Row],
        *,
        completion: Completion | None,
        elapsed_ns: Callable[[], int],
        record: bool,
    ) -> None:
        self._plan, self._policy, self._completion = plan, policy, completion
        self._elapsed_ns = elapsed_ns
        self._limits = policy.budget.limits()
        self._values: list[Row | None] = [None] * plan.slots
        for name, slot in plan.input_slots.items():
            self._values[slot] = inputs[name]
        self._state = 0
        self._cost = ZERO_COST
        self._path: list[NodeId] = []
        self._heads: dict[NodeId, Mapping[str, Row]] = {}
        self._passed: PlanStep | None = None
        self._passed_inputs: dict[str, Row] = {}
        self._settled = self._forced = False
        self._record: dict[NodeId, Step] | None = {} if record else None

    def steps(self) -> Steps:
        """Walk until an answer; yields the calls it needs and returns where it ended."""
        for step in self._plan.steps:
            flow, node = step.flow, step.flow.node
            runs = flow.runs(self._state)
            inputs = self._resolve(step, needed=runs)
            if isinstance(node, InputNode):
                self._state = flow.after(self._state, ran=True)
                self._note(step, ran=True)
            elif not runs:
                off = flow.control_bit and not self._state & flow.control_bit
                self._state = flow.after(self._state, ran=False)
                self._note(step, reason="not active" if off else "null input")
            elif isinstance(node, ComputeNode):
                if self._must_stop(step):
                    self._forced = True
                    break
                self._state = flow.after(self._state, ran=True)
                if self._settled and flow.gate:
                    self._note(step, reason="settled", forced=True)
                else:
                    gave = yield from self._call(step, inputs)
                    for port, slot in step.gives:
                        self._values[slot] = gave[port]
            elif isinstance(node, ControlNode):
                self._decide(step, node, inputs)
            elif isinstance(node, Exit):
                self._state = flow.after(self._state, ran=True)
                if (yield from self._pass(step, node, inputs)):
                    break
            for slot in step.done:
                self._values[slot] = None
        if self._passed is None:
            raise GraphError(path_violations(self._plan.flow), place="a graph that was not checked")
        return (yield from self._answer(self._passed))

    # --- tensors

    def _resolve(self, step: PlanStep, *, needed: bool) -> dict[str, Row]:
        """What the node takes at each port; also kept where a later edge names the port."""
        out: dict[str, Row] = {}
        for feed in step.feeds:
            if not needed and feed.keep < 0:
                continue
            row = self._values[feed.source]
            if row is None and feed.fallback >= 0:
                row = self._values[feed.fallback]
            elif row is None and feed.constant is not None:
                row = Row(feed.constant, 0)
            if row is not None:
                out[feed.port] = row
                if feed.keep >= 0:
                    self._values[feed.keep] = row
        return out

    def _call(
        self, step: PlanStep, inputs: dict[str, Row]
    ) -> Generator[Call, Gave, Mapping[str, Row]]:
        gave = yield Call(step, inputs)
        cost = step.flow.cost
        self._cost = self._cost + cost
        self._path.append(step.name)
        self._note(step, ran=True, nanoseconds=gave.nanoseconds)
        return gave.outputs

    # --- budget

    def _left(self) -> Amounts:
        """What remains of each capped resource."""
        out = []
        for name, limit in self._limits.items():
            if name == "nanoseconds":
                out.append(limit - self._elapsed_ns())
            else:
                out.append(limit - getattr(self._cost, name))
        return tuple(out)

    def _must_stop(self, step: PlanStep) -> bool:
        """Whether running ``step`` would leave no budget for an answer that was not there before.

        Settles the run, instead, when a gate cannot be afforded before the first exit.
        """
        if self._completion is None:
            return False
        after = step.flow.after(self._state, ran=True)
        price = self._completion.amounts[step.index]
        left = tuple(a - b for a, b in zip(self._left(), price, strict=True))
        ahead = self._completion.front(step.index + 1, after)
        go = not ahead or self._completion.fits(step.index + 1, after, left)
        if self._passed is None:
            if step.flow.gate and not go:
                self._settled = True
            return False
        owed = self._completion.amounts[self._passed.index]
        if self._passed.name in self._heads:
            owed = (0,) * len(owed)
        return not go or any(a < b for a, b in zip(left, owed, strict=True))

    def _decide(self, step: PlanStep, node: ControlNode, inputs: Mapping[str, Row]) -> None:
        """Take a control node's decision, or what the budget leaves of it."""
        flow, completion = step.flow, self._completion
        bounds = self._policy.thresholds.get(node.name, ())
        scores: tuple[float, ...] = ()
        wish: tuple[int, ...] | None = None
        actions: tuple[int, ...] | None = None
        if not self._settled:
            row = inputs["scores"]
            scores = tuple(row.base[row.at].tolist())
            try:
                options = candidates(node, scores, bounds)
            except BackendError as exc:
                raise BackendError(f"control node {node.name!r}: {exc}") from exc
            wish = actions = options[0]
            if completion is not None and self._passed is None:
                left = self._left()
                actions = next(
                    (
                        a
                        for a in options
                        if completion.fits(step.index + 1, self._behind(step, a), left)
                    ),
                    None,
                )
        if actions is None and completion is not None:
            left = self._left()
            choice = completion.settled(step.index, self._state, left)
            if choice is None:  # time is up: the other caps still hold
                left = tuple(
                    _NO_CAP if name == "nanoseconds" else n
                    for name, n in zip(self._limits, left, strict=True)
                )
                choice = completion.settled(step.index, self._state, left)
            actions = choice[0] if choice is not None else None
        chosen = actions or ()
        changed = wish is None or chosen != wish
        self._forced = self._forced or changed
        self._state = flow.after(self._state, ran=True, switched_on=flow.switched_on(chosen))
        self._note(step, ran=True, scores=scores, thresholds=bounds, actions=chosen, forced=changed)

    def _behind(self, step: PlanStep, actions: tuple[int, ...]) -> int:
        return step.flow.after(self._state, ran=True, switched_on=step.flow.switched_on(actions))

    # --- exits

    def _pass(
        self, step: PlanStep, node: Exit, inputs: dict[str, Row]
    ) -> Generator[Call, Gave, bool]:
        """Pass an exit; whether the run ends there."""
        if self._completion is not None:
            price = self._completion.amounts[step.index]
            short = {n for n, a, b in zip(self._limits, self._left(), price, strict=True) if a < b}
            if self._passed is None:
                short.discard("nanoseconds")  # a late answer beats none
            if short:
                self._note(step, reason="cannot accept", forced=True)
                return False
        self._passed, self._passed_inputs = step, inputs
        if self._settled:
            self._note(step, reason="cannot accept", forced=True)
            return True
        joins = node.accept.kind == "always" and self._plan.graph.combine.kind
        if not can_accept(node.accept, self._bound(node)) or joins == "last":
            self._note(step, reason="cannot accept")
            return False
        self._heads[node.name] = yield from self._call(step, inputs)
        return self._accepts(node) and joins in (False, "first")

    def _bound(self, node: Exit) -> float:
        return self._policy.thresholds.get(node.name, (node.accept.threshold,))[0]

    def _accepts(self, node: Exit) -> bool:
        """Whether an exit's rule accepts what its head gave; completes its recorded step."""
        score: tuple[float, ...] = ()
        accepted = node.accept.kind == "always"
        if node.accept.scored:
            row = self._heads[node.name][node.accept.port]
            try:
                value = accept_score(node.accept.kind, row.base[row.at])
            except BackendError as exc:
                raise BackendError(f"exit {node.name!r}: {exc}") from exc
            score, accepted = (value,), value >= self._bound(node)
        if self._record is not None:
            bounds = (self._bound(node),) if node.accept.scored else ()
            self._record[node.name] = replace(
                self._record[node.name], scores=score, thresholds=bounds, accepted=accepted
            )
        return accepted

    def _answer(self, step: PlanStep) -> Steps:
        node = step.flow.node
        if not isinstance(node, Exit):
            raise GraphError(path_violations(self._plan.flow))
        if node.name not in self._heads:
            self._heads[node.name] = yield from self._call(step, self._passed_inputs)
        steps: tuple[Step, ...] | None = None
        accepted = self._accepts(node)
        if self._record is not None:
            for rest in self._plan.steps:
                if rest.name not in self._record:
                    self._note(rest, reason="after the answer")
            steps = tuple(self._record.values())
        return Outcome(
            exit=node,
            heads=self._heads,
            accepted=accepted,
            forced=self._forced or self._settled,
            cost=self._cost,
            path=tuple(self._path),
            steps=steps,
        )

    # --- trace

    def _note(
        self,
        step: PlanStep,
        *,
        ran: bool = False,
        reason: SkipReason | None = None,
        scores: tuple[float, ...] = (),
        thresholds: tuple[float, ...] = (),
        actions: tuple[int, ...] = (),
        forced: bool = False,
        nanoseconds: int | None = None,
    ) -> None:
        if self._record is None:
            return
        node = step.flow.node
        kind = _KINDS[type(node)]
        noted = Step(
            node=step.name,
            kind=kind,
            ran=ran,
            cost=step.flow.cost if ran else ZERO_COST,
            reason=reason,
            scores=scores,
            thresholds=thresholds,
            actions=actions,
            forced=forced,
            nanoseconds=nanoseconds,
        )
        earlier = self._record.get(step.name)
        if earlier is not None:  # a head that was passed by and runs after all
            noted = replace(noted, forced=earlier.forced)
        self._record[step.name] = noted


_KINDS: dict[type, Literal["input", "compute", "control", "exit"]] = {
    InputNode: "input",
    ComputeNode: "compute",
    ControlNode: "control",
    Exit: "exit",
}
