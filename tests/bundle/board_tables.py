"""Small op tables, written operator by operator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from dynrt.bundle.board_kinds import Accepts, OpKind
from dynrt.bundle.board_ops import NONE, OP_WORDS, BoardOp, make_op
from dynrt.bundle.board_table import (
    BoardNode,
    BoardSlot,
    BoardTable,
    NodeKind,
    Region,
    SlotFlag,
    SlotType,
    pointer,
)

WORDS = st.integers(0, NONE)


def small() -> BoardTable:
    """Four inputs, a product with a 3 x 4 matrix, a gate, and an exit that may refuse."""
    weights = pointer(Region.WEIGHTS, 64)
    return BoardTable(
        nodes=(
            BoardNode(kind=NodeKind.INPUT, first=0, count=0),
            BoardNode(kind=NodeKind.COMPUTE, first=0, count=2),
            BoardNode(kind=NodeKind.CONTROL, first=2, count=2, decision=0),
            BoardNode(kind=NodeKind.EXIT, first=4, count=3, decision=1),
            BoardNode(kind=NodeKind.COMPUTE, first=7, count=1),
        ),
        slots=(
            BoardSlot(home=pointer(Region.WEIGHTS, 0), size_bytes=4, flags=int(SlotFlag.ALWAYS)),
            BoardSlot(home=pointer(Region.INPUT, 0), size_bytes=16, flags=int(SlotFlag.IS_INPUT)),
            BoardSlot(home=pointer(Region.ARENA, 0), size_bytes=12),
            BoardSlot(home=0, size_bytes=12),
        ),
        lists=(0 << 8 | 1, 2),
        thresholds=(0.25, -1.5),
        ops=(
            make_op(OpKind.NODE, 1, jump=2),
            make_op(OpKind.GEMM, 1, dst=2, a=1, k=4, m=3, rows=1, weights=weights),
            make_op(OpKind.NODE, 2, needs=1, n_needs=1, jump=4),
            make_op(OpKind.ARGMAX, 2, a=2, n=3, decision=0),
            make_op(OpKind.NODE, 3, controls=0, n_controls=1, jump=7),
            make_op(OpKind.SELECT, 3, dst=3, a=2, b=2),
            make_op(
                OpKind.ACCEPT, 3, a=3, b=2, rule=int(Accepts.HINGE), decision=1, threshold=1, n=3
            ),
            make_op(OpKind.STOP, 4),
        ),
        weights_bytes=64 + 48,
        arena_bytes=64,
        input_bytes=16,
        answer_bytes=12,
        n_decisions=2,
        n_params=1,
    )


def with_op(index: int, **fields: int) -> BoardTable:
    """The small table with other words in one operator."""
    table = small()
    ops = list(table.ops)
    ops[index] = ops[index].replaced(**fields)
    return replace(table, ops=tuple(ops))


def with_word(index: int, word: int, value: int) -> BoardTable:
    """The small table with one word of one operator changed."""
    table = small()
    words = list(table.ops[index].words)
    words[word] = value
    ops = (*table.ops[:index], BoardOp(tuple(words)), *table.ops[index + 1 :])
    return replace(table, ops=ops)


def with_slot(index: int, **changes: Any) -> BoardTable:
    """The small table with one slot changed."""
    table = small()
    slots = list(table.slots)
    slots[index] = replace(slots[index], **changes)
    return replace(table, slots=tuple(slots))


@st.composite
def any_tables(draw: st.DrawFn) -> BoardTable:
    """Tables of any words; most of them would not run."""
    rows = st.lists(
        st.tuples(st.sampled_from(list(OpKind)), st.lists(WORDS, min_size=23, max_size=23))
    )
    node = st.builds(
        BoardNode, kind=st.sampled_from(list(NodeKind)), first=WORDS, count=WORDS, decision=WORDS
    )
    slot = st.builds(
        BoardSlot,
        home=WORDS,
        size_bytes=WORDS,
        dtype=st.sampled_from(list(SlotType)),
        flags=WORDS,
    )
    ops = tuple(BoardOp((int(kind), *rest)) for kind, rest in draw(rows))
    assert all(len(op.words) == OP_WORDS for op in ops)
    return BoardTable(
        nodes=tuple(draw(st.lists(node, max_size=4))),
        slots=tuple(draw(st.lists(slot, max_size=4))),
        lists=tuple(draw(st.lists(WORDS, max_size=5))),
        thresholds=tuple(draw(st.lists(st.floats(allow_nan=False), max_size=3))),
        ops=ops,
        weights_bytes=draw(WORDS),
        arena_bytes=draw(WORDS),
        input_bytes=draw(WORDS),
        answer_bytes=draw(WORDS),
        n_decisions=draw(WORDS),
        scratch_bytes=draw(WORDS),
        n_params=draw(WORDS),
    )
