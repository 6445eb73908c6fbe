"""Monotone regression on bins of a score."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]


def isotonic(values: Floats, weights: Floats) -> Floats:
    """The nearest rising sequence in weighted squares, by pooling adjacent violators.

    It preserves order: where ``values`` are nowhere lower, neither is the result.

    Args:
        values: ``(bins,)``.
        weights: ``(bins,)``, above zero.
    """
    means: list[float] = []
    masses: list[float] = []
    lengths: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, mass, length = value, weight, 1
        while means and means[-1] >= mean:
            total = masses[-1] + mass
            mean = (means.pop() * masses[-1] + mean * mass) / total
            mass, length = masses.pop() + mass, lengths.pop() + length
        means.append(mean)
        masses.append(mass)
        lengths.append(length)
    return np.repeat(np.array(means), lengths)


def edges_of(scores: Floats, bins: int) -> Floats:
    """Bounds, rising, between bins of about equally many scores; halfway between two scores.

    Args:
        scores: ``(n,)``.
        bins: at most so many; equal scores are never divided.
    """
    ranked = np.sort(scores)
    places = np.unique(np.linspace(0, ranked.size, bins + 1).astype(np.int64)[1:-1])
    places = places[(places > 0) & (places < ranked.size)]
    lower, upper = ranked[places - 1], ranked[places]
    with np.errstate(invalid="ignore"):
        middle = lower + (upper - lower) / 2
    bound = np.where((middle > lower) & (middle <= upper), middle, upper)
    return np.unique(bound[lower < upper])


def bin_of(scores: Floats, edges: Floats) -> Int:
    """``(n,)``: the bin of each score; a score at a bound lies above it."""
    return np.searchsorted(edges, scores, side="right")
