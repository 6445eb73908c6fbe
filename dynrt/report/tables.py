"""A table of figures: how it stands in a JSON record, and how its cells read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from dynrt.errors import DataError
from dynrt.report.json_files import read_json

#: What a column's figures are: a fraction shown in per cent, FLOPs shown in millions, seconds in
#: milliseconds; joules and MAC-equivalents with a prefix; points are differences of per cents.
Unit = Literal["text", "count", "share", "points", "flops", "seconds", "energy", "number"]
Cell = str | int | float | None

_LIMIT_BYTES = 1 << 26
_UNITS = get_args(Unit)
_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"), (1e-12, "p"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column.

    Attributes:
        key: of its cells in the rows.
        title: its heading.
        unit: what its figures are.
    """

    key: str
    title: str
    unit: Unit = "text"

    def text(self, row: Mapping[str, Any]) -> str:
        """A row's cell for people; empty where nothing is known."""
        value = row.get(self.key)
        if value is None:
            return ""
        if isinstance(value, str) or self.unit == "text":
            return str(value)
        return str(_TEXTS[self.unit](value))


def _energy(value: float) -> str:
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "


_TEXTS: Mapping[str, Any] = {
    "count": lambda v: f"{v:,}",
    "share": lambda v: f"{100 * v:z.2f} %",
    "points": lambda v: f"{100 * v:+.2f}",
    "flops": lambda v: f"{v / 1e6:.1f}",
    "seconds": lambda v: f"{1e3 * v:.3f}",
    "energy": _energy,
    "number": lambda v: f"{v:.3g}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Figures of networks on data.

    Attributes:
        name: of the kind of table, such as ``ddi-table-2``; says how it is drawn.
        title: in one line.
        data: what the figures are of, such as ``cifar10 test``.
        n: inputs.
        bundles: SHA-256 of every bundle that was run, by its name.
        columns: those that people see; a row may hold more.
        rows: cells by key; a figure that is not known is ``None``, never 0.
        notes: what must be said beside the figures.
        details: what plots need besides rows.
        command: that made it; empty if it was none.
        version: of dynrt.
    """

    name: str
    title: str
    data: str
    n: int
    bundles: Mapping[str, str]
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    version: str = ""

    def to_json(self) -> dict[str, Any]:
        """The record."""
        return {
            "table": self.name,
            "title": self.title,
            "dynrt": self.version,
            "command": self.command,
            "data": self.data,
            "n": self.n,
            "bundles": dict(self.bundles),
            "columns": [{"key": c.key, "title": c.title, "unit": c.unit} for c in self.columns],
            "rows": [dict(row) for row in self.rows],
            "notes": list(self.notes),
            "details": dict(self.details),
        }

    def cells(self) -> list[list[str]]:
        """Every row for people."""
        return [[column.text(row) for column in self.columns] for row in self.rows]

    def markdown(self) -> str:
        """The table for a README, its notes below."""
        lines = ["| " + " | ".join(c.title for c in self.columns) + " |"]
        lines.append(
            "|" + "|".join("---" if c.unit == "text" else "---:" for c in self.columns) + "|"
        )
        lines += ["| " + " | ".join(cells) + " |" for cells in self.cells()]
        return "\n".join([*lines, "", *self.notes]).rstrip() + "\n"


def read_table(path: Path) -> Table:
    """Read a record.

    Raises:
        DataError: the file is missing, no JSON, or no such record.
    """
    return parse_table(read_json(path, what="table", limit_bytes=_LIMIT_BYTES), place=str(path))


def is_table(value: object) -> bool:
    """Whether a JSON value is meant to be such a record."""
    return isinstance(value, dict) and "table" in value and "columns" in value


def parse_table(value: object, *, place: str = "record") -> Table:
    """Check the object of a table's record.

    Raises:
        DataError: a field is missing or of another kind.
    """
    if not isinstance(value, dict):
        raise DataError(f"{place}: a table's record is an object")
    kinds: Mapping[str, type] = {
        "table": str,
        "title": str,
        "dynrt": str,
        "command": str,
        "data": str,
        "n": int,
        "bundles": dict,
        "columns": list,
        "rows": list,
        "notes": list,
        "details": dict,
    }
    for name, kind in kinds.items():
        if not isinstance(value.get(name), kind):
            raise DataError(f"{place}: {name} is missing or no {kind.__name__}")
    for name in ("columns", "rows"):
        if not all(isinstance(item, dict) for item in value[name]):
            raise DataError(f"{place}: {name} holds something that is no object")
    for name, texts in (("notes", value["notes"]), ("bundles", value["bundles"].values())):
        if not all(isinstance(text, str) for text in texts):
            raise DataError(f"{place}: {name} holds something that is no text")
    for i, row in enumerate(value["rows"]):
        for key, cell in row.items():
            if isinstance(cell, bool) or not isinstance(cell, str | int | float | None):
                raise DataError(f"{place}: rows[{i}].{key} is neither text nor a number")
    return Table(
        name=value["table"],
        title=value["title"],
        version=value["dynrt"],
        command=value["command"],
        data=value["data"],
        n=value["n"],
        bundles=value["bundles"],
        columns=tuple(_column(c, f"{place}: columns[{i}]") for i, c in enumerate(value["columns"])),
        rows=tuple(value["rows"]),
        notes=tuple(value["notes"]),
        details=value["details"],
    )


def _column(value: Mapping[str, Any], place: str) -> Column:
    key, title = value.get("key"), value.get("title")
    unit: Any = value.get("unit")
    if not isinstance(key, str) or not isinstance(title, str) or unit not in _UNITS:
        raise DataError(f"{place}: key, title or unit is missing or unknown")
    return Column(key=key, title=title, unit=unit)
