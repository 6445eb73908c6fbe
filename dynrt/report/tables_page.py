"""One HTML page of records: each with its table and its picture, nothing loaded from elsewhere."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dynrt.calibrate.files import write_text
from dynrt.errors import DataError
from dynrt.report.json_files import read_json
from dynrt.report.plots import plot_accuracy_against_cost
from dynrt.report.records import Record, parse_record
from dynrt.report.tables import Table, is_table, parse_table
from dynrt.report.tables_plots import plot_table

_LIMIT_BYTES = 1 << 26
_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;"
    "color:#222}table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}"
    "td,th{padding:.25rem .7rem;border-bottom:1px solid #ddd;text-align:right}"
    "td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}"
    ".scroll{overflow-x:auto}p,code{color:#555}"
)


def read_any(path: Path) -> Table | Record:
    """A record of a table, or of ``dynrt eval --json``.

    Raises:
        DataError: the file is missing, no JSON, or neither.
    """
    value = read_json(path, what="report", limit_bytes=_LIMIT_BYTES)
    if is_table(value):
        return parse_table(value, place=str(path))
    return parse_record(value, place=str(path))


def write_page(records: Sequence[Table | Record], path: Path, *, force: bool = False) -> None:
    """Write the page.

    Args:
        records: in order; the evaluations among them share one plot.
        path: of the page.
        force: replace an existing file.

    Raises:
        DataError: nothing to show, a record that cannot be drawn, or the file cannot be written.
        OutputExistsError: ``path`` exists and ``force`` is not set.
        MissingExtraError: matplotlib is not installed.
    """
    if not records:
        raise DataError("no records: nothing to show")
    parts = []
    evaluations = [r for r in records if isinstance(r, Record)]
    if evaluations:
        parts.append(f"<h2>Accuracy against cost</h2>{_evaluations_svg(evaluations)}")
    parts += [_section(r) for r in records if isinstance(r, Table)]
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>dynrt report</title>'
        f"<style>{_STYLE}</style></head><body><h1>dynrt report</h1>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
    write_text(path, text, force=force)


def _section(table: Table) -> str:
    says = f"{table.title}: {table.data}, {table.n:,} inputs"
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in table.notes)
    command = f"<p><code>{html.escape(table.command)}</code></p>" if table.command else ""
    # pictures of data sets are drawn where the data are, and never travel in a page
    drawn = "" if table.name == "easy-hard" else _table_svg(table)
    return f"<h2>{html.escape(says)}</h2>{drawn}{_rows(table)}{notes}{command}"


def _rows(table: Table) -> str:
    head = "".join(f"<th>{html.escape(c.title)}</th>" for c in table.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>\n"
        for cells in table.cells()
    )
    return f'<div class="scroll"><table><tr>{head}</tr>\n{body}</table></div>'


def _table_svg(table: Table) -> str:
    with tempfile.TemporaryDirectory(prefix="dynrt-report-") as folder:
        path = Path(folder) / "plot.svg"
        plot_table(table, path)
        return _inline(path)


def _evaluations_svg(records: Sequence[Record]) -> str:
    with tempfile.TemporaryDirectory(prefix="dynrt-report-") as folder:
        path = Path(folder) / "plot.svg"
        plot_accuracy_against_cost(records, path)
        return _inline(path)


def _inline(path: Path) -> str:
    """The drawing without the lines that only a file of its own has."""
    text = path.read_text("utf-8")
    return text[text.index("<svg") :]
