from __future__ import annotations

import pytest

from dynrt.energy.array import Dataflow, SimLayer, SystolicArray
from dynrt.energy.folds import folds_of, hops_of


def array(rows: int, cols: int, dataflow: Dataflow) -> SystolicArray:
    return SystolicArray(
        rows=rows,
        cols=cols,
        dataflow=dataflow,
        ifmap_words=1024,
        filter_words=1024,
        ofmap_words=1024,
    )


#: A product of (4, 3) with (3, 5): P = 4 pixels, K = 3 taps, N = 5 filters.
PRODUCT = SimLayer(height=4, width=3, kernel_h=1, kernel_w=3, channels=1, filters=5)


@pytest.mark.parametrize(
    ("dataflow", "sizes", "folds"),
    [
        # 2 x 2 elements; rows and columns are filled ceil(size / 2) times
        ("ws", (3, 5, 4), (2, 3)),  # K, N in space; P in time
        ("os", (4, 5, 3), (2, 3)),  # P, N; K
        ("is", (3, 4, 5), (2, 2)),  # K, P; N
    ],
)
def test_sizes_and_folds(
    dataflow: Dataflow, sizes: tuple[int, int, int], folds: tuple[int, int]
) -> None:
    found = folds_of(PRODUCT, array(2, 2, dataflow))
    assert (found.in_rows, found.in_cols, found.in_time) == sizes
    assert (found.row_folds, found.col_folds) == folds
    assert found.macs == 4 * 3 * 5


def walked_hops(dataflow: Dataflow, rows: int, cols: int) -> tuple[int, int, int]:
    """Each multiplication of PRODUCT by itself: does its operand come from a neighbour?"""
    size = {"P": 4, "K": 3, "N": 5}
    row_axis, col_axis, time_axis = tuple({"ws": "KNP", "os": "PNK", "is": "KPN"}[dataflow])
    along_cols = along_rows = placed = 0
    for row_fold in range(0, size[row_axis], rows):
        for col_fold in range(0, size[col_axis], cols):
            used_rows = min(rows, size[row_axis] - row_fold)
            used_cols = min(cols, size[col_axis] - col_fold)
            for _ in range(size[time_axis]):
                for i in range(used_rows):
                    for j in range(used_cols):
                        along_cols += j > 0  # the first column is fed from the buffer
                        along_rows += i > 0  # the first row starts a chain, or is fed
            for i in range(used_rows):
                placed += i * used_cols  # the word of row i passes i others
    # which operand has which two axes: it moves along the one that it has not
    return {
        "ws": (along_cols, placed, along_rows),
        "os": (along_cols, along_rows, placed),
        "is": (placed, along_cols, along_rows),
    }[dataflow]


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 2), (2, 4), (8, 8)])
def test_hops_are_those_of_every_multiplication(dataflow: Dataflow, size: tuple[int, int]) -> None:
    assert hops_of(PRODUCT, array(*size, dataflow)) == walked_hops(dataflow, *size)


def test_hops_of_one_fold_by_hand() -> None:
    # ws on 3 x 5: one fold. ifmap: 4 steps x 3 rows, each word passes 4 columns: 48.
    # partial sums: 4 steps x 5 columns, each passes 2 rows: 40. Weights: rows 0, 1, 2: 3 x 5 = 15.
    assert hops_of(PRODUCT, array(3, 5, "ws")) == (48, 15, 40)
