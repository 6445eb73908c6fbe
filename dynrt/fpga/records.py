"""What the client reads of an op table's header, and the records that the board keeps of samples."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynrt.errors import BoardError
from dynrt.fpga.wire import NONE

_HEAD_WORDS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class TableHead:
    """What the client must know of an op table: words of its header."""

    n_ops: int
    n_thresholds: int
    input_bytes: int
    answer_bytes: int
    n_decisions: int

    @classmethod
    def unpack(cls, table: bytes) -> TableHead:
        """Read the header.

        Raises:
            BoardError: ``table`` is shorter than a header, or is none.
        """
        if len(table) < 4 * _HEAD_WORDS or table[:4] != b"DRBT":
            raise BoardError(f"{len(table)} bytes that begin with {table[:4]!r} are no op table")
        words = struct.unpack_from(f"<{_HEAD_WORDS}I", table)
        return cls(
            n_ops=words[5],
            n_thresholds=words[7],
            input_bytes=words[10],
            answer_bytes=words[11],
            n_decisions=words[12],
        )

    @property
    def record_bytes(self) -> int:
        """One LOG record: input, exit, answer bytes, ticks (two words), decisions."""
        return 4 * (5 + self.n_decisions)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampleRecord:
    """What the board did with one sample.

    Attributes:
        input: index of the sample among the inputs.
        exit: decision index of the exit that answered; None if exits were combined.
        decisions: per decision; None where it was not reached. Of a control node the bits of its
            active actions, of an exit 1 if it accepted.
        ticks: board clock.
        answer: float32, ``(answer elements,)``.
    """

    input: int
    exit: int | None
    decisions: tuple[int | None, ...]
    ticks: int
    answer: npt.NDArray[np.float32]

    def same_outcome(self, other: SampleRecord) -> bool:
        """Whether all but the ticks are equal, answers bit by bit."""
        return (
            (self.input, self.exit, self.decisions) == (other.input, other.exit, other.decisions)
        ) and self.answer.tobytes() == other.answer.tobytes()


def slots(first: int, count: int, cap: int) -> list[tuple[int, int]]:
    """The ring's slots of samples ``first`` on, as (start, length) without wrap."""
    start = first % cap
    head = min(count, cap - start)
    return [(start, head)] if head == count else [(start, head), (0, count - head)]


def unpack_record(record: bytes, answer: bytes) -> SampleRecord:
    """One LOG record and its answer's bytes."""
    index, exit_, _, ticks = struct.unpack_from("<3IQ", record)
    words = struct.unpack_from(f"<{len(record) // 4 - 5}I", record, 20)
    return SampleRecord(
        input=index,
        exit=None if exit_ == NONE else exit_,
        decisions=tuple(None if word == NONE else word for word in words),
        ticks=ticks,
        answer=np.frombuffer(answer, "<f4").astype(np.float32),
    )
