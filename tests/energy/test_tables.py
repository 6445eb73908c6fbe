"""Energy tables: prices per word from rows per access, by format, size and kind; wrong files."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.energy.hardware import load_hardware
from dynrt.energy.tables import (
    LEVELS,
    Access,
    Action,
    EnergyTable,
    Level,
    load_table,
    packaged_tables,
    unit_of,
)
from dynrt.errors import EnergyTableError, HardwareError
from dynrt.ir.layers import WORD_BITS

EYERISS = load_hardware("eyeriss")
NORMALISED = load_table("eyeriss-normalised")
HOROWITZ = load_table("horowitz-45nm")


def looked_up(
    table: EnergyTable,
    level: Level,
    *,
    dtype: str = "int8",
    sram_bytes: int | None = None,
    dram: str | None = None,
    access: Access | None = None,
) -> Action:
    hardware = EYERISS.with_(dram=dram)
    if sram_bytes is not None:
        hardware = hardware.with_(sram_bytes=sram_bytes)
    found = table.action(level, dtype=dtype, hardware=hardware, operand="ifmap", access=access)
    assert found is not None
    return found


class TestPackaged:
    def test_names_and_units(self) -> None:
        assert packaged_tables() == ("eyeriss-normalised", "horowitz-45nm")
        assert unit_of(NORMALISED) == "MACeq"
        assert unit_of(HOROWITZ) == "J"

    def test_a_level_that_a_table_has_not_is_named(self) -> None:
        assert NORMALISED.missing == ()
        assert HOROWITZ.missing == ("hop",)
        assert HOROWITZ.action("hop", dtype="int8", hardware=EYERISS) is None

    @pytest.mark.parametrize("table", [NORMALISED, HOROWITZ], ids=lambda t: t.name)
    def test_every_row_has_a_source_and_bounds(self, table: EnergyTable) -> None:
        for row in table.entries:
            assert row.source
            assert 0 < row.low <= row.value <= row.high

    @pytest.mark.parametrize("dtype", sorted(WORD_BITS))
    def test_every_number_format_has_a_price(self, dtype: str) -> None:
        for level in HOROWITZ.levels:
            action = looked_up(HOROWITZ, level, dtype=dtype)
            assert 0 < action.low <= action.value <= action.high


class TestNormalised:
    @pytest.mark.parametrize(
        ("level", "ratio"),
        [("mac", 1), ("register_file", 1), ("hop", 2), ("buffer", 6), ("dram", 200)],
    )
    @pytest.mark.parametrize("dtype", ["int8", "float32", "float64"])
    def test_the_published_ratios_hold_at_every_width(
        self, level: Level, ratio: int, dtype: str
    ) -> None:
        # Chen et al., ISCA 2016, table IV; thousandths of a multiply-accumulate.
        for dram in (None, "DDR3", "anything"):
            assert looked_up(NORMALISED, level, dtype=dtype, dram=dram).value == ratio * 1000


class TestPicojoules:
    def test_a_multiply_accumulate_is_a_product_and_a_sum(self) -> None:
        # Horowitz: int multiply 8 b 0.2 + int add 32 b 0.1; FP multiply 3.7 + add 0.9: pJ, as fJ.
        assert looked_up(HOROWITZ, "mac", dtype="int8").value == 300
        assert looked_up(HOROWITZ, "mac", dtype="float32").value == 4600

    def test_signedness_makes_no_difference(self) -> None:
        for level in ("mac", "operation", "dram", "buffer"):
            for signed, unsigned in (("int8", "uint8"), ("int64", "uint64"), ("int8", "bool")):
                assert looked_up(HOROWITZ, level, dtype=signed) == looked_up(
                    HOROWITZ, level, dtype=unsigned
                )

    def test_memory_goes_by_the_bit(self) -> None:
        # DDR3 at 70 pJ/bit: 8 bits 560 pJ, 32 bits 2240 pJ.
        assert looked_up(HOROWITZ, "dram", dtype="int8", dram="DDR3").value == 560_000
        assert looked_up(HOROWITZ, "dram", dtype="float32", dram="DDR3").value == 2_240_000
        # No kind: 1950 pJ (1300 to 2600) for 64 bits, an eighth of it for 8.
        general = looked_up(HOROWITZ, "dram", dtype="int8")
        assert [general.low, general.value, general.high] == [162_500, 243_750, 325_000]

    @pytest.mark.parametrize(
        ("kib", "pj"),
        [(8, 10), (32, 20), (1024, 100)],
    )
    def test_a_buffer_of_a_printed_size_has_the_printed_price(self, kib: int, pj: int) -> None:
        action = looked_up(HOROWITZ, "buffer", dtype="float64", sram_bytes=kib << 10)
        assert action.value == pj * 1000
        assert action.basis == "published"

    def test_between_two_sizes_it_is_a_line_in_logarithms(self) -> None:
        # 16 kB is half way from 8 kB to 32 kB in logarithms: sqrt(10 * 20) = 14.142136 pJ for 64
        # bits, 0.220970869 pJ for one (rounded to 1e-9 pJ), 1.767766952 pJ for 8.
        action = looked_up(HOROWITZ, "buffer", sram_bytes=16 << 10)
        assert action.value == Fraction("220970869") / 10**9 * 8 * 1000
        assert action.basis == "interpolated"
        assert (action.low, action.high) == (
            Fraction(110485435, 10**9) * 8000,
            Fraction(441941738, 10**9) * 8000,
        )

    def test_beyond_the_sizes_the_line_goes_on(self) -> None:
        # From 8 kB to 32 kB energy goes as the square root of the size: 2 kB takes half of 10 pJ.
        small = looked_up(HOROWITZ, "buffer", dtype="float64", sram_bytes=2 << 10)
        assert small.value == 5000
        assert small.basis == "extrapolated"
        # From 32 kB to 1 MB, 5 times in 5 doublings: 32 MB takes 5 times 100 pJ.
        large = looked_up(HOROWITZ, "buffer", dtype="float64", sram_bytes=32 << 20)
        assert large.value == 500_000
        assert large.basis == "extrapolated"

    @given(a=st.integers(64, 1 << 26), b=st.integers(64, 1 << 26))
    def test_a_larger_buffer_is_never_cheaper(self, a: int, b: int) -> None:
        small, large = sorted((a, b))
        one = looked_up(HOROWITZ, "buffer", sram_bytes=small)
        other = looked_up(HOROWITZ, "buffer", sram_bytes=large)
        assert one.value <= other.value
        assert one.low <= one.value <= one.high

    @given(size=st.integers(64, 1 << 26))
    def test_the_line_agrees_with_floating_point(self, size: int) -> None:
        action = looked_up(HOROWITZ, "buffer", dtype="float64", sram_bytes=size)
        (x0, y0), (x1, y1) = ((8, 10), (32, 20)) if size < 32 << 10 else ((32, 20), (1024, 100))
        slope = math.log(y1 / y0) / math.log(x1 / x0)
        expected = y0 * (size / (x0 << 10)) ** slope * 1000
        assert math.isclose(float(action.value), expected, rel_tol=1e-6)

    def test_dram_of_another_kind_is_refused(self) -> None:
        message = "no DRAM of kind DDR9 .hardware eyeriss.dram=DDR9.*it has DDR3, GDDR5, HBM2"
        with pytest.raises(EnergyTableError, match=message):
            looked_up(HOROWITZ, "dram", dram="DDR9")

    def test_a_format_that_is_none(self) -> None:
        with pytest.raises(HardwareError, match="'int4' is no number format"):
            looked_up(HOROWITZ, "mac", dtype="int4")

    def test_whose_buffer(self) -> None:
        with pytest.raises(EnergyTableError, match="buffer goes by size: whose buffer"):
            HOROWITZ.action("buffer", dtype="int8", hardware=EYERISS)


SOURCE = 'basis = "assumed"\nsource = "a test"\n'
GOOD = f"""\
format = 1
name = "mine"
unit = "pJ"
technology = "7 nm"
summary = "a test"

