"""Thresholds with a guarantee: the error rate rises by less than a risk, with a confidence.

The setting is that of Jazbec et al., "Fast yet Safe: Early-Exiting with Risk Control" (arXiv
2405.20915): the loss of a network with early exits against its own full depth, input by input. The
method is Learn then Test (Angelopoulos et al., arXiv 2110.01052) with fixed-sequence testing: one
part of the data draws a path of threshold choices from the safest to the most daring, the other,
which had no say in it, tests them in that order and stops at the first that cannot be shown safe.
Each test is valid for any sample size if the inputs are independent draws of what will come.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from dynrt.calibrate.scores import ScoreTable
from dynrt.calibrate.search import Gates, Point, frontier
from dynrt.calibrate.simulate import simulate
from dynrt.calibrate.thresholds import NEVER, Calibration, calibrated
from dynrt.errors import CalibrationError

#: ``net``: wrong early but right in full counts +1, right early but wrong in full counts -1.
#: ``added``: only the former counts, which bounds the net as well.
Loss = Literal["net", "added"]

_PATH_SHARE = 3
_PATH_POINTS = 32
_MAX_STAKE = 0.75
_SHARES = (0.25, 0.5, 0.75, 0.9)


def for_risk(
    table: ScoreTable,
    risk: float,
    confidence: float = 0.95,
    *,
    loss: Loss = "net",
    seed: int = 0,
) -> Calibration:
    """The cheapest thresholds on the path whose risk is shown to be below ``risk``.

    With probability at least ``confidence`` over the draw of the calibration data, the true error
    rate exceeds the full network's by less than ``risk``.

    Args:
        table: scores on calibration data; a third draws the path, the rest tests it.
        risk: a fraction: 0.005 is half a percentage point.
        confidence: a fraction.
        loss: what is counted.
        seed: of the division of the data.

    Raises:
        CalibrationError: a number is out of range, or nothing can be shown with so little data.
    """
    if not 0 < risk < 1:
        raise CalibrationError(f"risk {risk!r} is not between 0 and 1")
    if not 0 < confidence < 1:
        raise CalibrationError(f"confidence {confidence!r} is not between 0 and 1")
    shuffled = np.random.default_rng(seed).permutation(len(table))
    size = len(table) // _PATH_SHARE
    level = 1 - confidence
    needed = _needed(risk, level)
    if size == 0 or len(table) - size < needed:
        raise CalibrationError(
            f"risk {risk:g} at confidence {confidence:g} needs at least {needed} inputs for the "
            f"test, and half as many for the path; there are {len(table)}"
        )
    drawn, tested = table.rows(np.sort(shuffled[:size])), table.rows(np.sort(shuffled[size:]))
    kept: dict[str, float] | None = None
    gates = Gates(drawn)
    for point in _path(drawn, risk):
        thresholds = dict(zip(gates.names, point.bounds, strict=True))
        stake = _stake(differences(drawn, thresholds), risk, level, len(tested))
        found = differences(tested, thresholds)
        p = binomial_p(found, risk) if loss == "added" else betting_p(found, risk, stake)
        if p > level:
            break
        kept = thresholds
    if kept is None:
        raise CalibrationError(
            f"no early exit could be shown to keep a risk below {risk:g} at confidence "
            f"{confidence:g} on {len(tested)} inputs: give more data or a larger risk"
        )
    return calibrated(
        table,
        kept,
        goal="risk",
        target=risk,
        confidence=confidence,
        method=f"learn then test, fixed sequence, {loss} loss, "
        + ("exact binomial" if loss == "added" else "betting"),
    )


def differences(table: ScoreTable, thresholds: dict[str, float]) -> npt.NDArray[np.int64]:
    """``(n,)``: 1 where early exit turns a right answer wrong, -1 where a wrong one right, else 0."""
    where = simulate(table, thresholds).exit_index
    early = table.correct[np.arange(len(table)), where]
    return table.correct[:, -1].astype(np.int64) - early.astype(np.int64)


def binomial_p(found: npt.NDArray[np.int64], risk: float) -> float:
    """Exact p-value of "the share of inputs turned wrong is at least ``risk``".

    The probability of no more such inputs than were found if the share were just ``risk``.
    """
    n, k = len(found), int(np.count_nonzero(found > 0))
    terms = [
        _log_choose(n, i) + i * math.log(risk) + (n - i) * math.log1p(-risk) for i in range(k + 1)
    ]
    return min(1.0, math.fsum(map(math.exp, terms)))


def betting_p(found: npt.NDArray[np.int64], risk: float, stake: float) -> float:
    """P-value of "the mean of ``found`` is at least ``risk``", from a bet fixed beforehand.

    Under that hypothesis each factor ``1 + stake * (risk - x)`` is at least zero and has a mean of
    at most one, so by Markov the product exceeds ``1/p`` with probability at most ``p``
    (Waudby-Smith & Ramdas, arXiv 2010.09686, with a constant bet).

    Args:
        found: values -1, 0 or 1.
        risk: of the hypothesis.
        stake: at most ``1 / (1 - risk)``, chosen without a look at ``found``.
    """
    gained = sum(
        int(np.count_nonzero(found == x)) * math.log1p(stake * (risk - x)) for x in (-1, 0, 1)
    )
    return min(1.0, math.exp(-gained))


def _stake(drawn: npt.NDArray[np.int64], risk: float, level: float, n: int) -> float:
    """The bet that grows fastest at the edge of what can be shown, from the path's data alone."""
    spread = (float(np.count_nonzero(drawn)) + 1) / (len(drawn) + 1)
    return min(_MAX_STAKE / (1 - risk), math.sqrt(2 * math.log(1 / level) / (n * spread)))


def _needed(risk: float, level: float) -> int:
    """Inputs without which not even a loss that never occurs could be shown to be below ``risk``."""
    bet = math.log1p(_MAX_STAKE / (1 - risk) * risk)
    return math.ceil(math.log(1 / level) / min(bet, -math.log1p(-risk)))


def _path(table: ScoreTable, risk: float) -> list[Point]:
    """Choices from the safest to the most daring, by how many inputs they turn wrong here.

    Inputs turned right do not count: they are few, partly luck, and would put daring choices first.
    """
    lost = ~table.correct[:, -1]
    turned_wrong = replace(
        table, predicted=np.where(lost[:, None], table.labels[:, None], table.predicted)
    )
    levels = np.unique(np.linspace(0, 3 * risk * len(table), _PATH_POINTS).round().astype(np.int64))
    found = frontier(turned_wrong, [int(x) for x in levels])
    points = [p for p in found if p.errors <= levels[-1] and any(b != NEVER for b in p.bounds)]
    if not points:
        return []
    # The first point is the luckiest of those that turn nothing wrong here; go there step by step.
    gates = Gates(turned_wrong)
    return [*(_safer(gates, points[0], share) for share in _SHARES), *points]


def _safer(gates: Gates, point: Point, share: float) -> Point:
    """``point`` with higher thresholds: each gate accepts only the surest ``share`` of its inputs."""
    bounds: list[float] = []
    going = np.ones(len(gates.table), np.bool_)
    for scores, bound in zip(gates.scores, point.bounds, strict=True):
        accepted = np.sort(scores[going & (scores >= bound)])[::-1]
        kept = int(share * accepted.size)
        bounds.append(float(accepted[kept - 1]) if kept else NEVER)
        going &= scores < bound
    return gates.point(tuple(bounds))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
