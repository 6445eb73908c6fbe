"""The op table: what a board is told to run, as 32-bit words.

All words are little-endian. A header of 24 words, then, each right behind the other, nodes (4 words
each), slots (4), lists, thresholds (float64), operators (24; :mod:`dynrt.bundle.board_ops`). A pointer
is ``region << 30 | byte offset``. A slot holds at run time a pointer or null; at the start of a sample
all are null but constants, parameters and inputs. An operator that writes a slot sets it to its home;
a SELECT copies a pointer, and the slot that it writes has no home. A node that does not run leaves
its slots null.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from dynrt.bundle.board_ops import NONE, OP_WORDS, BoardOp
from dynrt.errors import BundleError

MAGIC = int.from_bytes(b"DRBT", "little")
VERSION = 1
HEADER_WORDS = 24
NODE_WORDS = 4
SLOT_WORDS = 4
ARENA_ALIGNMENT = 64
INPUT_ALIGNMENT = 8
#: What a table may ask for at most, besides its memory; the firmware's tables are of these sizes.
MAX_NODES = MAX_SLOTS = MAX_OPS = 8192
MAX_DECISIONS = 256
MAX_THRESHOLDS = 4096
MAX_ANSWER_BYTES = 16384
#: Actions of one decision: the bits of a word.
MAX_ACTIONS = 32
MAX_DIMENSION = 65535
#: Floats of the padded rows under one output row of one channel, and of an LSTM's gates.
PATCH_FLOATS = 524288
#: Taps of one channel of a kernel.
MAX_TAPS = 16384
#: Products of one int8 sum: ``255 * 128 * MAX_INT8_TERMS < 2**31``.
MAX_INT8_TERMS = 65536
_OFFSET_BITS = 30

#: Names of the header's words; the rest is zero.
HEADER_FIELDS = (
    "magic",
    "version",
    "total_words",
    "n_nodes",
    "n_slots",
    "n_ops",
    "n_list",
    "n_thresholds",
    "weights_bytes",
    "arena_bytes",
    "input_bytes",
    "answer_bytes",
    "n_decisions",
    "op_words",
    "scratch_bytes",
    "n_params",
)


class Region(IntEnum):
    """Where a pointer points."""

    NULL = 0
    ARENA = 1
    WEIGHTS = 2
    INPUT = 3


class NodeKind(IntEnum):
    """What a node of the network is."""

    INPUT = 0
    COMPUTE = 1
    CONTROL = 2
    EXIT = 3


class SlotType(IntEnum):
    """What a slot's elements are."""

    F32 = 0
    U8 = 1
    S8 = 2
    S32 = 3


SLOT_BYTES = {SlotType.F32: 4, SlotType.U8: 1, SlotType.S8: 1, SlotType.S32: 4}


class SlotFlag(IntEnum):
    """Slots that are never null and never written: constants and parameters, inputs."""

    ALWAYS = 1
    IS_INPUT = 2


def pointer(region: Region, offset: int) -> int:
    """A pointer.

    Raises:
        BundleError: the offset is too large.
    """
    if not 0 <= offset < 1 << _OFFSET_BITS:
        raise BundleError(f"offset {offset} does not fit into {_OFFSET_BITS} bits")
    return int(region) << _OFFSET_BITS | offset


def region_of(address: int) -> Region:
    """The region of a pointer."""
    return Region(address >> _OFFSET_BITS)


