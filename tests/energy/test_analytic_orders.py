"""The order in which the array asks for its words, against tables that are really skewed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.energy import analytic_orders
from dynrt.energy.analytic_orders import FlatOrder, Order, SkewedOrder


def listed(order: Order) -> list[int]:
    words = [int(word) for block in order.blocks() for word in block]
    assert len(words) == order.words
    return words


def test_a_skewed_fold_by_hand() -> None:
    # inner 0, 10, 20; columns 1, 2 then 3. Cycles of the first fold:
    #   1+0 | 1+10, 2+0 | 1+20, 2+10 | 2+20; of the second: 3+0 | 3+10 | 3+20
    order = SkewedOrder(inner=np.array([0, 10, 20]), outer=np.array([1, 2, 3]), columns=2)
    assert listed(order) == [1, 11, 2, 21, 12, 22, 3, 13, 23]
    cycles = [order.cycle_of(position) for position in range(9)]
    assert cycles == [0, 1, 1, 2, 2, 3, 4, 5, 6]


def test_a_stationary_fold_by_hand() -> None:
    # rows 0, 10, 20 on an array of 2 rows: 10, 0 then 20; columns 1, 2 then 3
    order = FlatOrder(inner=np.array([0, 10, 20]), outer=np.array([1, 2, 3]), rows=2, columns=2)
    assert listed(order) == [11, 12, 1, 2, 21, 22, 13, 3, 23]
    assert [order.cycle_of(position) for position in range(9)] == [0, 0, 1, 1, 2, 2, 3, 4, 5]


sizes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 7))


@given(
    sizes=sizes,
    repeats=st.integers(1, 3),
    block_words=st.integers(1, 60),
    small_words=st.integers(0, 60),
)
def test_skewed_orders_do_not_depend_on_blocks(
    sizes: tuple[int, int, int], repeats: int, block_words: int, small_words: int
) -> None:
    depth, wide, columns = sizes
    inner, outer = np.arange(depth) * 100, np.arange(wide)
    expected, cycles, cycle = [], [], 0
    for at in range(0, wide, columns):
        fold = outer[at : at + columns]
        for _ in range(repeats):
            for line in range(depth + columns - 1):
                asked = [(line - c, c) for c in range(len(fold)) if 0 <= line - c < depth]
                expected += [int(fold[c] + inner[row]) for row, c in asked]
                cycles += [cycle] * len(asked)
                cycle += 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analytic_orders, "BLOCK_WORDS", block_words)
        patch.setattr(analytic_orders, "_SMALL_FOLD_WORDS", small_words)
        order = SkewedOrder(inner=inner, outer=outer, columns=columns, fold_repeats=repeats)
        assert listed(order) == expected
        assert listed(order) == expected  # as often as one likes
    assert [order.cycle_of(position) for position in range(order.words)] == cycles
    assert order.width == min(columns, wide)


@given(sizes=sizes, rows=st.integers(1, 7), block_words=st.integers(1, 60))
def test_flat_orders_do_not_depend_on_blocks(
    sizes: tuple[int, int, int], rows: int, block_words: int
) -> None:
    depth, wide, columns = sizes
    inner, outer = np.arange(depth) * 100, np.arange(wide)
    order = FlatOrder(inner=inner, outer=outer, rows=rows, columns=columns)
    expected, cycles, cycle = [], [], 0
    for at in range(0, wide, columns):
        for top in range(0, depth, rows):
            for row in reversed(inner[top : top + rows]):
                line = [int(row + word) for word in outer[at : at + columns]]
                expected += line
                cycles += [cycle] * len(line)
                cycle += 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analytic_orders, "BLOCK_WORDS", block_words)
        assert listed(order) == expected
    assert [order.cycle_of(position) for position in range(order.words)] == cycles


def test_blocks_of_a_long_fold_are_short() -> None:
    # one fold of 300,000 x 2 words: no block is much longer than BLOCK_WORDS
    order = SkewedOrder(inner=np.arange(300_000), outer=np.arange(2), columns=2)
    blocks = [block.size for block in order.blocks()]
    assert sum(blocks) == 600_000
    assert max(blocks) <= analytic_orders.BLOCK_WORDS
