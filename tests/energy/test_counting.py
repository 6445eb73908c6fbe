"""Layers to access counts, each case counted on paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.energy import analytic
from dynrt.energy.array import Dataflow, SimCounts
from dynrt.energy.backend import AnalyticBackend, Job, backend_named
from dynrt.energy.counting import count_nodes, counts
from dynrt.energy.hardware import Hardware, load_hardware
from dynrt.energy.policy import POLICIES, policy_named
from dynrt.errors import EnergyError
from dynrt.ir.counts import AccessCounts
from dynrt.ir.layers import ConvLayer, GemmLayer, Layer, PassLayer, UnmodelledLayer


def hardware(rows: int, cols: int, dataflow: Dataflow, *, ofmap_bytes: int = 65536) -> Hardware:
    return load_hardware("square8").with_(
        rows=rows,
        cols=cols,
        dataflow=dataflow,
        ifmap_sram_bytes=65536,
        filter_sram_bytes=65536,
        ofmap_sram_bytes=ofmap_bytes,
    )


def conv(**changes: int | str | None) -> ConvLayer:
    """3x3 over a 4x4 picture of 2 channels, padding 1, 3 filters: P = 16, K = 18, N = 3."""
    base = ConvLayer(
        name="c", op="Conv", dtype="int8", in_h=4, in_w=4, out_h=4, out_w=4, channels=2, filters=3,
        kernel_h=3, kernel_w=3, pad_top=1, pad_left=1, pad_bottom=1, pad_right=1,
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]  # fields of the class


GEMM = GemmLayer(name="g", op="Gemm", dtype="int8", m=4, k=6, n=5)


def test_a_weight_stationary_product_by_hand() -> None:
    # M 4, K 6, N 5 on 3 x 2: K in 2 row folds, N in 3 column folds, P = 4 in time.
    found = counts(GEMM, hardware(3, 2, "ws"))
    assert found.macs == 4 * 6 * 5
    assert found.sram_ifmap_reads == 3 * 4 * 6  # all inputs again for each column fold
    assert found.sram_filter_reads == 6 * 5  # each weight once
    # 20 outputs; the first row fold's partial sums are written and read once more
    assert found.sram_ofmap_writes == 2 * 20
    assert found.sram_ofmap_reads == 20
    # everything fits: main memory sees each word once
    assert (found.dram_ifmap_reads, found.dram_filter_reads) == (24, 30)
    assert (found.dram_ofmap_writes, found.dram_ofmap_reads) == (20, 0)
    # lines of a fold: 2 * 3 + 2 + 4 - 2 = 10; 6 folds; the last cycle's number is one less
    assert found.cycles == 6 * 10 - 1
    assert found.pe_cycles == 59 * 6
    assert found.utilisation == 120 / 354


def test_an_output_stationary_product_by_hand() -> None:
    # P 4 in 2 row folds, N 5 in 3 column folds, K = 6 in time: no partial sum leaves its element.
    found = counts(GEMM, hardware(3, 2, "os"))
    assert (found.sram_ifmap_reads, found.sram_filter_reads) == (3 * 24, 2 * 30)
    assert (found.sram_ofmap_writes, found.sram_ofmap_reads) == (20, 0)
    # the simulator writes rows + columns = 5 more in each of 6 folds
    raw = counts(GEMM, hardware(3, 2, "os"), policy="scalesim")
    assert raw.sram_ofmap_writes == 20 + 6 * 5


def test_an_input_stationary_product_by_hand() -> None:
    # K 6 in 2 row folds, P 4 in 2 column folds, N = 5 in time.
    found = counts(GEMM, hardware(3, 2, "is"))
    assert (found.sram_ifmap_reads, found.sram_filter_reads) == (24, 2 * 30)
    assert (found.sram_ofmap_writes, found.sram_ofmap_reads) == (2 * 20, 20)


def test_partial_sums_that_do_not_fit_go_through_main_memory() -> None:
    # ws, 3 x 2: a full column fold has T * cols = 4 * 2 = 8 sums, the last one 4 * 1.
    # 7 words of output buffer: the two full folds (16 sums) do not fit, the last (4) does.
    tight = counts(GEMM, hardware(3, 2, "ws", ofmap_bytes=7))
    assert (tight.dram_ofmap_reads, tight.dram_ofmap_writes) == (16, 20 + 16)
    assert (tight.sram_ofmap_reads, tight.sram_ofmap_writes) == (20, 40)
    roomy = counts(GEMM, hardware(3, 2, "ws", ofmap_bytes=8))
    assert (roomy.dram_ofmap_reads, roomy.dram_ofmap_writes) == (0, 20)


def test_policies_differ_where_they_say() -> None:
    of = {name: counts(GEMM, hardware(3, 2, "ws"), policy=name) for name in POLICIES}
    # raw: each row fold's sums go to main memory, and none is read back
    assert (of["scalesim"].dram_ofmap_writes, of["scalesim"].dram_ofmap_reads) == (40, 0)
    assert (of["scalesim"].sram_ofmap_writes, of["scalesim"].sram_ofmap_reads) == (40, 0)
    assert (of["corrected-dram"].dram_ofmap_writes, of["corrected-dram"].dram_ofmap_reads) == (
        40,
        20,
    )
    assert (of["corrected"].dram_ofmap_writes, of["corrected"].dram_ofmap_reads) == (20, 0)


def test_padding_is_read_by_the_simulator_only() -> None:
    # 4x4, padding 1: of 3 x 4 taps along an axis (3 at each of 4 places) 2 meet padding: 10 real.
    # 10 * 10 pixels times 2 channels; once, as N = 3 fits 8 columns.
    found = counts(conv(), hardware(32, 8, "ws"))
    assert found.sram_ifmap_reads == 10 * 10 * 2
    assert found.dram_ifmap_reads == 4 * 4 * 2
    raw = counts(conv(), hardware(32, 8, "ws"), policy="scalesim")
    assert raw.sram_ifmap_reads == 16 * 18
    assert raw.dram_ifmap_reads == 6 * 6 * 2


def test_dilation_reaches_the_real_pixels() -> None:
    # 3 taps at distance 2 over 7 pixels: 3 places, taps at 0..6. All 7 x 7 pixels of 1 channel:
    # places 0, 1, 2 x taps 0, 2, 4.
    layer = conv(
        in_h=7, in_w=7, out_h=3, out_w=3, channels=1, filters=1, dilation_h=2, dilation_w=2,
        pad_top=0, pad_left=0, pad_bottom=0, pad_right=0,
    )  # fmt: skip
    found = counts(layer, hardware(16, 2, "ws"))
    assert found.macs == 9 * 9
    assert found.sram_ifmap_reads == 9 * 9
    assert found.dram_ifmap_reads == 7 * 7
    # the simulator knows no dilation: the undilated job reaches 5 x 5
    assert counts(layer, hardware(16, 2, "ws"), policy="scalesim").dram_ifmap_reads == 5 * 5


def test_groups_are_so_many_layers() -> None:
    whole = counts(conv(channels=4, filters=6, groups=2), hardware(4, 4, "ws"))
    one = counts(conv(channels=2, filters=3), hardware(4, 4, "ws"))
    assert whole == one.times(2)
    depthwise = counts(conv(channels=5, filters=5, groups=5), hardware(4, 4, "os"))
    assert depthwise == counts(conv(channels=1, filters=1), hardware(4, 4, "os")).times(5)


def test_repeated_products_are_so_many_layers() -> None:
    assert counts(replace(GEMM, repeat=7), hardware(3, 2, "ws")) == counts(
        GEMM, hardware(3, 2, "ws")
    ).times(7)


def pass_layer(*, fused: bool = False, view: bool = False) -> PassLayer:
    return PassLayer(
        name="p", op="Add", dtype="int8", reads_words=20, writes_words=10, operations=10,
        fused=fused, view=view,
    )  # fmt: skip


def test_passes_stream_each_word_once() -> None:
    found = counts(pass_layer(), hardware(3, 2, "ws"))
    assert found == AccessCounts(
        operations=10,
        sram_ifmap_reads=20,
        sram_ofmap_writes=10,
        dram_ifmap_reads=20,
        dram_ofmap_writes=10,
    )
    assert found.utilisation is None
    assert counts(pass_layer(fused=True), hardware(3, 2, "ws")) == AccessCounts(operations=10)
    assert counts(pass_layer(view=True), hardware(3, 2, "ws")) == AccessCounts()


def test_the_simulator_has_no_passes() -> None:
    with pytest.raises(EnergyError, match=r"'p' \(Add\): the simulator has no unit"):
        counts(pass_layer(), hardware(3, 2, "ws"), policy="scalesim")
    assert counts(pass_layer(fused=True), hardware(3, 2, "ws"), policy="scalesim") == AccessCounts()


def test_what_has_no_model_is_listed_once_for_each_kind() -> None:
    odd = UnmodelledLayer(name="l", op="Loop", macs=7, bytes_moved=11, reason="a loop")
    blind = replace(odd, name="m", bytes_moved=None)
    table = count_nodes({"n": (odd, GEMM, odd), "o": (odd, blind)}, hardware(3, 2, "ws"))
    gap = table.nodes["n"].gaps[0]
    assert (gap.op, gap.count, gap.macs, gap.bytes_moved) == ("Loop", 2, 14, 22)
    assert table.nodes["o"].gaps[0].bytes_moved is None  # unknown, not 11
    raw = count_nodes({"n": (pass_layer(), GEMM)}, hardware(3, 2, "ws"), policy="scalesim")
    assert raw.nodes["n"].gaps[0].bytes_moved == 30
    with pytest.raises(EnergyError, match="a loop"):
        counts(odd, hardware(3, 2, "ws"))


def test_counts_go_by_number_format() -> None:
    # four times as wide: a quarter of the words fits; the counts are apart
    wide = replace(GEMM, dtype="float32")
    table = count_nodes({"n": (GEMM, wide, GEMM)}, hardware(3, 2, "ws", ofmap_bytes=8))
    typed = {t.dtype: t.counts for t in table.nodes["n"].typed}
    assert list(typed) == ["float32", "int8"]
    assert typed["int8"] == counts(GEMM, hardware(3, 2, "ws", ofmap_bytes=8)).times(2)
    assert typed["float32"].dram_ofmap_reads == 20  # 2 words of buffer hold no column fold
    assert typed["int8"].dram_ofmap_reads == 0


def test_kept_groups_are_the_layers_with_fewer_channels() -> None:
    first = conv(filters=4, masked="filters")
    between = PassLayer(
        name="r", op="Mul", dtype="int8", reads_words=64, writes_words=64, masked="words"
    )
    second = conv(channels=4, filters=2, masked="channels")
    table = count_nodes({"n": (first, between, second)}, hardware(4, 4, "ws"), mask_groups={"n": 2})
    node = table.nodes["n"]
    assert len(node.kept) == 3
    assert node.kept[2] == node.typed
    half = (
        counts(conv(filters=2), hardware(4, 4, "ws"))
        + counts(conv(channels=2, filters=2), hardware(4, 4, "ws"))
        + counts(replace(between, reads_words=32, writes_words=32), hardware(4, 4, "ws"))
    )
    assert node.kept[1][0].counts == half
    assert node.kept[0] == () or node.kept[0][0].counts == AccessCounts()


class Recording(AnalyticBackend):
    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def count(self, jobs: Sequence[Job]) -> Mapping[Job, SimCounts]:
        self.jobs += jobs
        return super().count(jobs)


def test_each_shape_is_counted_once() -> None:
    backend = Recording()
    layers: dict[str, tuple[Layer, ...]] = {
        f"n{i}": (replace(GEMM, name=f"g{i}"), conv(name=f"c{i}")) for i in range(5)
    }
    table = count_nodes(layers, hardware(3, 2, "ws"), backend=backend)
    assert len(backend.jobs) == 2
    assert len({table.nodes[n] for n in layers}) == 1
    assert (table.policy, table.backend) == ("corrected", "analytic 1")


def test_names_that_are_not_there() -> None:
    with pytest.raises(EnergyError, match="corrected, corrected-dram, scalesim"):
        policy_named("ours")
    with pytest.raises(EnergyError, match="analytic, scalesim"):
        backend_named("magic")
    assert backend_named("analytic").version == "analytic 1"


def test_a_layer_that_cannot_be_counted_names_its_node() -> None:
    wrong = replace(GEMM, m=0)
    with pytest.raises(EnergyError, match="node 'n': Gemm 'g'"):
        count_nodes({"n": (wrong,)}, hardware(3, 2, "ws"))


@given(
    m=st.integers(1, 40),
    k=st.integers(1, 40),
    n=st.integers(1, 40),
    rows=st.integers(1, 9),
    cols=st.integers(2, 9),
    dataflow=st.sampled_from(["ws", "os", "is"]),
    ofmap=st.integers(4, 400),
)
def test_corrected_counts_balance(
    m: int, k: int, n: int, rows: int, cols: int, dataflow: Dataflow, ofmap: int
) -> None:
    layer = replace(GEMM, m=m, k=k, n=n)
    machine = hardware(rows, cols, dataflow, ofmap_bytes=ofmap)
    of = {name: counts(layer, machine, policy=name) for name in POLICIES}
    for found in of.values():
        assert found.macs == m * k * n
        assert found.cycles == of["scalesim"].cycles
    for name in ("corrected", "corrected-dram"):
        found = of[name]
        # what is written and never read again is the outputs, at each memory
        assert found.sram_ofmap_writes - found.sram_ofmap_reads == m * n
        assert found.dram_ofmap_writes - found.dram_ofmap_reads == m * n
        assert found.dram_ofmap_reads <= found.sram_ofmap_reads
    assert of["corrected"].dram_ofmap_reads <= of["corrected-dram"].dram_ofmap_reads
    assert of["corrected"].sram_ofmap_reads == of["corrected-dram"].sram_ofmap_reads


@given(
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    channels=st.integers(1, 3),
    sram=st.integers(100, 600),
    dataflow=st.sampled_from(["ws", "os", "is"]),
)
def test_real_reads_are_those_of_a_walk_over_all_taps(
    h: int,
    w: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    pads: tuple[int, int, int, int],
    channels: int,
    sram: int,
    dataflow: Dataflow,
) -> None:
    out_h = (h + pads[0] + pads[2] - (kernel[0] - 1) * dilation[0] - 1) // stride[0] + 1
    out_w = (w + pads[1] + pads[3] - (kernel[1] - 1) * dilation[1] - 1) // stride[1] + 1
    if out_h < 1 or out_w < 1:
        return
    layer = ConvLayer(
        name="c", op="Conv", dtype="int8", in_h=h, in_w=w, out_h=out_h, out_w=out_w,
        channels=channels, filters=5, kernel_h=kernel[0], kernel_w=kernel[1], stride_h=stride[0],
        stride_w=stride[1], dilation_h=dilation[0], dilation_w=dilation[1], pad_top=pads[0],
        pad_left=pads[1], pad_bottom=pads[2], pad_right=pads[3],
    )  # fmt: skip
    touched = [
        (y, x)
        for i in range(out_h)
        for j in range(out_w)
        for a in range(kernel[0])
        for b in range(kernel[1])
        if 0 <= (y := i * stride[0] + a * dilation[0] - pads[0]) < h
        and 0 <= (x := j * stride[1] + b * dilation[1] - pads[1]) < w
    ]
    array = hardware(3, 2, dataflow).with_(ifmap_sram_bytes=sram).array("int8")
    column_folds = 1 if dataflow == "is" else 3  # 5 filters on 2 columns
    sram_reads, dram_reads = analytic.real_ifmap_reads(layer, array)
    assert sram_reads == column_folds * len(touched) * channels
    distinct = len(set(touched)) * channels
    assert distinct <= dram_reads <= sram_reads
    if distinct <= 50 * (sram // 100):
        assert dram_reads == distinct
