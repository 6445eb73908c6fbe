"""DRAM reads of a read buffer: the closed forms and the scan against a set that is filled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.energy import analytic_epochs
from dynrt.energy.analytic_epochs import (
    capacity_words,
    reads_in_order,
    reads_of_folds,
    reads_once_each,
)
from dynrt.energy.analytic_words import IntArray
from dynrt.errors import EnergyError
from tests.energy.analytic_reference import read_buffer


@dataclass(frozen=True)
class ListedOrder:
    """Any words, ``width`` in a cycle, handed out in blocks."""

    listed: tuple[int, ...]
    width: int = 1
    block: int = 7

    @property
    def words(self) -> int:
        return len(self.listed)

    def blocks(self) -> Iterator[IntArray]:
        for at in range(0, len(self.listed), self.block):
            yield np.array(self.listed[at : at + self.block], dtype=np.int64)

    def cycle_of(self, position: int) -> int:
        return position // self.width


def naive_reads(words: list[int | None], capacity: int) -> int:
    kept: set[int] = set()
    reads = 0
    for word in words:
        if word is None or word in kept:
            continue
        kept.add(word)
        if len(kept) == capacity:
            reads, kept = reads + capacity, set()
    return reads + len(kept)


def test_capacity_is_half_of_a_hundred_sets() -> None:
    # 1024 words: a hundred sets of 10 words; 50 of them are kept
    assert capacity_words(1024) == 500
    assert capacity_words(199) == 50
    assert capacity_words(99) == 0


def test_words_that_fit_are_read_once_and_one_word_more_changes_that() -> None:
    # 499 words: the epoch never ends. 500: it ends with the last word, and the next pass finds nothing.
    assert reads_once_each(499, passes=3, capacity=500) == 499
    assert reads_once_each(500, passes=3, capacity=500) == 1500


def test_three_words_in_a_buffer_of_two() -> None:
    # a b | c a | b c: each pair is an epoch, so two passes read all six words
    assert reads_in_order(ListedOrder((0, 1, 2)), size_words=3, capacity=2, passes=2) == 6
    # a b | a c | a c | b: an epoch ends with its second distinct word, and then a is new again
    assert reads_in_order(ListedOrder((0, 1, 0, 2, 0, 2, 1)), size_words=3, capacity=2) == 7
    # a a a b | b b: the second epoch has one word
    assert reads_in_order(ListedOrder((0, 0, 0, 1, 1, 1)), size_words=2, capacity=2) == 3


def test_folds_by_hand() -> None:
    # Capacity 5, folds of 3, each twice. abc abc: 3 read, 3 kept. de|f de: f starts... d, e fill the
    # epoch (5), f begins one; the repeat brings d, e in, f is there: 3 + 2. Together 8.
    assert reads_of_folds(((3, 2),), repeats=2, capacity=5) == 8
    # once each, nothing is read twice
    assert reads_of_folds(((3, 2),), repeats=1, capacity=5) == 6
    # larger than the buffer: every repeat reads all
    assert reads_of_folds(((7, 1),), repeats=4, capacity=5) == 28


@given(
    full=st.integers(0, 30),
    count=st.integers(0, 5),
    rest=st.integers(0, 30),
    repeats=st.integers(1, 5),
    capacity=st.integers(1, 40),
)
def test_folds_are_what_a_set_would_read(
    full: int, count: int, rest: int, repeats: int, capacity: int
) -> None:
    words: list[int | None] = []
    start = 0
    for size in [full] * count + [rest]:
        words += list(range(start, start + size)) * repeats
        start += size
    folds = ((full, count), (rest, 1))
    assert reads_of_folds(folds, repeats=repeats, capacity=capacity) == naive_reads(words, capacity)


@given(
    listed=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    passes=st.integers(1, 40),
    capacity=st.integers(1, 16),
    absent=st.sets(st.integers(0, 12)),
    block=st.integers(1, 70),
    least=st.sampled_from([1, 4, 1024]),
)
def test_any_order_reads_what_a_set_would_read(
    listed: list[int], passes: int, capacity: int, absent: set[int], block: int, least: int
) -> None:
    gone = np.zeros(13, dtype=np.bool_)
    gone[list(absent)] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analytic_epochs, "_LEAST_SLICE_WORDS", least)
        got = reads_in_order(
            ListedOrder(tuple(listed), block=block),
            size_words=13,
            capacity=capacity,
            passes=passes,
            absent=gone,
            absent_reads=sum(word in absent for word in listed),
        )
    one_pass = [None if word in absent else word for word in listed]
    assert got == naive_reads(one_pass * passes, capacity)


@given(
    size=st.integers(2, 40), passes=st.integers(3, 30), capacity=st.integers(1, 40), data=st.data()
)
def test_a_circle_of_distinct_words_is_the_closed_form(
    size: int, passes: int, capacity: int, data: st.DataObject
) -> None:
    listed = data.draw(st.permutations(range(size)))
    got = reads_in_order(
        ListedOrder(tuple(listed)), size_words=size, capacity=capacity, passes=passes
    )
    assert got == reads_once_each(size, passes=passes, capacity=capacity)


class CountingOrder(ListedOrder):
    """Counts the passes that are gone through."""

    gone_through = 0

    def blocks(self) -> Iterator[IntArray]:
        CountingOrder.gone_through += 1
        return super().blocks()


def test_passes_that_repeat_are_not_gone_through_again() -> None:
    # 0 0 1 0 with room for two: an epoch ends with each 1, and the last 0 is kept at the end of every
    # pass: 0 0 1 | 0, then 0 0 1 ends, 0: pass 1 reads 3 words, each later one reads 2.
    CountingOrder.gone_through = 0
    order = CountingOrder((0, 0, 1, 0))
    assert reads_in_order(order, size_words=2, capacity=2, passes=1000) == 3 + 2 * 999
    assert CountingOrder.gone_through == 2
    # 101 distinct words, room for 50: one pass reads them all, two more show that it stays so. From
    # how each pass ends it would be known only after 50: 101 is 1 more than 2 * 50.
    CountingOrder.gone_through = 0
    order = CountingOrder(tuple(range(101)))
    assert reads_in_order(order, size_words=101, capacity=50, passes=1000) == 101_000
    assert CountingOrder.gone_through == 3


def test_a_pass_that_reads_everything_does_not_say_that_all_do() -> None:
    # 0 1 2 3 4 2 with room for three: 0 1 2 | 3 4 2 | reads all six words, and so it goes on; but
    # with room for four it is 0 1 2 3 | 4 2, then 0 1 | 2 3 4 (2) 0 | 1 2 3 4 | 2 0 1 ...: at some
    # point 2 comes twice in an epoch.
    words: list[int | None] = [0, 1, 2, 3, 4, 2]
    order = ListedOrder((0, 1, 2, 3, 4, 2))
    for capacity in (3, 4):
        assert naive_reads(words, capacity) == 6
        got = reads_in_order(order, size_words=5, capacity=capacity, passes=30)
        assert got == naive_reads(words * 30, capacity)
        assert (got == 6 * 30) == (capacity == 3)
    # ... 6 7 8 | 8 9 10 | 11: an epoch lies between the two eights, in the first pass only
    words = [*range(9), *range(8, 12)]
    order = ListedOrder((*range(9), *range(8, 12)))
    assert naive_reads(words, 3) == 13
    got = reads_in_order(order, size_words=12, capacity=3, passes=30)
    assert got == naive_reads(words * 30, 3) < 13 * 30


def test_two_refills_in_one_cycle_are_refused_where_the_simulator_divides_by_zero() -> None:
    # cycle 0: 0 1 2 3 with room for two: refilled after 1 and after 3
    order = ListedOrder((0, 1, 2, 3), width=4)
    with pytest.raises(EnergyError, match="2 words is refilled twice in one cycle"):
        reads_in_order(order, size_words=4, capacity=2, refill_once_a_cycle=True)
    assert reads_in_order(order, size_words=4, capacity=2) == 4
    # the same words, two a cycle: one refill each
    order = ListedOrder((0, 1, 2, 3), width=2)
    assert reads_in_order(order, size_words=4, capacity=2, refill_once_a_cycle=True) == 4
    with pytest.raises(ZeroDivisionError):
        read_buffer([list(range(100))], 100)
