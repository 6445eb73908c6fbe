"""Words that SCALE-Sim's write buffer sends to DRAM."""

from __future__ import annotations


def dram_writes(results: int, *, columns: int, buffer_words: int) -> int:
    """DRAM writes of ``results`` words, partial sums included, and never a stall.

    The buffer packs words into lines of ``columns``. When more than ``half = buffer_words // 2`` of
    it are full, it closes the open line and drains ``lines = ceil(half / columns)`` lines, one a
    cycle; it takes every drained line but the last one for full.

    *No stall.* A drain frees at least ``(lines - 1) * columns + 1`` words. Until it ends at most
    ``(lines - 1) * columns - 1`` words come in, so the next drain starts after it, exactly when the
    same number of words is free as at the first one. Hence time does not matter, and what is
    drained depends only on how many words came.

    *What is drained.* The first drain comes after ``half + 1`` words.

    - ``columns`` does not divide ``half``: these are ``lines`` lines, all drained, and the open one
      is the last. It begins anew each time: every word is written once.
    - ``half = columns``: one line at a time, always the last one: every word once.
    - ``half = lines * columns``, ``lines`` at least 2: the line with the one word more stays. It is
      the first of the next drain, where it is taken for full: ``columns - 1`` words too many. From
      then on only full lines stay, so it happens once - if anything comes after it.

    Args:
        results: words that the array writes.
        columns: of the array; the width of a line.
        buffer_words: of the ofmap buffer; at least 2.
    """
    half = buffer_words // 2
    lines, odd = divmod(half, columns)
    if not odd and lines > 1 and results > half + 1:
        return results + columns - 1
    return results
