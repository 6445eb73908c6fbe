from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.calibrate.pickled import read_pickled_dict
from dynrt.errors import DataError
from tests.calibrate.made import (
    cifar_batch,
    pickled_dict,
    pickled_list,
    pickled_number,
    pickled_table,
    pickled_text,
)

WHOLE = cifar_batch(np.arange(2 * 3072, dtype=np.uint8).reshape(2, 32, 32, 3), [3, 260 % 10])


@given(
    numbers=st.lists(st.integers(-(2**31), 2**31 - 1)),
    texts=st.lists(st.binary(max_size=300)),
    rows=st.integers(0, 3),
    columns=st.integers(0, 300),
)
def test_what_was_pickled_comes_back(
    numbers: list[int], texts: list[bytes], rows: int, columns: int
) -> None:
    table = (np.arange(rows * columns) % 251).astype(np.uint8).reshape(rows, columns)
    raw = pickled_dict(
        {
            "numbers": pickled_list([pickled_number(n) for n in numbers]),
            "texts": pickled_list([pickled_text(t) for t in texts]),
            "table": pickled_table(table),
        }
    )
    found = read_pickled_dict(raw)
    assert found[b"numbers"] == numbers
    assert found[b"texts"] == texts
    assert (found[b"table"] == table).all()


def test_values_may_be_remembered_and_used_again() -> None:
    raw = b"\x80\x02}(U\x01aK\x07q\x05U\x01bh\x05U\x01cNU\x01d\x88u."
    assert read_pickled_dict(raw) == {b"a": 7, b"b": 7, b"c": None, b"d": True}
    assert read_pickled_dict(b"}(U\x01a]K\x01au.") == {b"a": [1]}
    assert read_pickled_dict(b"}U\x01aK\x01s.") == {b"a": 1}


def run_text(command: bytes) -> bytes:
    return b"\x80\x02cos\nsystem\nU" + bytes([len(command)]) + command + b"\x85R."


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (run_text(b"echo no"), r"'os\.system'"),
        (b"cbuiltins\neval\nU\x011\x85R.", r"'builtins\.eval'"),
        (b"cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R.", "calls something"),
        (b"cnumpy\nndarray\nK\x05\x85R.", "calls something"),
        (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nM\xff\xff\x85U\x01b\x87R.",
            "calls",
        ),
        (b"}U\x01ab.", "sets the state of a dict"),
        (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}.", "operation 0x95"),
        (b"}X\x01\x00\x00\x00aK\x01s.", "operation 0x58"),
        (b"(ios\nsystem\n.", "operation 0x69"),
        (b"K\x01.", "holds a int where a dict belongs"),
        (b"}K\x01K\x02s.", "holds a int where a bytes belongs"),
        (b"K\x01(K\x02e.", "where a list belongs"),
        (b"}(K\x01K\x02u.", "where a bytes belongs"),
        (b"}(U\x01au.", "damaged"),
        (b"u.", "damaged"),
        (b"\x85.", "damaged"),
        (b"\x87.", "damaged"),
        (b"h\x05.", "damaged"),
        (b"cno line", "damaged"),
        (b"M\x01", "damaged"),
        (b"", "damaged"),
        (b".", "damaged"),
        (b"}", "damaged"),
        (b"\xff.", "operation 0xff"),
        (b"T\xff\xff\xff\x7f", "damaged"),
        (b"T\xff\xff\xff\xff", "damaged"),
        (b"q\x01.", "damaged"),
    ],
)
def test_what_no_data_set_needs_is_refused(raw: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_pickled_dict(raw)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"(K\x03U\x01|N", b"(K\x03U\x01>N", "state"),
        (b"\x89T", b"\x88T", "C order"),
        (struct.pack("<H", 3072), struct.pack("<H", 3071), "of 2x3071 bytes holds 6144"),
        (b"K\x02M", b"J\xff\xff\xff\xffM", "-1x3072"),
        (b"(K\x01K\x02", b"(K\x02K\x02", "table of unsigned bytes"),
    ],
)
def test_arrays_of_another_kind_are_refused(old: bytes, new: bytes, says: str) -> None:
    assert old in WHOLE
    with pytest.raises(DataError, match=says):
        read_pickled_dict(WHOLE.replace(old, new))


def test_an_array_without_contents_is_refused() -> None:
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    with pytest.raises(DataError, match="'data' has no contents"):
        read_pickled_dict(pickled_dict({"data": made}))


def test_a_huge_memo_number_takes_no_memory() -> None:
    assert read_pickled_dict(b"}r\xff\xff\xff\xff.") == {}


def complaint(raw: bytes) -> str:
    try:
        read_pickled_dict(raw)
    except DataError as error:
        return str(error)
    return ""


@given(data=st.data())
def test_mutated_files_give_a_value_or_one_clear_error(data: st.DataObject) -> None:
    raw = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        # The middle is pixels; faults there change nothing but pixels.
        near_end = data.draw(st.booleans())
        at = data.draw(st.integers(0, 400))
        raw[-1 - at if near_end else at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(raw))))
    assert "\n" not in complaint(bytes(raw[:cut]))
