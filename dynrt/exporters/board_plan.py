"""Where each tensor lies in the board's arena: no two that live at the same time overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dynrt.bundle.board_table import ARENA_ALIGNMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """When a tensor's memory is its own.

    Attributes:
        first: index of the operator that writes it first.
        last: index of the last operator that reads it, under whatever name, or writes it.
        size_bytes: how much memory.
    """

    first: int
    last: int
    size_bytes: int

    def meets(self, other: Life) -> bool:
        """Whether both live at some operator."""
        return self.first <= other.last and other.first <= self.last


def lives(
    reads: Sequence[Sequence[int]],
    writes: Sequence[Sequence[int]],
    choices: Mapping[int, tuple[int, int]],
    sizes: Mapping[int, int],
) -> dict[int, Life]:
    """When each slot of ``sizes`` lives.

    Operators run in order, and jumps go forward only, so that a life is an interval of operators.
    What reads the slot of a SELECT reads either of the slots that it may stand for.

    Args:
        reads: slots by operator.
        writes: slots by operator.
        choices: of a SELECT's slot, the two that it may stand for.
        sizes: bytes of the slots that need memory.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, (read, written) in enumerate(zip(reads, writes, strict=True)):
        for slot in written:
            first.setdefault(slot, i)
            last[slot] = i
        for slot in read:
            last[slot] = i
    for slot in sorted(choices, reverse=True):  # a SELECT's slot is newer than those behind it
        for behind in choices[slot]:
            last[behind] = max(last.get(behind, 0), last.get(slot, 0))
    return {
        slot: Life(first=first[slot], last=last[slot], size_bytes=size)
        for slot, size in sizes.items()
        if slot in first
    }


def placed(found: Mapping[int, Life]) -> tuple[dict[int, int], int]:
    """An offset for each slot, and how many bytes that takes: the largest first, each lowest."""
    offsets: dict[int, int] = {}
    total = 0
    for slot in sorted(found, key=lambda s: (-found[s].size_bytes, s)):
        life = found[slot]
        taken = sorted(
            (offsets[other], offsets[other] + _aligned(found[other].size_bytes))
            for other in offsets
            if found[other].meets(life)
        )
        at = 0
        for begin, end in taken:
            if begin - at >= life.size_bytes:
                break
            at = max(at, end)
        offsets[slot] = at
        total = max(total, at + _aligned(life.size_bytes))
    return offsets, total


def _aligned(size: int) -> int:
    return size + -size % ARENA_ALIGNMENT
