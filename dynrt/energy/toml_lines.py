"""Finds the line of each key of a TOML text, so that an error can name it; ``tomllib`` cannot.

The text is known to be valid TOML. A small scanner splits it into statements (a header or a key with
its value, over as many lines as its strings and brackets take); ``tomllib`` itself reads the names.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping

#: Where a value stands: names of keys, and indexes of ``[[ ]]`` tables.
KeyPath = tuple[str | int, ...]

_PIECE = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'  # a string over several lines, with escapes
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|.",
    re.DOTALL,
)


def key_lines(text: str) -> Mapping[KeyPath, int]:
    """The line, from 1, of every header and key of ``text``.

    Args:
        text: valid TOML. Keys inside inline tables and arrays have no line of their own.
    """
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    for line, statement in _statements(text):
        if statement.startswith("["):
            is_array = statement.startswith("[[")
            table = _indexed(_names(statement), counts, adds=is_array)
            lines.setdefault(table, line)
            if is_array:
                lines.setdefault(table[:-1], line)
        else:
            path = table
            for name in _names(_left_side(statement) + "= 0"):
                path = (*path, name)
                lines.setdefault(path, line)
    return lines


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """The line of ``path``, or of the nearest that holds it; 1 where there is none."""
    for end in range(len(path), 0, -1):
        if path[:end] in lines:
            return lines[path[:end]]
    return 1


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each statement without comments, and the line on which it starts."""
    line, start, depth, blank = 1, 1, 0, True
    parts: list[str] = []
    for piece in _PIECE.findall(text):
        if piece == "\n" and depth == 0:
            if statement := "".join(parts).strip():
                yield start, statement
            parts.clear()
            blank = True
        elif not piece.startswith("#"):
            if blank and not piece.isspace():
                start, blank = line, False
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(piece, 0)
            parts.append(piece)
        line += piece.count("\n")
    if statement := "".join(parts).strip():
        yield start, statement


def _left_side(statement: str) -> str:
    """What stands before the first ``=`` that is in no quotes."""
    parts: list[str] = []
    for piece in _PIECE.findall(statement):
        if piece == "=":
            break
        parts.append(piece)
    return "".join(parts)


def _names(source: str) -> list[str]:
    """The dotted names of one header or key, quotes resolved."""
    names: list[str] = []
    value: object = tomllib.loads(source)
    while True:
        if isinstance(value, list):
            value = value[0]
        if not isinstance(value, dict) or not value:
            return names
        name, value = next(iter(value.items()))
        names.append(name)


def _indexed(names: list[str], counts: dict[KeyPath, int], *, adds: bool) -> KeyPath:
    """The path of a header: the latest index after each name that is an array of tables."""
    path: KeyPath = ()
    for position, name in enumerate(names):
        path = (*path, name)
        if adds and position == len(names) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path
