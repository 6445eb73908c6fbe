"""Writes the tables and pictures of docs/results.md from the records in models/records.

Each place in the page is marked with its record's name. Run it from the repository's root after a
record has changed (``dynrt report ... --json models/records/NAME.json``)::

    python docs/make_results.py
"""

from __future__ import annotations

import re
from pathlib import Path

from dynrt.report.tables import read_table
from dynrt.report.tables_plots import plot_table

DOCS = Path(__file__).parent
RECORDS = DOCS.parent / "models" / "records"
#: Of a longer table the page has the picture; the record has the rows.
MOST_ROWS = 16
_MARK = re.compile(r"<!-- record: (?P<name>[\w.-]+) -->\n.*?<!-- end -->", re.DOTALL)


def shown(name: str) -> str:
    """The command, the table and the picture of a record, between its marks."""
    table = read_table(RECORDS / f"{name}.json")
    plot_table(table, DOCS / "images" / f"{name}.svg", force=True)
    short = len(table.rows) <= MOST_ROWS
    rows = table.markdown() if short else "\n".join([*table.notes, ""])
    picture = f"![{table.title}](images/{name}.svg)"
    begin = f"<!-- record: {name} -->\n    {table.command}\n"
    return "\n".join([begin, rows, picture, "<!-- end -->"])


def main() -> None:
    """Fill every marked place."""
    page = DOCS / "results.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(_MARK.sub(lambda found: shown(found["name"]), text), encoding="utf-8")


if __name__ == "__main__":
    main()
