"""Cycles and utilisation of a layer on a systolic array, as SCALE-Sim 3.0.0 reports them.

A fold of an output-stationary array takes ``T + R + C - 2`` cycles; one of a weight- or
input-stationary array is loaded first, in ``R`` cycles more. Cycles are numbered from 0 and the
last number is reported: one less than they are. There are no stalls
(``dynrt.energy.analytic_writes``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat

from dynrt.energy.array import SystolicArray
from dynrt.energy.folds import Folds


def fold_cycles(folds: Folds, array: SystolicArray) -> int:
    """Cycles of one fold."""
    filling = array.rows if array.dataflow == "os" else 2 * array.rows
    return filling + array.cols + folds.in_time - 2


def reported_cycles(folds: Folds, array: SystolicArray) -> int:
    """Cycles of all folds, as reported."""
    return folds.row_folds * folds.col_folds * fold_cycles(folds, array) - 1


def mapping_efficiency_percent(folds: Folds, array: SystolicArray) -> float:
    """Mean share of the processing elements that a fold uses.

    Both means are added up fold by fold, as in the simulator, to be the same to the last bit.
    """
    elements = array.rows * array.cols
    return _mean(folds, array, lambda used: used / elements) * 100


def compute_utilisation_percent(folds: Folds, array: SystolicArray) -> float:
    """Mean share of the processing elements' cycles that multiply.

    The simulator takes a fold of ``ws`` or ``is`` for ``C - 1`` cycles longer than it is.
    """
    extra = 0 if array.dataflow == "os" else array.cols - 1
    available = array.rows * array.cols * (fold_cycles(folds, array) + extra)
    return _mean(folds, array, lambda used: used * folds.in_time / available) * 100


def _mean(folds: Folds, array: SystolicArray, share: Callable[[int], float]) -> float:
    return sum(_shares(folds, array, share)) / (folds.row_folds * folds.col_folds)


def _shares(folds: Folds, array: SystolicArray, share: Callable[[int], float]) -> Iterator[float]:
    last_rows = folds.in_rows - (folds.row_folds - 1) * array.rows
    for fold in range(folds.col_folds):
        columns = min(array.cols, folds.in_cols - fold * array.cols)
        yield from repeat(share(array.rows * columns), folds.row_folds - 1)
        yield share(last_rows * columns)
