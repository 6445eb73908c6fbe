"""Records of tables: written and read back, refused where damaged, drawn and put on a page."""

from __future__ import annotations

import contextlib
import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.errors import DataError, OutputExistsError
from dynrt.report.averages import averages
from dynrt.report.ddi_table import ddi_table_2
from dynrt.report.paper_tables import iadi_table
from dynrt.report.paper_tables_dgates import (
    dgate_figure_4,
    dgate_figure_5,
    dgate_figure_7,
    dgate_table_1,
)
from dynrt.report.skipping import easy_hard, exits_used, skipping_table
from dynrt.report.tables import Column, Table, parse_table, read_table
from dynrt.report.tables_figures import How
from dynrt.report.tables_page import read_any, write_page
from dynrt.report.tables_plots import ALL, plot_table
from tests.calibrate.made import plausible_table
from tests.calibrate.spreading import colour_data
from tests.cli.colours import colour_bundle
from tests.report.made import evaluation
from tests.report.networks import gated, noise

TABLE = Table(
    name="made",
    title="Made up",
    data="pixels test",
    n=1234,
    bundles={"tiny": "ab"},
    columns=(
        Column(key="name", title="network"),
        Column(key="accuracy", title="accuracy", unit="share"),
        Column(key="loss", title="points", unit="points"),
        Column(key="flops", title="MFLOPs", unit="flops"),
        Column(key="seconds", title="ms", unit="seconds"),
        Column(key="energy", title="J", unit="energy"),
        Column(key="count", title="n", unit="count"),
        Column(key="ratio", title="ratio", unit="number"),
    ),
    rows=(
        {
            "name": "a",
            "accuracy": 0.91239,
            "loss": -0.0123,
            "flops": 58_000_000,
            "seconds": 0.0012345,
            "energy": 0.00123,
            "count": 12345,
            "ratio": 0.98765,
        },
        {"name": "b", "accuracy": None, "flops": 0},
    ),
    notes=("a note",),
)


def _figures() -> dict[str, Callable[[], Table]]:
    quick = How(timed=4, rounds=2)
    scores = plausible_table(200, exits=4)
    kinds = [("hinge", scores, scores), ("other", scores, scores)]
    return {
        "ddi-table-2": lambda: ddi_table_2(
            [colour_bundle(energy=True)],
            colour_data(20),
            statics=[colour_bundle()],
            budgets=[58_000_000],
            how=quick,
        ),
        "iadi": lambda: iadi_table([gated()], noise(20), how=quick),
        "dgate-table-1": lambda: dgate_table_1(
            colour_bundle(), colour_data(20), [("given", {"exit1": 0.8})], how=quick
        ),
        "dgate-figure-4": lambda: dgate_figure_4(kinds, points=4),
        "dgate-figure-5": lambda: dgate_figure_5(scores, low=0, high=1, steps=3),
        "dgate-figure-7": lambda: dgate_figure_7(scores, list("abcdefghij")),
        "skipping": lambda: skipping_table(gated(), noise(20)),
        "easy-hard": lambda: easy_hard(gated(), noise(20), count=3),
        "exits-used": lambda: exits_used(colour_bundle(), colour_data(20)),
        "averages": lambda: averages(
            colour_bundle(), colour_data(60), colour_data(20), [2_000, 4_000], cap_macs=6_000
        ),
    }


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    """One of each kind, from real runs."""
    return {name: make() for name, make in _figures().items()}


def test_what_rounds_to_nothing_has_no_sign() -> None:
    shares = Column(key="share", title="share", unit="share")
    assert [shares.text({"share": v}) for v in (-2e-17, -4e-5, -6e-5)] == [
        "0.00 %",
        "0.00 %",
        "-0.01 %",
    ]


def test_cells_are_for_people_and_missing_is_empty() -> None:
    assert TABLE.cells() == [
        ["a", "91.24 %", "-1.23", "58.0", "1.234", "1.23 m", "12,345", "0.988"],
        ["b", "", "", "0.0", "", "", "", ""],
    ]
    lines = TABLE.markdown().splitlines()
    assert lines[0] == "| network | accuracy | points | MFLOPs | ms | J | n | ratio |"
    assert lines[1] == "|---|---:|---:|---:|---:|---:|---:|---:|"
    assert lines[-1] == "a note"


def test_every_kind_is_a_record_that_can_be_read_back(
    tables: dict[str, Table], tmp_path: Path
) -> None:
    assert set(tables) == set(ALL)
    for name, table in tables.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(table.to_json(), allow_nan=False))
        assert read_table(path).to_json() == table.to_json()
        assert table.name == name


