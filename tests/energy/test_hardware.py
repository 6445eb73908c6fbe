"""Hardware: words per number format, changes that show in the name, JSON, packaged files."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.energy.array import SystolicArray
from dynrt.energy.hardware import (
    DATAFLOWS,
    MOST_CLOCK_HZ,
    MOST_LINES,
    MOST_NAME_CHARS,
    MOST_SRAM_BYTES,
    Hardware,
    load_hardware,
    packaged_hardware,
    word_bits,
)
from dynrt.errors import HardwareError
from dynrt.ir.layers import WORD_BITS


def made(**changes: object) -> Hardware:
    values: dict[str, object] = {
        "name": "mine",
        "rows": 4,
        "cols": 5,
        "dataflow": "os",
        "ifmap_sram_bytes": 100,
        "filter_sram_bytes": 200,
        "ofmap_sram_bytes": 300,
        "clock_hz": None,
        "dram": None,
        "source": "a test",
        "notes": "none",
    }
    return Hardware.from_json(values | changes)


class TestArray:
    def test_words_are_bytes_over_the_width(self) -> None:
        # int8: a word is a byte. float32: 100 / 4 = 25, 200 / 4 = 50, 300 / 4 = 75.
        assert made().array("int8") == SystolicArray(
            rows=4, cols=5, dataflow="os", ifmap_words=100, filter_words=200, ofmap_words=300
        )
        assert made().array("float32") == SystolicArray(
            rows=4, cols=5, dataflow="os", ifmap_words=25, filter_words=50, ofmap_words=75
        )

    def test_a_part_of_a_word_does_not_count(self) -> None:
        # 103 bytes hold 25 words of 4 bytes; 3 bytes are left over.
        assert made(ifmap_sram_bytes=103).array("float32").ifmap_words == 25

    def test_a_buffer_without_one_word_is_refused(self) -> None:
        message = r"mine: filter_sram_bytes = 3: not one float32 word of 32 bits"
        with pytest.raises(HardwareError, match=message):
            made(filter_sram_bytes=3).array("float32")

    def test_an_unknown_format_is_refused(self) -> None:
        with pytest.raises(HardwareError, match="'int4' is no number format; float64"):
            made().array("int4")

    @given(dtype=st.sampled_from(sorted(WORD_BITS)), size=st.integers(8, MOST_SRAM_BYTES))
    def test_words_fit_and_one_more_does_not(self, dtype: str, size: int) -> None:
        words = made(ofmap_sram_bytes=size).with_(sram_bytes=size).array(dtype).ofmap_words
        assert words * word_bits(dtype) <= size * 8 < (words + 1) * word_bits(dtype)


class TestChanges:
    def test_the_name_says_what_changed(self) -> None:
        eyeriss = load_hardware("eyeriss")
        assert eyeriss.with_(rows=16).name == "eyeriss[rows=16]"
        assert eyeriss.with_(rows=16).with_(dataflow="os").name == "eyeriss[rows=16,dataflow=os]"
        assert eyeriss.with_(sram_bytes=64 << 10).name == "eyeriss[sram=64kB]"
        assert eyeriss.with_(sram_bytes=64 << 10).with_(ofmap_sram_bytes=100).name == (
            "eyeriss[ifmap_sram=64kB,filter_sram=64kB,ofmap_sram=100B]"
        )
        assert eyeriss.with_(rows=16).with_(rows=8).name == "eyeriss[rows=8]"

    def test_a_name_that_would_grow_too_long_ends_in_a_hash(self) -> None:
        base = made(name="n" * 64)
        one = base.with_(rows=7, cols=7, dataflow="ws", sram_bytes=777, dram="D" * 32)
        assert one.name.startswith("n" * 64 + "[changes=")
        assert len(one.name) <= MOST_NAME_CHARS
        assert one.name != one.with_(rows=8).name
        assert one.with_(rows=8).with_(rows=7).name == one.name

    def test_nothing_changed_keeps_the_name(self) -> None:
        eyeriss = load_hardware("eyeriss")
        assert eyeriss.with_(rows=12) == eyeriss

    def test_a_given_name_stands(self) -> None:
        assert load_hardware("eyeriss").with_(rows=16, name="tall").name == "tall"

    def test_one_buffer_beside_all_of_them(self) -> None:
        changed = made().with_(sram_bytes=1000, filter_sram_bytes=2000)
        sizes = (changed.ifmap_sram_bytes, changed.filter_sram_bytes, changed.ofmap_sram_bytes)
        assert sizes == (1000, 2000, 1000)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"height": 3}, "no field 'height'; name, rows, cols"),
            ({"rows": 0}, "rows = 0: a whole number from 1 to 4096 is allowed"),
            ({"cols": 4097}, "cols = 4097"),
            ({"rows": True}, "rows = True"),
            ({"rows": 3.0}, r"rows = 3\.0"),
            ({"dataflow": "rs"}, "dataflow = 'rs': 'ws' or 'os' or 'is' is allowed"),
            ({"sram_bytes": -1}, "sram_bytes = -1"),
            ({"clock_hz": 0}, "clock_hz = 0"),
            ({"clock_hz": MOST_CLOCK_HZ + 1}, "clock_hz"),
            ({"dram": "DDR 3"}, "dram = 'DDR 3'"),
            ({"dram": 3}, "dram = 3"),
            ({"name": "a b"}, "name = 'a b'"),
            ({"name": "a[b]"}, "name"),
            ({"name": 7}, "name = 7"),
            ({"source": ""}, "source = ''"),
            ({"notes": "two\nlines"}, "notes"),
        ],
    )
    def test_a_wrong_value_is_refused(self, change: dict[str, object], message: str) -> None:
        with pytest.raises(HardwareError, match=message):
            made().with_(**change)

    def test_it_is_a_value(self) -> None:
        with pytest.raises(FrozenInstanceError):
            made().rows = 3  # type: ignore[misc]


@st.composite
def hardware(draw: st.DrawFn) -> Hardware:
    lines, size = st.integers(1, MOST_LINES), st.integers(1, MOST_SRAM_BYTES)
    return Hardware(
        name=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}", fullmatch=True)),
        rows=draw(lines),
        cols=draw(lines),
        dataflow=draw(st.sampled_from(DATAFLOWS)),
        ifmap_sram_bytes=draw(size),
        filter_sram_bytes=draw(size),
        ofmap_sram_bytes=draw(size),
        clock_hz=draw(st.none() | st.integers(1, MOST_CLOCK_HZ)),
        dram=draw(st.none() | st.sampled_from(["DDR3", "HBM2"])),
        source="s",
        notes="n",
    )


class TestJson:
    @given(one=hardware(), other=hardware())
    def test_round_trip_also_of_changed_ones(self, one: Hardware, other: Hardware) -> None:
        changes = {k: v for k, v in other.to_json().items() if k not in ("name", "source")}
        for value in (one, one.with_(**changes), one.with_(**changes).with_(rows=one.rows)):
            assert Hardware.from_json(json.loads(json.dumps(value.to_json()))) == value

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ([], "counts: hardware is list, not an object"),
            ({}, "counts: hardware: field name is missing"),
            (made().to_json() | {"x": 1}, "counts: hardware: no field 'x'"),
            (made().to_json() | {"rows": "4"}, "counts: hardware: hardware field rows = '4'"),
        ],
    )
    def test_anything_else_is_refused(self, value: object, message: str) -> None:
        with pytest.raises(HardwareError, match=message):
            Hardware.from_json(value, place="counts: hardware")


class TestPackaged:
    def test_names(self) -> None:
        assert packaged_hardware() == (
            "eyeriss",
            "square16",
            "square32",
            "square64",
            "square8",
            "tpu-like",
            "zedboard",
        )

    @pytest.mark.parametrize("name", packaged_hardware())
    def test_each_is_called_as_its_file(self, name: str) -> None:
        loaded = load_hardware(name)
        assert loaded.name == name
        assert loaded.array("float64").ofmap_words >= 1

    def test_eyeriss_is_the_published_array(self) -> None:
        # 12 x 14 elements; 108 kB of buffer in three parts of 36 kB.
        eyeriss = load_hardware("eyeriss")
        sizes = (eyeriss.ifmap_sram_bytes, eyeriss.filter_sram_bytes, eyeriss.ofmap_sram_bytes)
        assert (eyeriss.rows, eyeriss.cols, sum(sizes)) == (12, 14, 108 * 1024)

    def test_zedboard_fits_the_xc7z020(self) -> None:
        # 220 DSP slices, one per element; 140 block RAMs that hold 4 kB of data each.
        board = load_hardware("zedboard")
        sizes = (board.ifmap_sram_bytes, board.filter_sram_bytes, board.ofmap_sram_bytes)
        assert board.elements <= 220
        assert sum(-(-size // 4096) for size in sizes) <= 140
        assert board.dram == "DDR3"

    def test_squares_keep_their_proportions(self) -> None:
        for side in (8, 16, 32, 64):
            square = load_hardware(f"square{side}")
            assert (square.rows, square.cols) == (side, side)
            assert square.ifmap_sram_bytes == side * 2048
