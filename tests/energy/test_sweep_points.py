"""What people write for a sweep, and what they must not."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.energy.hardware import load_hardware
from dynrt.energy.sweep_points import KEYS, MOST_POINTS, Point, points
from dynrt.errors import HardwareError


def rows(text: str) -> list[int | None]:
    return [p.rows for p in points([f"rows={text}"])]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("8:64", [8, 16, 32, 64]),
        ("8:60", [8, 16, 32]),  # 64 passes the end
        ("12:12", [12]),
        ("3:4", [3]),
        ("8:64:8", [8, 16, 24, 32, 40, 48, 56, 64]),
        ("8:20:8", [8, 16]),
        ("5", [5]),
        ("5,1,5", [5, 1]),  # in the order written, each once
        ("1:4,4:6:1", [1, 2, 4, 5, 6]),
        ("4096", [4096]),
    ],
)
def test_values_are_listed_doubled_or_stepped(text: str, values: list[int]) -> None:
    assert rows(text) == values


def test_the_example_of_the_command_line_has_all_combinations_in_order() -> None:
    found = points(["rows=8:64", "dataflow=ws,os,is", "sram=16:256"])
    assert len(found) == 4 * 3 * 5
    assert found[0] == Point(
        rows=8,
        dataflow="ws",
        ifmap_sram_bytes=16 * 1024,
        filter_sram_bytes=16 * 1024,
        ofmap_sram_bytes=16 * 1024,
    )
    assert [p.ifmap_sram_bytes for p in found[:6]] == [1024 * k for k in (16, 32, 64, 128, 256, 16)]
    assert found[-1].changes() == {
        "rows": 64,
        "dataflow": "is",
        "ifmap_sram_bytes": 262_144,
        "filter_sram_bytes": 262_144,
        "ofmap_sram_bytes": 262_144,
    }


def test_arrays_set_both_sides_and_buffers_can_be_set_apart() -> None:
    found = points(["array=8x8,12X14", "filter_sram=1", "ofmap_sram=2"])
    assert [p.changes() for p in found] == [
        {"rows": r, "cols": c, "filter_sram_bytes": 1024, "ofmap_sram_bytes": 2048}
        for r, c in ((8, 8), (12, 14))
    ]


def test_a_point_changes_a_hardware_and_nothing_else() -> None:
    base = load_hardware("eyeriss")
    (point,) = points(["array=3x5", "dataflow=os", "sram=7"])
    made = base.with_(**point.changes())
    assert (made.rows, made.cols, made.dataflow) == (3, 5, "os")
    assert made.ifmap_sram_bytes == made.filter_sram_bytes == made.ofmap_sram_bytes == 7 * 1024
    assert (made.clock_hz, made.dram, made.source) == (base.clock_hz, base.dram, base.source)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "a sweep needs KEY=VALUES"),
        (["rows"], "sweep 'rows': write KEY=VALUES; the keys are rows, cols, array"),
        (["size=3"], "sweep 'size=3': write KEY=VALUES"),
        (["=3"], "write KEY=VALUES"),
        (["rows="], "sweep 'rows=': '' is no value"),
        (["rows=8,"], "'' is no value"),
        (["rows=0"], "'0': 0 is not between 1 and 4096"),
        (["rows=4097"], "4097 is not between 1 and 4096"),
        (["rows=-8"], "'-8' is no value"),
        (["rows=8.5"], "'8.5' is no value"),
        (["rows=٣"], "is no value"),
        (["rows=8:64:0"], "0 is not between"),
        (["rows=64:8"], "'64:8': the range ends before it begins"),
        (["rows=64:8:4"], "the range ends before it begins"),
        (["rows=1:2:3:4"], "is no value: write 8, 8:64 .doubling. or 8:64:8"),
        (["sram=16kB"], "'16kB' is no value"),
        (["sram=1048577"], "1048577 is not between 1 and 1048576"),
        (["dataflow=ws,rs"], "'rs' is no dataflow: ws, os, is"),
        (["array=8"], "'8' is no array: write ROWSxCOLS"),
        (["array=0x8"], "'0x8': 0 is not between 1 and 4096"),
        (["array=8x9999"], "9999 is not between"),
        (["rows=8", "rows=9"], "sweep 'rows=9': rows sets rows already"),
        (["array=8x8", "cols=9"], "sweep 'cols=9': array sets cols already"),
        (["sram=8", "ofmap_sram=9"], "sweep 'ofmap_sram=9': sram sets ofmap_sram already"),
        (["rows=1:400:1", "cols=1:400:1"], f"160000 points; the limit is {MOST_POINTS} points"),
        (["sram=1:1048576:1"], f"over {MOST_POINTS} values"),
    ],
)
def test_what_is_wrong_is_named(texts: list[str], message: str) -> None:
    with pytest.raises(HardwareError, match=message) as caught:
        points(texts)
    assert "\n" not in str(caught.value)


NUMBERS = st.integers(1, 4096)


@given(NUMBERS, NUMBERS)
def test_doubling_ends_within_a_factor_of_two_of_the_end(a: int, b: int) -> None:
    first, last = sorted((a, b))
    found = rows(f"{first}:{last}")
    assert found[0] == first
    assert all(y == 2 * x for x, y in itertools.pairwise(v for v in found if v is not None))
    end = found[-1]
    assert end is not None
    assert end <= last < 2 * end


@given(st.sampled_from(KEYS), st.text(max_size=30))
def test_any_text_is_points_or_a_typed_error(key: str, text: str) -> None:
    try:
        found = points([f"{key}={text}"])
    except HardwareError as exc:
        assert len(str(exc)) < 300  # noqa: PT017  # both ways are right
    else:
        assert len(set(found)) == len(found) >= 1
