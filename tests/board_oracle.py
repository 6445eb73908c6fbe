"""An interpreter of op tables in numpy: what a board must compute, without its memory's limits.

Memory is real all the same: regions are byte arrays and slots point into them, so that a wrong plan
gives wrong answers here too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dynrt.bundle.board_kinds import Accepts, Combines, OpKind
from dynrt.bundle.board_ops import NONE, BoardOp
from dynrt.bundle.board_table import (
    BoardTable,
    Region,
    SlotType,
    decode,
    offset_of,
    region_of,
)
from dynrt.ir.graph import ScoreKind
from dynrt.ir.rules import accept_score, argmax, threshold_actions
from tests.board_oracle_ops import DTYPES, OPS, Arrays

Bytes = npt.NDArray[np.uint8]
_RULES: Mapping[int, ScoreKind] = {
    Accepts.HINGE: "hinge",
    Accepts.MAX_SOFTMAX: "max_softmax",
    Accepts.MARGIN: "margin",
    Accepts.ENTROPY: "entropy",
}


class OracleFaultError(Exception):
    """An operator that could not go on."""


@dataclass(slots=True, kw_only=True)
class Sample:
    """What came of one sample: decisions as in a board's record, exit, answer, operators that ran."""

    decisions: list[int]
    exit: int = NONE
    answer: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    ran: list[int] = field(default_factory=list)


class Oracle:
    """A table and its weights.

    Args:
        data: the encoded table.
        weights: as they are downloaded.
    """

    def __init__(self, data: bytes, weights: bytes) -> None:
        self.table: BoardTable = decode(data)
        self.memory: dict[Region, Bytes] = {
            Region.ARENA: np.zeros(self.table.arena_bytes, np.uint8),
            Region.WEIGHTS: np.frombuffer(weights, np.uint8).copy(),
            Region.INPUT: np.zeros(self.table.input_bytes, np.uint8),
        }
        self.thresholds = list(self.table.thresholds)
        self.force = [NONE] * self.table.n_decisions
        self.live: list[int] = []

    def run(self, sample: bytes) -> Sample:
        """Run one sample; what an earlier one left in the arena is noise."""
        self.memory[Region.INPUT][:] = np.frombuffer(sample, np.uint8)
        self.memory[Region.ARENA][:] = 0xA5
        self.live = [s.home if s.flags else 0 for s in self.table.slots]
        out = Sample(decisions=[NONE] * self.table.n_decisions)
        at = 0
        while out.exit == NONE:
            op = self.table.ops[at]
            out.ran.append(at)
            at = self._step(op, at, out)
        return out

    # --- memory

    def words(self, slot: int) -> npt.NDArray[np.generic]:
        """What a slot points to.

        Raises:
            OracleFaultError: nothing.
        """
        found = self.table.slots[slot]
        if not self.live[slot]:
            raise OracleFaultError(f"slot {slot} is null")
        return self._view(self.live[slot], found.size_bytes, found.dtype)

    def _view(self, address: int, size: int, dtype: SlotType) -> npt.NDArray[np.generic]:
        offset = offset_of(address)
        raw = self.memory[region_of(address)][offset : offset + size]
        return raw.view(DTYPES[dtype])

    def constant(self, address: int, count: int, dtype: str) -> npt.NDArray[np.generic]:
        """Words behind a pointer."""
        offset = offset_of(address)
        raw = self.memory[region_of(address)][offset:]
        return raw[: count * np.dtype(dtype).itemsize].view(dtype)

    def home(self, slot: int) -> npt.NDArray[np.generic]:
        """Where a slot is written, which it now points to."""
        self.live[slot] = self.table.slots[slot].home
        return self.words(slot)

    # --- steps

    def _step(self, op: BoardOp, at: int, out: Sample) -> int:
        table = self.table
        if op.kind is OpKind.NODE:
            edges = table.lists[op["controls"] : op["controls"] + op["n_controls"]]
            needs = table.lists[op["needs"] : op["needs"] + op["n_needs"]]
            active = any(
                out.decisions[e >> 8] != NONE and out.decisions[e >> 8] >> (e & 255) & 1
                for e in edges
            )
            runs = (not edges or active) and all(self.live[s] for s in needs)
            return at + 1 if runs else op["jump"]
        if op.kind is OpKind.SELECT:
            self.live[op["dst"]] = self.live[op["a"]] or self.live[op["b"]]
        elif op.kind in (OpKind.ARGMAX, OpKind.THRESHOLD):
            self._decide(op, out)
        elif op.kind is OpKind.ACCEPT:
            self._accept(op, out)
        elif op.kind is OpKind.COMBINE:
            self._combine(op, out)
        elif op.kind is OpKind.STOP:
            raise OracleFaultError("no answer")
        else:
            self._compute(op)
        return at + 1

    def _compute(self, op: BoardOp) -> None:
        run: Callable[[BoardOp, Arrays], None] = OPS[op.kind]
        run(op, self)

    def _decide(self, op: BoardOp, out: Sample) -> None:
        scores = self.words(op["a"])[: op["n"]]
        if op.kind is OpKind.ARGMAX:
            bits = 1 << argmax(scores)
        else:
            first = op["threshold"]
            actions = threshold_actions(scores, self.thresholds[first : first + op["n"]])
            bits = sum(1 << a for a in actions)
        forced = self.force[op["decision"]]
        out.decisions[op["decision"]] = bits if forced == NONE else forced

    def _accept(self, op: BoardOp, out: Sample) -> None:
        accepted = True
        if op["rule"] != Accepts.ALWAYS_ACCEPT:
            score = accept_score(_RULES[op["rule"]], self.words(op["a"])[: op["n"]])
            accepted = score >= self.thresholds[op["threshold"]]
        forced = self.force[op["decision"]]
        accepted = accepted if forced == NONE else bool(forced)
        out.decisions[op["decision"]] = int(accepted)
        if accepted:
            out.exit = op["decision"]
            out.answer = self.words(op["b"]).astype(np.float32)

    def _combine(self, op: BoardOp, out: Sample) -> None:
        words = self.table.lists[op["answers"] : op["answers"] + 2 * op["n_answers"]]
        pairs = list(zip(words[::2], words[1::2], strict=True))
        present = [i for i, (slot, _) in enumerate(pairs) if self.live[slot]]
        if not present:
            return
        for i in present:
            out.decisions[op["decision"] + i] = op["accepted"]
        out.exit = op["decision"] + present[-1]
        answers = {i: self.words(pairs[i][0])[: pairs[i][1]].astype(np.float32) for i in present}
        if op["rule"] == Combines.JOIN:
            (absent,) = struct.unpack("<f", struct.pack("<I", op["absent"]))
            parts = [
                answers.get(i, np.full(n, absent, np.float32)) for i, (_, n) in enumerate(pairs)
            ]
            out.answer = np.concatenate(parts)
            return
        out.answer = answers[present[-1] if op["rule"] == Combines.LAST else present[0]]
        if op["rule"] != Combines.LAST:
            for i in present[1:]:
                join = np.add if op["rule"] == Combines.SUM else np.maximum
                out.answer = join(out.answer, answers[i])
