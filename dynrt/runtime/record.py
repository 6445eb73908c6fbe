"""Keeps what a walk did, step by step, for its trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from dynrt.ir.cost import ZERO_COST, Cost
from dynrt.ir.graph import ComputeNode, ControlNode, Exit, InputNode, NodeId
from dynrt.ir.trace import SkipReason, Step, Trace
from dynrt.runtime.plan import Plan, PlanStep

_KINDS: dict[type, Literal["input", "compute", "control", "exit"]] = {
    InputNode: "input",
    ComputeNode: "compute",
    ControlNode: "control",
    Exit: "exit",
}


class Record:
    """The steps of one run, in the order in which they were taken."""

    def __init__(self) -> None:
        self._steps: dict[NodeId, Step] = {}

    def note(
        self,
        step: PlanStep,
        *,
        ran: bool = False,
        cost: Cost | None = None,
        reason: SkipReason | None = None,
        scores: tuple[float, ...] = (),
        thresholds: tuple[float, ...] = (),
        actions: tuple[int, ...] = (),
        forced: bool = False,
        nanoseconds: int | None = None,
    ) -> None:
        """Add a step; see :class:`dynrt.ir.trace.Step`. ``cost`` is the node's if it ran."""
        charged = step.flow.cost if cost is None else cost
        noted = Step(
            node=step.name,
            kind=_KINDS[type(step.flow.node)],
            ran=ran,
            cost=charged if ran else ZERO_COST,
            reason=reason,
            scores=scores,
            thresholds=thresholds,
            actions=actions,
            forced=forced,
            nanoseconds=nanoseconds,
        )
        earlier = self._steps.get(step.name)
        if earlier is not None:  # a head that was passed by and runs after all
            noted = replace(noted, forced=earlier.forced)
        self._steps[step.name] = noted

    def judge(
        self, name: NodeId, *, accepted: bool, score: float | None, bounds: tuple[float, ...]
    ) -> None:
        """Complete an exit's step by its verdict."""
        scores = () if score is None else (score,)
        self._steps[name] = replace(
            self._steps[name], scores=scores, thresholds=bounds, accepted=accepted
        )

    def trace(self, plan: Plan) -> Trace:
        """The whole schedule; what was not reached came after the answer."""
        for rest in plan.steps:
            if rest.name not in self._steps:
                self.note(rest, reason="after the answer")
        return Trace(steps=tuple(self._steps.values()))
