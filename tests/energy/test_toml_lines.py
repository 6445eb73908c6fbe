"""The line of every key, over all that TOML allows around it."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from dynrt.energy.toml_lines import key_lines, line_of


def test_headers_keys_and_arrays_of_tables() -> None:
    text = "\n".join(
        [
            "# [not.a.header]",  # 1
            "a = 1 # b = 2",  # 2
            "'q=r' = '[x]'",  # 3
            '"d.e".f . g = 2',  # 4
            "[t]",  # 5
            "a = [ # c = 3",  # 6
            "  '''",  # 7
            "[u]",  # 8
            "b = 1 ''', { z = 2 },",  # 9
            "]",  # 10
            'b = """',  # 11
            'c = 4 \\"\\" # d = 5"""',  # 12
            "",  # 13
            "  [[t.rows]]",  # 14
            "v = 1",  # 15
            "[[t.rows]]",  # 16
            "v = 2",  # 17
            "[t.rows.sub]",  # 18
            "w.x = {y = 1}",  # 19
        ]
    )
    tomllib.loads(text)
    assert dict(key_lines(text)) == {
        ("a",): 2,
        ("q=r",): 3,
        ("d.e",): 4,
        ("d.e", "f"): 4,
        ("d.e", "f", "g"): 4,
        ("t",): 5,
        ("t", "a"): 6,
        ("t", "b"): 11,
        ("t", "rows"): 14,
        ("t", "rows", 0): 14,
        ("t", "rows", 0, "v"): 15,
        ("t", "rows", 1): 16,
        ("t", "rows", 1, "v"): 17,
        ("t", "rows", 1, "sub"): 18,
        ("t", "rows", 1, "sub", "w"): 19,
        ("t", "rows", 1, "sub", "w", "x"): 19,
    }


def test_what_has_no_line_has_that_of_what_holds_it() -> None:
    lines = key_lines("\n\n[t]\na = {b = {c = 1}}")
    assert line_of(lines, ("t", "a", "b", "c")) == 4
    assert line_of(lines, ("t", "missing")) == 3
    assert line_of(lines, ("missing",)) == 1


@given(
    values=st.lists(
        st.sampled_from(
            ["1", "'#'", '"]"', "[1, 2]", "{a = ']'}", "'''\n[x]\ny = 1\n'''", '"\\"["']
        ),
        max_size=8,
    ),
    gaps=st.lists(st.sampled_from(["", "\n", "# k0 = 1\n", "   \n"]), min_size=8, max_size=8),
)
def test_every_key_is_where_it_was_put(values: list[str], gaps: list[str]) -> None:
    text, expected = "", {}
    for i, value in enumerate(values):
        text += gaps[i]
        expected[(f"k{i}",)] = text.count("\n") + 1
        text += f"k{i} = {value}\n"
    tomllib.loads(text)
    found = {path: line for path, line in key_lines(text).items() if len(path) == 1}
    assert found == expected
