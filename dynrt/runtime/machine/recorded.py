"""One run with every step kept: by the walk itself, part by part, each with a clock."""

from __future__ import annotations

import time

from dynrt.runtime.answer import Outcome
from dynrt.runtime.executor import settle
from dynrt.runtime.machine.binding import NEAR_TIE, call_all
from dynrt.runtime.machine.machine import Machine, Task
from dynrt.runtime.machine.ops import GateOp, Placer, gives_of
from dynrt.runtime.needs import Call, Ended, Kept, Scores, Verdict
from dynrt.runtime.record import Record
from dynrt.runtime.walk import Walk


def run_recorded(machine: Machine, task: Task) -> Outcome:
    """As :meth:`Machine.run`, with a trace and times.

    Raises:
        BackendError: a segment failed, or a score is NaN.
    """
    record = Record()
    automaton = machine.automaton(task)
    walk = Walk(
        task.plan,
        task.policy,
        machine.inputs,
        constant=automaton.constant,
        completion=task.completion,
        purse=task.purse(),
        record=record,
    )
    placer = Placer(machine.parts, machine.buffers, frozenset())
    ties = 0
    gates: dict[int, GateOp] = {}  # by what they gave last
    while not isinstance(need := walk.advance(), Ended):
        if not isinstance(need, Call):
            ties += _settle(machine, walk, need, gates.get(need[-1]))
            continue
        outputs, ops = placer.place(walk, need)
        start = time.perf_counter_ns()
        call_all(*machine.binder.bind(ops))
        taken = time.perf_counter_ns() - start
        for op in ops:
            for ref in gives_of(op):
                gates.pop(ref, None)
                if isinstance(op, GateOp):
                    gates[ref] = op
        walk.give_outputs(outputs, taken if ops else None)
    call_all(*machine.binder.bind(placer.stop()))
    return Outcome(
        exit=need.exit,
        heads=machine.heads(need, 0),
        accepted=need.accepted,
        forced=need.forced,
        cost=walk.cost,
        path=tuple(walk.path),
        skipped=task.plan.skipped(walk.path),
        near_ties=ties,
        trace=record.trace(task.plan),
    )


def _settle(
    machine: Machine, walk: Walk, need: Kept | Scores | Verdict, gate: GateOp | None
) -> int:
    """Answer a need of the walk; whether it was a near tie."""
    tie = gate.gate.tie_distance if gate is not None else NEAR_TIE
    near = machine.binder.decide(need, walk.policy, tie, 0)() == -1
    if near and gate is not None:
        machine.binder.exact_gate(gate, 0)
    settle(walk, need, machine.binder.flat(need[-1], 0))
    return int(near)
