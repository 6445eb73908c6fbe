"""What one run did: which nodes ran, which were skipped and why, and what it spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dynrt.ir.cost import Cost
from dynrt.ir.graph import NodeId

#: Why a node did not run: its control edges were inactive, an input was null, the budget had
#: settled the decision beforehand (a gate), its rule cannot accept (a head), or the run had ended.
SkipReason = Literal["not active", "null input", "settled", "cannot accept", "after the answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One node of the schedule in one run.

    Attributes:
        node: its name.
        kind: ``input``, ``compute``, ``control`` or ``exit``.
        ran: whether its subgraph was called (for a control node: whether it decided).
        reason: why it did not run, or ``None``.
        cost: what was charged, groups that a mask dropped left out; zero if it did not run.
        scores: a control node's scores, or the one accept score of an exit.
        thresholds: what the scores were compared with; empty for argmax.
        actions: the active actions of a control node.
        accepted: whether an exit accepted; ``None`` for other nodes and for a head that was not asked.
        forced: the budget changed or settled this decision, or stopped the run here.
        nanoseconds: time of the call, ``None`` if it was not timed.
    """

    node: NodeId
    kind: Literal["input", "compute", "control", "exit"]
    ran: bool
    cost: Cost
    reason: SkipReason | None = None
    scores: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()
    actions: tuple[int, ...] = ()
    accepted: bool | None = None
    forced: bool = False
    nanoseconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The record of one run: every node of the schedule, in order.

    ``sum(step.cost.macs)`` equals the MACs of the run; it is the proof that work was skipped.
    """

    steps: tuple[Step, ...]

    @property
    def macs(self) -> int:
        """MACs of all that was called."""
        return sum(step.cost.macs for step in self.steps)
