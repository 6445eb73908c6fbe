"""Drives walks in the portable mode: one alone, or many in step, regrouped at every node."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dynrt.errors import BackendError
from dynrt.ir.graph import Array
from dynrt.ir.masks import kept_groups
from dynrt.ir.rules import accept_score
from dynrt.runtime.answer import Outcome
from dynrt.runtime.backends import CheckedBackend
from dynrt.runtime.needs import Call, Ended, Kept, Scores, Verdict
from dynrt.runtime.plan import Feed, PlanStep
from dynrt.runtime.walk import Walk


class Row(NamedTuple):
    """One sample of a batch: ``base[at]``."""

    base: Array
    at: int

    @property
    def value(self) -> Array:
        """The sample, without the batch axis."""
        value: Array = self.base[self.at]
        return value


def constant_row(feed: Feed) -> Row | None:
    """The constant default of a feed."""
    return None if feed.constant is None else Row(feed.constant, 0)


def rows_of(inputs: Mapping[str, Array], index: int) -> dict[str, Row]:
    """One sample's row of every batched input."""
    return {name: Row(value, index if len(value) > 1 else 0) for name, value in inputs.items()}


def settle(walk: Walk, need: Kept | Scores | Verdict, value: Array) -> None:
    """Answer what a walk asks about one sample's tensor.

    Raises:
        BackendError: a score is NaN, or an exit's values have no score.
    """
    if isinstance(need, Kept):
        walk.give_kept(len(kept_groups(value)))
    elif isinstance(need, Scores):
        walk.give_scores(value.tolist())
    else:
        try:
            score = accept_score(need.node.accept.kind, value)
        except BackendError as exc:
            raise BackendError(f"exit {need.node.name!r}: {exc}") from exc
        walk.give_verdict(accepted=score >= walk.bound(need.node), score=score)


def to_call(walk: Walk) -> Call | Ended:
    """Take a walk to the next node that must be run, or to its end."""
    while True:
        need = walk.advance()
        if isinstance(need, Call | Ended):
            return need
        ref: Row = need[-1]
        settle(walk, need, ref.value)


def drive(walk: Walk, backend: CheckedBackend, *, timed: bool) -> Ended:
    """Run one walk to its end.

    Args:
        walk: one that was not begun.
        backend: who runs the nodes.
        timed: whether to time every call.
    """
    while not isinstance(need := to_call(walk), Ended):
        inputs = {name: row.base for name, row in need.inputs.items()}
        start = time.perf_counter_ns() if timed else 0
        gave = backend.call(need.step.name, inputs, batch=1)
        taken = time.perf_counter_ns() - start if timed else None
        walk.give_outputs({n: Row(v, 0) for n, v in gave.items()}, taken)
    return need


def drive_together(walks: Sequence[Walk], backend: CheckedBackend) -> list[Ended]:
    """Run walks in step: at each node those samples that reached it, gathered into one call.

    Returns:
        Where each walk ended, in the order of ``walks``.
    """
    ends: dict[int, Ended] = {}
    waiting: dict[int, list[tuple[int, Call]]] = {}
    steps: dict[int, PlanStep] = {}

    def resume(i: int) -> None:
        need = to_call(walks[i])
        if isinstance(need, Ended):
            ends[i] = need
            return
        waiting.setdefault(need.step.index, []).append((i, need))
        steps[need.step.index] = need.step

    for i in range(len(walks)):
        resume(i)
    while waiting:
        index = min(waiting)
        group = sorted(waiting.pop(index), key=lambda entry: entry[0])
        step = steps[index]
        inputs = {f.port: _gather([call.inputs[f.port] for _, call in group]) for f in step.feeds}
        gave = backend.call(step.name, inputs, batch=len(group))
        for row, (i, _) in enumerate(group):
            # a node without inputs gives one row that serves all
            walks[i].give_outputs({n: Row(v, row if inputs else 0) for n, v in gave.items()})
            resume(i)
    return [ends[i] for i in range(len(walks))]


def outcome_of(walk: Walk, end: Ended) -> Outcome:
    """What a walk of rows came to."""
    return Outcome(
        exit=end.exit,
        heads={n: {p: row.value for p, row in rows.items()} for n, rows in end.heads.items()},
        accepted=end.accepted,
        forced=end.forced,
        cost=walk.cost,
        path=tuple(walk.path),
        skipped=walk.plan.skipped(walk.path),
        trace=None if walk.record is None else walk.record.trace(walk.plan),
    )


def _gather(rows: Sequence[Row]) -> Array:
    """Rows as one array; no copy where they are a whole array in order."""
    base = rows[0].base
    if all(row.base is base for row in rows):
        indices = [row.at for row in rows]
        if len(indices) == len(base) and indices == list(range(len(base))):
            return base
        taken: Array = base[indices]
        return taken
    return np.stack([row.value for row in rows])
