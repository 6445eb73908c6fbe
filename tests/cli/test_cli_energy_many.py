"""``dynrt energy`` on several hardware descriptions, beside other runs, swept and drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynrt.bundle import read_bundle, write_bundle
from dynrt.cli import energy_runs
from dynrt.cli.energy_lists import published_page
from tests.cli.conftest import Ask, Invoke


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Path:
    """The colour network with a layer table, so that nothing needs the exporters."""
    path = tmp_path_factory.mktemp("energy") / "layered.dynrt"
    write_bundle(energy_runs.with_layers(read_bundle(colours)), path)
    return path


HARDWARE = ("eyeriss", "tpu-like", "zedboard", "square8")
FOUR = tuple(word for name in HARDWARE for word in ("--hardware", name))


def test_four_hardware_files_by_three_dataflows(ask: Ask, invoke: Invoke, layered: Path) -> None:
    grid = ask("energy", layered, *FOUR, "--dataflow", "ws,os,is")
    places = [(run["row"], run["dataflow"]) for run in grid["runs"]]
    assert places == [(name, flow) for name in HARDWARE for flow in ("ws", "os", "is")]
    assert len({run["source"] for run in grid["runs"]}) == 12
    alone = ask("energy", layered, "--hardware", "zedboard", "--dataflow", "is")
    same = grid["runs"][places.index(("zedboard", "is"))]
    assert {k: v for k, v in same.items() if k != "row"} == alone
    shown = invoke("energy", layered, *FOUR, "--dataflow", "ws", "--dataflow", "os,is").stdout
    head = next(line for line in shown.splitlines() if line.startswith("hardware"))
    assert head.split() == ["hardware", "ws", "os", "is"]
    for name in HARDWARE:
        rows = [line for line in shown.splitlines() if line.startswith(f"{name} ")]
        assert len(rows) == 3  # energy, cycles, utilisation
        assert all("-" not in row.replace(name, "").split() for row in rows)


def test_hardware_of_different_dataflows_leaves_no_cell_made_up(
    invoke: Invoke, layered: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'format = 1\nname = "mine"\nsource = "here"\nnotes = "none"\n'
        '[array]\nrows = 4\ncols = 4\ndataflow = "os"\n'
        '[sram]\nifmap = "8 kB"\nfilter = "8 kB"\nofmap = "8 kB"\n'
    )
    shown = invoke("energy", layered, "--hardware", "eyeriss", "--hardware", path).stdout
    mine = [line.split() for line in shown.splitlines() if line.startswith("mine")]
    assert len(mine) == 3
    assert all(row[1] == "-" for row in mine)


# --- beside another run


def test_comparison_with_itself_is_one(
    ask: Ask, invoke: Invoke, layered: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run.json"
    path.write_text(invoke("energy", layered, "--json").stdout)
    beside = ask("energy", layered, "--compare", path)["comparison"]
    assert [n["name"] for n in beside["nodes"]] == ["stem", "exit1", "block1", "final"]
    assert all(n["ratio"] == 1 for n in [*beside["nodes"], beside["shared"]])
    assert beside["only_here"] == beside["only_there"] == []
    assert beside["hardware"] == "eyeriss"


def test_comparison_with_other_hardware(
    ask: Ask, invoke: Invoke, layered: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run.json"
    path.write_text(invoke("energy", layered, "--hardware", "square8", "--json").stdout)
    there = {n["name"]: n["energy"] for n in json.loads(path.read_text())["nodes"]}
    record = ask("energy", layered, "--compare", path)
    for node in record["comparison"]["nodes"]:
        ours = next(n["energy"] for n in record["nodes"] if n["name"] == node["name"])
        assert node["ratio"] == ours / there[node["name"]]
    shown = invoke("energy", layered, "--compare", path).stdout
    assert f"beside {path}: colours on square8, eyeriss-normalised" in shown
    assert "together" in shown


def test_comparison_of_other_nodes_names_them(
    ask: Ask, invoke: Invoke, layered: Path, tmp_path: Path
) -> None:
    record = json.loads(invoke("energy", layered, "--json").stdout)
    record["nodes"][0]["name"] = "trunk"
    path = tmp_path / "run.json"
    path.write_text(json.dumps(record))
    beside = ask("energy", layered, "--compare", path)["comparison"]
    assert (beside["only_here"], beside["only_there"]) == (["stem"], ["trunk"])
    shown = invoke("energy", layered, "--compare", path).stdout
    assert "only there: trunk" in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(unit="J"), "its energies are in J, these in MACeq"),
        (lambda r: r.update(unit="calories"), "unit is 'calories'"),
        (lambda r: [n.update(name=n["name"] + "x") for n in r["nodes"]], "with other nodes"),
        (lambda r: r.pop("nodes"), "nodes is no list"),
        (lambda r: r["nodes"][0].pop("energy"), "energy is"),
    ],
)
def test_a_record_that_cannot_be_compared(
    invoke: Invoke, layered: Path, tmp_path: Path, change: object, message: str
) -> None:
    record = json.loads(invoke("energy", layered, "--json").stdout)
    assert callable(change)
    change(record)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(record))
    done = invoke("energy", layered, "--compare", path)
    assert done.exit_code == 1
    assert message in done.stderr


# --- sweeps


def test_sweep_words_follow_the_option(ask: Ask, layered: Path) -> None:
    swept = ask(
        "energy", layered, "--workers", "1", "--sweep", "rows=4:16", "dataflow=ws,os", "sram=1:2"
    )
    assert len(swept["points"]) == 3 * 2 * 2
    assert swept["backend"] == "analytic 1"
    assert {p["details"]["rows"] for p in swept["points"]} == {4, 8, 16}
    point = next(
        p for p in swept["points"] if p["hardware"] == "eyeriss[rows=8,dataflow=os,sram=2kB]"
    )
    alone = ask("energy", layered, "--rows", "8", "--dataflow", "os", "--sram", "2")
    for name in ("energy", "low", "high", "milli_mac_equivalents", "cycles", "utilisation"):
        assert point[name] == alone["total"][name]
    front = [(p["cycles"], p["energy"]) for p in swept["points"] if p["front"]]
    assert front
    for p in swept["points"]:  # each is beaten or matched by the front
        assert any(c <= p["cycles"] and e <= p["energy"] for c, e in front)


def test_sweep_page_and_record(
    invoke: Invoke, layered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, plot = tmp_path / "sweep.jsonl", tmp_path / "sweep.svg"
    asked = ("energy", layered, "--workers", "1", "--sweep", "cols=2:4", "--record", record)
    first = invoke(*asked, "--plot", plot)
    assert first.exit_code == 0, first.stderr
    assert "colours, all nodes, 2 points" in first.stdout
    assert sum(line.startswith("*") for line in first.stdout.splitlines()) >= 1
    assert plot.read_text().startswith("<?xml")
    written = record.read_bytes()
    again = invoke(*asked)
    assert again.stdout == first.stdout
    assert record.read_bytes() == written
    other = invoke(*asked, "--table", "horowitz-45nm")
    assert other.exit_code == 1
    assert "sweep.jsonl" in other.stderr


def test_sweep_in_processes_gives_the_same(ask: Ask, layered: Path) -> None:
    asked = ("energy", layered, "--sweep", "rows=4,5")
    assert ask(*asked, "--workers", "1") == ask(*asked, "--workers", "2")


# --- plots


def test_plots(invoke: Invoke, layered: Path, tmp_path: Path) -> None:
    levels, blocks = tmp_path / "levels.svg", tmp_path / "blocks.svg"
    assert invoke("energy", layered, "--plot", levels).exit_code == 0
    assert "block1" in levels.read_text()
    many = ("energy", layered, "--dataflow", "ws,os", "--plot")
    done = invoke(*many, blocks, "--nodes", "block")
    assert done.exit_code == 0, done.stderr
    assert "block1" in blocks.read_text()
    assert "stem" not in blocks.read_text()
    refused = invoke("energy", layered, "--plot", levels)
    assert refused.exit_code == 1
    assert "replaced only with --force" in refused.stderr
    assert invoke("energy", layered, "--plot", levels, "--force").exit_code == 0
    nothing = invoke(*many, tmp_path / "none.svg", "--nodes", "nothing")
    assert nothing.exit_code == 1
    assert "nothing to draw" in nothing.stderr


# --- published figures


def test_published_figures_beside_ours(ask: Ask, invoke: Invoke) -> None:
    found = ask("energy", "--published")
    assert found["policy"] == "corrected"
    rows = [row for c in found["comparisons"] for row in c["rows"]]
    assert {8.7, 1.5} <= {row["published"] for row in rows}
    assert all(set(row["ours"]) == {"ws", "os", "is"} for row in rows)
    shown = published_page(found)
    assert "SkipNet_energy" in shown
    assert "AlexNet" in shown
    assert "8.70" in shown
    assert max(map(len, shown.splitlines())) <= 120
