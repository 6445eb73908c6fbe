from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.calibrate.arrays import read_arrays
from dynrt.errors import DataError


def npy(array: npt.NDArray[Any], **options: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def test_arrays_of_every_plain_kind_come_back(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "text": np.array(["a", "bcd"]),
        "scalar": np.array(3.5, np.float32),
        "empty": np.zeros((0, 4), np.int16),
        "nothing": np.array(""),
        "flags": np.array([True, False]),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read_arrays(tmp_path / "a.npz")
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == np.asarray(array).dtype
            assert np.array_equal(found[name], array)
    with (tmp_path / "long.npy").open("wb") as stream:
        np.lib.format.write_array(stream, arrays["f"], version=(2, 0))
    assert np.array_equal(read_arrays(tmp_path / "long.npy")[""], arrays["f"])
    np.save(tmp_path / "a.npy", arrays["f"])
    assert np.array_equal(read_arrays(tmp_path / "a.npy")[""], arrays["f"])


def zipped(members: list[tuple[str, bytes]], **options: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as archive:
        for name, raw in members:
            archive.writestr(name, raw)
    return out.getvalue()


def header(text: str, body: bytes = b"") -> bytes:
    raw = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw + body


WHOLE = npy(np.arange(9.0))
HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
HOLLOW = "{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,), }"
FIELDS = "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }"
LONG = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }" + " " * 10_000
NEGATIVE = "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (lambda: b"", "empty"),
        (lambda: b"words", "neither an .npy nor an .npz"),
        (lambda: WHOLE[:-1], "needs 72 bytes, but it holds 71"),
        (lambda: WHOLE + b"x", "it holds more"),
        (lambda: WHOLE[:20], "damaged"),
        (lambda: WHOLE[:6] + b"\x09" + WHOLE[7:], "damaged"),
        (lambda: header(HUGE), r"needs 8000000000000 bytes"),
        (lambda: header(NEGATIVE, b"x" * 8), "damaged"),
        (lambda: header(HOLLOW), "needs 0 bytes"),
        (lambda: header(FIELDS, b"x" * 8), "damaged"),
        (lambda: header(LONG, b"x" * 8), "damaged"),
        (lambda: header(LONG.replace("<f8", "<q9"), b"x" * 8)[:90], "damaged"),
        (lambda: header("{'descr': '<f8'}"), "damaged"),
        (lambda: header("__import__('os')"), "damaged"),
        (lambda: npy(np.array([{}], object), allow_pickle=True), "Python objects"),
        (lambda: b"PK\x03\x04 and no more", "damaged"),
        (lambda: zipped([("a.npy", WHOLE)])[:-30], "damaged"),
        (lambda: zipped([("a.npy", WHOLE), ("a.npy", WHOLE)]), "two arrays named 'a'"),
        (lambda: zipped([("a.npy", b"text")]), "array 'a': damaged"),
        (lambda: zipped([(f"{i}.npy", WHOLE) for i in range(65)]), "65 arrays; the limit is 64"),
        (
            lambda: zipped([("a.npy", WHOLE)]).replace(
                b"PK\x01\x02\x14\x03", b"PK\x01\x02\x14\x03"
            )[:-60],
            "damaged",
        ),
    ],
)
def test_files_that_are_not_read(raw: Any, says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(raw())
    with pytest.raises(DataError, match=says) as caught:
        read_arrays(path)
    assert "\n" not in str(caught.value)


def test_what_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, a=np.zeros(1_000_000))
    assert path.stat().st_size < 20_000
    with pytest.raises(DataError, match="bytes unpacked; the limit is 100000"):
        read_arrays(path, limit_bytes=100_000)
    with pytest.raises(DataError, match="the limit is 1000"):
        read_arrays(path, limit_bytes=1_000)


def test_a_damaged_body_is_found_by_its_check_sum(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    raw = bytearray(zipped([("a.npy", WHOLE)]))
    raw[raw.index(WHOLE) + len(WHOLE) - 3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="damaged"):
        read_arrays(path)


def test_missing_and_forbidden_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_arrays(tmp_path / "no.npz")
    with pytest.raises(DataError, match="directory"):
        read_arrays(tmp_path)


def complaint(path: Path) -> str:
    try:
        read_arrays(path, limit_bytes=1 << 20)
    except DataError as error:
        return str(error)
    return ""


PACKED = zipped([("x.npy", npy(np.arange(4.0))), ("y.npy", npy(np.array(["a"])))])


@given(packed=st.booleans(), data=st.data())
def test_mutated_files_give_arrays_or_one_clear_error(packed: bool, data: st.DataObject) -> None:
    raw = bytearray(PACKED if packed else WHOLE)
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        path.write_bytes(raw)
        assert "\n" not in complaint(path)
