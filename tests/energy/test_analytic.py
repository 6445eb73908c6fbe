"""The analytic backend: by hand, against recorded runs of SCALE-Sim, against its memories word by word."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dynrt.energy.analytic import MOST_INPUT_WORDS, simulate, validate
from dynrt.energy.array import Dataflow, SimCounts, SimLayer, SystolicArray
from dynrt.errors import EnergyError
from tests.energy.analytic_reference import (
    filter_cycles,
    ifmap_cycles,
    ofmap_cycles,
    read_buffer,
    simulator_window_table,
    write_buffer,
)

RECORDED = json.loads(Path(__file__).with_name("scalesim_3_0_0.json").read_text())
#: 3x3 pixels, one channel, one 2x2 filter: P = 4 outputs, K = 4 taps, N = 1 filter.
SMALL = SimLayer(height=3, width=3, kernel_h=2, kernel_w=2, channels=1, filters=1)
SQUARE = SystolicArray(
    rows=2, cols=2, dataflow="ws", ifmap_words=1024, filter_words=1024, ofmap_words=1024
)


def product(m: int, k: int, n: int) -> SimLayer:
    return SimLayer(height=m, width=k, kernel_h=1, kernel_w=k, channels=1, filters=n)


def test_weight_stationary_by_hand() -> None:
    # Rows hold taps: 4 taps on 2 rows are 2 row folds; 1 filter is 1 column fold. A fold: 2 cycles
    # to load, then 4 outputs through 2 rows and 2 columns: 2*2 + 2 + 4 - 2 = 8; 16 in all, the last
    # is number 15. Each fold reads 2 taps of 4 outputs; each weight once; each fold writes 4 sums.
    counts = simulate(SMALL, SQUARE)
    assert counts == SimCounts(
        macs=4 * 4,
        cycles=15,
        stall_cycles=0,
        ifmap_sram_reads=2 * (2 * 4),
        filter_sram_reads=4,
        ofmap_sram_writes=2 * 4,
        ifmap_dram_reads=9,  # pixels
        filter_dram_reads=4,
        ofmap_dram_writes=8,
        utilisation=100 * 16 / (15 * 4),
        mapping_efficiency=50.0,  # one of two columns
        compute_utilisation=100 * (2 * 4) / (4 * 9),  # a fold is taken for one cycle longer
    )


def test_output_stationary_by_hand() -> None:
    # Rows hold outputs: 2 row folds. A fold: 4 taps through 2 + 2 - 2 more cycles: 6; 12 in all.
    # Each output is written once, and R + C = 4 words too many per fold.
    counts = simulate(SMALL, replace(SQUARE, dataflow="os"))
    assert counts == SimCounts(
        macs=16,
        cycles=11,
        stall_cycles=0,
        ifmap_sram_reads=2 * (2 * 4),
        filter_sram_reads=2 * 4,
        ofmap_sram_writes=4 + 2 * (2 + 2),
        ifmap_dram_reads=9,
        filter_dram_reads=4,
        ofmap_dram_writes=4,
        utilisation=100 * 16 / (11 * 4),
        mapping_efficiency=50.0,
        compute_utilisation=(2 * 4) / (4 * 6) * 100,
    )


def test_input_stationary_by_hand() -> None:
    # Rows hold taps, columns outputs: 2 x 2 folds of 2*2 + 2 + 1 - 2 = 5 cycles: 20 in all.
    # Each input word is loaded once for each output; the weights pass once for each column fold.
    counts = simulate(SMALL, replace(SQUARE, dataflow="is"))
    assert counts == SimCounts(
        macs=16,
        cycles=19,
        stall_cycles=0,
        ifmap_sram_reads=4 * 4,
        filter_sram_reads=2 * 4,
        ofmap_sram_writes=2 * 4,
        ifmap_dram_reads=9,
        filter_dram_reads=4,
        ofmap_dram_writes=8,
        utilisation=100 * 16 / (19 * 4),
        mapping_efficiency=100.0,
        compute_utilisation=(4 * 1) / (4 * 6) * 100,
    )


def test_rows_and_columns_past_the_edge_are_counted_by_rounding_up() -> None:
    # 4x4 pixels, 2x2 kernel, stride 3: ceil((4 - 2 + 3) / 3) = 2 outputs an axis; the second starts
    # at pixel 3 and has one real tap. Real pixels of an axis: 0, 1, 3. The simulator counts all taps
    # as reads of SRAM, but fetches 3 * 3 words only.
    layer = SimLayer(
        height=4, width=4, kernel_h=2, kernel_w=2, channels=1, filters=1, stride_h=3, stride_w=3
    )
    counts = simulate(layer, SQUARE)
    assert (counts.macs, counts.ifmap_sram_reads, counts.ifmap_dram_reads) == (16, 16, 9)


def test_a_product_that_just_does_not_fit_is_read_again_for_every_column_fold() -> None:
    # 1024 words keep 50 sets of 10. 20 x 24 words stay; 20 x 25 are 500, and the last of them
    # makes the buffer forget all: 9 filters on 4 columns are 3 passes.
    array = replace(SQUARE, rows=4, cols=4)
    assert simulate(product(20, 24, 9), array).ifmap_dram_reads == 480
    assert simulate(product(20, 25, 9), array).ifmap_dram_reads == 3 * 500


def test_weights_that_do_not_fit_are_read_again() -> None:
    # 40 x 30 weights, 500 words kept. ws: each is asked for once. is: all pass for each of the 3
    # column folds of 5 outputs. os: a column fold has 40 * 2 = 80 weights, asked for 3 times; 15
    # folds follow one another. Of the words so far, 500 end an epoch: in the 7th fold (480 + 20 of
    # 80: 60 kept, so its second time fetches 20 more), and again later; see reads_of_folds.
    layer, words = product(5, 40, 30), 40 * 30
    assert simulate(layer, SQUARE).filter_dram_reads == words
    assert simulate(layer, replace(SQUARE, dataflow="is")).filter_dram_reads == 3 * words
    # Epochs end in fold 7 (60 of it kept, 20 again, then 80 kept) and in fold 13: 80 + 5 * 80 = 480
    # kept after fold 12, so again after 20 words of it: 60 kept, 20 again.
    assert simulate(layer, replace(SQUARE, dataflow="os")).filter_dram_reads == words + 20 + 20


@pytest.mark.parametrize("row", RECORDED["rows"], ids=str)
def test_recorded_runs_of_the_simulator(row: list[list[int]]) -> None:
    layer = SimLayer(**dict(zip(RECORDED["layer"], row[0], strict=True)))
    array = SystolicArray(**dict(zip(RECORDED["array"], row[1], strict=True)))
    got, want = astuple(simulate(layer, array)), row[2]
    assert RECORDED["counts"] == [field.name for field in fields(SimCounts)]
    assert list(got[:-3]) == want[:-3]
    # Python 3.12 adds floats with compensation; the simulator's means differ in the last bit by it
    assert got[-3:] == pytest.approx(want[-3:], rel=1e-12)


layers = st.builds(
    SimLayer,
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    kernel_h=st.integers(1, 4),
    kernel_w=st.integers(1, 4),
    channels=st.integers(1, 5),
    filters=st.integers(1, 9),
    stride_h=st.integers(1, 5),
    stride_w=st.integers(1, 5),
)
arrays = st.builds(
    SystolicArray,
    rows=st.integers(1, 9) | st.just(60),
    cols=st.integers(1, 9) | st.just(60),
    dataflow=st.sampled_from(["ws", "os", "is"]),
    ifmap_words=st.integers(100, 500),
    filter_words=st.integers(100, 500),
    ofmap_words=st.integers(2, 80),
)


@settings(deadline=None)
@given(layer=layers, array=arrays)
def test_every_count_is_that_of_the_memories_word_by_word(
    layer: SimLayer, array: SystolicArray
) -> None:
    assume(layer.kernel_h <= layer.height and layer.kernel_w <= layer.width)
    table = simulator_window_table(layer)
    outputs, taps, filters = len(table), len(table[0]), layer.filters
    assume((outputs, taps, array.rows, array.cols) != (1, 1, 1, 1))
    asked_inputs = ifmap_cycles(table, filters, array)
    asked_weights = filter_cycles(outputs, taps, filters, array)
    written = ofmap_cycles(outputs, taps, filters, array)
    try:
        ifmap_dram = read_buffer(asked_inputs, array.ifmap_words)
        filter_dram = read_buffer(asked_weights, array.filter_words)
    except ZeroDivisionError:
        with pytest.raises(EnergyError, match="refilled twice in one cycle"):
            simulate(layer, array)
        return
    ofmap_dram, stalls, last_cycle = write_buffer(
        written, columns=array.cols, buffer_words=array.ofmap_words
    )
    got = simulate(layer, array)
    assert got.macs == outputs * taps * filters
    assert (got.cycles, got.stall_cycles) == (last_cycle, stalls)
    assert got.ifmap_dram_reads == ifmap_dram
    assert got.filter_dram_reads == filter_dram
    assert got.ofmap_dram_writes == ofmap_dram
    assert got.filter_sram_reads == sum(word is not None for line in asked_weights for word in line)
    column_folds = 1 if array.dataflow == "is" else -(-filters // array.cols)
    assert got.ifmap_sram_reads == column_folds * outputs * taps  # words past the edge count
    sums = sum(word is not None for line in written for word in line)
    if array.dataflow == "os":
        folds = -(-outputs // array.rows) * -(-filters // array.cols)
        sums += folds * (array.rows + array.cols)
    assert got.ofmap_sram_writes == sums


@pytest.mark.parametrize(
    ("layer", "array", "message"),
    [
        ({"filters": 0}, {}, "filters is 0; the least"),
        ({"stride_w": 0}, {}, "stride_w is 0; the least"),
        ({"channels": -1}, {}, "channels is -1; the least"),
        ({"kernel_h": 4}, {}, "kernel, 4x2, is larger than the input, 3x3"),
        ({"kernel_w": 4}, {}, "kernel, 2x4, is larger than the input, 3x3"),
        ({"height": MOST_INPUT_WORDS}, {}, "the limit is 134217728 words"),
        ({}, {"rows": 0}, "rows is 0; the least"),
        ({}, {"cols": 0}, "cols is 0; the least"),
        ({}, {"dataflow": "rs"}, "dataflow 'rs'; there are ws, os and is"),
        ({}, {"ifmap_words": 99}, "ifmap_words is 99; the least that can be simulated is 100"),
        ({}, {"filter_words": 0}, "filter_words is 0; the least that can be simulated is 100"),
        ({}, {"ofmap_words": 1}, "ofmap_words is 1; the least that can be simulated is 2"),
        (
            {"height": 1, "width": 1, "kernel_h": 1, "kernel_w": 1},
            {"rows": 1, "cols": 1, "dataflow": "os"},
            "single multiplication takes no cycle",
        ),
    ],
)
def test_what_the_simulator_cannot_run_is_refused(
    layer: dict[str, Any], array: dict[str, Any], message: str
) -> None:
    bad_layer, bad_array = replace(SMALL, **layer), replace(SQUARE, **array)
    with pytest.raises(EnergyError, match=message):
        validate(bad_layer, bad_array)
    with pytest.raises(EnergyError, match=message):
        simulate(bad_layer, bad_array)


def test_a_single_multiplication_with_weights_or_inputs_in_place_takes_a_cycle() -> None:
    one = SystolicArray(
        rows=1, cols=1, dataflow="ws", ifmap_words=100, filter_words=100, ofmap_words=2
    )
    assert simulate(product(1, 1, 1), one).cycles == 1
    assert simulate(product(1, 1, 1), replace(one, dataflow="is")).cycles == 1


@pytest.mark.parametrize(
    ("dataflow", "layer", "array"),
    [
        # ifmap: 120 rows of the array ask for 120 words in a cycle; 50 are kept
        ("ws", product(120, 300, 200), {"rows": 120, "ifmap_words": 100}),
        ("os", product(120, 120, 200), {"rows": 120, "ifmap_words": 100}),
        ("is", product(120, 20, 200), {"cols": 120, "ifmap_words": 100}),
        # filter
        ("ws", product(2, 10, 200), {"cols": 120, "filter_words": 100}),
        ("os", product(2, 200, 120), {"cols": 120, "filter_words": 100}),
        ("is", product(2, 120, 200), {"rows": 120, "filter_words": 100}),
    ],
)
def test_a_buffer_that_is_refilled_twice_in_a_cycle_is_refused(
    dataflow: Dataflow, layer: SimLayer, array: dict[str, Any]
) -> None:
    full = replace(SQUARE, dataflow=dataflow, **array)
    validate(layer, full)
    with pytest.raises(EnergyError, match=r"layer .* on array .* keeps 50 words is refilled twice"):
        simulate(layer, full)


def test_a_large_layer_takes_little_memory() -> None:
    # 224 x 224 x 64 pixels, 3x3: 29 million words a pass; the numbers of all words alone are 26 MB
    layer = SimLayer(height=226, width=226, kernel_h=3, kernel_w=3, channels=64, filters=64)
    array = replace(SQUARE, rows=32, cols=32, dataflow="is", ifmap_words=1 << 16)
    tracemalloc.start()
    try:
        assert simulate(layer, array).ifmap_dram_reads > 226 * 226 * 64
        _now, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 64e6
