"""What a run gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dynrt.ir.cost import Budget
from dynrt.ir.graph import Array, NodeId
from dynrt.ir.trace import Trace
from dynrt.units import fj_to_j, macs_to_flops, milli_to_mac_equivalents


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The answer to one input, what it cost, and what was in force.

    Attributes:
        answer: the exit's answer, one sample, without the batch axis.
        index: the largest element's index.
        label: its label, or ``None`` where the bundle has none for it.
        score: its softmax probability.
        exit: where the run ended.
        accepted: the exit's rule accepts this answer; otherwise the run was stopped there.
        forced: the budget settled or changed a decision, or stopped the run.
        macs: of all that ran, gates and heads included; never above the budget.
        femtojoules: modelled energy of the same, or ``None`` without a table in joules.
        milli_mac_equivalents: the same in thousandths of a MAC-equivalent, or ``None`` without a
            normalised table.
        seconds: time of the run; in a batch, of the whole batch.
        late: a time cap was missed.
        path: compute nodes and exits that ran, in order.
        skipped: compute nodes that did not run.
        budget, thresholds: in force for this input.
        trace: every step, if asked for.
        energy_source: where the modelled energy comes from; ``None`` if there is none.
        near_ties: decisions so near their threshold that another mode may come to another.
    """

    answer: Array
    index: int
    label: str | None
    score: float
    exit: NodeId
    accepted: bool
    forced: bool
    macs: int
    femtojoules: int | None
    milli_mac_equivalents: int | None
    seconds: float
    late: bool
    path: tuple[NodeId, ...]
    skipped: tuple[NodeId, ...]
    budget: Budget
    thresholds: Mapping[NodeId, tuple[float, ...]]
    trace: Trace | None = None
    near_ties: int = 0
    energy_source: str | None = None

    @property
    def flops(self) -> int:
        """FLOPs of all that ran (2 per MAC)."""
        return macs_to_flops(self.macs)

    @property
    def joules(self) -> float | None:
        """Modelled energy in joules, or ``None`` without a table in joules."""
        return None if self.femtojoules is None else fj_to_j(self.femtojoules)

    @property
    def mac_equivalents(self) -> float | None:
        """Modelled energy in MAC-equivalents, or ``None`` without a normalised table."""
        milli = self.milli_mac_equivalents
        return None if milli is None else milli_to_mac_equivalents(milli)
