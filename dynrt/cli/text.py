"""Plain text for people: aligned tables, short paths, short names; and JSON for programs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dynrt.ir.cost import Budget
from dynrt.units import format_flops, parse_quantity

WIDTH = 100
_GAP = "  "
_NUMBERED = re.compile(r"(.*?\D)(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of fixed width, so that rows can be printed as they come.

    Attributes:
        title: its heading.
        width: characters; longer cells are cut.
        align: where a cell stands.
        keep: which end of a cell that is too long is kept (a path's end says more).
    """

    title: str
    width: int
    align: Literal["left", "right"] = "left"
    keep: Literal["start", "end"] = "start"

    def cell(self, text: str) -> str:
        """``text`` in exactly this column's width."""
        if len(text) > self.width:
            text = shorten(text, self.width, keep=self.keep)
        return text.rjust(self.width) if self.align == "right" else text.ljust(self.width)


def shorten(text: str, width: int, *, keep: Literal["start", "end"] = "start") -> str:
    """``text`` in at most ``width`` characters; three dots stand for what was cut."""
    if len(text) <= width:
        return text
    if width <= 3:
        return text[:width]
    return text[: width - 3] + "..." if keep == "start" else "..." + text[3 - width :]


def line(columns: Sequence[Column], cells: Sequence[str]) -> str:
    """One row."""
    parts = [column.cell(text) for column, text in zip(columns, cells, strict=True)]
    return _GAP.join(parts).rstrip()


def heading(columns: Sequence[Column]) -> str:
    """The titles."""
    return line(columns, [column.title for column in columns])


def table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    elastic: int = 0,
    width: int = WIDTH,
) -> str:
    """A whole table, as wide as its cells need; the ``elastic`` column gives way first.

    Args:
        titles: headings.
        rows: cells, one row for each line.
        right: indices of right-aligned columns.
        elastic: index of the column that is cut when the table would be wider than ``width``.
        width: characters to fit into.
    """
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    spare = width - sum(widths) - len(_GAP) * (len(widths) - 1)
    if spare < 0:
        widths[elastic] = max(8, widths[elastic] + spare)
    columns = [
        Column(title=title, width=widths[i], align="right" if i in right else "left")
        for i, title in enumerate(titles)
    ]
    return "\n".join([heading(columns), *(line(columns, row) for row in rows)])


def short_path(names: Sequence[str]) -> str:
    """Node names in order of first appearance, numbered families joined: ``stem block1-10``."""
    families: dict[str, list[int] | None] = {}
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match is None or match[2] != str(int(match[2])):
            families.setdefault(name, None)
            continue
        numbers = families.setdefault(match[1], [])
        if numbers is not None:
            numbers.append(int(match[2]))
    words = []
    for stem, numbers in families.items():
        words.append(stem if numbers is None else stem + _ranges(numbers))
    return " ".join(words)


def _ranges(numbers: Sequence[int]) -> str:
    """``1-3,5`` for 1, 2, 3, 5."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def megaflops(flops: float) -> str:
    """MFLOPs: one decimal, or two digits of small amounts."""
    return f"{flops / 1e6:.1f}" if flops >= 1e6 or flops == 0 else f"{flops / 1e6:.2g}"


def budget_text(budget: Budget) -> str:
    """A budget as people write it: ``100M FLOPs``; the whole number where that would round."""
    text = str(budget)
    if budget.flops is None:
        return text
    short = format_flops(budget.flops)
    exact = parse_quantity(short).value == budget.flops
    return text.replace(f"{budget.flops} FLOPs", f"{short} FLOPs", 1) if exact else text


def jsonable(value: Any) -> Any:
    """``value`` as plain JSON: numpy to Python, tuples to lists, not-finite numbers to null."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """``value`` as strict JSON text."""
    return json.dumps(jsonable(value), indent=indent, allow_nan=False)
