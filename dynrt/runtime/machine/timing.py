"""How long the parts of a compiled network take on this device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from dynrt.ir.cost import ZERO_COST
from dynrt.ir.graph import NodeId, PortRef
from dynrt.runtime.compiled import SmallGate
from dynrt.runtime.machine.automaton import Leg
from dynrt.runtime.machine.binding import call_all
from dynrt.runtime.machine.machine import Machine, Task
from dynrt.runtime.machine.ops import GateOp, MaskedOp, NodeOp, PoolOp, SegmentOp
from dynrt.runtime.machine.parts import Parts

_WARM_UPS = 3


class Event(NamedTuple):
    """Something that took time in one run.

    Attributes:
        kind: ``segment``, ``gate`` (a kernel), ``decision``, or ``node`` (portable).
        name: the first node that it runs, or the node that decides.
        start_ns, duration_ns: on the clock of ``time.perf_counter_ns``.
    """

    kind: str
    name: str
    start_ns: int
    duration_ns: int


def part_times_ns(parts: Parts, rounds: int) -> dict[tuple[NodeId, ...], list[int]]:
    """Times of every segment and small gate by itself, on zeros, one sample.

    Args:
        parts: the network.
        rounds: calls of each that count; a few more warm up.

    Returns:
        ``rounds`` durations in nanoseconds by the nodes that the part runs.
    """
    machine = Machine(parts)
    out: dict[tuple[NodeId, ...], list[int]] = {}
    for index, segment in enumerate(parts.compiled.segments):
        takes = tuple(machine.buffers.own(parts.taken_kind(t.port)) for t in segment.takes)
        gives = tuple(machine.buffers.own(parts.kind(g.port)) for g in segment.gives)
        run, argument = machine.binder.segment(SegmentOp(index, takes, gives))
        out[segment.nodes] = _times(lambda f=run, a=argument: f(a), rounds)  # type: ignore[misc]
    for gate in parts.compiled.gates:
        out[(gate.node,)] = _times(_gate_call(machine, gate), rounds)
    return out


def _gate_call(machine: Machine, gate: SmallGate) -> Callable[[], object]:
    node = machine.parts.plan.graph.by_name[gate.node]
    own, parts = machine.buffers.own, machine.parts
    takes = {p.name: own(parts.taken_kind(PortRef(gate.node, p.name))) for p in node.inputs}
    gives = {p.name: own(parts.kind(PortRef(gate.node, p.name))) for p in node.outputs}
    pools = [machine.binder.kernel(PoolOp(takes[port]), 0) for port in gate.program.pools]
    op = GateOp(gate, tuple(takes.items()), tuple(gives.items()))
    kernels = [*pools, machine.binder.kernel(op, 0)]

    def run() -> None:
        for kernel in kernels:
            kernel()

    return run


def _times(call: Callable[[], object], rounds: int) -> list[int]:
    out = []
    for _ in range(rounds + _WARM_UPS):
        start = time.perf_counter_ns()
        call()
        out.append(time.perf_counter_ns() - start)
    return out[_WARM_UPS:]


def run_events(machine: Machine, task: Task) -> tuple[list[Event], list[Leg]]:
    """Run what lies in the input buffers with a clock around every part; time is not capped.

    Returns:
        What took time, in order, and the legs of the run.

    Raises:
        BackendError: as :meth:`Machine.run`.
    """
    automaton = machine.automaton(task)
    leg, legs, events = automaton.first, list[Leg](), list[Event]()
    clock, purse, spent = time.perf_counter_ns, task.purse(), ZERO_COST
    while True:
        if not leg.exact and not purse.covers(spent, leg.needs):
            leg = machine.squeezed(automaton, task, legs, spent, 0)
        for op in leg.ops:
            runs, kernels = machine.binder.bind((op,))
            start = clock()
            call_all(runs, kernels)
            taken = clock() - start
            if isinstance(op, SegmentOp | MaskedOp):
                name = machine.parts.compiled.segments[op.segment].nodes[0]
                events.append(Event("segment", name, start, taken))
            elif isinstance(op, GateOp):
                events.append(Event("gate", op.gate.node, start, taken))
            elif isinstance(op, NodeOp):
                events.append(Event("node", op.node, start, taken))
            else:
                events.append(Event("gate", "pool", start, taken))
        legs.append(leg)
        spent = spent + leg.cost
        if leg.hop.decide is None or leg.question is None:
            return events, legs
        start = clock()
        outcome = leg.hop.decide()
        if outcome < 0:
            outcome = machine.redecided(leg, 0)
        events.append(Event("decision", leg.question.step.name, start, clock() - start))
        leg = machine.ahead(automaton, task, leg, outcome, 0)
