"""A small network of every kind of layer, and what sweeps of it are checked with."""

from __future__ import annotations

from dataclasses import replace

from dynrt.energy.counting import count_nodes
from dynrt.energy.hardware import Hardware
from dynrt.energy.model import price
from dynrt.energy.tables import EnergyTable
from dynrt.ir.graph import NodeId
from dynrt.ir.layers import ConvLayer, GemmLayer, LayerTable, PassLayer, UnmodelledLayer

CONV = ConvLayer(
    name="a.conv",
    op="Conv",
    dtype="float32",
    in_h=6,
    in_w=5,
    out_h=6,
    out_w=5,
    channels=4,
    filters=6,
    groups=2,
    kernel_h=3,
    kernel_w=3,
    pad_top=1,
    pad_left=1,
    pad_bottom=1,
    pad_right=1,
)
GEMM = GemmLayer(name="fc", op="Gemm", dtype="int8", m=1, k=40, n=10)
RELU = PassLayer(
    name="relu", op="Relu", dtype="float32", reads_words=180, writes_words=180, operations=180
)
ODD = UnmodelledLayer(name="odd", op="NonZero", macs=77, bytes_moved=None, reason="data-dependent")
NETWORK: LayerTable = {
    NodeId("a"): (CONV, RELU),
    NodeId("b"): (replace(CONV, name="b.conv", masked="filters"), replace(CONV, name="b.two"), ODD),
    NodeId("head"): (GEMM, ODD),
    NodeId("empty"): (),
}


def whole(hardware: Hardware, table: EnergyTable) -> tuple[int, int, int, int, int]:
    """Energy, low, high, cycles and MACs of the network, counted and priced at once."""
    counts = count_nodes(NETWORK, hardware)
    total = price(counts, table).total
    typed = [item.counts for node in counts.nodes.values() for item in node.typed]
    return (
        total.value,
        total.low,
        total.high,
        sum(c.cycles for c in typed),
        sum(c.macs for c in typed),
    )
