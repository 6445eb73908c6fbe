"""Drives walks: one alone, or many in step, with survivors regrouped at every node."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from dynrt.ir.graph import Array
from dynrt.runtime.backends import CheckedBackend
from dynrt.runtime.plan import PlanStep
from dynrt.runtime.walk import Call, Gave, Outcome, Row, Steps


def drive(walk: Steps, backend: CheckedBackend, *, timed: bool) -> Outcome:
    """Run one walk to its end.

    Args:
        walk: a started-by-nobody coroutine of :meth:`dynrt.runtime.walk.Walk.steps`.
        backend: who runs the nodes.
        timed: whether to time every call.
    """
    try:
        call = next(walk)
        while True:
            inputs = {name: row.base for name, row in call.inputs.items()}
            start = time.perf_counter_ns() if timed else 0
            gave = backend.call(call.step.name, inputs, batch=1)
            taken = time.perf_counter_ns() - start if timed else None
            call = walk.send(Gave({n: Row(v, 0) for n, v in gave.items()}, taken))
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome


def drive_together(walks: Sequence[Steps], backend: CheckedBackend) -> list[Outcome]:
    """Run walks in step: at each node those samples that reached it, gathered into one call.

    Returns:
        One outcome per walk, in the order of ``walks``.
    """
    outcomes: dict[int, Outcome] = {}
    waiting: dict[int, list[tuple[int, Call]]] = {}
    steps: dict[int, PlanStep] = {}

    def resume(i: int, gave: Gave | None) -> None:
        try:
            call = next(walks[i]) if gave is None else walks[i].send(gave)
        except StopIteration as end:
            outcomes[i] = end.value
            return
        waiting.setdefault(call.step.index, []).append((i, call))
        steps[call.step.index] = call.step

    for i in range(len(walks)):
        resume(i, None)
    while waiting:
        index = min(waiting)
        group = sorted(waiting.pop(index), key=lambda entry: entry[0])
        step = steps[index]
        inputs = {f.port: _gather([call.inputs[f.port] for _, call in group]) for f in step.feeds}
        gave = backend.call(step.name, inputs, batch=len(group))
        for row, (i, _) in enumerate(group):
            # a node without inputs gives one row that serves all
            resume(i, Gave({n: Row(v, row if inputs else 0) for n, v in gave.items()}, None))
    return [outcomes[i] for i in range(len(walks))]


def _gather(rows: Sequence[Row]) -> Array:
    """Rows as one array; no copy where they are a whole array in order."""
    base = rows[0].base
    if all(row.base is base for row in rows):
        indices = [row.at for row in rows]
        if len(indices) == len(base) and indices == list(range(len(base))):
            return base
        taken: Array = base[indices]
        return taken
    return np.stack([row.base[row.at] for row in rows])


def rows_of(inputs: Mapping[str, Array], index: int) -> dict[str, Row]:
    """One sample's row of every batched input."""
    return {name: Row(value, index if len(value) > 1 else 0) for name, value in inputs.items()}
