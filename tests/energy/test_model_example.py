"""The worked example of ``docs/energy-model.md``, from a layer to MAC-equivalents and back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dynrt.energy.counting import count_nodes
from dynrt.energy.hardware import DATAFLOWS, Hardware, load_hardware
from dynrt.energy.model import EnergyReport, price
from dynrt.energy.tables import load_table
from dynrt.ir.counts import AccessCounts, CountTable
from dynrt.ir.layers import ConvLayer

DOC = (Path(__file__).parents[2] / "docs" / "energy-model.md").read_text(encoding="utf-8")

LAYER = ConvLayer(
    name="example",
    op="Conv",
    dtype="int8",
    in_h=2,
    in_w=2,
    out_h=2,
    out_w=2,
    channels=3,
    filters=3,
    kernel_h=1,
    kernel_w=1,
)
ARRAY = Hardware(
    name="example",
    rows=2,
    cols=2,
    dataflow="ws",
    ifmap_sram_bytes=1024,
    filter_sram_bytes=1024,
    ofmap_sram_bytes=1024,
    clock_hz=None,
    dram=None,
    source="docs/energy-model.md",
    notes="2 x 2",
)


def counted(policy: str) -> CountTable:
    return count_nodes({"n": (LAYER,)}, ARRAY, policy=policy)


def counts(policy: str) -> AccessCounts:
    return counted(policy).nodes["n"].typed[0].counts


def report(policy: str, *, hops: bool = False) -> EnergyReport:
    return price(counted(policy), load_table("eyeriss-normalised"), hops=hops)


def test_raw_counts() -> None:
    # P = 4 pixels, K = 3 taps, N = 3 filters on 2 x 2, weight-stationary: two row folds and two column
    # folds. ifmap 2 * 4 * 3, filter 3 * 3, ofmap 2 * 4 * 3; a fold has 2*2 + 2 + 4 - 2 = 8 lines.
    raw = counts("scalesim")
    assert (raw.macs, raw.cycles, raw.stall_cycles) == (36, 4 * 8 - 1, 0)
    assert (raw.sram_ifmap_reads, raw.sram_filter_reads) == (24, 9)
    assert (raw.sram_ofmap_reads, raw.sram_ofmap_writes) == (0, 24)
    assert (raw.dram_ifmap_reads, raw.dram_filter_reads) == (12, 9)
    assert raw.dram_ofmap_reads == 0
    assert raw.pe_cycles == 31 * 4
    # ifmap 36 - 2*3*4, ofmap 36 - 2*3*4, filter: 3 columns, row 1 of a full fold passes row 0 once.
    assert (raw.hops_ifmap, raw.hops_ofmap, raw.hops_filter) == (12, 12, 3)


def test_corrected_counts() -> None:
    # 12 outputs; the first row fold's 4 * 2 and 4 * 1 sums are written, and read by the second.
    one = counts("corrected")
    assert (one.sram_ofmap_writes, one.sram_ofmap_reads) == (12 + 12, 12)
    assert (one.dram_ofmap_writes, one.dram_ofmap_reads) == (12, 0)


def test_through_main_memory() -> None:
    one = counts("corrected-dram")
    assert (one.sram_ofmap_writes, one.sram_ofmap_reads) == (24, 12)
    assert (one.dram_ofmap_writes, one.dram_ofmap_reads) == (24, 12)


def test_energy() -> None:
    # 36 * (1 + 4) + 6 * (24 + 9 + 12 + 24) + 200 * (12 + 9 + 12) = 180 + 414 + 6600.
    assert report("corrected").total.value == 7_194_000
    # Hops: 2 * (12 + 12 + 3) more.
    assert report("corrected", hops=True).total.value == 7_248_000
    # Sums to DRAM and back: 200 * (12 + 12) more.
    assert report("corrected-dram").total.value == 11_994_000


@pytest.mark.parametrize("figure", ["7194", "7248", "11994"])
def test_the_page_has_these_figures(figure: str) -> None:
    assert re.search(rf"\b{figure}\b", DOC.replace(",", ""))


def resnet74() -> tuple[ConvLayer, ...]:
    """Its 73 convolutions on CIFAR: 16, 32 and 64 channels, 24 convolutions of 3 x 3 in each stage."""
    layers = [conv3x3(32, 3, 16)]
    for stage, filters in enumerate((16, 32, 64)):
        side, channels = 32 >> stage, filters
        if stage:
            layers.append(conv3x3(2 * side, filters // 2, filters, stride=2))
        layers += [conv3x3(side, channels, filters)] * (23 if stage else 24)
    return tuple(layers)


def conv3x3(side: int, channels: int, filters: int, *, stride: int = 1) -> ConvLayer:
    return ConvLayer(
        name="conv",
        op="Conv",
        dtype="int8",
        in_h=side,
        in_w=side,
        out_h=side // stride,
        out_w=side // stride,
        channels=channels,
        filters=filters,
        kernel_h=3,
        kernel_w=3,
        stride_h=stride,
        stride_w=stride,
        pad_top=1,
        pad_left=1,
        pad_bottom=1,
        pad_right=1,
    )


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_the_page_shows_what_policies_do_to_resnet74(dataflow: str) -> None:
    layers = resnet74()
    assert len(layers) == 73
    hardware = load_hardware("eyeriss").with_(dataflow=dataflow)
    cells = []
    for policy in ("scalesim", "corrected", "corrected-dram"):
        table = count_nodes({"net": layers}, hardware, policy=policy)
        node = price(table, load_table("eyeriss-normalised")).node("net")
        per_mac = node.amount.value / 1000 / sum(layer.macs for layer in layers)
        share = 100 * node.by_level["dram"].value / node.amount.value
        cells.append(f"{per_mac:.1f} ({share:.0f} %)")
    assert f"| {dataflow} | {' | '.join(cells)} |" in DOC
