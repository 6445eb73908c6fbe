"""Thresholds for a target accuracy, an average cost, or by MSDNet's quantiles.

A target holds exactly on the calibration data, and on other data only as well as one sample stands
for another; ``dynrt.calibrate.risk`` gives a guarantee instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from dynrt.calibrate.scores import ScoreTable
from dynrt.calibrate.search import Gates, Point, at_most_errors, at_most_macs, search
from dynrt.calibrate.simulate import simulate
from dynrt.errors import CalibrationError
from dynrt.units import FLOPS_PER_MAC

Goal = Literal["accuracy", "budget", "risk", "quantiles"]
NEVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Thresholds, what they were chosen for, and what they come to on the calibration data.

    Attributes:
        thresholds: by exit; ``inf`` where the head is not run in passing, ``-inf`` where every
            input that arrives is accepted. The last exit has none.
        goal: what was asked.
        target: the accuracy (a fraction), mean FLOPs, risk (a fraction) or ``q`` asked for.
        confidence: of a risk; ``None`` for other goals.
        method: how the thresholds were found.
        bundle: name of the network.
        bundle_sha256: of its bundle.
        data: what they were calibrated on.
        n: how many inputs.
        accuracy: on them, a fraction.
        full_accuracy: of the last exit alone, a fraction.
        mean_macs: per input, heads in passing included.
        max_macs: of the dearest input.
        full_macs: of the network run to its last exit without any other head; the mean where gates
            choose each input's path.
        exits: inputs answered at each exit.
    """

    thresholds: Mapping[str, float]
    goal: Goal
    target: float
    confidence: float | None = None
    method: str
    bundle: str
    bundle_sha256: str
    data: str
    n: int
    accuracy: float
    full_accuracy: float
    mean_macs: float
    max_macs: int
    full_macs: int
    exits: Mapping[str, int]

    @property
    def saving(self) -> float:
        """Share of the full network's MACs that are saved on average (negative if none are)."""
        return 1 - self.mean_macs / self.full_macs


def exactly(value: float, what: str) -> Fraction:
    """The decimal fraction that was written, ``0.92`` as 23/25 and not as the nearest float.

    Raises:
        CalibrationError: it is not finite.
    """
    if not math.isfinite(value):
        raise CalibrationError(f"{what} {value!r} is no finite number")
    return Fraction(repr(float(value)))


def calibrated(
    table: ScoreTable,
    thresholds: Mapping[str, float],
    *,
    goal: Goal,
    target: float,
    method: str,
    confidence: float | None = None,
) -> Calibration:
    """The record of ``thresholds``, its figures from ``table``.

    Raises:
        CalibrationError: the table does not count MACs.
    """
    if table.resource != "macs":
        raise CalibrationError(
            f"thresholds are calibrated in MACs; these scores count {table.resource} (an average of "
            "energy is kept by an average policy)"
        )
    outcome = simulate(table, thresholds)
    return Calibration(
        thresholds=MappingProxyType(dict(thresholds)),
        goal=goal,
        target=target,
        confidence=confidence,
        method=method,
        bundle=table.bundle,
        bundle_sha256=table.bundle_sha256,
        data=table.data,
        n=len(table),
        accuracy=outcome.accuracy,
        full_accuracy=table.full_accuracy,
        mean_macs=outcome.mean_macs,
        max_macs=outcome.max_macs,
        full_macs=table.full_macs,
        exits=MappingProxyType(dict(outcome.exits)),
    )


def for_accuracy(table: ScoreTable, target: float, *, folds: int = 0) -> Calibration:
    """The least mean cost at an accuracy of at least ``target`` (Shafiee et al., section 3).

    Args:
        table: scores on calibration data.
        target: a fraction, such as 0.92.
        folds: as for :func:`for_loss`.

    Raises:
        CalibrationError: ``target`` is no fraction, or no thresholds were found that reach it.
    """
    wanted = exactly(target, "target accuracy")
    if not 0 < wanted <= 1:
        raise CalibrationError(f"target accuracy {target} is not above 0 and at most 1")
    return _for_errors(table, len(table) - math.ceil(wanted * len(table)), target, folds)


def for_loss(table: ScoreTable, loss: float, *, folds: int = 0) -> Calibration:
    """The least mean cost at an accuracy at most ``loss`` below the full network's.

    The best thresholds on some thousand inputs are partly the luckiest, and do less well on others.
    With ``folds`` the difference is estimated first, on inputs that were held out, and what is
    allowed on the calibration data is cut by it.

    Args:
        table: scores on calibration data.
        loss: a fraction: 0.005 is half a percentage point.
        folds: how many parts are held out in turn; 0 holds the target on these inputs
            only. Each costs about as much time as the search itself.

    Raises:
        CalibrationError: ``loss`` is no fraction, or no thresholds were found that keep it.
    """
    allowed = exactly(loss, "loss")
    if not -1 < allowed < 1:
        raise CalibrationError(f"loss {loss} is not between -1 and 1")
    full = int(np.count_nonzero(~table.correct[:, -1]))
    errors = full + math.floor(allowed * len(table))
    return _for_errors(table, errors, float(1 - Fraction(errors, len(table))), folds)


def _for_errors(table: ScoreTable, errors: int, target: float, folds: int) -> Calibration:
    n = len(table)
    method = "sweeps over all cuts"
    if folds:
        luck = _luck(table, errors, folds)
        errors -= max(0, luck)
        method += f", less {max(0, luck)} errors for luck ({folds} folds)"
    gates, found = _search_errors(table, errors)
    if found.errors > errors:
        raise CalibrationError(
            f"target accuracy {target:.6g} cannot be reached: the best found on {n} inputs "
            f"({table.data or 'unnamed data'}) is {1 - found.errors / n:.6g}"
            + (f", and {1 - errors / n:.6g} is needed there for it" if folds else "")
        )
    return calibrated(
        table,
        dict(zip(gates.names, found.bounds, strict=True)),
        goal="accuracy",
        target=target,
        method=method,
    )


