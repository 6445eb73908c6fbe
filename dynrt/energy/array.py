"""What SCALE-Sim simulates: one dense layer on one systolic array; and what it says of it.

Both backends take these and give these; nothing else of the simulator is known outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dataflow = Literal["ws", "os", "is"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimLayer:
    """A dense convolution without padding; a product is ``height m, width k, kernel 1 x k``.

    The output has ``ceil((size - kernel + stride) / stride)`` rows and columns, as the simulator
    has it. Callers give the *effective* input, ``(out - 1) * stride + kernel``, where that is exact.
    """

    height: int
    width: int
    kernel_h: int
    kernel_w: int
    channels: int
    filters: int
    stride_h: int = 1
    stride_w: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SystolicArray:
    """An array of ``rows`` x ``cols`` processing elements and its three buffers, in words.

    The simulator counts words and takes bytes for words: it is given ``words`` as its bytes.
    """

    rows: int
    cols: int
    dataflow: Dataflow
    ifmap_words: int
    filter_words: int
    ofmap_words: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SimCounts:
    """The simulator's report of one layer, raw: in words and cycles, its faults included.

    Attributes:
        cycles: total compute cycles, stalls included.
        utilisation, mapping_efficiency, compute_utilisation: in percent, as reported.
    """

    macs: int
    cycles: int
    stall_cycles: int
    ifmap_sram_reads: int
    filter_sram_reads: int
    ofmap_sram_writes: int
    ifmap_dram_reads: int
    filter_dram_reads: int
    ofmap_dram_writes: int
    utilisation: float
    mapping_efficiency: float
    compute_utilisation: float
