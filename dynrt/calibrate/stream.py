"""A stream under an average and a cap, from cached scores: what a budget source would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynrt.calibrate.average import AveragePolicy
from dynrt.calibrate.scores import ScoreTable
from dynrt.calibrate.simulate import Outcome, simulate
from dynrt.errors import CalibrationError
from dynrt.runtime.priced import PriceControl

Int = npt.NDArray[np.int64]

_CHUNK = 1 << 16
_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamOutcome:
    """What a stream came to.

    Attributes:
        accuracy: a fraction.
        mean_cost: per input, in units of the policy's resource.
        max_cost: of the dearest input.
        exit_index: ``(n,)``: where each input answered, in the order of the stream.
        costs: ``(n,)``: what each spent.
        levels: ``(n,)``: the level in force for each.
        tightened: inputs whose cap was less than the policy's, for lack of tokens.
    """

    accuracy: float
    mean_cost: float
    max_cost: int
    exit_index: Int
    costs: Int
    levels: Int
    tightened: int


def answer_stream(
    table: ScoreTable, policy: AveragePolicy, *, order: Int | None = None, start: int = 0
) -> StreamOutcome:
    """Answer the inputs of ``table`` one after the other, as ``policy.source`` has them answered.

    Args:
        table: scores; other inputs than the policy was calibrated on, for honest figures.
        policy: of :func:`~dynrt.calibrate.average.for_average`.
        order: ``(m,)``: which inputs come, in order; by default all, as they stand.
        start: units in the bucket at first.

    Raises:
        CalibrationError: the table is of another network or counts something else, or there is
            nothing in ``order``.
    """
    if table.resource != policy.resource or table.bundle_sha256 != policy.bundle_sha256:
        raise CalibrationError(
            f"scores of {table.bundle or 'a network'} in {table.resource}; the policy is for "
            f"{policy.bundle or 'another'} in {policy.resource}"
        )
    rows = np.arange(len(table)) if order is None else np.asarray(order, np.int64)
    if not rows.size:
        raise CalibrationError("a stream of no inputs")
    control = PriceControl(
        [level.mean_cost for level in policy.levels],
        average=policy.average,
        capacity=policy.capacity,
        cap=policy.cap,
        dearest=policy.dearest,
        start=start,
    )
    where, costs, levels = (np.zeros(rows.size, np.int64) for _ in range(3))
    tightened = 0
    for first in range(0, rows.size, _CHUNK):
        part = slice(first, first + _CHUNK)
        tightened += _answer(
            table, policy, control, rows[part], (where[part], costs[part], levels[part])
        )
    return StreamOutcome(
        accuracy=float(table.correct[rows, where].mean()),
        mean_cost=int(costs.sum()) / rows.size,
        max_cost=int(costs.max()),
        exit_index=where,
        costs=costs,
        levels=levels,
        tightened=tightened,
    )


def _answer(
    table: ScoreTable,
    policy: AveragePolicy,
    control: PriceControl,
    rows: Int,
    out: tuple[Int, Int, Int],
) -> int:
    """Some inputs, one after the other; how many had a tighter cap."""
    part = table.rows(rows)
    tried = [simulate(part, level.thresholds, policy.cap) for level in policy.levels]
    cost_at = [t.macs.tolist() for t in tried]
    enough_at = [
        _enough(part, t, level.thresholds, policy.cap).tolist()
        for t, level in zip(tried, policy.levels, strict=True)
    ]
    where, costs, levels = out
    tightened = 0
    for i in range(rows.size):
        control.fill(policy.average)
        level, limit = control.level, control.limit
        cost = cost_at[level][i]
        if limit is not None and (policy.cap is None or limit < policy.cap):
            tightened += 1
            if enough_at[level][i] > limit:
                one = simulate(part.rows(np.array([i])), policy.levels[level].thresholds, limit)
                cost = int(one.macs[0])
                where[i] = -1 - int(one.exit_index[0])
        control.take(cost)
        costs[i], levels[i] = cost, level
    at = np.stack([t.exit_index for t in tried])[levels, np.arange(rows.size)]
    where[:] = np.where(where < 0, -1 - where, at)
    return tightened


def _enough(
    table: ScoreTable, tried: Outcome, thresholds: Mapping[str, float], cap: int | None
) -> Int:
    """``(n,)``: limits from which on each input runs as it does under the cap alone.

    No question on the way asks for more than what is spent in the end, the heads that were reserved
    and not run, and what masked channels then saved. Where gates choose the path, an input that the
    cap stopped between exits may be stopped sooner by any lower limit.
    """
    enough = tried.macs + int(table.head_macs.sum())
    if not table.costs_differ:
        return enough
    saved = np.where(table.step_ahead >= 0, table.step_price - table.step_macs, 0)
    enough += saved.sum(axis=1)
    if cap is not None:
        stopped = simulate(table, thresholds).exit_index != tried.exit_index
        enough[stopped] = _NO_LIMIT
    return enough
