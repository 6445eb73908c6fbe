"""The simulator's memories, word by word and cycle by cycle: slow, literal, and nobody's shortcut.

Written after SCALE-Sim 3.0.0's source (MIT): ``systolic_compute_*``, ``read_buffer_estimate_bw`` and
``write_buffer``. A cycle is a list of words; ``None`` is a word that is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from dynrt.energy.array import SimLayer, SystolicArray

Word = tuple[int, ...] | None
Cycles = list[list[Word]]
Table = list[list[Word]]


def simulator_window_table(layer: SimLayer) -> Table:
    """``(outputs, taps)``: the input word of each tap of each output."""
    out_h = math.ceil((layer.height - layer.kernel_h + layer.stride_h) / layer.stride_h)
    out_w = math.ceil((layer.width - layer.kernel_w + layer.stride_w) / layer.stride_w)
    return [
        [
            (row, column, channel) if row < layer.height and column < layer.width else None
            for row in range(y * layer.stride_h, y * layer.stride_h + layer.kernel_h)
            for column in range(x * layer.stride_w, x * layer.stride_w + layer.kernel_w)
            for channel in range(layer.channels)
        ]
        for y in range(out_h)
        for x in range(out_w)
    ]


def filter_table(taps: int, filters: int) -> Table:
    """``(taps, filters)``: every weight."""
    return [[(tap, number) for number in range(filters)] for tap in range(taps)]


def _transposed(table: Table) -> Table:
    return [list(column) for column in zip(*table, strict=True)]


def _skewed(tile: Table) -> Cycles:
    """Column ``c`` of a tile comes ``c`` cycles later."""
    width = len(tile[0])
    cycles: Cycles = [[None] * width for _ in range(len(tile) + width - 1)]
    for row, line in enumerate(tile):
        for column, word in enumerate(line):
            cycles[row + column][column] = word
    return cycles


def _part(table: Table, rows: slice, columns: slice) -> Table:
    return [line[columns] for line in table[rows]]


def _slices(size: int, step: int) -> list[slice]:
    return [slice(at, at + step) for at in range(0, size, step)]


def ifmap_cycles(table: Table, filters: int, array: SystolicArray) -> Cycles:
    """What the array asks of the ifmap buffer."""
    everything, cycles = slice(None), Cycles()
    turned = _transposed(table)
    if array.dataflow == "is":
        for columns in _slices(len(table), array.cols):
            for rows in _slices(len(turned), array.rows):
                cycles += _part(turned, rows, columns)[::-1]
        return cycles
    for _ in _slices(filters, array.cols):
        if array.dataflow == "ws":
            for columns in _slices(len(turned), array.rows):
                cycles += _skewed(_part(table, everything, columns))
        else:
            for columns in _slices(len(table), array.rows):
                cycles += _skewed(_part(turned, everything, columns))
    return cycles


def filter_cycles(outputs: int, taps: int, filters: int, array: SystolicArray) -> Cycles:
    """What the array asks of the filter buffer."""
    table, everything, cycles = filter_table(taps, filters), slice(None), Cycles()
    if array.dataflow == "ws":
        for columns in _slices(filters, array.cols):
            for rows in _slices(taps, array.rows):
                cycles += _part(table, rows, columns)[::-1]
    elif array.dataflow == "os":
        for columns in _slices(filters, array.cols):
            for _ in _slices(outputs, array.rows):
                cycles += _skewed(_part(table, everything, columns))
    else:
        for _ in _slices(outputs, array.cols):
            for rows in _slices(taps, array.rows):
                cycles += _skewed(_transposed(_part(table, rows, everything)))
    return cycles


def ofmap_cycles(outputs: int, taps: int, filters: int, array: SystolicArray) -> Cycles:
    """What the array writes, cycle by cycle, idle ones included."""
    table: Table = [[(o, n) for n in range(filters)] for o in range(outputs)]
    cycles = Cycles()
    if array.dataflow == "os":
        for columns in _slices(filters, array.cols):
            for rows in _slices(outputs, array.rows):
                tile = _part(table, rows, columns)
                idle: Table = [
                    [None] * len(tile[0]) for _ in range(taps - 1 + array.rows - len(tile))
                ]
                cycles += _padded(_skewed(idle + tile[::-1]), taps + array.rows + array.cols - 2)
        return cycles
    if array.dataflow == "is":
        table = _transposed(table)
    depth = len(table)
    for columns in _slices(len(table[0]), array.cols):
        for _ in _slices(taps, array.rows):
            tile = _part(table, slice(None), columns)
            idle = [[None] * len(tile[0]) for _ in range(2 * array.rows - 1)]
            cycles += _padded(_skewed(idle + tile), 2 * array.rows + array.cols + depth - 2)
    return cycles


def _padded(cycles: Cycles, length: int) -> Cycles:
    assert len(cycles) <= length
    return cycles + [[] for _ in range(length - len(cycles))]


def read_buffer(cycles: Iterable[Sequence[object]], buffer_words: int) -> int:
    """DRAM reads: sets of words; half of a hundred sets are kept, then all are forgotten.

    Raises:
        ZeroDivisionError: two refills in one cycle.
    """
    set_words = buffer_words // 100
    kept: set[object] = set()
    reads, last_refill = 0, -1
    for cycle, words in enumerate(cycles):
        for word in words:
            if word is None or word in kept:
                continue
            kept.add(word)
            if len(kept) == 50 * set_words:
                if last_refill == cycle:
                    raise ZeroDivisionError
                reads, last_refill = reads + len(kept), cycle
                kept = set()
    return reads + len(kept)


def write_buffer(
    cycles: Iterable[Sequence[object]], *, columns: int, buffer_words: int
) -> tuple[int, int, int]:
    """DRAM writes, stall cycles, and the number of the last cycle; lines drain as the source says."""
    active = math.ceil(buffer_words * 0.5)
    drain = buffer_words - active
    free, lines, open_line = buffer_words, list[int](), 0
    drain_end = writes = stall = last = 0

    def drained(cycle: int) -> int:
        nonlocal free, writes, lines
        out, lines = lines[: -(-drain // columns)], lines[-(-drain // columns) :]
        size = len(out) * columns - (columns - out[-1])
        free, writes = free + size, writes + size
        return cycle + len(out) - 1

    for number, words in enumerate(cycles):
        now = number + stall
        for word in words:
            if word is None:
                continue
            open_line, free = open_line + 1, free - 1
            if open_line == columns:
                lines.append(open_line)
                open_line = 0
            if now < drain_end:
                if free <= 0:
                    now = drain_end
            elif free < buffer_words - drain:
                if open_line:
                    lines.append(open_line)
                    open_line = 0
                drain_end = drained(now)
        stall += now - number - stall
        last = now
    if open_line:
        lines.append(open_line)
    cycle = last
    while lines:
        cycle = drained(cycle) + 1
    return writes, stall, last