def offset_of(address: int) -> int:
    """The byte offset of a pointer."""
    return address & ((1 << _OFFSET_BITS) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardNode:
    """A node of the network.

    Attributes:
        kind: what it is.
        first, count: its operators.
        decision: index of the decision that it takes, or ``NONE``.
    """

    kind: NodeKind
    first: int
    count: int
    decision: int = NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardSlot:
    """A place for a tensor.

    Attributes:
        home: pointer to where it is written; 0 for the slot of a SELECT.
        size_bytes: of the tensor.
        dtype: its elements.
        flags: a :class:`SlotFlag` or 0.
    """

    home: int
    size_bytes: int
    dtype: SlotType = SlotType.F32
    flags: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardTable:
    """A network as the board runs it.

    Attributes:
        nodes: nodes; the last one may hold what comes after all of them.
        slots: the first ``n_params`` are the runtime parameters, in the order of the graph.
        lists: words that operators refer to.
        thresholds: float64, as rules compare.
        ops: operators; the last is a STOP.
        weights_bytes: constants and parameters.
        arena_bytes: all that is written, ``scratch_bytes`` at its end included.
        scratch_bytes: what operators may use while they run.
        input_bytes: all real inputs of one sample.
        answer_bytes: of the largest answer (float32).
        n_decisions: of control nodes, then of exits in their order.
        n_params: runtime parameters.
    """

    nodes: tuple[BoardNode, ...]
    slots: tuple[BoardSlot, ...]
    lists: tuple[int, ...]
    thresholds: tuple[float, ...]
    ops: tuple[BoardOp, ...]
    weights_bytes: int
    arena_bytes: int
    input_bytes: int
    answer_bytes: int
    n_decisions: int
    scratch_bytes: int = 0
    n_params: int = 0

    @property
    def total_words(self) -> int:
        """Length of the encoded table."""
        return (
            HEADER_WORDS
            + NODE_WORDS * len(self.nodes)
            + SLOT_WORDS * len(self.slots)
            + len(self.lists)
            + 2 * len(self.thresholds)
            + OP_WORDS * len(self.ops)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardLimits:
    """What a board has room for; the agent's greeting says it of a real one.

    The defaults are the emulated board's, which has the least.

    Attributes:
        table_bytes, weights_bytes, arena_bytes: of one network.
        inputs_bytes: all samples together.
    """

    table_bytes: int = 1 << 20
    weights_bytes: int = 32 << 20
    arena_bytes: int = 24 << 20
    inputs_bytes: int = 16 << 20


def encode(table: BoardTable) -> bytes:
    """The words of ``table``.

    Raises:
        BundleError: a value does not fit into its word.
    """
    header = {
        "magic": MAGIC,
        "version": VERSION,
        "total_words": table.total_words,
        "n_nodes": len(table.nodes),
        "n_slots": len(table.slots),
        "n_ops": len(table.ops),
        "n_list": len(table.lists),
        "n_thresholds": len(table.thresholds),
        "weights_bytes": table.weights_bytes,
        "arena_bytes": table.arena_bytes,
        "input_bytes": table.input_bytes,
        "answer_bytes": table.answer_bytes,
        "n_decisions": table.n_decisions,
        "op_words": OP_WORDS,
        "scratch_bytes": table.scratch_bytes,
        "n_params": table.n_params,
    }
    head = [header[name] for name in HEADER_FIELDS]
    words = [*head, *[0] * (HEADER_WORDS - len(head))]
    for node in table.nodes:
        words += [int(node.kind), node.first, node.count, node.decision]
    for slot in table.slots:
        words += [slot.home, slot.size_bytes, int(slot.dtype), slot.flags]
    words += table.lists
    tail = [word for op in table.ops for word in op.words]
    try:
        return b"".join(
            (
                struct.pack(f"<{len(words)}I", *words),
                struct.pack(f"<{len(table.thresholds)}d", *table.thresholds),
                struct.pack(f"<{len(tail)}I", *tail),
            )
        )
    except struct.error as exc:
        raise BundleError(f"board table: a value does not fit into its word: {exc}") from exc


def decode(data: bytes) -> BoardTable:
    """The table that ``data`` holds; its contents are not checked (``board_validate``).

    Raises:
        BundleError: not such a table, another version, or not as long as it says.
    """
    if len(data) % 4 or len(data) < 4 * HEADER_WORDS:
        raise BundleError(f"board table: {len(data)} bytes are no header of {HEADER_WORDS} words")
    words = struct.unpack(f"<{len(data) // 4}I", data)
    head = dict(zip(HEADER_FIELDS, words, strict=False))
    for name, want in (("magic", MAGIC), ("version", VERSION), ("op_words", OP_WORDS)):
        if head[name] != want:
            raise BundleError(f"board table: {name} is {head[name]:#x}, not {want:#x}")
    if any(words[len(HEADER_FIELDS) : HEADER_WORDS]):
        raise BundleError("board table: an unused word of the header is not 0")
    counts = (
        NODE_WORDS * head["n_nodes"],
        SLOT_WORDS * head["n_slots"],
        head["n_list"],
        2 * head["n_thresholds"],
        OP_WORDS * head["n_ops"],
    )
    total = HEADER_WORDS + sum(counts)
    if not total == head["total_words"] == len(words):
        raise BundleError(
            f"board table: {len(words)} words, of which its sections take {total}, "
            f"and it says {head['total_words']}"
        )
    sections: list[tuple[int, ...]] = []
    at = HEADER_WORDS
    for count in counts:
        sections.append(words[at : at + count])
        at += count
    nodes, slots, lists, thresholds, ops = sections
    try:
        return BoardTable(
            nodes=tuple(
                BoardNode(kind=NodeKind(w[0]), first=w[1], count=w[2], decision=w[3])
                for w in _rows(nodes, NODE_WORDS)
            ),
            slots=tuple(
                BoardSlot(home=w[0], size_bytes=w[1], dtype=SlotType(w[2]), flags=w[3])
                for w in _rows(slots, SLOT_WORDS)
            ),
            lists=lists,
            thresholds=struct.unpack(
                f"<{head['n_thresholds']}d", struct.pack(f"<{len(thresholds)}I", *thresholds)
            ),
            ops=tuple(BoardOp(w) for w in _rows(ops, OP_WORDS)),
            weights_bytes=head["weights_bytes"],
            arena_bytes=head["arena_bytes"],
            input_bytes=head["input_bytes"],
            answer_bytes=head["answer_bytes"],
            n_decisions=head["n_decisions"],
            scratch_bytes=head["scratch_bytes"],
            n_params=head["n_params"],
        )
    except ValueError as exc:
        raise BundleError(f"board table: {exc}") from exc


def _rows(words: tuple[int, ...], each: int) -> list[tuple[int, ...]]:
    return [words[i : i + each] for i in range(0, len(words), each)]
