"""Input words without padding: by hand, and against every tap of every output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynrt.energy.analytic import real_ifmap_reads, simulate
from dynrt.energy.array import Dataflow, SimLayer, SystolicArray
from dynrt.errors import EnergyError
from dynrt.ir.layers import ConvLayer
from tests.energy.analytic_reference import Table, ifmap_cycles, read_buffer

ARRAY = SystolicArray(
    rows=2, cols=2, dataflow="ws", ifmap_words=1024, filter_words=1024, ofmap_words=1024
)
#: 2x2 pixels, 3x3 kernel, one zero around: 2x2 outputs.
PADDED = ConvLayer(
    name="padded",
    op="Conv",
    dtype="float32",
    in_h=2,
    in_w=2,
    out_h=2,
    out_w=2,
    channels=1,
    filters=3,
    kernel_h=3,
    kernel_w=3,
    pad_top=1,
    pad_left=1,
    pad_bottom=1,
    pad_right=1,
)


def test_padding_by_hand() -> None:
    # On an axis, output 0 has taps at -1, 0, 1 and output 1 at 0, 1, 2: two real ones each. So 4 * 4
    # of the 6 * 6 pairs are real. 3 filters on 2 columns: the input passes twice. All 4 words stay.
    assert real_ifmap_reads(PADDED, ARRAY) == (2 * 16, 4)
    assert real_ifmap_reads(PADDED, replace(ARRAY, dataflow="os")) == (2 * 16, 4)
    assert real_ifmap_reads(PADDED, replace(ARRAY, dataflow="is")) == (16, 4)


def test_uneven_padding_by_hand() -> None:
    # Two zeros above, none below: output 0 has taps at -2, -1, 0 and output 1 at -1, 0, 1: 3 real
    # ones of 6, 2 distinct. Across as before: 4.
    layer = replace(PADDED, pad_top=2, pad_bottom=0)
    assert real_ifmap_reads(layer, replace(ARRAY, cols=4)) == (3 * 4, 4)


def test_dilation_by_hand() -> None:
    # 5x5 pixels, 3x3 kernel, every other pixel: one output, 9 words of the 25
    layer = replace(
        PADDED, in_h=5, in_w=5, out_h=1, out_w=1, dilation_h=2, dilation_w=2, pad_top=0, pad_left=0
    )
    assert real_ifmap_reads(layer, replace(ARRAY, cols=4)) == (9, 9)


def test_one_group_by_hand() -> None:
    # 4 channels in 2 groups: 2 channels of 4 words; 6 filters in 2 groups: 3 on 2 columns, twice
    layer = replace(PADDED, channels=4, filters=6, groups=2)
    assert real_ifmap_reads(layer, ARRAY) == (2 * 16 * 2, 4 * 2)


def test_padding_alone_reads_nothing() -> None:
    # 1 pixel, three zeros before it, kernel 2: the only output has taps at -3 and -2
    layer = replace(PADDED, in_h=1, out_h=1, in_w=1, out_w=1, kernel_h=2, kernel_w=2, pad_top=3)
    assert real_ifmap_reads(layer, ARRAY) == (0, 0)


@st.composite
def convolutions(draw: st.DrawFn) -> ConvLayer:
    """Any convolution of at least one output, with any padding and dilation."""
    sizes: dict[str, Any] = {}
    for axis, before, after in (("h", "pad_top", "pad_bottom"), ("w", "pad_left", "pad_right")):
        size, kernel = draw(st.integers(1, 9)), draw(st.integers(1, 3))
        dilation, stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        window = (kernel - 1) * dilation + 1
        least = max(0, window - size)
        first = draw(st.integers(0, 2))
        last = draw(st.integers(max(0, least - first), max(0, least - first) + 2))
        sizes |= {
            f"in_{axis}": size,
            f"kernel_{axis}": kernel,
            f"dilation_{axis}": dilation,
            f"stride_{axis}": stride,
            before: first,
            after: last,
            f"out_{axis}": (size + first + last - window) // stride + 1,
        }
    groups = draw(st.integers(1, 2))
    return replace(
        PADDED,
        channels=groups * draw(st.integers(1, 6)),
        filters=groups * draw(st.integers(1, 9)),
        groups=groups,
        **sizes,
    )


def real_window_table(layer: ConvLayer) -> Table:
    table: Table = []
    for y in range(layer.out_h):
        for x in range(layer.out_w):
            line: list[tuple[int, ...] | None] = []
            for ky in range(layer.kernel_h):
                for kx in range(layer.kernel_w):
                    row = y * layer.stride_h + ky * layer.dilation_h - layer.pad_top
                    column = x * layer.stride_w + kx * layer.dilation_w - layer.pad_left
                    real = 0 <= row < layer.in_h and 0 <= column < layer.in_w
                    channels = range(layer.channels // layer.groups)
                    line += [(row, column, channel) if real else None for channel in channels]
            table.append(line)
    return table


@settings(deadline=None)
@given(
    layer=convolutions(),
    rows=st.integers(1, 9),
    cols=st.integers(1, 9),
    dataflow=st.sampled_from(["ws", "os", "is"]),
    ifmap_words=st.integers(100, 400),
)
def test_real_reads_are_those_of_every_tap_of_every_output(
    layer: ConvLayer, rows: int, cols: int, dataflow: Dataflow, ifmap_words: int
) -> None:
    array = replace(ARRAY, rows=rows, cols=cols, dataflow=dataflow, ifmap_words=ifmap_words)
    cycles = ifmap_cycles(real_window_table(layer), layer.filters // layer.groups, array)
    sram = sum(word is not None for line in cycles for word in line)
    assert real_ifmap_reads(layer, array) == (sram, read_buffer(cycles, ifmap_words))


@given(
    size=st.integers(3, 9),
    channels=st.integers(1, 8),
    filters=st.integers(1, 9),
    dataflow=st.sampled_from(["ws", "os", "is"]),
)
def test_without_padding_and_dilation_it_is_what_the_simulator_reports(
    size: int, channels: int, filters: int, dataflow: Dataflow
) -> None:
    layer = replace(
        PADDED,
        in_h=size,
        in_w=size,
        out_h=size - 2,
        out_w=size - 2,
        channels=channels,
        filters=filters,
        pad_top=0,
        pad_left=0,
        pad_bottom=0,
        pad_right=0,
    )
    same = SimLayer(
        height=size, width=size, kernel_h=3, kernel_w=3, channels=channels, filters=filters
    )
    array = replace(ARRAY, dataflow=dataflow, ifmap_words=300)
    raw = simulate(same, array)
    assert real_ifmap_reads(layer, array) == (raw.ifmap_sram_reads, raw.ifmap_dram_reads)


@pytest.mark.parametrize(
    ("layer", "array", "message"),
    [
        ({"out_h": 0}, {}, "out_h is 0"),
        ({"dilation_w": 0}, {}, "dilation_w is 0"),
        ({"filters": 0}, {}, "filters is 0"),
        ({"out_h": 1 << 30}, {}, "the limit is 134217728 words"),
        ({}, {"ifmap_words": 99}, "ifmap_words is 99"),
        ({}, {"dataflow": "rs"}, "dataflow 'rs'"),
    ],
)
def test_what_cannot_be_counted_is_refused(
    layer: dict[str, Any], array: dict[str, Any], message: str
) -> None:
    with pytest.raises(EnergyError, match=message):
        real_ifmap_reads(replace(PADDED, **layer), replace(ARRAY, **array))
