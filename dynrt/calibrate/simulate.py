"""What a run would do under given thresholds and budget, from cached scores alone.

Equal to the reference interpreter on chains with exits (a property test holds it to that).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynrt.calibrate.scores import ScoreTable
from dynrt.calibrate.simulate_each import walk_each
from dynrt.errors import BudgetRefusedError
from dynrt.ir.cost import describe_cost


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What all inputs of a table came to.

    Attributes:
        accuracy: a fraction.
        mean_macs: per input.
        max_macs: of the dearest input.
        exits: how many inputs answered at each exit; every exit is named.
        stopped: how many were stopped by the budget.
        exit_index: ``(n,)``, int64: where each input answered.
        macs: ``(n,)``, int64: what each input spent.
    """

    accuracy: float
    mean_macs: float
    max_macs: int
    exits: Mapping[str, int]
    stopped: int
    exit_index: npt.NDArray[np.int64]
    macs: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walk:
    """The way of an input that no exit accepts; all inputs share it up to where they accept.

    Attributes:
        asked: exits whose head runs, in order, with the MACs spent when it has.
        end: where the input answers if none of them accepts.
        end_macs: what it has spent by then.
        stopped: it answers there because of the budget.
    """

    asked: tuple[tuple[int, int], ...]
    end: int
    end_macs: int
    stopped: bool


def simulate(
    table: ScoreTable, thresholds: Mapping[str, float], budget_macs: int | None = None
) -> Outcome:
    """Run every input of ``table`` through thresholds and budget.

    An input ends at the first exit whose score is at least its threshold. Heads that run in passing
    are charged; a head that cannot accept (threshold ``inf``, or above 1 for a probability) is not
    run in passing. Where no further exit can be reached within the budget, the input stops at the
    latest exit passed, whose head was reserved (DDI, section III-B).

    Args:
        table: scores.
        thresholds: by exit; the last exit needs none.
        budget_macs: hard cap per input, in what the table's costs are counted in.

    Raises:
        CalibrationError: a threshold is missing, unknown or NaN; or the cap would change decisions
            of a network with gates before its first exit.
        BudgetRefusedError: the budget is below the cheapest answer.
    """
    if table.costs_differ:
        return _outcome(table, *walk_each(table, thresholds, budget_macs))
    walk = _walk(table, table.can_accept(thresholds), budget_macs)
    where = np.full(len(table), walk.end, np.int64)
    macs = np.full(len(table), walk.end_macs, np.int64)
    going = np.ones(len(table), np.bool_)
    last = len(table.exits) - 1
    for exit_index, spent in walk.asked:
        if exit_index == last:
            break
        bound = thresholds[table.exits[exit_index]]
        accepted = going & (table.scores[:, exit_index] >= bound)
        where[accepted], macs[accepted] = exit_index, spent
        going &= ~accepted
    return _outcome(table, where, macs, int(going.sum()) if walk.stopped else 0)


def _outcome(
    table: ScoreTable, where: npt.NDArray[np.int64], macs: npt.NDArray[np.int64], stopped: int
) -> Outcome:
    correct = table.correct[np.arange(len(table)), where]
    counts = np.bincount(where, minlength=len(table.exits))
    return Outcome(
        accuracy=float(correct.mean()),
        mean_macs=int(macs.sum()) / len(table),
        max_macs=int(macs.max()),
        exits=dict(zip(table.exits, map(int, counts), strict=True)),
        stopped=stopped,
        exit_index=where,
        macs=macs,
    )


def _walk(table: ScoreTable, asked: npt.NDArray[np.bool_], budget_macs: int | None) -> _Walk:
    costs, exits = table.step_macs.tolist(), table.step_exit.tolist()
    left = float("inf") if budget_macs is None else budget_macs
    needs = _needs(costs, exits)
    if needs[0] > left:
        raise BudgetRefusedError(
            f"budget {describe_cost(table.resource, int(left))} is below the cheapest answer, "
            f"{describe_cost(table.resource, int(needs[0]))}",
            cheapest=needs[0],
        )
    last = len(table.exits) - 1
    heads: list[tuple[int, int]] = []
    spent, passed, owed, stopped = 0, -1, 0, False
    for at, (cost, exit_index) in enumerate(zip(costs, exits, strict=True)):
        if exit_index < 0:
            after = left - spent - cost
            if passed >= 0 and (needs[at + 1] > after or owed > after):
                stopped = True
                break
            spent += cost
        elif cost <= left - spent:
            passed, owed = exit_index, cost
            final = exit_index == last and table.kinds[last] == "always"
            if asked[exit_index] or final:
                spent, owed = spent + cost, 0
                heads.append((exit_index, spent))
    # Where the last exit passed is not the last of all, only the budget can have ended the run.
    return _Walk(
        asked=tuple(heads),
        end=passed,
        end_macs=spent + owed,
        stopped=stopped or passed != last,
    )


def _needs(costs: list[int], exits: list[int]) -> list[float]:
    """MACs from before each step to the cheapest answer, its head included."""
    out = [float("inf")]
    for cost, exit_index in zip(reversed(costs), reversed(exits), strict=True):
        out.append(cost + out[-1] if exit_index < 0 else min(cost, out[-1]))
    return out[::-1]
