"""A user's own hardware file: what is accepted, and how a wrong field is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.energy.hardware import load_hardware
from dynrt.energy.toml_fields import FILE_BYTES
from dynrt.errors import HardwareError

GOOD = """\
# mine
format = 1
name = "mine"
clock = "1.5 MHz"
dram = "DDR4"
source = "a data sheet"
notes = "none"

[array]
rows = 3
cols = 5
dataflow = "is"

[sram]
ifmap = "1 kB"
filter = "2KiB"
ofmap = "1.5 MB"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    mine = load_hardware(written(tmp_path, GOOD))
    assert mine.to_json() == {
        "name": "mine",
        "rows": 3,
        "cols": 5,
        "dataflow": "is",
        "ifmap_sram_bytes": 1024,
        "filter_sram_bytes": 2048,
        "ofmap_sram_bytes": 1536 * 1024,
        "clock_hz": 1_500_000,
        "dram": "DDR4",
        "source": "a data sheet",
        "notes": "none",
    }


def test_clock_and_dram_may_be_left_out(tmp_path: Path) -> None:
    lines = [line for line in GOOD.splitlines() if not line.startswith(("clock", "dram"))]
    mine = load_hardware(str(written(tmp_path, "\n".join(lines))))
    assert (mine.clock_hz, mine.dram) == (None, None)


def test_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(GOOD.replace("\n", "\r\n").encode())
    assert load_hardware(path).rows == 3
    path.write_bytes(GOOD.replace("rows = 3", "rows = 0").replace("\n", "\r\n").encode())
    with pytest.raises(HardwareError, match=r"mine\.toml:10: field array\.rows = 0"):
        load_hardware(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 2", r"mine.toml:2: field format = 2: a whole number from 1 to 1"),
        ("rows = 3", "rows = 0", r":10: field array.rows = 0: a whole number from 1 to 4096"),
        ("rows = 3", "rows = 3.0", r":10: field array.rows = 3.0: a whole number"),
        ("rows = 3", "rows = true", r":10: field array.rows = True"),
        ("rows = 3", 'rows = "3"', r":10: field array.rows = '3'"),
        ("rows = 3\n", "", r":9: field array.rows is missing: a whole number from 1 to 4096"),
        ("rows = 3", "rows = 3\nrows = 4", r":11: not TOML: Cannot overwrite a value"),
        ("rows = 3", "rows = 3\nlines = 4", r":11: field array.lines = 4: no such field"),
        ("rows = 3", "rows = ", r":10: not TOML: Invalid value"),
        ("rows = 3", "rows = 1" + "0" * 5000, r"not TOML"),
        ("[sram]", "[array]", r":14: not TOML: Cannot declare"),
        ("[sram]", "[srams]", r"mine.toml:1: field sram is missing: a table"),
        ("[sram]", "sram = 3\n[other]", r"array.sram = 3: no such field|sram is missing"),
        ("# mine", "array = 3", r"not TOML"),
        ("[sram]", "[other]", r"mine.toml:1: field sram is missing"),
        ('"is"', '"rs"', r":12: field array.dataflow = 'rs': 'ws' or 'os' or 'is' is allowed"),
        ('"1 kB"', '"1 kb"', r":15: field sram.ifmap = '1 kb': a text of a number and a unit"),
        ('"1 kB"', '"1"', r":15: field sram.ifmap = '1'"),
        ('"1 kB"', "1024", r":15: field sram.ifmap = 1024: .*\(B, kB, KiB, MB, MiB\)"),
        ('"1 kB"', '"0 kB"', r":15: field sram.ifmap = '0 kB': .*1 to 1073741824 B, is allowed"),
        ('"1 kB"', '"2000 MB"', r":15: field sram.ifmap = '2000 MB'"),
        ('"1 kB"', '"0.3 B"', r":15: field sram.ifmap = '0.3 B'"),
        ('"1.5 MHz"', '"1.5 mhz"', r":4: field clock = '1.5 mhz': .*\(Hz, kHz, MHz, GHz\)"),
        ('"1.5 MHz"', '"0 Hz"', r":4: field clock = '0 Hz'"),
        ('"DDR4"', '""', r":5: field dram = ''"),
        ('"DDR4"', "4", r":5: field dram = 4"),
        ('name = "mine"', 'name = "my hardware"', r":3: field name = 'my hardware'"),
        ('name = "mine"', 'name = "mine[rows=3]"', r":3: field name"),
        ('"a data sheet"', '""', r":6: field source = ''"),
        ('"a data sheet"', '"a\\nb"', r":6: field source"),
        ('source = "a data sheet"\n', "", r"mine.toml:1: field source is missing: a text"),
        ('name = "mine"', 'name = "eyeriss"', r"name 'eyeriss' is dynrt's own, with other values"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    with pytest.raises(HardwareError, match=message) as info:
        load_hardware(written(tmp_path, GOOD.replace(old, new, 1)))
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 400


def test_a_table_that_is_none(tmp_path: Path) -> None:
    text = GOOD.split("[array]")[0] + "array = 3\nsram = 4\n"
    with pytest.raises(HardwareError, match=r"mine.toml:9: field array = 3: a table is allowed"):
        load_hardware(written(tmp_path, text))


def test_a_copy_of_ours_may_keep_its_name(tmp_path: Path) -> None:
    ours = load_hardware("eyeriss")
    text = f"""
format = 1
name = "eyeriss"
clock = "200 MHz"
source = "{ours.source}"
notes = "{ours.notes}"
array = {{rows = 12, cols = 14, dataflow = "ws"}}
sram = {{ifmap = "36 kB", filter = "36 kB", ofmap = "36 kB"}}
"""
    assert load_hardware(written(tmp_path, text)) == ours


def test_a_field_of_an_inline_table_is_named_with_the_tables_line(tmp_path: Path) -> None:
    text = GOOD.split("[array]")[0] + 'array = {rows = 0, cols = 5, dataflow = "is"}\n'
    with pytest.raises(HardwareError, match=r"mine.toml:9: field array.rows = 0"):
        load_hardware(written(tmp_path, text + '[sram]\nifmap="1 B"\nfilter="1 B"\nofmap="1 B"'))


@pytest.mark.parametrize("asked", ["nothing", "", "no/such.toml", "a\0b", "x" * 5000])
def test_neither_a_name_nor_a_file(asked: str) -> None:
    with pytest.raises(HardwareError, match=r"no such file; dynrt has eyeriss, square16") as info:
        load_hardware(asked)
    assert len(str(info.value)) < 400


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(HardwareError, match="cannot be read as hardware: not UTF-8 text"):
        load_hardware(path)
    path.write_bytes(b"#" * (FILE_BYTES + 1))
    with pytest.raises(HardwareError, match=f"larger than {FILE_BYTES} bytes"):
        load_hardware(path)
    with pytest.raises(HardwareError, match="no such file"):
        load_hardware(tmp_path)


def test_deep_nesting_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="not TOML"):
        load_hardware(written(tmp_path, "x = " + "[" * 30_000))


@given(data=st.data())
def test_a_mutated_file_is_read_or_refused_in_one_line(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    at = data.draw(st.integers(0, len(GOOD) - 1))
    width = data.draw(st.integers(0, 6))
    put = data.draw(st.text(alphabet="[]{}=\"'#.,\n\\ 019aeksT_-", max_size=6))
    path = tmp_path_factory.getbasetemp() / "mutated.toml"
    path.write_text(GOOD[:at] + put + GOOD[at + width :])
    try:
        load_hardware(path)
    except HardwareError as exc:
        assert "\n" not in str(exc)  # noqa: PT017 - either is right
