"""The search behind calibration: thresholds in sequence, for errors against MACs.

Each gate's best threshold depends on what the gates before it let through and on what the gates
behind it would do with the rest (Shafiee et al., section 3: the thresholds are selected "in a
sequential manner to incorporate the dependency among the d-gate modules"). With all others held,
*every* cut of one gate is valued at once: inputs sorted by score, cumulative sums of errors and
MACs. Sweeps over the gates at a range of exchange rates (MACs per error) trace out the lower convex
hull; from its points near the limit, sweeps and moves of two gates at once under the limit itself
find what lies between.

All sums are whole numbers, so a limit holds exactly or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from dynrt.calibrate.scores import ScoreTable

Int = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Up to so many inputs the search sees all; beyond, it explores on an even choice of them and
#: finishes on all.
EXPLORE_INPUTS = 8_000
_RATES = 20
_SWEEPS = 8
_STARTS = 4
_PAIR_CUTS = 16
_SMALL_INPUTS = 64
_RANDOM_STARTS = 12
_ALL_CUTS = 2 * _SMALL_INPUTS
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Point:
    """One choice of thresholds and what it comes to on the table.

    Attributes:
        bounds: a threshold per gate; ``inf`` where the head is not run in passing.
        errors: wrong answers.
        macs: of all inputs together.
    """

    bounds: tuple[float, ...]
    errors: int
    macs: int


#: Says how good each of many ``(errors, macs)`` is; the least pair wins, the first part first.
Value = Callable[[Int, Int], tuple[Int, Int]]


def at_most_errors(limit: int) -> Value:
    """Fewest MACs with at most ``limit`` errors; short of that, fewest errors."""

    def value(errors: Int, macs: Int) -> tuple[Int, Int]:
        return np.maximum(errors - limit, 0), macs

    return value


def at_most_macs(limit: int) -> Value:
    """Fewest errors with at most ``limit`` MACs in all; short of that, fewest MACs."""

    def value(errors: Int, macs: Int) -> tuple[Int, Int]:
        return np.maximum(macs - limit, 0), errors

    return value


def _exchange(rate: int) -> Value:
    def value(errors: Int, macs: Int) -> tuple[Int, Int]:
        return macs + rate * errors, macs

    return value


class Gates:
    """A table as the search sees it: gates are the scored exits before the last.

    Args:
        table: scores.
    """

    def __init__(self, table: ScoreTable) -> None:
        last = len(table.exits) - 1
        self.table = table
        self.index = [i for i, k in enumerate(table.kinds) if i < last and k != "never"]
        self.names = tuple(table.exits[i] for i in self.index)
        self.scores = [np.ascontiguousarray(table.scores[:, i]) for i in self.index]
        self.order = [np.argsort(-s, kind="stable") for s in self.scores]
        wrong = ~table.correct
        self.wrong = [np.ascontiguousarray(wrong[:, i]) for i in self.index]
        self.last_wrong = np.ascontiguousarray(wrong[:, last])
        #: MACs up to each gate and to the last exit without heads: one figure, or one per input.
        self.reach: list[Int] = [np.array(table.reach_macs[..., i]) for i in (*self.index, last)]
        self._heads: dict[tuple[bool, ...], list[int]] = {}

    def heads(self, bounds: tuple[float, ...]) -> list[int]:
        """MACs of all heads of a run that ends at each gate, and at the last exit."""
        key = tuple(b != _NEVER for b in bounds)
        if key not in self._heads:
            asked = np.zeros(len(self.table.exits), np.bool_)
            asked[self.index] = key
            heads = self.table.heads_with(asked)
            self._heads[key] = [int(heads[i]) for i in (*self.index, -1)]
        return self._heads[key]

    def _total(self, place: int, ends: Bools, heads: list[int]) -> int:
        """MACs of all inputs that end at a gate."""
        count, reach = int(np.count_nonzero(ends)), self.reach[place]
        body = int(reach[ends].sum()) if reach.ndim else count * int(reach)
        return body + count * heads[place]

    def point(self, bounds: tuple[float, ...]) -> Point:
        """What ``bounds`` come to."""
        heads = self.heads(bounds)
        errors = macs = 0
        going = np.ones(len(self.table), np.bool_)
        for g, bound in enumerate(bounds):
            if bound != _NEVER:
                ends = going & (self.scores[g] >= bound)
                errors += int(np.count_nonzero(self.wrong[g] & ends))
                macs += self._total(g, ends, heads)
                going &= ~ends
        errors += int(np.count_nonzero(self.last_wrong & going))
        macs += self._total(-1, going, heads)
        return Point(bounds, errors, macs)

    def cuts(self, bounds: tuple[float, ...], gate: int) -> tuple[Floats, Int, Int]:
        """Every threshold of one gate that makes a difference, the others held.

        Returns:
            Thresholds (falling, the first ``inf``), errors and MACs, each ``(cuts,)``.
        """
        closed = (*bounds[:gate], _NEVER, *bounds[gate + 1 :])
        opened = (*bounds[:gate], 0.0, *bounds[gate + 1 :])
        heads = self.heads(opened)
        shut = self.point(closed)
        reach = np.ones(len(self.table), np.bool_)
        for g in range(gate):
            if bounds[g] != _NEVER:
                reach &= self.scores[g] < bounds[g]
        ranked = self.order[gate]
        ranked = ranked[reach[ranked]]
        if not ranked.size:
            return np.array([_NEVER]), np.array([shut.errors]), np.array([shut.macs])
        later_wrong = self.last_wrong[ranked]
        later_macs = np.full(ranked.size, heads[-1], np.int64) + self._ranked(-1, ranked)
        for g in range(len(bounds) - 1, gate, -1):
            if bounds[g] != _NEVER:
                ends = self.scores[g][ranked] >= bounds[g]
                later_wrong = np.where(ends, self.wrong[g][ranked], later_wrong)
                later_macs[ends] = self._ranked(g, ranked[ends]) + heads[g]
        head = int(self.table.head_macs[self.index[gate]])
        errors = shut.errors + np.cumsum(
            self.wrong[gate][ranked].astype(np.int64) - later_wrong.astype(np.int64)
        )
        here = self._ranked(gate, ranked) + heads[gate]
        macs = shut.macs + head * ranked.size + np.cumsum(here - later_macs)
        scores = self.scores[gate][ranked]
        ends_tie = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
        thresholds = _between(scores, self.scores[gate], ends_tie)
        return (
            np.concatenate(([_NEVER], thresholds)),
            np.concatenate(([shut.errors], errors[ends_tie])),
            np.concatenate(([shut.macs], macs[ends_tie])),
        )

    def _ranked(self, place: int, rows: Int) -> Int:
        """MACs up to a gate of some inputs; one figure where it is the same for all."""
        reach = self.reach[place]
        out: Int = reach[rows] if reach.ndim else reach
        return out

    def best_cut(self, point: Point, gate: int, value: Value) -> Point:
        """The best threshold of one gate, the others held; ``point`` itself if none is better."""
        thresholds, errors, macs = self.cuts(point.bounds, gate)
        first, second = value(errors, macs)
        at = _least(first, second)
        bounds = (*point.bounds[:gate], float(thresholds[at]), *point.bounds[gate + 1 :])
        found = Point(bounds, int(errors[at]), int(macs[at]))
        return found if _key(found, value) < _key(point, value) else point

    def descend(self, point: Point, value: Value) -> Point:
        """Sweep over the gates, first to last, until nothing changes."""
        for _ in range(_SWEEPS):
            before = point
            for gate in range(len(point.bounds)):
                point = self.best_cut(point, gate, value)
            if point == before:
                break
        return point

    def pairs(self, point: Point, value: Value, *, cuts: int) -> Point:
        """Move two gates at once: some cuts of the one, for each the best of the other."""
        gates = range(len(point.bounds))
        for moved in gates:
            thresholds = self.cuts(point.bounds, moved)[0]
            near = int(np.searchsorted(-thresholds, -point.bounds[moved]))
            spread = np.linspace(0, thresholds.size - 1, cuts).round().astype(np.int64)
            close = near + np.arange(-(cuts // 4), cuts // 4 + 1)
            close = close[(close >= 0) & (close < thresholds.size)]
            for at in np.unique(np.concatenate((spread, close))):
                bounds = list(point.bounds)
                bounds[moved] = float(thresholds[at])
                trial = self.point(tuple(bounds))
                for other in gates:
                    if other != moved:
                        found = self.best_cut(trial, other, value)
                        if _key(found, value) < _key(point, value):
                            point = found
        return point

    def hull(self) -> list[Point]:
        """Points on or near the lower convex hull of errors against MACs."""
        full = self.table.full_macs
        rates = [int(full * 10**x) for x in np.linspace(-2, 4, _RATES)]
        never = self.point((_NEVER,) * len(self.index))
        found: dict[tuple[float, ...], Point] = {never.bounds: never}
        for path in (rates, rates[::-1]):
            point = never
            for rate in path:
                point = self.descend(point, _exchange(rate))
                found[point.bounds] = point
        return sorted(found.values(), key=lambda p: (p.macs, p.errors))


def _least(first: Int, second: Int) -> int:
    """Where ``(first, second)`` is least; the earliest of equals."""
    ties = np.flatnonzero(first == first.min())
    return int(ties[second[ties].argmin()])


def _key(point: Point, value: Value) -> tuple[int, int, int]:
    first, second = value(np.array([point.errors]), np.array([point.macs]))
    return int(first[0]), int(second[0]), point.errors + point.macs


def _between(scores: Floats, column: Floats, ends: Int) -> Floats:
    """Thresholds that accept ``scores`` (falling) up to each of ``ends``: halfway to the next one.

    Halfway, so that rounding in another batch size does not move an input over it. Below the last
    score that arrives here, the next lower one of the whole column is taken; below all, ``-inf``.
    """
    upper = scores[ends]
    rest = column[column < scores[-1]]
    below = rest.max() if rest.size else -np.inf
    lower = np.append(scores[ends[:-1] + 1], below)
    with np.errstate(invalid="ignore"):
        middle = lower + (upper - lower) / 2
    return np.where(
        (middle > lower) & (middle <= upper), middle, np.where(lower == -np.inf, lower, upper)
    )


def search(table: ScoreTable, value: Value, scaled: Callable[[int], Value]) -> tuple[Gates, Point]:
    """The best thresholds that were found.

    Args:
        table: scores.
        value: what is wanted of the whole table.
        scaled: the same for a part of the table of so many inputs.

    Returns:
        The gates (for their names) and the point, its sums over the whole table.
    """
    gates = Gates(table)
    if not gates.index:
        return gates, gates.point(())
    if len(table) <= EXPLORE_INPUTS:
        return gates, _explore(gates, value)
    rows = np.linspace(0, len(table) - 1, EXPLORE_INPUTS).astype(np.int64)
    start = _explore(Gates(table.rows(rows)), scaled(EXPLORE_INPUTS))
    return gates, gates.descend(gates.point(start.bounds), value)


def frontier(table: ScoreTable, errors: Sequence[int]) -> list[Point]:
    """Points of few MACs with at most so many errors each, without the search for the very best.

    Points that another point beats in both are left out; the rest come with rising errors.
    """
    gates = Gates(table)
    hull = gates.hull() if gates.index else [gates.point(())]
    found = set(hull)
    for limit in errors:
        value = at_most_errors(limit)
        for start in sorted(hull, key=lambda p: _key(p, value))[:2]:
            found.add(gates.descend(start, value))
    out: list[Point] = []
    for point in sorted(found, key=lambda p: (p.errors, p.macs)):
        if not out or point.macs < out[-1].macs:
            out.append(point)
    return out


def _explore(gates: Gates, value: Value) -> Point:
    hull = gates.hull()
    ranked = sorted(hull, key=lambda p: _key(p, value))
    starts = dict.fromkeys(ranked[:_STARTS])
    starts.update(dict.fromkeys(_neighbours(hull, ranked[0])))
    small = len(gates.table) <= _SMALL_INPUTS
    if small:  # a hull of few points says little
        rng = np.random.default_rng(0)
        for _ in range(_RANDOM_STARTS):
            bounds = tuple(float(rng.choice([_NEVER, *s.tolist()])) for s in gates.scores)
            starts[gates.point(bounds)] = None
    best = ranked[0]
    for start in starts:
        point = _refine(gates, start, value, _ALL_CUTS if small else _PAIR_CUTS, 3 if small else 1)
        best = min(best, point, key=lambda p: _key(p, value))
    return best if small else _refine(gates, best, value, 2 * _PAIR_CUTS, 2)


def _refine(gates: Gates, point: Point, value: Value, cuts: int, rounds: int) -> Point:
    point = gates.descend(point, value)
    for _ in range(rounds):
        before = point
        point = gates.descend(gates.pairs(point, value, cuts=cuts), value)
        if point == before:
            break
    return point


def _neighbours(hull: list[Point], best: Point) -> Iterator[Point]:
    for a, b in pairwise(hull):
        if a == best:
            yield b
        if b == best:
            yield a
