"""What it is worth to stand at an exit with a score: the best of answering and going on.

Optimal stopping by backward induction over the exits, as for options (Tsitsiklis & Van Roy, 1999).
Answering at an exit is worth the probability to be right there, given its score; going on is worth
what the next exit will be worth, given this score, less the price of what that costs. Both are
monotone regressions on bins of the score, so that the value rises with the score and with what is
left of a budget, and falls with the price, on any data: each step of the induction preserves order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynrt.calibrate.isotonic import bin_of, edges_of, isotonic
from dynrt.calibrate.scores import ScoreTable
from dynrt.errors import CalibrationError

Floats = npt.NDArray[np.float64]

_BINS = 128
_INPUTS_PER_BIN = 16
_NEVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExitValue:
    """Values at one scored exit, by bin of its score.

    Attributes:
        edges: ``(bins - 1,)``: bounds between the bins.
        inputs: ``(bins,)``: how many calibration inputs each has.
        stop: ``(bins,)``: probability to be right if answered here.
        go: ``(reaches, bins)``: worth of going on if the first, second, ... exit behind this one is
            the last within reach.
        costs: ``(reaches,)``: most that an input needs from behind this head to behind that one's.
    """

    edges: Floats
    inputs: Floats
    stop: Floats
    go: Floats
    costs: Floats


class ValueModel:
    """Cross tables of neighbouring exits' scores, from which values at any price follow at once.

    Exits without a score before the last are passed by; they are no place to decide.

    Args:
        table: scores on calibration data.
        bins: of each score, at most.
    """

    def __init__(self, table: ScoreTable, *, bins: int = _BINS) -> None:
        last, n = len(table.exits) - 1, len(table)
        self.table = table
        self.places = [i for i, k in enumerate(table.kinds) if i < last and k != "never"]
        self.names = tuple(table.exits[i] for i in self.places)
        asked = np.isin(np.arange(last + 1), self.places)
        macs = np.atleast_2d(table.macs_with(asked))
        bins = min(bins, max(1, n // _INPUTS_PER_BIN))
        self._edges = [edges_of(table.scores[:, i], bins) for i in self.places]
        where = [
            bin_of(table.scores[:, i], e) for i, e in zip(self.places, self._edges, strict=True)
        ]
        self._inputs = [
            np.bincount(w, minlength=e.size + 1).astype(np.float64)
            for w, e in zip(where, self._edges, strict=True)
        ]
        self._stop = [
            isotonic(np.bincount(w, table.correct[:, i], c.size) / c, c)
            for w, i, c in zip(where, self.places, self._inputs, strict=True)
        ]
        self._next: list[Floats] = []  # (bins, bins of the next exit): shares
        self._step: list[Floats] = []  # (bins,): mean cost to behind the next exit's head
        self._reach: list[Floats] = []  # most that an input needs from here to each later place
        for k, (i, w, count) in enumerate(zip(self.places, where, self._inputs, strict=True)):
            later = [*self.places[k + 1 :], last]
            cost = macs[:, later[0]] - macs[:, i]
            if cost.size == 1:
                self._step.append(np.full(count.size, float(cost[0])))
            else:
                self._step.append(np.bincount(w, cost, count.size) / count)
            self._reach.append(np.array([float((macs[:, j] - macs[:, i]).max()) for j in later]))
            if k + 1 < len(self.places):
                size = self._inputs[k + 1].size
                pairs = np.bincount(w * size + where[k + 1], minlength=count.size * size)
                self._next.append(pairs.reshape(count.size, size) / count[:, None])
            else:
                self._next.append(
                    (np.bincount(w, table.correct[:, last], count.size) / count)[:, None]
                )

    def going_on(self, price: float, reach: int) -> list[Floats]:
        """Worth of going on from each place before place number ``reach``, ``(bins,)`` each.

        Args:
            price: accuracy per unit of cost.
            reach: the last place within the budget; ``len(places)`` is the last exit.
        """
        out: list[Floats] = []
        then = np.ones(1) if reach == len(self.places) else self._stop[reach]
        for k in range(reach - 1, -1, -1):
            worth = self._next[k] @ then - price * self._step[k]
            out.append(isotonic(worth, self._inputs[k]))
            then = np.maximum(self._stop[k], out[-1])
        return out[::-1]

    def thresholds(self, price: float, *, reach: int | None = None) -> dict[str, float]:
        """Accept where answering is worth more than going on.

        For each exit the one bound that does best by this over all bins, so that it is a threshold.

        Args:
            price: accuracy per unit of cost, at least 0.
            reach: as for :meth:`going_on`; by default the last exit.
        """
        reach = len(self.places) if reach is None else reach
        out = dict.fromkeys(self.names, _NEVER)
        for k, go in enumerate(self.going_on(price, reach)):
            gain = (self._inputs[k] * (self._stop[k] - go))[::-1].cumsum()[::-1]
            at = int(np.append(gain, 0.0).argmax())
            bounds = np.concatenate(([-_NEVER], self._edges[k], [_NEVER]))
            out[self.names[k]] = float(bounds[at])
        return out

    def function(self, price: float) -> ValueFunction:
        """The values at one price, for every exit, score and remaining budget.

        Raises:
            CalibrationError: the price is negative or not finite.
        """
        if not 0 <= price < _NEVER:
            raise CalibrationError(f"a price of {price!r} is not at least zero and finite")
        count = len(self.places)
        by_reach = [self.going_on(price, reach) for reach in range(count + 1)]
        values = [
            ExitValue(
                edges=self._edges[k],
                inputs=self._inputs[k],
                stop=self._stop[k],
                go=np.stack([by_reach[reach][k] for reach in range(k + 1, count + 1)]),
                costs=self._reach[k],
            )
            for k in range(count)
        ]
        return ValueFunction(price, dict(zip(self.names, values, strict=True)))


class ValueFunction:
    """Expected accuracy, less the price of what is still spent, by exit, score and budget left.

    Args:
        price: accuracy per unit of cost.
        exits: values at each scored exit before the last.
    """

    def __init__(self, price: float, exits: dict[str, ExitValue]) -> None:
        self.price = price
        self.exits = exits

    def stop(self, name: str, score: float) -> float:
        """Probability that the answer of exit ``name`` is right, given its score."""
        return float(self._at(name, score, self._exit(name).stop))

    def go(self, name: str, score: float, left: float = _NEVER) -> float:
        """Worth of going on with so much left of the budget; ``-inf`` if no exit is within reach.

        Args:
            name: a scored exit before the last, its head run.
            score: that it gave.
            left: of the budget.
        """
        value = self._exit(name)
        within = int(np.searchsorted(value.costs, left, side="right"))
        return float(self._at(name, score, value.go[within - 1])) if within else -_NEVER

    def value(self, name: str, score: float, left: float = _NEVER) -> float:
        """Worth of standing there: the better of answering and going on."""
        return max(self.stop(name, score), self.go(name, score, left))

    def _exit(self, name: str) -> ExitValue:
        if name not in self.exits:
            known = ", ".join(self.exits) or "none"
            raise CalibrationError(f"no values at {name!r}; there are those of: {known}")
        return self.exits[name]

    def _at(self, name: str, score: float, values: Floats) -> float:
        if np.isnan(score):
            raise CalibrationError(f"the score at {name!r} is NaN")
        return float(values[np.searchsorted(self.exits[name].edges, score, side="right")])
