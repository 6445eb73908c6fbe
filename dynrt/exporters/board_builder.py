"""Puts an op table together: slots, constants, lists and operators, without where things lie in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dynrt.bundle.board_kinds import OpKind
from dynrt.bundle.board_ops import OP_FIELDS as FIELDS
from dynrt.bundle.board_ops import BoardOp, Role, make_op
from dynrt.bundle.board_table import (
    ARENA_ALIGNMENT,
    SLOT_BYTES,
    BoardSlot,
    Region,
    SlotFlag,
    SlotType,
    pointer,
)
from dynrt.errors import BoardFitError, BundleError
from dynrt.ir.graph import Array

#: numpy's names of what slots hold.
SLOT_TYPES = {
    "float32": SlotType.F32,
    "bool": SlotType.F32,  # 1.0 and 0.0
    "uint8": SlotType.U8,
    "int8": SlotType.S8,
    "int32": SlotType.S32,
}


def slot_type(dtype: str, place: str) -> SlotType:
    """What a slot holds that stands for a tensor.

    Raises:
        BoardFitError: the board does not hold this element type.
    """
    if dtype not in SLOT_TYPES:
        raise BoardFitError(f"{place}: {dtype} is not on the board ({', '.join(SLOT_TYPES)})")
    return SLOT_TYPES[dtype]


@dataclass(slots=True, kw_only=True)
class TableBuilder:
    """A table under construction.

    Attributes:
        ops: operators.
        op_names: what each is called in reports.
        slots: slots; those of the arena have home 0 until memory is planned.
        lists: words.
        thresholds: of rules.
        weights: constants and parameters.
        choices: of each slot that a SELECT writes, the two that it may stand for.
        node: index of the node at hand.
        label: of the operators to come.
        scratch_bytes: the most that an operator asks for.
    """

    ops: list[BoardOp] = field(default_factory=list)
    op_names: list[str] = field(default_factory=list)
    slots: list[BoardSlot] = field(default_factory=list)
    lists: list[int] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    weights: bytearray = field(default_factory=bytearray)
    choices: dict[int, tuple[int, int]] = field(default_factory=dict)
    node: int = 0
    label: str = ""
    _pool: dict[bytes, int] = field(default_factory=dict)
    _constant_slots: dict[tuple[int, int, SlotType], int] = field(default_factory=dict)

    def add(self, kind: OpKind, **fields: int) -> int:
        """Add an operator; its index.

        Raises:
            BoardFitError: a value that does not fit into a word of the table.
        """
        try:
            self.ops.append(make_op(kind, self.node, **fields))
        except BundleError as exc:
            raise BoardFitError(f"{self.label}: {exc}") from exc
        self.op_names.append(self.label)
        return len(self.ops) - 1

    def slot(self, count: int, dtype: SlotType) -> int:
        """A new slot in the arena for ``count`` elements."""
        size = count * SLOT_BYTES[dtype]
        if not size:
            raise BoardFitError(f"{self.label}: a tensor without elements")
        self.slots.append(BoardSlot(home=0, size_bytes=size, dtype=dtype))
        return len(self.slots) - 1

    def select(self, a: int, b: int) -> int:
        """A slot that stands for ``a``, or for ``b`` where ``a`` is null."""
        like = self.slots[a]
        self.slots.append(BoardSlot(home=0, size_bytes=like.size_bytes, dtype=like.dtype))
        chosen = len(self.slots) - 1
        self.choices[chosen] = (a, b)
        self.add(OpKind.SELECT, dst=chosen, a=a, b=b)
        return chosen

    def data(self, value: Array, *, shared: bool = True) -> int:
        """A pointer to constant words; equal ones are stored once."""
        raw = np.ascontiguousarray(value).tobytes()
        if shared and raw in self._pool:
            return self._pool[raw]
        self.weights += bytes(-len(self.weights) % ARENA_ALIGNMENT)
        try:
            where = pointer(Region.WEIGHTS, len(self.weights))
        except BundleError as exc:
            raise BoardFitError(f"{self.label}: {len(self.weights)} bytes of weights") from exc
        self.weights += raw
        if shared:
            self._pool[raw] = where
        return where

    def constant(self, value: Array, dtype: SlotType) -> int:
        """A slot that always holds ``value``."""
        where = self.data(value)
        key = (where, value.nbytes, dtype)
        if key not in self._constant_slots:
            self._constant_slots[key] = self._defined(where, value.nbytes, dtype, SlotFlag.ALWAYS)
        return self._constant_slots[key]

    def parameter(self, value: Array, dtype: SlotType) -> int:
        """A slot of its own, which the host may write."""
        where = self.data(value, shared=False)
        return self._defined(where, value.nbytes, dtype, SlotFlag.ALWAYS)

    def input(self, offset: int, count: int, dtype: SlotType) -> int:
        """A slot in the sample's inputs."""
        size = count * SLOT_BYTES[dtype]
        return self._defined(pointer(Region.INPUT, offset), size, dtype, SlotFlag.IS_INPUT)

    def _defined(self, home: int, size: int, dtype: SlotType, flag: SlotFlag) -> int:
        self.slots.append(BoardSlot(home=home, size_bytes=size, dtype=dtype, flags=int(flag)))
        return len(self.slots) - 1

    def put(self, words: Sequence[int]) -> int:
        """Where a list of words begins; an empty one begins at 0."""
        if not words:
            return 0
        self.lists += words
        return len(self.lists) - len(words)

    def reads(self, op: BoardOp) -> list[int]:
        """Slots whose words an operator reads, or whose pointers it copies or looks at."""
        roles = (Role.SLOT, Role.SLOT_OR_NONE)
        found = [
            op.words[word]
            for word, (_, role) in FIELDS[op.kind].items()
            if role in roles and op.words[word] < len(self.slots)
        ]
        if op.kind in (OpKind.CONCAT, OpKind.COMBINE):
            start, count = (
                (op["parts"], op["n_parts"])
                if op.kind is OpKind.CONCAT
                else (op["answers"], op["n_answers"])
            )
            found += self.lists[start : start + 2 * count : 2]
        return found

    def writes(self, op: BoardOp) -> list[int]:
        """Slots that an operator writes or points somewhere."""
        roles = (Role.RESULT, Role.CHOICE)
        return [op.words[w] for w, (_, role) in FIELDS[op.kind].items() if role in roles]


def float_bits(value: float) -> int:
    """The word of a float32."""
    return int(np.float32(value).view(np.uint32))


def conv_macs(op: BoardOp) -> int:
    """Multiplications of a convolution, masks left out."""
    taps = op["kernel_height"] * op["kernel_width"] * op["in_channels"] // op["groups"]
    return op["out_channels"] * op["out_height"] * op["out_width"] * taps


def op_macs(op: BoardOp) -> int:
    """Multiply-accumulates of one operator, masks left out; 0 where it multiplies by no weights."""
    if op.kind in (OpKind.CONV, OpKind.QCONV):
        return conv_macs(op)
    if op.kind is OpKind.GEMM:
        return math.prod((op["k"], op["m"], op["rows"]))
    if op.kind is OpKind.QGEMM:
        return op["k"] * op["m"]
    if op.kind is OpKind.LSTM:
        return 4 * op["hidden"] * (op["inputs"] + op["hidden"])
    return 0
