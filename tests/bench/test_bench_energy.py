"""The networks of suite ``energy`` are the papers', and a comparison is one of equal counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import energy
from bench.energy import Case, compared, job_of, large_cases, resnet74_cases, speedup_row
from bench.energy_networks import NETWORKS, resnet50, resnet74, resnet_cifar
from bench.row import MissingError, Request, UnfairError
from dynrt.energy import analytic
from dynrt.energy.array import SimCounts, SimLayer, SystolicArray
from dynrt.errors import MissingExtraError
from dynrt.ir.layers import ConvLayer, Layer, PassLayer, weight_words

ARRAY = SystolicArray(
    rows=4, cols=4, dataflow="ws", ifmap_words=1024, filter_words=1024, ofmap_words=1024
)
TINY = SimLayer(height=4, width=4, kernel_h=2, kernel_w=2, channels=1, filters=2)


def all_layers(name: str) -> list[Layer]:
    return [layer for own in NETWORKS[name]().values() for layer in own]


def test_resnet74_has_the_multiplications_of_the_paper() -> None:
    # Stem 32 * 32 * 16 * 27; a block 2 * 32 * 32 * 16 * 9 * 16 at every stage, its first in stages
    # 2 and 3 three quarters of that; 64 * 10 at the end. DDI's table II: 340 MFLOPs.
    table = resnet74()
    block = 2 * 32 * 32 * 16 * 9 * 16
    per_node = {name: sum(layer.macs for layer in own) for name, own in table.items()}
    assert per_node.pop(next(iter(table))) == 32 * 32 * 16 * 27
    firsts = [per_node.pop(name) for name in list(per_node) if name in ("block13", "block25")]
    assert firsts == [block * 3 // 4] * 2
    assert sorted(per_node.values()) == [640, *[block] * 34]
    assert len(all_layers("resnet74")) == 74
    assert 2 * sum(layer.macs for layer in all_layers("resnet74")) == 335_906_048
    assert len(resnet_cifar(1)) == 5


def test_resnet50_has_the_multiplications_and_weights_of_torchvision() -> None:
    # torchvision 0.20: 25,557,032 parameters, of which 53,120 are batch normalisations' and 1,000
    # biases; 4,089,184,256 multiply-accumulates at 224 (fvcore, without normalisation and pooling).
    layers = all_layers("resnet50")
    assert sum(isinstance(layer, ConvLayer) for layer in layers) == 53
    assert sum(map(weight_words, layers)) == 25_557_032 - 53_120 - 1_000
    assert sum(layer.macs for layer in layers) == 4_089_184_256
    assert len(resnet50()) == 1 + 16 + 1


def test_jobs_are_the_layers_without_padding() -> None:
    for layer in {*all_layers("resnet74"), *all_layers("resnet50")}:
        job = job_of(layer)
        rows = (job.height - job.kernel_h) // job.stride_h + 1
        cols = (job.width - job.kernel_w) // job.stride_w + 1
        taps = job.kernel_h * job.kernel_w * job.channels
        assert rows * cols * taps * job.filters == layer.macs
    relu = PassLayer(name="relu", op="Relu", dtype="float32", reads_words=1, writes_words=1)
    with pytest.raises(UnfairError, match="relu has no multiplications"):
        job_of(relu)


def test_cases_are_those_of_the_acceptance() -> None:
    cases = resnet74_cases()
    assert [case.name for case in cases] == [
        f"{hardware} {flow}" for hardware in ("tpu-like", "eyeriss") for flow in ("ws", "os", "is")
    ]
    assert all(len(case.pairs) == 7 for case in cases)  # stem, three sizes, two that halve, head
    sides = [(case.pairs[0][1].rows, case.pairs[0][1].cols) for case in cases]
    assert sides == [(32, 32)] * 3 + [(12, 14)] * 3
    words = [case.pairs[0][1].ifmap_words for case in cases]
    assert words == [64 * 256] * 3 + [36 * 256] * 3
    large = {case.name: case.pairs[0][0] for case in large_cases()}
    assert set(large) == {"3x3 ws", "3x3 os", "stem ws", "stem os"}
    stem = next(iter(resnet50().values()))[0]
    assert large["stem ws"] == job_of(stem)


def test_a_comparison_times_both_and_needs_equal_counts() -> None:
    case = Case(name="tiny", pairs=((TINY, ARRAY),))
    calls: list[str] = []

    def ours(*pair: Any) -> SimCounts:
        calls.append("ours")
        return analytic.simulate(*pair)

    def theirs(*pair: Any) -> SimCounts:
        calls.append("theirs")
        return analytic.simulate(*pair)

    quick, slow = compared([case], 2, ours=ours, theirs=theirs)
    assert calls == (["ours"] * 5 + ["theirs"]) * 2
    assert len(quick["tiny"]) == len(slow["tiny"]) == 2
    assert all(s > 0 for s in quick["tiny"] + slow["tiny"])

    def otherwise(*pair: Any) -> SimCounts:
        found = analytic.simulate(*pair)
        return replace(found, ofmap_dram_writes=found.ofmap_dram_writes + 1)

    with pytest.raises(UnfairError, match="tiny: the simulator counts otherwise"):
        compared([case], 1, ours=ours, theirs=otherwise)


def test_the_simulator_itself_is_what_we_compare_with() -> None:
    case = Case(name="tiny", pairs=((TINY, ARRAY),))
    quick, slow = compared([case], 1, ours=analytic.simulate, theirs=energy.simulator())
    assert slow["tiny"][0] > quick["tiny"][0]


def test_a_simulator_that_is_not_installed_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise MissingExtraError("scalesim", "energy")

    monkeypatch.setattr("dynrt.energy.simulator.simulate", absent)
    with pytest.raises(MissingError, match=r"scalesim is missing: pip install 'dynrt\[energy\]'"):
        energy.simulator()


def test_a_speedup_is_the_ratio_of_sums_and_names_each_case() -> None:
    row = speedup_row(
        "r", {"a": [0.001, 0.003], "b": [0.001, 0.001]}, {"a": [1.0, 1.0], "b": [3.0, 5.0]}, "all"
    )
    # Sums by turn: 4 and 6 over 0.002 and 0.004; the ratio of their medians is 5 / 0.003.
    assert row.value == pytest.approx(5 / 0.003)
    assert [row.low, row.high] == pytest.approx(list(np.percentile([2000, 1500], (25, 75))))
    assert "a 500x (1 s, 2 ms)" in row.note
    assert "2 turns" in row.note


def test_cold_rows_are_of_the_slowest_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def fake(*arguments: str) -> dict[str, float]:
        asked.append(arguments)
        slow = arguments[1:] == ("eyeriss", "os")
        return {"seconds": 3.0 if slow else 1.0, "cycles": 1, "peak_mb": 50.0 + slow}

    monkeypatch.setattr(energy, "child", fake)
    rows = {
        row.name: row for item in energy.MEASUREMENTS[2:] for row in item.rows(Request(rounds=2))
    }
    assert set(rows) == {"resnet74_cold_s", "resnet50_cold_s", "resnet50_peak_mb"}
    assert rows["resnet50_cold_s"].value == rows["resnet74_cold_s"].value == 3.0
    assert rows["resnet50_peak_mb"].value == 51.0
    assert "eyeriss os 3 s" in rows["resnet74_cold_s"].note
    assert len(asked) == len(set(asked)) * 2 == 24


def test_a_fresh_process_counts_the_whole_network() -> None:
    found = energy.child("resnet74", "tpu-like", "ws")
    array = resnet74_cases()[0].pairs[0][1]
    cycles = [analytic.simulate(job_of(layer), array).cycles for layer in all_layers("resnet74")]
    assert found["cycles"] == sum(cycles)
    assert 0 < found["seconds"] < 10
    assert 10 < found["peak_mb"] < 1000


def test_the_figure_shows_the_spread_of_equal_blocks(tmp_path: Path) -> None:
    from bench.energy_figure import main, record

    found = record("eyeriss", "ws")
    blocks = [node for node in found.nodes if node.name.startswith("block")]
    equal = [node.energy for node in blocks if node.macs == max(n.macs for n in blocks)]
    assert len(equal) == 34
    assert max(equal) > 1.05 * min(equal)  # the same FLOPs do not take the same energy
    assert main([str(tmp_path / "f.svg")]) == 0
    text = (tmp_path / "f.svg").read_text("utf-8")
    assert "FLOPs: 1.3 times between blocks" in text
    assert text.count("energy on ") == 6
