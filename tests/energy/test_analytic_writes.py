"""DRAM writes in a closed form against the write buffer, line by line; and that it never stalls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dynrt.energy.analytic_writes import dram_writes
from tests.energy.analytic_reference import write_buffer


def test_the_one_word_that_is_taken_for_a_full_line() -> None:
    # 8 words, lines of 2: half is 4 = 2 lines. The first drain comes at 5 words and takes the two
    # full lines; the fifth word stays alone in its line.
    assert dram_writes(5, columns=2, buffer_words=8) == 5
    # One word more: both are drained at the end, the lone one first, as if its line were full.
    assert dram_writes(6, columns=2, buffer_words=8) == 7
    # Lines of 3 do not divide 4: the open line always goes last, and nothing is too many.
    assert dram_writes(100, columns=3, buffer_words=8) == 100
    # Half is one line: a line at a time, and the last of one is itself.
    assert dram_writes(100, columns=4, buffer_words=8) == 100
    # A word a line: no line is ever partly full.
    assert dram_writes(100, columns=1, buffer_words=8) == 100


@given(
    columns=st.integers(1, 9),
    buffer_words=st.integers(2, 90),
    cycles=st.lists(st.integers(0, 9), max_size=80),
)
def test_any_writes_at_any_time_are_the_closed_form_without_a_stall(
    columns: int, buffer_words: int, cycles: list[int]
) -> None:
    # as in the simulator, a cycle writes at most a line
    words = [list(range(min(columns, count))) for count in cycles]
    results = sum(len(line) for line in words)
    writes, stall, _last = write_buffer(words, columns=columns, buffer_words=buffer_words)
    assert stall == 0
    assert writes == dram_writes(results, columns=columns, buffer_words=buffer_words)


@given(columns=st.integers(1, 9), buffer_words=st.integers(2, 400), lines=st.integers(1, 600))
def test_writes_at_full_speed_never_stall(columns: int, buffer_words: int, lines: int) -> None:
    words = [list(range(columns))] * lines
    writes, stall, last = write_buffer(words, columns=columns, buffer_words=buffer_words)
    assert (stall, last) == (0, lines - 1)
    assert writes == dram_writes(lines * columns, columns=columns, buffer_words=buffer_words)
