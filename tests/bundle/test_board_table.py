"""The board's op table: encoding, the check before it may run, and the C header."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dynrt.fpga
from dynrt.bundle import board_table as fmt
from dynrt.bundle.board_header import header_text
from dynrt.bundle.board_kinds import OpKind
from dynrt.bundle.board_ops import NONE, OP_FIELDS, SLOT_PLACES, make_op, pack_pair
from dynrt.bundle.board_table import BoardLimits, BoardTable, Region, decode, encode, pointer
from dynrt.bundle.board_validate import validate
from dynrt.errors import BundleError
from tests.bundle.board_tables import (
    WORDS,
    any_tables,
    small,
    with_op,
    with_slot,
    with_word,
)

FIRMWARE = Path(dynrt.fpga.__file__).parent / "firmware"


@given(any_tables())
def test_what_is_decoded_is_what_was_encoded(table: BoardTable) -> None:
    data = encode(table)
    assert len(data) == 4 * table.total_words
    assert decode(data) == table


def test_the_small_table_may_run() -> None:
    validate(small(), limits=BoardLimits())


# --- decoding


def refusal(data: bytes) -> str:
    """Why a table is refused; ``board table: none`` if it may run."""
    try:
        validate(decode(data), limits=BoardLimits())
    except BundleError as exc:
        return str(exc)
    return "board table: none"


def changed(word: int, value: int) -> bytes:
    data = bytearray(encode(small()))
    struct.pack_into("<I", data, 4 * word, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"DRBT", "no header of 24 words"),
        (encode(small())[:-2], "no header of 24 words"),
        (changed(0, 7), "magic is 0x7"),
        (changed(1, 2), "version is 0x2, not 0x1"),
        (changed(13, 23), "op_words is 0x17"),
        (changed(20, 1), "unused word of the header"),
        (changed(3, 6), "its sections take"),
        (changed(2, 4), "it says 4"),
        (encode(small()) + bytes(4), "its sections take"),
        (changed(24, 9), "9 is not a valid NodeKind"),
        (changed(24 + 20 + 2, 5), "5 is not a valid SlotType"),
    ],
)
def test_what_is_no_table_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        decode(data)


@given(st.binary(max_size=400))
def test_bytes_decode_or_are_refused(data: bytes) -> None:
    assert "\n" not in refusal(data)


@given(st.data())
def test_a_changed_word_is_checked_or_refused(data: st.DataObject) -> None:
    raw = bytearray(encode(small()))
    for _ in range(data.draw(st.integers(1, 3))):
        word = data.draw(st.integers(0, len(raw) // 4 - 1))
        struct.pack_into("<I", raw, 4 * word, data.draw(st.one_of(st.integers(0, 40), WORDS)))
    assert refusal(bytes(raw)).startswith("board table")


# --- what may not run


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (replace(small(), n_params=2), "slot 1 is not where its flags say"),
        (replace(small(), n_params=5), "5 parameters, and 4 are allowed"),
        (replace(small(), n_decisions=1), "node 3 is out of bounds"),
        (replace(small(), answer_bytes=8), "op 6 ACCEPT: sizes"),
        (replace(small(), answer_bytes=1 << 20), "bytes of answer, and 16384"),
        (replace(small(), input_bytes=20), "20 bytes of input are not aligned"),
        (replace(small(), scratch_bytes=65), "65 bytes of scratch, and 64"),
        (replace(small(), arena_bytes=8), "slot 2 is not where"),
        (replace(small(), weights_bytes=100), "op 1 GEMM: sizes"),
        (replace(small(), arena_bytes=25 << 20), "arena of 26214400 bytes; the board has 25165824"),
        (replace(small(), thresholds=(0.0,)), "op 6 ACCEPT: sizes"),
        (replace(small(), lists=(1 << 8,)), "op 2 NODE: sizes"),
        (replace(small(), lists=(2 << 8, 2)), "op 4 NODE: sizes"),
        (replace(small(), lists=(32, 2)), "op 4 NODE: sizes"),
        (replace(small(), lists=(1, 9)), "op 2 NODE: sizes"),
        (with_slot(2, home=pointer(Region.ARENA, 32)), "slot 2 is not where"),
        (with_slot(2, home=pointer(Region.WEIGHTS, 0)), "slot 2 is not where"),
        (with_slot(2, size_bytes=0), "slot 2"),
        (with_slot(2, size_bytes=13), "slot 2"),
        (with_slot(2, size_bytes=8), "op 1 GEMM: sizes"),
        (with_slot(3, size_bytes=8), "op 5 SELECT: sizes"),
        (with_slot(3, home=pointer(Region.ARENA, 0)), "dst is slot 3, which has a home"),
        (with_slot(1, flags=3), "slot 1"),
        (with_op(0, jump=0), "op 0 NODE"),
        (with_op(0, jump=9), "op 0 NODE"),
        (with_op(1, dst=1), "dst is slot 1, which is not in the arena"),
        (with_op(1, dst=7), "dst is slot 7 of 4"),
        (with_op(1, a=NONE), "a is slot 4294967295 of 4"),
        (with_op(1, act=2), "activation 2"),
        (with_op(1, k=1 << 31, rows=1 << 31), "op 1 GEMM: sizes"),
        (with_op(1, bias=pointer(Region.ARENA, 0)), "op 1 GEMM: sizes"),
        (with_op(3, n=33), "op 3 ARGMAX: sizes"),
        (with_op(3, decision=2), "op 3 ARGMAX: sizes"),
        (with_op(6, rule=5), "op 6 ACCEPT: sizes"),
        (with_word(1, 4, 0), "unused word 4 is 0x0"),
        (with_word(1, 20, 1), "unused word 20 is 0x1"),
        (with_word(1, 1, 5), "node 5 does not exist"),
        (with_word(7, 0, 8), "op 7 is of no known kind"),
    ],
)
def test_what_may_not_run_is_refused(table: BoardTable, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        validate(table, limits=BoardLimits())


@pytest.mark.parametrize(
    "change", [{"k": 8, "m": 1}, {"k": 2}, {"rows": 1, "m": 2}, {"weights": 64 | 2 << 30}]
)
def test_smaller_products_than_the_slots_hold_may_run(change: dict[str, int]) -> None:
    table = with_op(1, **change)
    if change.get("k") == 8:
        with pytest.raises(BundleError):
            validate(table)
    else:
        validate(table)


def test_words_that_do_not_fit() -> None:
    with pytest.raises(BundleError, match="GEMM has no word 'n'"):
        make_op(OpKind.GEMM, 0, n=1)
    with pytest.raises(BundleError, match="k is 4294967296, which is no word"):
        make_op(OpKind.GEMM, 0, k=1 << 32)
    with pytest.raises(BundleError, match="65536 and 1 do not fit"):
        pack_pair(1 << 16, 1)
    with pytest.raises(BundleError, match="does not fit into 30 bits"):
        pointer(Region.ARENA, 1 << 30)
    with pytest.raises(BundleError, match="does not fit into its word"):
        encode(replace(small(), weights_bytes=1 << 32))


# --- the firmware's copy


def test_the_firmwares_header_is_the_generated_one() -> None:
    assert (FIRMWARE / "op_table.h").read_text("utf-8") == header_text()


def test_the_firmwares_bounds_are_these() -> None:
    text = "".join(path.read_text("utf-8") for path in sorted(FIRMWARE.glob("*.h")))
    for name in (
        "MAX_NODES", "MAX_SLOTS", "MAX_OPS", "MAX_DECISIONS", "MAX_THRESHOLDS", "MAX_ANSWER_BYTES",
        "MAX_ACTIONS", "MAX_DIMENSION", "PATCH_FLOATS", "MAX_TAPS", "MAX_INT8_TERMS",
    ):  # fmt: skip
        found = re.findall(rf"#define {name} (\d+)u$", text, re.MULTILINE)
        assert found == [str(getattr(fmt, name))], name


def test_the_firmware_uses_the_same_words() -> None:
    text = (FIRMWARE / "kinds.c").read_text("utf-8")
    rows = re.findall(r"\[OT_(\w+)\] =\s*\{\.uses = \{([^}]*)\},([^}]*)\}", text)
    assert {name for name, _, _ in rows} == {kind.name for kind in OpKind}
    for name, uses, rest in rows:
        fields: dict[int, Any] = dict(OP_FIELDS[OpKind[name]])
        words = re.search(r"\.words = (\d+)", rest)
        assert words is not None
        assert int(words[1]) == max([7, *fields]) + 1, name
        for place, use in zip(SLOT_PLACES, uses.replace(" ", "").split(","), strict=True):
            assert (use == "NOT") == (place not in fields), (name, place)
        assert (".act = true" in rest) == (6 in fields), name
