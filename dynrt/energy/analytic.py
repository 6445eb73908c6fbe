"""SCALE-Sim 3.0.0's counts without the simulator: exact, in closed forms where there are any.

Words read from and written to SRAM, with ``P`` outputs, ``K`` taps of a window and ``N`` filters on
an array of ``R`` rows and ``C`` columns:

====  ==============  ==============  =============================
flow  ifmap reads     filter reads    ofmap writes
====  ==============  ==============  =============================
ws    ``cf * P * K``  ``K * N``       ``rf * P * N``
os    ``cf * P * K``  ``rf * K * N``  ``P * N + rf * cf * (R + C)``
is    ``P * K``       ``cf * K * N``  ``rf * P * N``
====  ==============  ==============  =============================

with ``rf`` row folds and ``cf`` column folds (``dynrt.energy.folds``). DRAM reads are in
``dynrt.energy.analytic_epochs``, DRAM writes in ``dynrt.energy.analytic_writes``.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from dynrt.energy.analytic_cycles import (
    compute_utilisation_percent,
    mapping_efficiency_percent,
    reported_cycles,
)
from dynrt.energy.analytic_epochs import (
    capacity_words,
    reads_in_order,
    reads_of_folds,
    reads_once_each,
)
from dynrt.energy.analytic_orders import FlatOrder, Order, SkewedOrder
from dynrt.energy.analytic_words import InputWords, real_words, simulated_words
from dynrt.energy.analytic_writes import dram_writes
from dynrt.energy.array import SimCounts, SimLayer, SystolicArray
from dynrt.energy.folds import Folds, folds_of
from dynrt.errors import EnergyError
from dynrt.ir.layers import ConvLayer

#: A larger input, padding included, is refused: there is a number for each word in memory.
MOST_INPUT_WORDS = 1 << 27
#: A read buffer is a hundred sets, a write buffer two halves; with nothing in them nothing runs.
LEAST_READ_BUFFER_WORDS = 100
LEAST_WRITE_BUFFER_WORDS = 2

_CONV_SIZES = (
    *("in_h", "in_w", "out_h", "out_w", "channels", "filters", "groups"),
    *("kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w"),
)


def simulate(layer: SimLayer, array: SystolicArray) -> SimCounts:
    """What SCALE-Sim 3.0.0 reports of ``layer`` on ``array``, faults included, in every field.

    That is its dense simulation, without a given bandwidth (``CALC``) or memory layout.

    Raises:
        EnergyError: as ``validate``; or a buffer that is refilled twice within one cycle.
    """
    validate(layer, array)
    folds = folds_of(layer, array)
    passes = _ifmap_passes(folds.filters, array)
    results = folds.pixels * folds.filters
    spurious = 0
    if array.dataflow == "os":
        spurious = folds.row_folds * folds.col_folds * (array.rows + array.cols)
    else:
        results *= folds.row_folds
    filter_passes = {"ws": 1, "os": folds.row_folds, "is": folds.col_folds}[array.dataflow]
    try:
        _, ifmap_dram = _ifmap_reads(simulated_words(layer), passes, array, as_simulator=True)
        filter_dram = _filter_dram_reads(folds, array)
    except EnergyError as exc:
        raise EnergyError(f"{_name(layer)} on {_name(array)}: {exc}") from None
    cycles = reported_cycles(folds, array)
    return SimCounts(
        macs=folds.macs,
        cycles=cycles,
        stall_cycles=0,
        ifmap_sram_reads=passes * folds.pixels * folds.taps,
        filter_sram_reads=filter_passes * folds.taps * folds.filters,
        ofmap_sram_writes=results + spurious,
        ifmap_dram_reads=ifmap_dram,
        filter_dram_reads=filter_dram,
        ofmap_dram_writes=dram_writes(results, columns=array.cols, buffer_words=array.ofmap_words),
        utilisation=folds.macs * 100 / (cycles * (array.rows * array.cols)),
        mapping_efficiency=mapping_efficiency_percent(folds, array),
        compute_utilisation=compute_utilisation_percent(folds, array),
    )


def real_ifmap_reads(layer: ConvLayer, array: SystolicArray) -> tuple[int, int]:
    """Input words that one group of ``layer`` reads from SRAM and from DRAM; padding is not read.

    In SRAM every tap of every output that meets a real pixel counts, once for each time that the
    dataflow goes over the input. DRAM reads are those of the simulator's buffer and order, over the
    words that there are, with taps as far apart as the dilation says.

    Raises:
        EnergyError: a size is not positive, an array that ``validate`` refuses, or an input of more
            than ``MOST_INPUT_WORDS`` words.
    """
    place = f"convolution {layer.in_h}x{layer.in_w}x{layer.channels}"
    for name in _CONV_SIZES:
        _require_at_least(getattr(layer, name), 1, f"{place}: {name}")
    _validate_array(array)
    words = real_words(layer)
    _require_size(words, place)
    passes = _ifmap_passes(layer.filters // layer.groups, array)
    return _ifmap_reads(words, passes, array, as_simulator=False)


def validate(layer: SimLayer, array: SystolicArray) -> None:
    """Refuse what the simulator cannot run.

    Raises:
        EnergyError: a size that is not positive; a kernel larger than the input; a read buffer of
            fewer than 100 words or a write buffer of fewer than 2; a single multiplication on a
            single output-stationary processing element, which takes no cycle; an input of more
            than ``MOST_INPUT_WORDS`` words.
    """
    for field in fields(layer):
        _require_at_least(getattr(layer, field.name), 1, f"{_name(layer)}: {field.name}")
    _validate_array(array)
    if layer.kernel_h > layer.height or layer.kernel_w > layer.width:
        raise EnergyError(
            f"{_name(layer)}: the kernel, {layer.kernel_h}x{layer.kernel_w}, is larger than the "
            f"input, {layer.height}x{layer.width}"
        )
    _require_size(simulated_words(layer), _name(layer))
    if reported_cycles(folds_of(layer, array), array) < 1:
        raise EnergyError(
            f"{_name(layer)} on {_name(array)}: a single multiplication takes no cycle on a single "
            f"processing element; the simulator divides by zero there"
        )


def _ifmap_passes(filters: int, array: SystolicArray) -> int:
    """How often the array goes over the whole input."""
    return 1 if array.dataflow == "is" else -(-filters // array.cols)


def _ifmap_reads(
    words: InputWords, passes: int, array: SystolicArray, *, as_simulator: bool
) -> tuple[int, int]:
    """Real words read from SRAM, and from DRAM."""
    reads, distinct = words.reads()
    capacity = capacity_words(array.ifmap_words)
    if distinct < capacity:
        return passes * reads, distinct
    width = array.cols if array.dataflow == "is" else array.rows
    tiny = as_simulator and capacity < width
    if reads == distinct and not tiny:
        return passes * reads, reads_once_each(distinct, passes=passes, capacity=capacity)
    outputs, taps = words.outputs(), words.taps()
    order: Order
    if array.dataflow == "ws":
        order = SkewedOrder(inner=outputs, outer=taps, columns=array.rows)
    elif array.dataflow == "os":
        order = SkewedOrder(inner=taps, outer=outputs, columns=array.rows)
    else:
        order = FlatOrder(inner=taps, outer=outputs, rows=array.rows, columns=array.cols)
    dram = reads_in_order(
        order,
        size_words=words.size_words,
        capacity=capacity,
        passes=passes,
        absent=words.absent(),
        absent_reads=order.words - reads,
        refill_once_a_cycle=tiny,
    )
    return passes * reads, dram


def _filter_dram_reads(folds: Folds, array: SystolicArray) -> int:
    weights = folds.taps * folds.filters
    capacity = capacity_words(array.filter_words)
    if weights < capacity:
        return weights
    if capacity < (array.rows if array.dataflow == "is" else array.cols):
        return reads_in_order(
            _filter_order(folds, array),
            size_words=weights,
            capacity=capacity,
            passes=folds.col_folds if array.dataflow == "is" else 1,
            refill_once_a_cycle=True,
        )
    if array.dataflow == "ws":
        return weights
    if array.dataflow == "is":
        return reads_once_each(weights, passes=folds.col_folds, capacity=capacity)
    full, rest = divmod(folds.filters, array.cols)
    parts = ((folds.taps * array.cols, full), (folds.taps * rest, 1))
    return reads_of_folds(parts, repeats=folds.row_folds, capacity=capacity)


def _filter_order(folds: Folds, array: SystolicArray) -> Order:
    """The order of all weights; they are numbered tap by tap, filters innermost."""
    taps = np.arange(folds.taps, dtype=np.int64) * folds.filters
    filters = np.arange(folds.filters, dtype=np.int64)
    if array.dataflow == "ws":
        return FlatOrder(inner=taps, outer=filters, rows=array.rows, columns=array.cols)
    if array.dataflow == "os":
        repeats = folds.row_folds
        return SkewedOrder(inner=taps, outer=filters, columns=array.cols, fold_repeats=repeats)
    return SkewedOrder(inner=filters, outer=taps, columns=array.rows)


def _validate_array(array: SystolicArray) -> None:
    name = _name(array)
    if array.dataflow not in ("ws", "os", "is"):
        raise EnergyError(f"{name}: dataflow {array.dataflow!r}; there are ws, os and is")
    _require_at_least(array.rows, 1, f"{name}: rows")
    _require_at_least(array.cols, 1, f"{name}: cols")
    _require_at_least(array.ifmap_words, LEAST_READ_BUFFER_WORDS, f"{name}: ifmap_words")
    _require_at_least(array.filter_words, LEAST_READ_BUFFER_WORDS, f"{name}: filter_words")
    _require_at_least(array.ofmap_words, LEAST_WRITE_BUFFER_WORDS, f"{name}: ofmap_words")


def _require_at_least(value: int, least: int, what: str) -> None:
    if value < least:
        raise EnergyError(f"{what} is {value}; the least that can be simulated is {least}")


def _require_size(words: InputWords, place: str) -> None:
    if words.size_words > MOST_INPUT_WORDS:
        raise EnergyError(
            f"{place}: {words.size_words} words of input; the limit is {MOST_INPUT_WORDS} words"
        )


def _name(what: SimLayer | SystolicArray) -> str:
    if isinstance(what, SystolicArray):
        return f"array {what.rows}x{what.cols} {what.dataflow}"
    return (
        f"layer {what.height}x{what.width}x{what.channels}, {what.filters} filters "
        f"{what.kernel_h}x{what.kernel_w}, stride {what.stride_h}x{what.stride_w}"
    )
