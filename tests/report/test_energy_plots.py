"""Plots of energy say what they show, and energy records are checked before they are drawn."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dynrt.energy.hardware import load_hardware
from dynrt.energy.sweep_record import SweepPoint, marked
from dynrt.errors import DataError, OutputExistsError
from dynrt.report.energy_plots import plot_block_energy, plot_levels, plot_sweep
from dynrt.report.energy_records import EnergyRecord, parse_energy_record, read_energy_record

Plot = Callable[..., None]


def energy(**changes: Any) -> dict[str, Any]:
    """An object in the form that ``dynrt energy --json`` prints."""
    nodes = [
        {
            "name": name,
            "macs": macs,
            "energy": mac + dram,
            "low": 0.5 * (mac + dram),
            "high": 2 * (mac + dram),
            "levels": {"dram": dram, "mac": mac, "own": 0.0},
        }
        for name, macs, mac, dram in (
            ("stem", 50, 1e-6, 9e-6),
            ("block1", 100, 2e-6, 2e-6),
            ("block2", 80, 1.6e-6, 6.4e-6),
            ("pool", 0, 0.0, 1e-6),
        )
    ]
    return {
        "bundle": {"name": "tiny", "sha256": "ab"},
        "hardware": "eyeriss",
        "dataflow": "ws",
        "table": "horowitz-45nm",
        "policy": "corrected",
        "backend": "analytic 1",
        "unit": "J",
        "nodes": nodes,
    } | changes


def record(**changes: Any) -> EnergyRecord:
    return parse_energy_record(energy(**changes))


def point(side: int, dataflow: str, amount: int, cycles: int, **changes: Any) -> SweepPoint:
    hardware = load_hardware("square8").with_(rows=side, cols=side, dataflow=dataflow)
    given: dict[str, Any] = {
        "hardware": hardware,
        "energy": amount,
        "low": amount // 2,
        "high": amount * 2,
        "unit": "J",
        "macs": 100,
        "cycles": cycles,
        "pe_cycles": cycles * side * side,
    }
    return SweepPoint(**(given | changes))


POINTS = marked(
    [
        point(8, "ws", 9 * 10**12, 4000),
        point(16, "ws", 5 * 10**12, 2000),
        point(32, "os", 7 * 10**12, 1000),
    ]
)


def sweep(path: Path, **options: Any) -> None:
    plot_sweep(POINTS, path, **options)


def blocks(path: Path, **options: Any) -> None:
    other = energy(hardware="tpu-like", dataflow="os")
    plot_block_energy([record(), parse_energy_record(other)], path, prefix="block", **options)


def levels(path: Path, **options: Any) -> None:
    plot_levels(record(), path, **options)


ALL: list[Plot] = [sweep, blocks, levels]


def words(path: Path) -> str:
    return " ".join(re.findall(r">([^<>]+)</t", path.read_text("utf-8")))


def test_a_sweep_names_dataflows_units_and_only_the_front(tmp_path: Path) -> None:
    sweep(tmp_path / "a.svg")
    text = words(tmp_path / "a.svg")
    for part in (
        "ws (2 points)",
        "os (1 points)",
        "Pareto front",
        "energy in mJ, all nodes",
        "cycles of the array",
        "16x16 16 kB",
        "32x32 16 kB",
    ):
        assert part in text
    assert "8x8" not in text.replace("16x16", "").replace("32x32", "")


def test_buffers_of_different_sizes_are_all_named(tmp_path: Path) -> None:
    made = load_hardware("square8").with_(filter_sram_bytes=2048)
    plot_sweep(marked([point(8, "ws", 10, 10, hardware=made, unit="MACeq")]), tmp_path / "a.svg")
    text = words(tmp_path / "a.svg")
    assert "8x8 16/2/16 kB" in text
    assert "energy in MACeq" in text


def test_blocks_say_how_far_energy_and_flops_are_apart(tmp_path: Path) -> None:
    blocks(tmp_path / "a.svg")
    text = words(tmp_path / "a.svg")
    # Blocks of 100 and 80 MACs: 1.25 times; of 4 and 8 uJ: 2 times. The stem is left out.
    assert "FLOPs: 1.2 times between blocks" in text
    assert "energy on eyeriss ws: 2 times" in text
    assert "energy on tpu-like os: 2 times" in text
    assert "block2" in text
    assert "stem" not in text
    assert "prices: horowitz-45nm; policy: corrected" in text


def test_levels_are_named_and_those_without_energy_are_not(tmp_path: Path) -> None:
    levels(tmp_path / "a.svg")
    text = words(tmp_path / "a.svg")
    for part in ("DRAM", "multiply-accumulates", "stem", "pool", "energy in µJ", "bounds"):
        assert part in text
    assert "own" not in text.split()
    changed = energy(hardware="eyeriss[dataflow=ws]")
    changed["nodes"][0]["levels"]["own"] = 3e-6
    plot_levels(parse_energy_record(changed), tmp_path / "b.svg")
    text = words(tmp_path / "b.svg")
    assert "own" in text.split()
    assert "on eyeriss[dataflow=ws]" in text
    assert "ws] ws" not in text


@pytest.mark.parametrize("plot", ALL)
def test_every_plot_is_written_in_every_format_the_same_each_time(
    plot: Plot, tmp_path: Path
) -> None:
    for suffix, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
        plot(first, title="Mine")
        plot(second, title="Mine")
        assert first.read_bytes().startswith(magic)
        assert first.read_bytes() == second.read_bytes()
    assert "Mine" in words(tmp_path / "a.svg")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    with pytest.raises(OutputExistsError):
        plot(tmp_path / "a.png")
    plot(tmp_path / "a.png", force=True)
    with pytest.raises(DataError, match=r"a\.jpg: a plot is written as"):
        plot(tmp_path / "a.jpg")


def test_what_cannot_be_drawn_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(DataError, match="no points of a sweep"):
        plot_sweep([], path)
    with pytest.raises(DataError, match="in two units"):
        plot_sweep([POINTS[0], point(8, "ws", 1, 1, unit="MACeq")], path)
    with pytest.raises(DataError, match="no energy records"):
        plot_block_energy([], path)
    with pytest.raises(DataError, match="no node 'pool'"):
        plot_block_energy([record()], path, prefix="pool")
    short = energy(hardware="other")
    short["nodes"].pop(1)
    with pytest.raises(DataError, match="the record of other is of other nodes"):
        plot_block_energy([record(), parse_energy_record(short)], path)
    free = energy()
    free["nodes"][0] |= {"energy": 0, "low": 0}
    with pytest.raises(DataError, match="eyeriss has a node without energy"):
        plot_block_energy([parse_energy_record(free)], path)
    many = record(nodes=[energy()["nodes"][0] | {"name": f"n{i}"} for i in range(201)])
    with pytest.raises(DataError, match="201 nodes; at most 200"):
        plot_levels(many, path)
    assert not path.exists()


def test_a_record_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    path.write_text(json.dumps(energy()), "utf-8")
    read = read_energy_record(path)
    assert read == record()
    assert (read.network, read.hardware, read.dataflow, read.unit) == (
        "tiny",
        "eyeriss",
        "ws",
        "J",
    )
    assert read.nodes[1].levels == {"dram": 2e-6, "mac": 2e-6, "own": 0.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": []}, "nodes is no list of nodes"),
        ({"nodes": {}}, "nodes is no list of nodes"),
        ({"nodes": [3]}, r"nodes\[0\] is no object"),
        ({"nodes": [{}]}, r"nodes\[0\]: name is missing"),
        ({"table": None}, "table is missing"),
        ({"hardware": 3}, "hardware is missing"),
        ({"unit": "cal"}, "unit is 'cal'; J or MACeq"),
    ],
)
def test_other_records_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        record(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"energy": "3"}, "energy is '3'; a number is needed"),
        ({"energy": float("nan")}, "energy is nan"),
        ({"low": -1}, "low is -1"),
        ({"macs": True}, "macs is True"),
        ({"high": 1e-9}, "energy is not between low and high"),
        ({"levels": None}, "levels is no object"),
        ({"levels": {"mac": None}}, "levels: mac is None"),
    ],
)
def test_other_nodes_are_refused(changes: dict[str, Any], message: str) -> None:
    changed = energy()
    changed["nodes"][2] |= changes
    with pytest.raises(DataError, match=r"nodes\[2\].*" + message):
        parse_energy_record(changed)


def test_files_that_are_no_records_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "e.json"
    with pytest.raises(DataError, match="there is no such file"):
        read_energy_record(path)
    with pytest.raises(DataError, match="cannot be read as text"):
        read_energy_record(tmp_path)
    for raw, message in (
        (b"\xff", "cannot be read as text"),
        (b"{", "this is no JSON"),
        (b"3", "is no object"),
    ):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=message):
            read_energy_record(path)
    monkeypatch.setattr("dynrt.report.energy_records._LIMIT_BYTES", 0)
    with pytest.raises(DataError, match="over 0 bytes"):
        read_energy_record(path)


def test_importing_the_plots_loads_no_matplotlib_and_no_simulator() -> None:
    code = "import sys, dynrt.report.energy_plots, dynrt.energy.sweep; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"matplotlib", "torch", "onnx", "onnxruntime", "scalesim", "ray", "pandas"}
    assert heavy.isdisjoint(run.stdout.split())