[[mac]]
dtype = "int8"
value = 0.1
low = 0.05
high = 1
{SOURCE}
[[buffer]]
access = "read"
bytes = 4096
bits = 8
value = 1
low = 1
high = 1
{SOURCE}
[[dram]]
kind = "DDR4"
access = "write"
bits = 16
value = 3
low = 2
high = 4
{SOURCE}"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    mine = load_table(written(tmp_path, GOOD))
    assert mine.missing == ("register_file", "hop", "operation")
    hardware = EYERISS.with_(dram="DDR4")
    mac = mine.action("mac", dtype="uint8", hardware=hardware)
    assert mac == Action(
        value=Fraction(100),
        low=Fraction(50),
        high=Fraction(1000),
        basis="assumed",
        sources=("a test",),
    )
    # One size: it holds for every size. 1 pJ per 8 bits: 4 pJ for 32.
    read = mine.action("buffer", dtype="int32", hardware=hardware, operand="ofmap", access="read")
    assert read is not None
    assert read.value == 4000
    assert read.basis == "extrapolated"
    # No row for what is written: not modelled, and not what reading takes.
    assert (
        mine.action("buffer", dtype="int32", hardware=hardware, operand="ofmap", access="write")
        is None
    )
    assert mine.action("dram", dtype="int8", hardware=hardware, access="read") is None
    with pytest.raises(EnergyTableError, match="mine: no mac of int16; it has int8"):
        mine.action("mac", dtype="int16", hardware=hardware)
    with pytest.raises(EnergyTableError, match=r"no general DRAM .hardware eyeriss.; it has DDR4"):
        mine.action("dram", dtype="int8", hardware=EYERISS, access="write")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('unit = "pJ"', 'unit = "nJ"', r":3: field unit = 'nJ': 'pJ' or 'MACeq' is allowed"),
        ('"int8"', '"int4"', r":8: field mac\[0\].dtype = 'int4': 'float64' or"),
        ('"int8"', '"uint8"', r":8: field mac\[0\].dtype = 'uint8'"),
        ("0.1\n", "nan\n", r":9: field mac\[0\].value = NaN: a number from 1e-12 to 1e12"),
        ("0.1\n", "0\n", r":9: field mac\[0\].value = 0: a number"),
        ("0.1\n", "-1.5\n", r":9: field mac\[0\].value = -1.5: a number"),
        ("0.1\n", '"0.1 pJ"\n', r":9: field mac\[0\].value = '0.1 pJ': a number"),
        ("0.1\n", "1e-999999999\n", r":9: field mac\[0\].value"),
        ("0.1\n", "0." + "1" * 40 + "\n", r":9: field .*with at most 30 decimals"),
        ("0.1\n", "true\n", r":9: field mac\[0\].value = True"),
        ("low = 0.05", "low = 0.2", r":10: field mac\[0\].low = 0.2: low <= value <= high"),
        ("high = 1\n", "high = 0.01\n", r":11: field mac\[0\].high = 0.01: low <= value <= high"),
        ("low = 0.05\n", "", r":7: field mac\[0\].low is missing: a number"),
        ('"assumed"', '"guessed"', r":12: field mac\[0\].basis = 'guessed': 'published' or"),
        ('"a test"\n\n[[buffer', '""\n\n[[buffer', r":13: field mac\[0\].source = ''"),
        ("bits = 8", "bits = 0", r":18: field buffer\[0\].bits = 0: a whole number"),
        ("bits = 8\n", "", r":15: field buffer\[0\].bits is missing"),
        ("bytes = 4096\n", "", r":15: field buffer\[0\].bytes is missing"),
        ('access = "read"', 'access = "peek"', r":16: field buffer\[0\].access = 'peek'"),
        ("bits = 16", "bits = 16\nsize = 3", r":29: field dram\[0\].size = 3: no such field"),
        ("[[dram]]", "[[drum]]", r":25: field drum = .*: no such field"),
        ("[[dram]]", "[dram]", r":25: field dram = .*: 1 to 64 tables"),
        ("format = 1", "format = 1\nhop = [1]", r":2: field hop = \[1\]: 1 to 64 tables"),
        ('kind = "DDR4"', 'kind = "DDR 4"', r":26: field dram\[0\].kind = 'DDR 4'"),
        ('name = "mine"', 'name = "horowitz-45nm"', "is dynrt's own, with other values"),
        ("value = 3", "value = 3\nvalue = 4", r":30: not TOML: Cannot overwrite a value"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    with pytest.raises(EnergyTableError, match=message) as info:
        load_table(written(tmp_path, GOOD.replace(old, new, 1)))
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 500


ROW = f"value = 1\nlow = 1\nhigh = 1\n{SOURCE}"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('[[mac]]\ndtype = "int8"\n' + ROW, r":35: field mac\[1\]: there is a row for this"),
        ("[[buffer]]\nbytes = 4096\nbits = 8\n" + ROW, r":35: field buffer\[1\]: there is a row"),
        (
            '[[buffer]]\naccess = "read"\nbytes = 4096\nbits = 9\n' + ROW,
            r":35: field buffer\[1\]: there is a row",
        ),
        ('[[dram]]\nkind = "DDR4"\nbits = 8\n' + ROW, r":35: field dram\[1\]: there is a row"),
    ],
)
def test_rows_that_contradict_each_other(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(EnergyTableError, match=message):
        load_table(written(tmp_path, GOOD + "\n" + rows))


def test_rows_that_do_not(tmp_path: Path) -> None:
    more = '[[buffer]]\naccess = "write"\nbytes = 4096\nbits = 8\n' + ROW
    more += '[[dram]]\nkind = "DDR4"\naccess = "read"\nbits = 8\n' + ROW
    assert len(load_table(written(tmp_path, GOOD + "\n" + more)).entries) == 5


NORMAL = f"""\
format = 1
name = "mine"
unit = "MACeq"
technology = "7 nm"
summary = "a test"
[[mac]]
{ROW}
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            NORMAL.replace("value = 1", "value = 2").replace("high = 1", "high = 2"),
            "1 in unit MACeq",
        ),
        (NORMAL.replace("high = 1", "high = 2"), "1 in unit MACeq"),
        (NORMAL.replace("[[mac]]", '[[mac]]\ndtype = "int8"'), r"mac\[0\].dtype = 'int8': no such"),
        (NORMAL.replace("[[mac]]", "[[hop]]"), "mac is missing: at least one table"),
        (NORMAL + "[[dram]]\nbits = 8\n" + ROW, r"dram\[0\].bits = 8: no such field"),
        (
            NORMAL + "[[buffer]]\n" + ROW + "[[buffer]]\nbytes = 8\n" + ROW,
            "one row for every size and one for some sizes",
        ),
    ],
)
def test_normalised_tables_have_no_widths(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EnergyTableError, match=message):
        load_table(written(tmp_path, text))


def test_normalised_buffers_may_go_by_size(tmp_path: Path) -> None:
    # 2 at 1 kB, 4 at 4 kB: half way in logarithms, at 2 kB, sqrt(8) = 2.828427125.
    rows = "[[buffer]]\nbytes = 1024\nvalue = 2\nlow = 1\nhigh = 3\n" + SOURCE
    rows += "[[buffer]]\nbytes = 4096\nvalue = 4\nlow = 4\nhigh = 5\n" + SOURCE
    table = load_table(written(tmp_path, NORMAL + rows))
    for dtype in ("int8", "float64"):
        assert looked_up(table, "buffer", dtype=dtype, sram_bytes=2048).value == Fraction(
            "2828.427125"
        )


def test_bounds_stay_around_the_value_where_lines_cross(tmp_path: Path) -> None:
    # Extended to 64 B the lines of low (1 to 4) and value (2 to 4) cross the line of high (3 to 5).
    rows = "[[buffer]]\nbytes = 1024\nvalue = 2\nlow = 1\nhigh = 9\n" + SOURCE
    rows += "[[buffer]]\nbytes = 4096\nvalue = 4\nlow = 4\nhigh = 4\n" + SOURCE
    table = load_table(written(tmp_path, NORMAL + rows))
    action = looked_up(table, "buffer", sram_bytes=1 << 20)
    assert action.low <= action.value <= action.high


@pytest.mark.parametrize("level", LEVELS)
def test_lookup_is_the_same_each_time(level: Level) -> None:
    for table in (NORMALISED, HOROWITZ):
        first = table.action(level, dtype="int16", hardware=EYERISS, operand="filter")
        again = load_table(table.name).action(
            level, dtype="int16", hardware=EYERISS, operand="filter"
        )
        assert first == again


def test_neither_a_name_nor_a_file() -> None:
    with pytest.raises(EnergyTableError, match="no such file; dynrt has eyeriss-normalised, horo"):
        load_table("eyeris-normalised")
