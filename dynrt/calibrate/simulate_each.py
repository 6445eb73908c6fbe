"""Runs of a table whose inputs each have their own costs, as where gates choose the path.

The gates' decisions are those of a run without a cap. From the first exit passed on, a cap changes
no decision but only where the run stops, so that caps can be tried on cached scores; a cap so tight
that it would change decisions before is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from dynrt.calibrate.scores import ScoreTable
from dynrt.errors import CalibrationError
from dynrt.ir.cost import describe_cost

Int = npt.NDArray[np.int64]
_NO_CAP = 1 << 62


def walk_each(
    table: ScoreTable, thresholds: Mapping[str, float], budget: int | None
) -> tuple[Int, Int, int]:
    """Where each input ends, what it costs, and how many the cap stopped.

    Args:
        table: with costs per input.
        thresholds: by exit; the last exit needs none.
        budget: hard cap per input, or ``None``.

    Returns:
        ``(n,)`` exit numbers, ``(n,)`` costs, and a count.

    Raises:
        CalibrationError: a threshold is missing, unknown or NaN; or the cap would change decisions
            before the first exit.
    """
    asked = table.can_accept(thresholds)
    if budget is None:
        return _free(table, thresholds, asked)
    require_unforced(table, budget)
    n, last = len(table), len(table.exits) - 1
    spent, owed, passed = np.zeros(n, np.int64), np.zeros(n, np.int64), np.full(n, -1, np.int64)
    going, stopped = np.ones(n, np.bool_), np.zeros(n, np.bool_)
    for step, exit_index in enumerate(table.step_exit.tolist()):
        cost = table.step_macs[:, step]
        if exit_index < 0:
            need, price = table.step_ahead[:, step], int(table.step_price[step])
            if passed[0] >= 0:  # the same for all: the first exit is within the cap
                short = (spent + need > budget) | (spent + price + owed > budget)
                short &= going & (need >= 0)
                stopped |= short
                going &= ~short
            spent += np.where(going, cost, 0)
            continue
        here = going & (spent + cost <= budget)
        passed[here] = exit_index
        final = exit_index == last and table.kinds[last] == "always"
        if asked[exit_index] or final:
            spent += np.where(here, cost, 0)
            owed[here] = 0
            if final:
                going &= ~here
            elif exit_index != last:
                bound = thresholds[table.exits[exit_index]]
                going &= ~(here & (table.scores[:, exit_index] >= bound))
        else:
            owed[here] = cost[here]
    stopped |= going & (passed != last)
    return passed, spent + owed, int(np.count_nonzero(stopped))


def least_unforced(table: ScoreTable) -> int:
    """A cap under which no input of the network has a decision changed before its first exit."""
    first = int(np.flatnonzero(table.step_exit == 0)[0])
    return int(table.step_price[: first + 1].sum())


def require_unforced(table: ScoreTable, budget: int) -> None:
    """Check that a cap changes no decision before the first exit.

    Raises:
        CalibrationError: it would.
    """
    first = int(np.flatnonzero(table.step_exit == 0)[0])
    costs = table.step_macs[:, : first + 1]
    before = costs.cumsum(axis=1) - costs
    needs = np.maximum(costs, table.step_ahead[:, : first + 1])
    least = int((before + needs).max())
    if budget < least:
        raise CalibrationError(
            f"a cap of {describe_cost(table.resource, budget)} would change gates' decisions before "
            f"the first exit, of which no scores are cached; from "
            f"{describe_cost(table.resource, least)} on it would not"
        )


def _free(
    table: ScoreTable, thresholds: Mapping[str, float], asked: npt.NDArray[np.bool_]
) -> tuple[Int, Int, int]:
    where = np.full(len(table), len(table.exits) - 1, np.int64)
    going = np.ones(len(table), np.bool_)
    for exit_index in np.flatnonzero(asked[:-1]).tolist():
        bound = thresholds[table.exits[exit_index]]
        accepted = going & (table.scores[:, exit_index] >= bound)
        where[accepted] = exit_index
        going &= ~accepted
    reach = table.reach_macs[np.arange(len(table)), where]
    return where, reach + table.heads_with(asked)[where], 0
