"""``dynrt inspect`` and ``dynrt models``: what a bundle is, as text, JSON and pictures."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from dynrt.bundle import read_bundle, write_bundle
from dynrt.cli.drawing import place, to_dot, to_mermaid, to_svg
from dynrt.ir.graph import Graph
from tests.cli.colours import (
    BLOCK_MACS,
    CHEAPEST,
    FULL,
    HEAD_MACS,
    STEM_MACS,
    colour_bundle,
    gated_bundle,
)
from tests.cli.conftest import Ask, Invoke

SVG = "{http://www.w3.org/2000/svg}"


def test_json_is_the_contract(ask: Ask, colours: Path) -> None:
    shown = ask("inspect", colours)
    assert shown["full_flops"] == FULL
    assert shown["cheapest_flops"] == CHEAPEST
    assert [(n["name"], n["kind"], n["macs"], n["energy"]) for n in shown["nodes"]] == [
        ("image", "input", 0, None),
        ("stem", "compute", STEM_MACS, None),
        ("exit1", "exit", HEAD_MACS, None),
        ("block1", "compute", BLOCK_MACS, None),
        ("final", "exit", HEAD_MACS, None),
    ]
    assert shown["exits"] == [
        {"name": "exit1", "cheapest_flops": CHEAPEST, "full_flops": CHEAPEST},
        {"name": "final", "cheapest_flops": FULL - 2 * HEAD_MACS, "full_flops": FULL},
    ]
    assert shown["certificate"]["answers"] is True
    assert shown["certificate"]["full_macs"] * 2 == FULL
    assert shown["sha256"] == read_bundle(colours).sha256
    model = read_bundle(colours).models["stem"]
    assert shown["nodes"][1]["sha256"] == hashlib.sha256(model).hexdigest()
    assert shown["nodes"][1]["bytes"] == len(model)
    assert shown["labels"] == ["red", "green", "blue"]
    assert shown["preprocessing"]["height"] == 8
    assert shown["card"]["accuracy"] == 0.875


def test_json_of_a_gated_network(ask: Ask, gated: Path) -> None:
    shown = ask("inspect", gated)
    assert shown["control"] == [{"control": "keep", "target": "block1", "action": 0}]
    nodes = {n["name"]: n for n in shown["nodes"]}
    assert nodes["keep"]["rule"] == "threshold"
    assert nodes["keep"]["thresholds"] == [0.5]
    assert nodes["keep"]["macs"] == 0
    edge = next(e for e in shown["edges"] if e["target"] == "end.x")
    assert edge["default"] == "block1.x"
    assert shown["preprocessing"] is None


def test_energy_in_joules(ask: Ask, invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "energy.dynrt"
    write_bundle(colour_bundle(energy=True), path)
    shown = ask("inspect", path)
    assert shown["nodes"][1]["energy"] == pytest.approx(STEM_MACS * 1e-12)
    assert shown["certificate"]["full_joules"] == pytest.approx(FULL / 2 * 1e-12)
    page = invoke("inspect", path).stdout
    assert "energy: cheapest 585 pJ, full 5.78 nJ (modelled:unnamed table)" in page
    assert [exit_["cheapest_energy"] for exit_ in shown["exits"]] == pytest.approx(
        [exit_["cheapest_flops"] / 2 * 1e-12 for exit_ in shown["exits"]]
    )


def test_page_shows_nodes_exits_certificate(invoke: Invoke, colours: Path, gated: Path) -> None:
    page = invoke("inspect", colours).stdout
    assert "max_softmax >= 0.8" in page
    assert "an answer on every path" in page
    assert read_bundle(colours).sha256 in page
    assert "made by: dynrt test" in page
    page = invoke("inspect", gated).stdout
    assert "v.v if keep=0" in page
    assert "score >= 0.5" in page
    assert "parameter" in page


def test_svg_is_whole_and_draws_every_node(invoke: Invoke, colours: Path, gated: Path) -> None:
    for path in (colours, gated):
        graph = read_bundle(path).graph
        result = invoke("inspect", path, "--graph", "svg")
        assert result.exit_code == 0
        root = ET.fromstring(result.stdout)  # noqa: S314 - our own text
        names = [g.findtext(f"{SVG}title") for g in root.iter(f"{SVG}g")]
        assert sorted(filter(None, names)) == sorted(n.name for n in graph.nodes)
        width, height = (float(root.attrib[k]) for k in ("width", "height"))
        for box in root.iter(f"{SVG}rect"):
            left, top = float(box.attrib["x"]), float(box.attrib["y"])
            assert 0 <= left <= width - float(box.attrib["width"])
            assert 0 <= top <= height - float(box.attrib["height"])
        arrows = [p.attrib.get("class") for p in root.iter(f"{SVG}path") if "class" in p.attrib]
        assert len(arrows) == len(graph.data) + len(graph.control)


def test_layout_never_puts_two_nodes_in_one_place() -> None:
    for graph in (colour_bundle().graph, gated_bundle().graph):
        spots = place(graph)
        assert len(set(spots.values())) == len(graph.nodes)
        for name, parents in graph.parents_of.items():
            assert all(spots[p][1] < spots[name][1] for p in parents)


def test_trunk_is_straight() -> None:
    spots = place(colour_bundle().graph)
    assert {spots[n][0] for n in ("image", "stem", "block1", "final")} == {0}
    assert spots["exit1"] == (1, 2)


def test_dot_and_mermaid_name_every_edge(invoke: Invoke, gated: Path) -> None:
    dot = invoke("inspect", gated, "--graph", "dot").stdout
    assert dot.startswith('digraph "gated" {')
    assert '"keep" -> "block1" [style=dashed, label="0"];' in dot
    assert '"block1" -> "end" [style=dotted];' in dot
    mermaid = invoke("inspect", gated, "--graph", "mermaid").stdout
    assert mermaid.startswith("%% gated\nflowchart TB\n")
    assert "n3 -. 0 .-> n4" in mermaid
    assert 'n3{"keep<br/>threshold"}' in mermaid


def test_titles_are_escaped() -> None:
    graph: Graph = colour_bundle().graph
    assert "<title>a &lt;b&gt; &amp; c</title>" in to_svg(graph, title="a <b> & c")
    assert to_dot(graph, title='say "x"\\').startswith('digraph "say \\"x\\"\\\\" {')
    assert to_mermaid(graph, title="one\ntwo").startswith("%% one two\n")


def test_models_lists_what_is_packaged(ask: Ask, invoke: Invoke, packaged: Path) -> None:
    shown = ask("models")["models"]
    assert [(m["name"], m["file"]) for m in shown] == [("colours", str(packaged))]
    assert shown[0]["full_flops"] == FULL
    assert shown[0]["accuracy"] == 0.875
    assert shown[0]["exits"] == ["exit1", "final"]
    page = invoke("models").stdout.splitlines()
    assert page[0].split() == ["name", "MFLOPs", "exits", "accuracy", "MB", "about"]
    assert "87.50%" in page[1]
    assert "colours made up here" in page[1]


def test_models_without_any(
    invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("dynrt.bundle.packaged._FOLDER", tmp_path)
    assert ask("models") == {"models": []}
    assert invoke("models").stdout == "no bundle comes with this dynrt\n"
    result = invoke("run", "--budget", "1M")
    assert result.exit_code == 1
    assert "no bundle comes with this dynrt" in result.stderr
