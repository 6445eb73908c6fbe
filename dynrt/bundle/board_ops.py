"""The operators of the board's op table, and what each of their 24 words means.

This is the one description: the lowering builds operators by these names, ``board_validate`` checks
them by these roles, and ``board_header`` writes both down for the firmware's C.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

from dynrt.bundle.board_kinds import OpKind
from dynrt.errors import BundleError

OP_WORDS = 24
#: No slot, no decision: where a word may be left open.
NONE = 0xFFFFFFFF


class Role(IntEnum):
    """What a word of an operator holds; the rest of the check follows from it."""

    UNUSED = 0
    NUMBER = 1
    FLOAT = 2  #: the bits of a float32
    PAIR = 3  #: vertical << 16 | horizontal
    ACT = 4
    SLOT = 5  #: a slot that is read
    SLOT_OR_NONE = 6
    RESULT = 7  #: a slot that is written; its home is in the arena
    CHOICE = 8  #: the slot of a SELECT: it has no home
    POINTER = 9
    POINTER_OR_NULL = 10
    LIST = 11  #: where in the lists
    OP = 12  #: a later operator
    DECISION = 13
    THRESHOLD = 14  #: where in the thresholds


_CONTROL_WORDS = {
    OpKind.NODE: {
        8: ("controls", Role.LIST),
        9: ("n_controls", Role.NUMBER),
        10: ("needs", Role.LIST),
        11: ("n_needs", Role.NUMBER),
        12: ("jump", Role.OP),
    },
    OpKind.SELECT: {
        2: ("dst", Role.CHOICE),
        3: ("a", Role.SLOT),
        4: ("b", Role.SLOT),
    },
    OpKind.ARGMAX: {
        3: ("a", Role.SLOT),
        8: ("n", Role.NUMBER),
        9: ("decision", Role.DECISION),
    },
    OpKind.THRESHOLD: {
        3: ("a", Role.SLOT),
        8: ("n", Role.NUMBER),
        9: ("decision", Role.DECISION),
        10: ("threshold", Role.THRESHOLD),
    },
    OpKind.ACCEPT: {
        3: ("a", Role.SLOT_OR_NONE),
        4: ("b", Role.SLOT),
        8: ("rule", Role.NUMBER),
        9: ("decision", Role.DECISION),
        10: ("threshold", Role.THRESHOLD),
        11: ("n", Role.NUMBER),
    },
    OpKind.COMBINE: {
        8: ("rule", Role.NUMBER),
        9: ("answers", Role.LIST),
        10: ("n_answers", Role.NUMBER),
        11: ("absent", Role.FLOAT),
        12: ("decision", Role.DECISION),
        13: ("accepted", Role.NUMBER),
    },
    OpKind.STOP: {},
}

_WINDOW = {
    8: ("in_channels", Role.NUMBER),
    9: ("in_height", Role.NUMBER),
    10: ("in_width", Role.NUMBER),
    11: ("out_channels", Role.NUMBER),
    12: ("kernel_height", Role.NUMBER),
    13: ("kernel_width", Role.NUMBER),
    14: ("strides", Role.PAIR),
    15: ("pads_begin", Role.PAIR),
    16: ("pads_end", Role.PAIR),
    17: ("out_height", Role.NUMBER),
    18: ("out_width", Role.NUMBER),
}
_DST_A = {2: ("dst", Role.RESULT), 3: ("a", Role.SLOT)}
_DST_AB = {**_DST_A, 4: ("b", Role.SLOT)}
_ACT = {6: ("act", Role.ACT)}
_CODE = {
    **_DST_A,
    8: ("n", Role.NUMBER),
    9: ("scale", Role.FLOAT),
    10: ("zero", Role.NUMBER),
    11: ("signed", Role.NUMBER),
}

_FLOAT_WORDS = {
    OpKind.CONV: {
        **_DST_A,
        4: ("b", Role.SLOT_OR_NONE),
        5: ("mask_groups", Role.NUMBER),
        **_ACT,
        7: ("mask", Role.SLOT_OR_NONE),
        **_WINDOW,
        19: ("groups", Role.NUMBER),
        20: ("dilations", Role.PAIR),
        21: ("weights", Role.POINTER),
        22: ("bias", Role.POINTER_OR_NULL),
        23: ("mask_mode", Role.NUMBER),
    },
    OpKind.GEMM: {
        **_DST_A,
        **_ACT,
        8: ("k", Role.NUMBER),
        9: ("m", Role.NUMBER),
        10: ("weights", Role.POINTER),
        11: ("bias", Role.POINTER_OR_NULL),
        12: ("rows", Role.NUMBER),
    },
    OpKind.BINARY: {
        **_DST_AB,
        **_ACT,
        8: ("function", Role.NUMBER),
        9: ("n", Role.NUMBER),
        10: ("broadcast", Role.NUMBER),
        11: ("inner", Role.NUMBER),
        12: ("channels", Role.NUMBER),
    },
    OpKind.UNARY: {
        **_DST_A,
        8: ("function", Role.NUMBER),
        9: ("n", Role.NUMBER),
        10: ("p", Role.FLOAT),
        11: ("q", Role.FLOAT),
    },
    OpKind.POOL: {
        **_DST_A,
        **_WINDOW,
        19: ("pool", Role.NUMBER),
        20: ("dilations", Role.PAIR),
    },
    OpKind.MEAN: {**_DST_A, 8: ("outer", Role.NUMBER), 9: ("inner", Role.NUMBER)},
    OpKind.SOFTMAX: {**_DST_A, 8: ("outer", Role.NUMBER), 9: ("n", Role.NUMBER)},
    OpKind.CONCAT: {
        2: ("dst", Role.RESULT),
        8: ("parts", Role.LIST),
        9: ("n_parts", Role.NUMBER),
        10: ("outer", Role.NUMBER),
        11: ("element_bytes", Role.NUMBER),
    },
    OpKind.COPY: {
        **_DST_A,
        **{8 + i: (f"size{i}", Role.NUMBER) for i in range(4)},
        **{12 + i: (f"dst_stride{i}", Role.NUMBER) for i in range(4)},
        **{16 + i: (f"src_stride{i}", Role.NUMBER) for i in range(4)},
        20: ("dst_offset", Role.NUMBER),
        21: ("src_offset", Role.NUMBER),
        22: ("element_bytes", Role.NUMBER),
    },
    OpKind.FILL: {
        2: ("dst", Role.RESULT),
        8: ("n", Role.NUMBER),
        9: ("value", Role.NUMBER),
        10: ("element_bytes", Role.NUMBER),
    },
    OpKind.AFFINE: {
        **_DST_A,
        **_ACT,
        8: ("channels", Role.NUMBER),
        9: ("inner", Role.NUMBER),
        10: ("scale", Role.POINTER),
        11: ("shift", Role.POINTER),
    },
    OpKind.LSTM: {
        **_DST_AB,
        5: ("c", Role.SLOT),
        7: ("dst2", Role.RESULT),
        8: ("inputs", Role.NUMBER),
        9: ("hidden", Role.NUMBER),
        10: ("weights", Role.POINTER),
        11: ("recurrence", Role.POINTER),
        12: ("bias", Role.POINTER),
    },
}

_INTEGER_WORDS = {
    OpKind.QUANTIZE: _CODE,
    OpKind.DEQUANTIZE: _CODE,
    OpKind.QCONV: {
        **_DST_A,
        **_WINDOW,
        19: ("groups", Role.NUMBER),
        20: ("dilations", Role.PAIR),
        21: ("weights", Role.POINTER),
        22: ("bias", Role.POINTER_OR_NULL),
        23: ("aux", Role.POINTER),
    },
    OpKind.QGEMM: {
        **_DST_A,
        8: ("k", Role.NUMBER),
        9: ("m", Role.NUMBER),
        10: ("weights", Role.POINTER),
        11: ("bias", Role.POINTER_OR_NULL),
        12: ("aux", Role.POINTER),
    },
    OpKind.QADD: {**_DST_AB, 8: ("n", Role.NUMBER), 9: ("aux", Role.POINTER)},
}

#: Words that hold slots wherever the kind does not say otherwise; unused ones are ``NONE``.
SLOT_PLACES = (2, 3, 4, 5, 7)
#: Of each kind, name and role of each word beyond the first two; another word is 0, or ``NONE`` if it
#: is one of :data:`SLOT_PLACES`.
OP_FIELDS: Mapping[OpKind, Mapping[int, tuple[str, Role]]] = {
    **_CONTROL_WORDS,
    **_FLOAT_WORDS,
    **_INTEGER_WORDS,
}
#: Operators whose time is the ``mac ticks`` of a run.
MAC_KINDS = (OpKind.CONV, OpKind.GEMM, OpKind.LSTM, OpKind.QCONV, OpKind.QGEMM)


@cache
def _places(kind: OpKind) -> Mapping[str, int]:
    return {name: word for word, (name, _) in OP_FIELDS[kind].items()}


@dataclass(frozen=True, slots=True)
class BoardOp:
    """One operator.

    Attributes:
        words: its 24 words.
    """

    words: tuple[int, ...]

    @property
    def kind(self) -> OpKind:
        """What it does."""
        return OpKind(self.words[0])

    @property
    def node(self) -> int:
        """The node that it belongs to."""
        return self.words[1]

    def __getitem__(self, name: str) -> int:
        """A word by its name in :data:`OP_FIELDS`."""
        return self.words[_places(self.kind)[name]]

    def pair(self, name: str) -> tuple[int, int]:
        """The two halves of a word: vertical, horizontal."""
        return self[name] >> 16, self[name] & 0xFFFF

    def replaced(self, **fields: int) -> BoardOp:
        """The same with other words."""
        words = list(self.words)
        for name, value in fields.items():
            words[_places(self.kind)[name]] = value & NONE
        return BoardOp(tuple(words))


def unused_word(kind: OpKind, word: int) -> int:
    """What a word holds that is not used."""
    roles = (Role.UNUSED, Role.SLOT_OR_NONE, Role.SLOT, Role.RESULT, Role.CHOICE)
    is_slot = word in SLOT_PLACES and OP_FIELDS[kind].get(word, ("", Role.UNUSED))[1] in roles
    return NONE if is_slot else 0


def make_op(kind: OpKind, node: int, **fields: int) -> BoardOp:
    """An operator from its words by name; slots that are left out are open, all else is 0.

    Raises:
        BundleError: a name that the kind does not have, or a value that is no word.
    """
    words = [int(kind), node, *[unused_word(kind, i) for i in range(2, OP_WORDS)]]
    places = _places(kind)
    for name, value in fields.items():
        if name not in places:
            raise BundleError(f"board operator {kind.name} has no word {name!r}")
        if not -(1 << 31) <= value <= NONE:
            raise BundleError(f"board operator {kind.name}: {name} is {value}, which is no word")
        words[places[name]] = value & NONE
    return BoardOp(tuple(words))


def pack_pair(vertical: int, horizontal: int) -> int:
    """Two sizes in one word.

    Raises:
        BundleError: one of them does not fit into 16 bits.
    """
    if not (0 <= vertical <= 0xFFFF and 0 <= horizontal <= 0xFFFF):
        raise BundleError(f"{vertical} and {horizontal} do not fit into 16 bits each")
    return vertical << 16 | horizontal