def _search_errors(table: ScoreTable, errors: int) -> tuple[Gates, Point]:
    n = len(table)
    return search(table, at_most_errors(errors), lambda part: at_most_errors(errors * part // n))


def _luck(table: ScoreTable, errors: int, folds: int) -> int:
    """How many more errors held-out inputs have than those that the thresholds were chosen on."""
    n = len(table)
    if not 2 <= folds <= n:
        raise CalibrationError(f"{folds} folds of {n} inputs; 2 to {n} are possible")
    part = np.random.default_rng(0).permutation(n) % folds
    luck = Fraction(0)
    for fold in range(folds):
        seen, held = table.rows(part != fold), table.rows(part == fold)
        full = int(np.count_nonzero(~table.correct[:, -1]))
        full_seen = int(np.count_nonzero(~seen.correct[:, -1]))
        # The same loss against the full network as is allowed on all inputs.
        allowed = full_seen + (errors - full) * len(seen) // n
        gates, found = _search_errors(seen, allowed)
        thresholds = dict(zip(gates.names, found.bounds, strict=True))
        at_held = Fraction(_added_errors(held, thresholds), len(held))
        luck += at_held - Fraction(found.errors - full_seen, len(seen))
    return math.ceil(luck / folds * n)


def _added_errors(table: ScoreTable, thresholds: Mapping[str, float]) -> int:
    """Wrong answers beyond the full network's."""
    where = simulate(table, thresholds).exit_index
    right = table.correct[np.arange(len(table)), where]
    return int(table.correct[:, -1].sum()) - int(right.sum())


def for_budget(table: ScoreTable, mean_flops: float) -> Calibration:
    """The best accuracy at a mean cost of at most ``mean_flops`` (no cap on one input).

    Raises:
        CalibrationError: no thresholds are as cheap as that.
    """
    n = len(table)
    macs = math.floor(exactly(mean_flops, "mean cost") * n / FLOPS_PER_MAC)
    gates, found = search(table, at_most_macs(macs), lambda part: at_most_macs(macs * part // n))
    if found.macs > macs:
        raise CalibrationError(
            f"a mean cost of {mean_flops:.6g} FLOPs cannot be kept: the cheapest is "
            f"{FLOPS_PER_MAC * found.macs / n:.6g} FLOPs"
        )
    return calibrated(
        table,
        dict(zip(gates.names, found.bounds, strict=True)),
        goal="budget",
        target=mean_flops,
        method="sweeps over all cuts",
    )


def for_quantiles(table: ScoreTable, q: float) -> Calibration:
    """MSDNet's budgeted batch: exit k answers a share of inputs proportional to ``q**k``.

    Huang et al. 2018 (arXiv 1703.09844), section 4.2: the surest inputs of those that arrive are
    accepted, and the thresholds that do this on calibration data are kept. For comparison: it looks
    at neither the answers nor the costs.

    Args:
        table: scores on calibration data.
        q: above 0; below 1 most inputs leave early, above 1 late.

    Raises:
        CalibrationError: ``q`` is not above zero.
    """
    if not 0 < q < math.inf:
        raise CalibrationError(f"q {q!r} is not above zero and finite")
    return calibrated(
        table,
        _quantiles(table, q, _ranked(table)),
        goal="quantiles",
        target=q,
        method="MSDNet quantiles",
    )


def quantiles_for_budget(table: ScoreTable, mean_flops: float) -> Calibration:
    """MSDNet's quantiles with the largest ``q`` whose mean cost is at most ``mean_flops``.

    Raises:
        CalibrationError: no ``q`` is as cheap as that.
    """
    exactly(mean_flops, "mean cost")
    low, high = -20.0, 20.0  # of log q
    best: float | None = None
    ranked = _ranked(table)
    for _ in range(36):
        middle = (low + high) / 2
        mean_macs = simulate(table, _quantiles(table, math.exp(middle), ranked)).mean_macs
        if FLOPS_PER_MAC * mean_macs <= mean_flops:
            best, low = middle, middle
        else:
            high = middle
    if best is None:
        raise CalibrationError(f"a mean cost of {mean_flops:.6g} FLOPs: no q is as cheap as that")
    return for_quantiles(table, math.exp(best))


def _ranked(table: ScoreTable) -> list[npt.NDArray[np.int64]]:
    """Inputs from the surest to the least sure at each scored exit before the last."""
    scored = [i for i, k in enumerate(table.kinds[:-1]) if k != "never"]
    return [np.argsort(-table.scores[:, i], kind="stable") for i in scored]


def _quantiles(
    table: ScoreTable, q: float, ranked: list[npt.NDArray[np.int64]]
) -> dict[str, float]:
    gates = [i for i, k in enumerate(table.kinds[:-1]) if k != "never"]
    logs = math.log(q) * np.arange(1, len(gates) + 2)
    shares = np.exp(logs - logs.max())
    shares /= shares.sum()
    going = np.ones(len(table), np.bool_)
    out: dict[str, float] = {}
    for gate, order, share in zip(gates, ranked, shares[:-1], strict=True):
        column = table.scores[:, gate]
        here = order[going[order]]
        count = min(int(share * len(table)), len(here))
        bound = NEVER if count == 0 else float(column[here[count - 1]])
        out[table.exits[gate]] = bound
        going &= column < bound
    return out
