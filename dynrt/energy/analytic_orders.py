"""In which order a systolic array asks for its words: what SCALE-Sim calls demand matrices.

An operand is a table of words: ``outer[o] + inner[i]``. It is folded: ``width`` columns of ``outer``
are one fold, and each cycle of a fold asks for at most one word per column. No table is made whole:
an order hands out its words in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dynrt.energy.analytic_words import IntArray

#: About how many words one block has (8 bytes each).
BLOCK_WORDS = 1 << 17
#: Folds up to this size are made several at a time.
_SMALL_FOLD_WORDS = 1 << 14


class Order(Protocol):
    """Words in the order in which the array asks for them."""

    @property
    def words(self) -> int:
        """How many words, all together; a word counts each time."""
        ...

    @property
    def width(self) -> int:
        """The most words that are asked for in one cycle."""
        ...

    def blocks(self) -> Iterator[IntArray]:
        """All words in order, in blocks of any length."""
        ...

    def cycle_of(self, position: int) -> int:
        """A number for the cycle of the word at ``position``: the same in the same cycle only."""
        ...


class SkewedOrder:
    """A moving operand: column ``c`` of a fold gets its words ``c`` cycles later than column 0.

    In cycle ``t`` of a fold, column ``c`` asks for ``outer[c] + inner[t - c]``; columns in order.

    Args:
        inner: what runs through each column.
        outer: what is folded.
        columns: of a fold; the last one may have fewer.
        fold_repeats: how often each fold comes before the next.
    """

    def __init__(
        self, *, inner: IntArray, outer: IntArray, columns: int, fold_repeats: int = 1
    ) -> None:
        self._depth, self._outer_words, self._columns = inner.size, outer.size, columns
        self._fold_repeats = fold_repeats
        self.words = inner.size * outer.size * fold_repeats
        self.width = min(columns, outer.size)
        full = outer.size // columns * columns
        folds = (outer[:full].reshape(-1, columns), outer[full:].reshape(1, -1))
        self._parts = [_Folds(inner, part, fold_repeats) for part in folds if part.size]

    def blocks(self) -> Iterator[IntArray]:
        """See ``Order``."""
        for part in self._parts:
            yield from part.blocks()

    def cycle_of(self, position: int) -> int:
        """See ``Order``."""
        fold_words = self._depth * self._columns * self._fold_repeats
        fold = min(position // fold_words, (self._outer_words - 1) // self._columns)
        width = min(self._columns, self._outer_words - fold * self._columns)
        repeat, within = divmod(position - fold * fold_words, self._depth * width)
        cycle = int(np.searchsorted(np.cumsum(_asked(self._depth, width)), within, side="right"))
        most_cycles = self._depth + self._columns - 1
        return (fold * self._fold_repeats + repeat) * most_cycles + cycle


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FlatOrder:
    """A stationary operand: loaded row by row, the last row of a fold first.

    For each fold of ``outer``, each fold of ``inner``, and each row of it from the last to the
    first: one cycle that asks for ``outer[c] + inner[row]``, columns in order.

    Attributes:
        inner: what lies along the rows of the array.
        outer: what lies along its columns.
        rows, columns: of the array.
    """

    inner: IntArray
    outer: IntArray
    rows: int
    columns: int

    @property
    def words(self) -> int:
        """See ``Order``."""
        return self.inner.size * self.outer.size

    @property
    def width(self) -> int:
        """Columns of the widest fold."""
        return min(self.columns, self.outer.size)

    def blocks(self) -> Iterator[IntArray]:
        """See ``Order``."""
        index = np.arange(self.inner.size)
        fold_start = index - index % self.rows
        fold_end = np.minimum(fold_start + self.rows, self.inner.size)
        inner = self.inner[fold_start + fold_end - 1 - index][:, None]
        full = self.outer.size // self.columns
        folds = self.outer[: full * self.columns].reshape(full, 1, self.columns)
        rest = self.outer[full * self.columns :].reshape(1, 1, -1)
        for part in (folds, rest):
            if not part.size:
                continue
            together = BLOCK_WORDS // (inner.size * part.shape[2])
            if together:
                for at in range(0, len(part), together):
                    yield (part[at : at + together] + inner).reshape(-1)
                continue
            lines = max(1, BLOCK_WORDS // part.shape[2])
            for fold in part:
                for at in range(0, inner.size, lines):
                    yield (fold + inner[at : at + lines]).reshape(-1)

    def cycle_of(self, position: int) -> int:
        """See ``Order``."""
        full = self.outer.size // self.columns
        words = full * self.columns * self.inner.size
        if position < words:
            return position // self.columns
        return full * self.inner.size + (position - words) // (self.outer.size % self.columns)


class _Folds:
    """Folds of one width of a skewed order.

    The first and the last cycles of a fold do not ask in every column; which words these are is
    worked out once. In between, each cycle is a window of ``inner``, backwards, plus ``outer``.
    """

    def __init__(self, inner: IntArray, folds: IntArray, repeats: int) -> None:
        depth, width = inner.size, folds.shape[1]
        self._folds, self._repeats = folds, repeats
        self._width, self._words = width, depth * width
        cycles = depth + width - 1
        small = self._words <= _SMALL_FOLD_WORDS or depth < width
        begin, end = (cycles, cycles) if small else (width - 1, depth)
        self._head = _skewed(inner, width, 0, begin)
        self._tail = _skewed(inner, width, end, cycles)
        self._windows = inner[:0].reshape(0, width)
        if not small:
            self._windows = np.lib.stride_tricks.sliding_window_view(inner, width)[:, ::-1]

    def blocks(self) -> Iterator[IntArray]:
        moving, column = self._head
        if moving.size == self._words:
            together = max(1, BLOCK_WORDS // self._words) if self._repeats == 1 else 1
            for at in range(0, len(self._folds), together):
                words = self._folds[at : at + together].take(column, axis=1)
                words += moving
                for _ in range(self._repeats):
                    yield words.reshape(-1)
            return
        for fold in self._folds:
            for _ in range(self._repeats):
                yield from self._fold(fold)

    def _fold(self, fold: IntArray) -> Iterator[IntArray]:
        head, tail = (moving + fold.take(column) for moving, column in (self._head, self._tail))
        if self._words > BLOCK_WORDS:
            yield head
            step = max(1, BLOCK_WORDS // self._width)
            for at in range(0, len(self._windows), step):
                yield (self._windows[at : at + step] + fold).reshape(-1)
            yield tail
            return
        words = np.empty(self._words, dtype=np.int64)
        words[: head.size] = head
        middle = words[head.size : self._words - tail.size].reshape(-1, self._width)
        np.add(self._windows, fold, out=middle)
        words[self._words - tail.size :] = tail
        yield words


def _asked(depth: int, width: int) -> IntArray:
    """Words that a fold asks for in each of its ``depth + width - 1`` cycles."""
    cycles = np.arange(depth + width - 1, dtype=np.int64)
    return np.asarray(np.minimum(np.minimum(cycles, cycles[::-1]) + 1, min(depth, width)))


def _skewed(inner: IntArray, width: int, begin: int, end: int) -> tuple[IntArray, IntArray]:
    """Words of ``inner`` and their columns, asked for in cycles ``begin`` to ``end``, in order."""
    asked = _asked(inner.size, width)[begin:end]
    cycles = np.arange(begin, end, dtype=np.int64)
    first_column = np.maximum(cycles - inner.size + 1, 0)
    first_word = np.cumsum(asked) - asked
    column = np.arange(asked.sum(), dtype=np.int64) + np.repeat(first_column - first_word, asked)
    return inner.take(np.repeat(cycles, asked) - column), column
