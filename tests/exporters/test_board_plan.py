"""Where tensors lie in the arena: no two that live at the same time overlap."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from dynrt.exporters.board_plan import Life, lives, placed

LIVES = st.lists(
    st.builds(
        lambda first, more, size: Life(first=first, last=first + more, size_bytes=size),
        st.integers(0, 30),
        st.integers(0, 10),
        st.integers(1, 500),
    ),
    max_size=25,
)


@given(LIVES)
def test_tensors_that_live_together_do_not_overlap(found: list[Life]) -> None:
    offsets, total = placed(dict(enumerate(found)))
    assert all(offset % 64 == 0 for offset in offsets.values())
    for slot, life in enumerate(found):
        assert offsets[slot] >= 0
        assert offsets[slot] + life.size_bytes <= total
    for a, b in combinations(range(len(found)), 2):
        if found[a].meets(found[b]):
            apart = (
                offsets[a] + found[a].size_bytes <= offsets[b]
                or offsets[b] + found[b].size_bytes <= offsets[a]
            )
            assert apart, (found[a], offsets[a], found[b], offsets[b])


@given(LIVES)
def test_the_arena_is_at_least_what_lives_at_once(found: list[Life]) -> None:
    _, total = placed(dict(enumerate(found)))
    at_once = [sum(f.size_bytes for f in found if f.first <= i <= f.last) for i in range(42)]
    assert total >= max(at_once)
    aligned = sum(f.size_bytes + -f.size_bytes % 64 for f in found)
    assert total <= aligned


@st.composite
def programs(draw: st.DrawFn) -> list[tuple[str, int, list[int]]]:
    """Operators that write a new slot from older ones, or choose between two of them."""
    out: list[tuple[str, int, list[int]]] = [("write", 0, [])]
    for slot in range(1, draw(st.integers(2, 14))):
        olds = st.integers(0, slot - 1)
        if draw(st.booleans()):
            out.append(("select", slot, [draw(olds), draw(olds)]))
        else:
            out.append(("write", slot, draw(st.lists(olds, max_size=3))))
    return out


@given(programs(), st.data())
def test_what_a_program_reads_is_still_there(
    program: list[tuple[str, int, list[int]]], data: st.DataObject
) -> None:
    """Run it with a mark in each tensor's memory; reads must find the mark of their tensor."""
    choices = {slot: (r[0], r[1]) for kind, slot, r in program if kind == "select"}
    sizes = {slot: 64 for kind, slot, _ in program if kind == "write"}
    found = lives([r for _, _, r in program], [[s] for _, s, _ in program], choices, sizes)
    offsets, total = placed(found)
    arena = [-1] * (total // 64 + 1)
    holds: dict[int, int] = {}  # slot: the tensor that it stands for
    for kind, slot, reads in program:
        for read in reads:
            assert arena[offsets[holds[read]] // 64] == holds[read]
        if kind == "select":
            holds[slot] = holds[data.draw(st.sampled_from(reads))]
        else:
            arena[offsets[slot] // 64] = slot
            holds[slot] = slot


def test_memory_is_used_again() -> None:
    chain = {i: Life(first=i, last=i + 1, size_bytes=1000) for i in range(50)}
    _, total = placed(chain)
    assert total == 2 * 1024


def test_a_select_keeps_both_alive() -> None:
    # 0 and 1 are written, 2 chooses between them, 3 is written, 2 is read at the end
    found = lives(
        [[], [], [0, 1], [], [2]], [[0], [1], [2], [3], []], {2: (0, 1)}, {0: 4, 1: 4, 3: 4}
    )
    assert {k: (v.first, v.last) for k, v in found.items()} == {0: (0, 4), 1: (1, 4), 3: (3, 3)}