def test_every_kind_is_drawn_from_its_record(tables: dict[str, Table], tmp_path: Path) -> None:
    for name, table in tables.items():
        path = tmp_path / f"{name}.svg"
        data = noise(20) if name == "easy-hard" else None
        again = parse_table(json.loads(json.dumps(table.to_json())))
        plot_table(again, path, dataset=data)
        text = path.read_text()
        assert "<svg" in text
        # what the picture is of stands in it (titles of evaluations are their own)
        assert table.title.split(":")[-1].strip()[:12] in text or name == "exits-used"
        with pytest.raises(OutputExistsError):
            plot_table(again, path, dataset=data)


def test_what_cannot_be_drawn_says_why(tables: dict[str, Table], tmp_path: Path) -> None:
    path = tmp_path / "x.svg"
    with pytest.raises(DataError, match="'made' is no table that can be drawn: ddi-table-2, iadi"):
        plot_table(TABLE, path)
    with pytest.raises(DataError, match=r"the record holds no pictures: .* easy-hard --plot"):
        plot_table(tables["easy-hard"], path)
    for name in ("ddi-table-2", "dgate-figure-4", "dgate-figure-5", "dgate-figure-7"):
        with pytest.raises(DataError, match="cannot be drawn: KeyError"):
            plot_table(replace(tables[name], details={}), path)
    with pytest.raises(DataError, match=r"a plot is written as \.png"):
        plot_table(tables["iadi"], tmp_path / "x.doc")
    assert not path.exists()


def test_a_page_has_all_records_and_loads_nothing(tables: dict[str, Table], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    hostile = replace(tables["dgate-figure-7"], title="<script>alert(1)</script>", command="a & b")
    source = tmp_path / "eval.json"
    source.write_text(json.dumps(evaluation()))
    records = [read_any(source), hostile, tables["easy-hard"]]
    write_page(records, path)
    text = path.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<code>a &amp; b</code>" in text
    assert text.count("<svg") == 2  # the evaluations' and the figure's; pictures stay at home
    assert "src=" not in text
    with pytest.raises(DataError, match="no records"):
        write_page([], tmp_path / "other.html")
    with pytest.raises(OutputExistsError):
        write_page(records, path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"table": 3}, "table is missing or no str"),
        ({"n": "3"}, "n is missing or no int"),
        ({"rows": [3]}, "rows holds something that is no object"),
        ({"rows": [{"a": [1]}]}, r"rows\[0\]\.a is neither text nor a number"),
        ({"rows": [{"a": True}]}, r"rows\[0\]\.a is neither text nor a number"),
        ({"columns": [{"key": "a", "title": "b", "unit": "c"}]}, r"columns\[0\]: key, title or"),
        ({"notes": None}, "notes is missing or no list"),
        ({"notes": [1]}, "notes holds something that is no text"),
        ({"bundles": {"a": 1}}, "bundles holds something that is no text"),
    ],
)
def test_a_damaged_record_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=f"here: {says}"):
        parse_table(TABLE.to_json() | change, place="here")
    with pytest.raises(DataError, match="a table's record is an object"):
        parse_table([])


@given(data=st.data())
def test_no_damage_is_a_foreign_error(data: st.DataObject) -> None:
    value = copy.deepcopy(TABLE.to_json())
    junk: st.SearchStrategy[Any] = st.one_of(
        st.none(), st.integers(), st.text(max_size=3), st.just([1]), st.just({})
    )
    key = data.draw(st.sampled_from(sorted(value)))
    value[key] = data.draw(junk)
    with contextlib.suppress(DataError):
        assert parse_table(value).to_json() == value


def test_records_hold_no_pixels(tables: dict[str, Table]) -> None:
    text = json.dumps(tables["easy-hard"].to_json())
    assert "pixel" not in text
    assert all(isinstance(row["picture"], int) for row in tables["easy-hard"].rows)
    assert np.ndarray not in {type(v) for row in tables["easy-hard"].rows for v in row.values()}


def test_tables_load_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, dynrt.report.paper_tables, dynrt.report.paper_tables_dgates, "
        "dynrt.report.skipping, dynrt.report.tables_plots, dynrt.report.tables_page; "
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"matplotlib", "torch", "onnx", "onnxruntime", "ray", "click"}
    assert heavy.isdisjoint(done.stdout.split())
