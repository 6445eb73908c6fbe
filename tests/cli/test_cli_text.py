"""Tables, short paths, amounts, JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.cli.progress import bar, clock
from dynrt.cli.text import (
    Column,
    budget_text,
    jsonable,
    line,
    megaflops,
    short_path,
    shorten,
    table,
    to_json,
)
from dynrt.ir.cost import Budget

CELL = st.text("abcdefg hij", max_size=40)


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["stem", "block1", "block2", "block3", "exit4"], "stem block1-3 exit4"),
        (["stem", "block1", "exit1", "block2", "exit2"], "stem block1-2 exit1-2"),
        (["block1", "block3", "block4", "block7"], "block1,3-4,7"),
        (["a", "b", "a2b"], "a b a2b"),
        (["x01", "x1"], "x01 x1"),
        (["7"], "7"),
        ([], ""),
    ],
)
def test_short_path(names: list[str], short: str) -> None:
    assert short_path(names) == short


@given(st.lists(st.integers(0, 60), min_size=1, unique=True))
def test_short_path_loses_no_node(numbers: list[int]) -> None:
    text = short_path([f"b{n}" for n in numbers])
    told: set[int] = set()
    for part in text.removeprefix("b").split(","):
        low, _, high = part.partition("-")
        told |= set(range(int(low), int(high or low) + 1))
    assert told == set(numbers)


@given(CELL, st.integers(1, 30), st.sampled_from(["start", "end"]))
def test_shorten_keeps_its_width(text: str, width: int, keep: str) -> None:
    out = shorten(text, width, keep=keep)  # type: ignore[arg-type]
    assert len(out) <= width
    assert out == text or len(text) > width


def test_shorten_keeps_the_end_that_says_more() -> None:
    assert shorten("/a/long/path/cat.png", 12, keep="end") == "...h/cat.png"
    assert shorten("abcdefgh", 6) == "abc..."
    assert shorten("abcdefgh", 2) == "ab"


@given(st.lists(st.tuples(CELL, CELL, CELL), max_size=6), st.integers(0, 2))
def test_table_is_aligned_and_fits(rows: list[tuple[str, str, str]], elastic: int) -> None:
    text = table(["one", "two", "three"], rows, elastic=elastic, width=130)
    lines = text.split("\n")
    assert len(lines) == len(rows) + 1
    assert max(map(len, lines)) <= 130


def test_table_cuts_the_elastic_column() -> None:
    text = table(["name", "about"], [["x" * 10, "y" * 200]], elastic=1, width=40)
    assert max(map(len, text.splitlines())) == 40
    assert text.endswith("...")


def test_columns_align() -> None:
    columns = [Column(title="a", width=4), Column(title="b", width=4, align="right")]
    assert line(columns, ["x", "y"]) == "x        y"
    assert line(columns, ["xxxxxx", "yyyyyy"]) == "x...  y..."


@pytest.mark.parametrize(
    ("flops", "text"),
    [(71_234_560, "71.2"), (1_170, "0.0012"), (18, "1.8e-05"), (0, "0.0"), (1e6, "1.0")],
)
def test_megaflops(flops: float, text: str) -> None:
    assert megaflops(flops) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("100M", "100M FLOPs"),
        ("50MMAC", "100M FLOPs"),
        ("123456", "123456 FLOPs"),
        ("2mJ,5ms", "0.002 J, 0.005 s"),
    ],
)
def test_budget_text_is_short_but_never_rounded(text: str, shown: str) -> None:
    assert budget_text(Budget.parse(text)) == shown
    assert budget_text(Budget()) == "no cap"


def test_json_is_strict() -> None:
    value = {
        "array": np.array([1.0, np.nan, np.inf]),
        "number": np.int64(3),
        "pair": (1, 2),
        "none": None,
    }
    assert jsonable(value) == {
        "array": [1.0, None, None], "number": 3, "pair": [1, 2], "none": None,
    }  # fmt: skip
    assert json.loads(to_json(value))["number"] == 3


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "?"), (5, "0:05"), (65.4, "1:05"), (3723, "1:02:03")]
)
def test_clock(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text


def test_no_bar_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("pictures") as tell:
        tell(1, 2)
        tell(2, 2)
    assert capsys.readouterr() == ("", "")


def test_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with bar("pictures") as tell:
        tell(1, 2)
        tell(2, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "pictures" in err
    assert "2/2" in err
