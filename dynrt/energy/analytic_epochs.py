"""Words that a double-buffered memory reads from DRAM.

SCALE-Sim's read buffer (``ReadBufferEstimateBw``) keeps every word that came in and forgets all of
them at once, in the moment in which the last of ``capacity`` distinct words has come in: half of
the buffer in a hundred sets, ``50 * (words // 100)``. What is asked for between two such moments
is one *epoch*; a word costs one DRAM read in each epoch that asks for it.
"""

from __future__ import annotations

import numpy as np

from dynrt.energy.analytic_orders import Order
from dynrt.energy.analytic_words import BoolArray, IntArray
from dynrt.errors import EnergyError

#: Fewer words at a time would cost more in calls than in words.
_LEAST_SLICE_WORDS = 1024
#: Finding out whether all passes read everything takes about as long as three passes.
_PASSES_WORTH_A_LOOK = 6


def capacity_words(buffer_words: int) -> int:
    """Distinct words that a read buffer of ``buffer_words`` keeps before it forgets all."""
    return 50 * (buffer_words // 100)


def reads_once_each(distinct: int, *, passes: int, capacity: int) -> int:
    """DRAM reads of ``passes`` times the same ``distinct`` words, each once a pass, in one order.

    Fewer than ``capacity``: all stay. Else an epoch has ``capacity`` words that follow one another
    in a circle of at least as many: none comes twice in it, so each read is a DRAM read.
    """
    return distinct if distinct < capacity else distinct * passes


def reads_of_folds(folds: tuple[tuple[int, int], ...], *, repeats: int, capacity: int) -> int:
    """DRAM reads of folds of distinct words, each fold ``repeats`` times before the next.

    With ``kept`` words in the epoch when a fold of ``words`` comes first: if they fit together,
    the repeats cost nothing. Else the epoch ends within the first time, and holds ``kept``, the
    last words of the fold, after it. A fold smaller than ``capacity`` then brings in the others
    the second time and is whole from there on; a larger one is a circle as in ``reads_once_each``.

    Args:
        folds: ``(words of a fold, how many such folds)``, in order.
        repeats: of each fold.
        capacity: of the buffer, in words.
    """
    reads = kept = 0
    for words, count in folds:
        for _ in range(count):
            if kept + words < capacity:
                reads += words
                kept += words
            elif words >= capacity:
                reads += words * repeats
                kept = (kept + words * repeats) % capacity
            else:
                kept = (kept + words) % capacity
                reads += words
                if repeats > 1:
                    reads += words - kept
                    kept = words
    return reads


def reads_in_order(
    order: Order,
    *,
    size_words: int,
    capacity: int,
    passes: int = 1,
    absent: BoolArray | None = None,
    absent_reads: int = 0,
    refill_once_a_cycle: bool = False,
) -> int:
    """DRAM reads of ``passes`` times the same order, by going through it as often as it takes.

    What an epoch holds at the end of a pass depends only on how far back it began. When a pass
    ends as an earlier one did, the passes after the earlier one repeat to the end. And when no
    word comes again within what one epoch can be long at most, every read is a DRAM read.

    Args:
        order: the words of one pass; numbers from 0 to ``size_words``.
        size_words: how many numbers there are.
        capacity: of the buffer, in words, at least 1.
        passes: how often.
        absent: ``(size_words,)``: words that are asked for but are none.
        absent_reads: how often such words are asked for in a pass.
        refill_once_a_cycle: refuse two epochs that end in the same cycle, as the simulator does.

    Raises:
        EnergyError: two epochs end in the same cycle, and ``refill_once_a_cycle``.
    """
    buffer = _Buffer(order, size_words, capacity, absent)
    reads_after = [0]
    pass_that_left: dict[int, int] = {}
    for done in range(1, passes + 1):
        buffer.one_pass(refill_once_a_cycle=refill_once_a_cycle)
        reads_after.append(buffer.reads)
        all_read = done == 1 and buffer.reads == order.words - absent_reads
        if all_read and passes >= _PASSES_WORTH_A_LOOK and not refill_once_a_cycle:
            longest = capacity + absent_reads
            if _comes_again_after(order, size_words, absent, least=longest):
                return buffer.reads * passes
        earlier = pass_that_left.setdefault(buffer.epoch_words, done)
        if earlier < done:
            rounds, rest = divmod(passes - done, done - earlier)
            round_reads = reads_after[done] - reads_after[earlier]
            return (
                reads_after[done]
                + rounds * round_reads
                + (reads_after[earlier + rest] - reads_after[earlier])
            )
    return buffer.reads


class _Buffer:
    """A read buffer's state, and what it has read.

    It marks the words that it keeps. As long as many are missing to the end of the epoch, it takes
    so many words at once: they cannot run over the end, so it is enough to count the new marks.
    The last few it takes one by one.
    """

    def __init__(
        self, order: Order, size_words: int, capacity: int, absent: BoolArray | None
    ) -> None:
        self._order = order
        self._capacity = capacity
        self._absent = absent
        self._marks = np.zeros(size_words, dtype=np.bool_) if absent is None else absent.copy()
        self._place = np.empty(size_words, dtype=np.int64)
        self._low, self._high = size_words, 0  # of the marks of this epoch
        self._few = _LEAST_SLICE_WORDS
        self._start = self._position = self._kept = self._full_epochs = 0
        self._last_end = (-1, -1)

    @property
    def reads(self) -> int:
        """DRAM reads so far."""
        return self._full_epochs * self._capacity + self._kept

    @property
    def epoch_words(self) -> int:
        """Words since the running epoch began, absent ones and repeated ones included."""
        return self._position - self._start

    def one_pass(self, *, refill_once_a_cycle: bool) -> None:
        """Go through the order once."""
        for block in self._order.blocks():
            at = 0
            while at < block.size:
                missing = self._capacity - self._kept
                if missing > self._few:
                    taken = self._take_all(block[at : at + missing])
                else:
                    words = block[at : at + max(missing, _LEAST_SLICE_WORDS)]
                    taken = self._take_up_to(missing, words)
                at += taken
                self._position += taken
                if self._kept == self._capacity:
                    self._end_epoch(refill_once_a_cycle)

    def _take_all(self, words: IntArray) -> int:
        """Take words that cannot run over the end of the epoch; returns how many."""
        low, high = int(words.min()), int(words.max()) + 1
        marks = self._marks[low:high]
        before = np.count_nonzero(marks)
        self._marks[words] = True
        self._kept += int(np.count_nonzero(marks) - before)
        self._low, self._high = min(self._low, low), max(self._high, high)
        # counting marks takes about as long as looking at a hundredth as many words one by one
        self._few = max(_LEAST_SLICE_WORDS, (high - low) >> 6)
        return words.size

    def _take_up_to(self, missing: int, words: IntArray) -> int:
        """Take words until ``missing`` new ones have come; returns how many."""
        fresh = np.flatnonzero(~self._marks.take(words))
        if not fresh.size:
            return words.size
        words_fresh = words.take(fresh)
        index = np.arange(fresh.size)
        self._place[words_fresh[::-1]] = index[::-1]  # of equal words, the first is written last
        new = np.flatnonzero(self._place.take(words_fresh) == index)[:missing]
        words_new = words_fresh.take(new)
        self._marks[words_new] = True
        self._kept += new.size
        self._low = min(self._low, int(words_new.min()))
        self._high = max(self._high, int(words_new.max()) + 1)
        return int(fresh[new[-1]]) + 1 if new.size == missing else words.size

    def _end_epoch(self, refill_once_a_cycle: bool) -> None:
        self._full_epochs += 1
        self._start, self._kept = self._position, 0
        marked = slice(self._low, self._high)
        self._marks[marked] = False if self._absent is None else self._absent[marked]
        self._low, self._high = self._marks.size, 0
        if refill_once_a_cycle:
            passes, within = divmod(self._position - 1, self._order.words)
            end = (passes, self._order.cycle_of(within))
            if end == self._last_end:
                raise EnergyError(
                    f"a buffer that keeps {self._capacity} words is refilled twice in one cycle of "
                    f"up to {self._order.width} words; the simulator divides by zero there"
                )
            self._last_end = end


def _comes_again_after(
    order: Order, size_words: int, absent: BoolArray | None, *, least: int
) -> bool:
    """Whether no word comes again within fewer than ``least`` words, pass after pass."""
    last = np.full(size_words, -least, dtype=np.int64)
    position = 0
    for _ in range(2):
        for block in order.blocks():
            for at in range(0, block.size, least):
                words = block[at : at + least]
                place = np.arange(position, position + words.size)
                position += words.size
                if absent is not None:
                    present = np.flatnonzero(~absent.take(words))
                    words, place = words.take(present), place.take(present)
                if (place - last.take(words) < least).any():
                    return False
                last[words] = place
                if (last.take(words) != place).any():
                    return False
    return True
