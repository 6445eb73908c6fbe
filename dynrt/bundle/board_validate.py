"""Whether an op table may run: every pointer, size and index; the firmware checks the same in C.

Where tensors overlap is not looked at: that is the plan's affair, and harms nobody but the answer.
"""

from __future__ import annotations

from dynrt.bundle.board_fields import FieldChecker
from dynrt.bundle.board_kinds import OpKind
from dynrt.bundle.board_ops import NONE, OP_FIELDS, OP_WORDS, BoardOp, Role, unused_word
from dynrt.bundle.board_table import (
    ARENA_ALIGNMENT,
    INPUT_ALIGNMENT,
    MAX_ANSWER_BYTES,
    MAX_DECISIONS,
    MAX_NODES,
    MAX_OPS,
    MAX_SLOTS,
    MAX_THRESHOLDS,
    SLOT_BYTES,
    BoardLimits,
    BoardSlot,
    BoardTable,
    Region,
    SlotFlag,
    offset_of,
    region_of,
)
from dynrt.errors import BundleError

_OPEN = (Role.SLOT_OR_NONE,)
_SLOTS = (Role.SLOT, Role.SLOT_OR_NONE, Role.RESULT, Role.CHOICE)


def validate(table: BoardTable, *, limits: BoardLimits | None = None) -> None:
    """Check ``table``.

    Args:
        table: decoded or built.
        limits: what the board has room for; ``None``: only what no board exceeds.

    Raises:
        BundleError: names the first thing that is wrong, and where.
    """
    _header(table)
    if limits is not None:
        _memory(table, limits)
    for i, node in enumerate(table.nodes):
        inside = node.first <= len(table.ops) and node.count <= len(table.ops) - node.first
        if not inside or not (node.decision == NONE or node.decision < table.n_decisions):
            raise BundleError(f"board table: node {i} is out of bounds")
    for i, slot in enumerate(table.slots):
        if not _slot_valid(table, slot) or (i < table.n_params and slot.flags != SlotFlag.ALWAYS):
            raise BundleError(f"board table: slot {i} is not where its flags say, or out of bounds")
    fields = FieldChecker(table)
    for i, op in enumerate(table.ops):
        place = f"board table: op {i}"
        if len(op.words) != OP_WORDS or op.words[0] not in set(OpKind):
            raise BundleError(f"{place} is of no known kind")
        if op.node >= len(table.nodes):
            raise BundleError(f"{place} {op.kind.name}: node {op.node} does not exist")
        _words(table, op, f"{place} {op.kind.name}")
        if not fields.valid(op, i):
            raise BundleError(
                f"{place} {op.kind.name}: sizes, indices or pointers are out of bounds"
            )


def _header(table: BoardTable) -> None:
    bounds = (
        ("nodes", len(table.nodes), MAX_NODES),
        ("slots", len(table.slots), MAX_SLOTS),
        ("operators", len(table.ops), MAX_OPS),
        ("thresholds", len(table.thresholds), MAX_THRESHOLDS),
        ("bytes of weights", table.weights_bytes, 1 << 30),
        ("bytes of arena", table.arena_bytes, 1 << 30),
        ("bytes of input", table.input_bytes, 1 << 30),
        ("bytes of answer", table.answer_bytes, MAX_ANSWER_BYTES),
        ("decisions", table.n_decisions, MAX_DECISIONS),
        ("bytes of scratch", table.scratch_bytes, table.arena_bytes),
        ("parameters", table.n_params, len(table.slots)),
    )
    for what, got, limit in bounds:
        if not 0 <= got <= limit:
            raise BundleError(f"board table: {got} {what}, and {limit} are allowed")
    if table.input_bytes % INPUT_ALIGNMENT:
        raise BundleError(f"board table: {table.input_bytes} bytes of input are not aligned")


def _memory(table: BoardTable, limits: BoardLimits) -> None:
    for what, got, limit in (
        ("table", 4 * table.total_words, limits.table_bytes),
        ("weights", table.weights_bytes, limits.weights_bytes),
        ("arena", table.arena_bytes, limits.arena_bytes),
        ("inputs", table.input_bytes, limits.inputs_bytes),
    ):
        if got > limit:
            raise BundleError(f"board table: {what} of {got} bytes; the board has {limit}")


def _slot_valid(table: BoardTable, slot: BoardSlot) -> bool:
    if slot.size_bytes < 1 or slot.size_bytes % SLOT_BYTES[slot.dtype]:
        return False
    region, offset = region_of(slot.home), offset_of(slot.home)
    places = {
        int(SlotFlag.ALWAYS): (Region.WEIGHTS, table.weights_bytes, ARENA_ALIGNMENT),
        int(SlotFlag.IS_INPUT): (Region.INPUT, table.input_bytes, INPUT_ALIGNMENT),
        0: (Region.ARENA, table.arena_bytes, ARENA_ALIGNMENT),
    }
    if slot.flags not in places:
        return False
    if not slot.flags and not slot.home:
        return slot.size_bytes <= 1 << 30  # of a SELECT
    wanted, room, alignment = places[slot.flags]
    return region == wanted and offset % alignment == 0 and offset + slot.size_bytes <= room


def _words(table: BoardTable, op: BoardOp, place: str) -> None:
    """Slots of the right kind, activations, and nothing in unused words."""
    fields = OP_FIELDS[op.kind]
    for word in range(2, OP_WORDS):
        name, role = fields.get(word, ("", Role.UNUSED))
        value = op.words[word]
        if role is Role.UNUSED and value != unused_word(op.kind, word):
            raise BundleError(f"{place}: unused word {word} is {value:#x}")
        if role is Role.ACT and value > 1:
            raise BundleError(f"{place}: activation {value} does not exist")
        if role not in _SLOTS or (role in _OPEN and value == NONE):
            continue
        if value >= len(table.slots):
            raise BundleError(f"{place}: {name} is slot {value} of {len(table.slots)}")
        slot = table.slots[value]
        arena = region_of(slot.home) is Region.ARENA
        if role is Role.RESULT and (slot.flags or not arena):
            raise BundleError(f"{place}: {name} is slot {value}, which is not in the arena")
        if role is Role.CHOICE and (slot.flags or slot.home):
            raise BundleError(f"{place}: {name} is slot {value}, which has a home")
