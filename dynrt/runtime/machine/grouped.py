"""Many samples at once on one machine: those at the same hop are gathered, run, and scattered.

Each sample has its row in every buffer and goes its own way through the automaton; what the
automaton says about buffers holds for every row alike. So samples meet again as soon as their ways
do, whatever they skipped before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from dynrt.ir.cost import ZERO_COST, Cost
from dynrt.ir.graph import Array
from dynrt.runtime.answer import Outcome
from dynrt.runtime.machine.automaton import Automaton, Leg
from dynrt.runtime.machine.binding import call_all
from dynrt.runtime.machine.machine import Machine, Task
from dynrt.runtime.machine.ops import GateOp, PoolOp, SegmentOp
from dynrt.runtime.machine.parts import Bound
from dynrt.runtime.purse import Limits

#: Bound ranges of rows and gathering buffers that are kept.
_KEPT_BINDINGS = 2048


#: Kernels of one row behind a leg's segments, and its decision.
_Work = tuple[tuple[Callable[[], None], ...], Callable[[], int] | None]
_KEPT_WORK = 1 << 16


@dataclass(slots=True)
class _Sample:
    """One sample on its way."""

    row: int
    spent: Cost = ZERO_COST
    legs: list[Leg] = field(default_factory=list)
    ties: int = 0


class Group:
    """Runs up to ``machine.buffers.rows`` samples together.

    Args:
        machine: with a row for each sample; not used by anybody else meanwhile.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._bound: dict[tuple[SegmentOp, int, int], Bound] = {}
        self._gathers: dict[tuple[SegmentOp, int], tuple[list[Array], list[Array], Bound]] = {}
        self._of: Automaton | None = None
        self._row_work: dict[tuple[Leg, int], _Work] = {}

    def run(self, task: Task, count: int) -> list[Outcome]:
        """Answer what lies in the first ``count`` rows of the input buffers.

        Args:
            task: in force for every sample; time is not capped.
            count: of samples.

        Returns:
            One outcome per sample, in order.

        Raises:
            BackendError: a segment failed, or a score is NaN.
        """
        automaton = self.machine.automaton(task)
        automaton.forget()
        if automaton is not self._of:
            self._of = automaton
            self._row_work.clear()
        purse = task.purse() if task.limits else None
        samples = [_Sample(row) for row in range(count)]
        at: dict[Leg, list[_Sample]] = {}
        for sample in samples:
            leg = self._allowed(automaton, task, purse, automaton.first, sample)
            at.setdefault(leg, []).append(sample)
        while at:
            # the hindmost first, so that the others can be caught up with
            leg = min(at, key=_position)
            group = at.pop(leg)
            group.sort(key=_row)
            self._run_together(leg, [s.row for s in group])
            known = leg.hop.next
            for sample in group:
                sample.legs.append(leg)
                kernels, decide = self._work(leg, sample.row)
                for kernel in kernels:
                    kernel()
                if decide is None:
                    continue
                outcome = decide()
                if outcome < 0:
                    outcome = self.machine.redecided(leg, sample.row)
                    sample.ties += 1
                hop = known[outcome] if outcome < len(known) else None
                if hop is not None:
                    ahead = automaton.legs[hop]
                else:
                    ahead = self.machine.ahead(automaton, task, leg, outcome, sample.row)
                if purse is not None:
                    sample.spent = sample.spent + leg.cost
                    ahead = self._allowed(automaton, task, purse, ahead, sample)
                at.setdefault(ahead, []).append(sample)
        return [self.machine.outcome(s.legs, s.ties, s.row) for s in samples]

    def _allowed(
        self, automaton: Automaton, task: Task, purse: Limits | None, leg: Leg, sample: _Sample
    ) -> Leg:
        """``leg``, or what the budget leaves of it."""
        if purse is None or leg.exact or purse.covers(sample.spent, leg.needs):
            return leg
        return self.machine.squeezed(automaton, task, sample.legs, sample.spent, sample.row)

    def _work(self, leg: Leg, row: int) -> _Work:
        """What is done for each row by itself once the segments have run."""
        key = (leg, row)
        work = self._row_work.get(key)
        if work is None:
            binder = self.machine.binder
            first = _first_own(leg)
            kernels = tuple(
                binder.kernel(op, row) for op in leg.ops[first:] if isinstance(op, PoolOp | GateOp)
            )
            decide = None if leg.question is None else self.machine.decide(leg, row)
            if len(self._row_work) >= _KEPT_WORK:
                self._row_work.clear()
            work = self._row_work[key] = (kernels, decide)
        return work

    def _run_together(self, leg: Leg, rows: Sequence[int]) -> None:
        """Everything up to the last segment of a leg."""
        binder = self.machine.binder
        for op in leg.ops[: _first_own(leg)]:
            if isinstance(op, SegmentOp):
                self._run_segment(op, rows)
                continue
            for row in rows:
                call_all(*binder.bind((op,), row))

    def _run_segment(self, op: SegmentOp, rows: Sequence[int]) -> None:
        if not op.takes:  # nothing says the batch: one row that serves all
            _, gives, (run, argument) = self._gather(op, 1)
            run(argument)
            for array, ref in zip(gives, op.gives, strict=True):
                self.machine.buffers.arrays[ref][list(rows)] = array
            return
        first, count = rows[0], len(rows)
        if rows[-1] - first + 1 == count:
            run, argument = self._range(op, first, first + count)
            run(argument)
            return
        takes, gives, (run, argument) = self._gather(op, count)
        arrays, indices = self.machine.buffers.arrays, np.asarray(rows)
        for array, ref in zip(takes, op.takes, strict=True):
            np.take(arrays[ref], indices, axis=0, out=array)
        run(argument)
        for array, ref in zip(gives, op.gives, strict=True):
            arrays[ref][indices] = array

    def _range(self, op: SegmentOp, first: int, last: int) -> Bound:
        """A segment on neighbouring rows, which need no copy."""
        key = (op, first, last)
        if key not in self._bound:
            if len(self._bound) >= _KEPT_BINDINGS:
                self._bound.clear()
            parts, arrays = self.machine.parts, self.machine.buffers.arrays
            handles = {
                ref: parts.engine.handle(arrays[ref][first:last]) for ref in {*op.takes, *op.gives}
            }
            self._bound[key] = parts.engine.bind(
                op.segment, [handles[r] for r in op.takes], [handles[r] for r in op.gives]
            )
        return self._bound[key]

    def _gather(self, op: SegmentOp, count: int) -> tuple[list[Array], list[Array], Bound]:
        """A segment on rows that are gathered beforehand and scattered afterwards."""
        key = (op, count)
        if key not in self._gathers:
            if len(self._gathers) >= _KEPT_BINDINGS:
                self._gathers.clear()
            engine, arrays = self.machine.parts.engine, self.machine.buffers.arrays
            own = {
                ref: np.zeros((count, *arrays[ref].shape[1:]), arrays[ref].dtype)
                for ref in {*op.takes, *op.gives}
            }
            takes, gives = [own[r] for r in op.takes], [own[r] for r in op.gives]
            bound = engine.bind(
                op.segment, [engine.handle(a) for a in takes], [engine.handle(a) for a in gives]
            )
            self._gathers[key] = (takes, gives, bound)
        return self._gathers[key]


def _first_own(leg: Leg) -> int:
    """Where the ops begin that every row does by itself."""
    first = len(leg.ops)
    while first and isinstance(leg.ops[first - 1], PoolOp | GateOp):
        first -= 1
    return first


def _position(leg: Leg) -> int:
    return leg.begun.position


def _row(sample: _Sample) -> int:
    return sample.row
