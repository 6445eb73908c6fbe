"""How a layer is folded onto an array: which two sizes lie in space, which runs in time.

``P`` output pixels, ``K`` taps and ``N`` filters; the table of the simulator's dataflows:

====  ====  ====  ====
flow  rows  cols  time
====  ====  ====  ====
ws    K     N     P
os    P     N     K
is    K     P     N
====  ====  ====  ====
"""

from __future__ import annotations

from dataclasses import dataclass

from dynrt.energy.array import SimLayer, SystolicArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Folds:
    """A layer on an array.

    Attributes:
        pixels, taps, filters: ``P``, ``K`` and ``N``.
        in_rows, in_cols: sizes that lie in space, ``Sr`` and ``Sc``.
        in_time: the size that runs in time, ``T``.
        row_folds, col_folds: how often the array is filled anew along each.
    """

    pixels: int
    taps: int
    filters: int
    in_rows: int
    in_cols: int
    in_time: int
    row_folds: int
    col_folds: int

    @property
    def macs(self) -> int:
        """``P * K * N``."""
        return self.pixels * self.taps * self.filters


def folds_of(layer: SimLayer, array: SystolicArray) -> Folds:
    """How ``layer`` lies on ``array``."""
    pixels = _steps(layer.height, layer.kernel_h, layer.stride_h) * _steps(
        layer.width, layer.kernel_w, layer.stride_w
    )
    taps = layer.kernel_h * layer.kernel_w * layer.channels
    rows, cols, time = {
        "ws": (taps, layer.filters, pixels),
        "os": (pixels, layer.filters, taps),
        "is": (taps, pixels, layer.filters),
    }[array.dataflow]
    return Folds(
        pixels=pixels,
        taps=taps,
        filters=layer.filters,
        in_rows=rows,
        in_cols=cols,
        in_time=time,
        row_folds=-(-rows // array.rows),
        col_folds=-(-cols // array.cols),
    )


def hops_of(layer: SimLayer, array: SystolicArray) -> tuple[int, int, int]:
    """Words handed from one processing element to the next: (ifmap, filter, ofmap).

    Each of two operands moves: of the words that a multiplication needs or makes, those that do not
    cross the edge of the array come from or go to a neighbour. The third is put in place, or taken
    out, row by row: the word of row ``i`` passes ``i`` others.
    """
    f = folds_of(layer, array)
    along_cols = f.macs - f.col_folds * f.in_rows * f.in_time
    along_rows = f.macs - f.row_folds * f.in_cols * f.in_time
    full, rest = divmod(f.in_rows, array.rows)
    passes = full * array.rows * (array.rows - 1) // 2 + rest * (rest - 1) // 2
    placed = f.in_cols * passes
    if array.dataflow == "ws":
        return along_cols, placed, along_rows
    if array.dataflow == "os":
        return along_cols, along_rows, placed
    return placed, along_cols, along_rows


def _steps(size: int, kernel: int, stride: int) -> int:
    """Output rows or columns, rounded up as the simulator does."""
    return -(-(size - kernel + stride) // stride)
