"""Suite ``energy``: our counts against SCALE-Sim's own time for the same counts, and from cold.

The simulator needs minutes for what takes us milliseconds, so that it has few turns: it is timed in
this process, between ours, and its counts must be ours in every field.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.energy_networks import NETWORKS
from bench.files import ROOT
from bench.row import Measurement, MissingError, Request, Row, derived_row, require, row_of
from dynrt.energy import analytic
from dynrt.energy.array import SimCounts, SimLayer, SystolicArray
from dynrt.energy.hardware import load_hardware
from dynrt.errors import DynrtError
from dynrt.ir.layers import ConvLayer, GemmLayer, Layer

#: Arrays of 32x32 with 64 kB and 12x14 with 36 kB for each operand.
HARDWARE = ("tpu-like", "eyeriss")
DATAFLOWS = ("ws", "os", "is")
#: The simulator's turns at most: all of ResNet-74's layers take it most of a minute.
_MOST_SIMULATED = 2
#: Turns of ours for each of the simulator's, of which the median counts.
_OURS_PER_TURN = 5
_MOST_PROCESSES = 9
_MOST_LARGE_PROCESSES = 3
#: ImageNet-size layers: a 56 x 56 x 64 convolution, and the stem at 224, as the simulator sees them.
LARGE = {
    "3x3": SimLayer(height=58, width=58, kernel_h=3, kernel_w=3, channels=64, filters=64),
    "stem": SimLayer(
        height=229,
        width=229,
        kernel_h=7,
        kernel_w=7,
        channels=3,
        filters=64,
        stride_h=2,
        stride_w=2,
    ),
}
#: Those that the simulator finishes in a minute or two; input-stationary takes it four times that.
LARGE_DATAFLOWS = ("ws", "os")
Simulate = Callable[[SimLayer, SystolicArray], SimCounts]
Pair = tuple[SimLayer, SystolicArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Layers that are timed together.

    Attributes:
        name: for the note.
        pairs: layers and their array.
    """

    name: str
    pairs: tuple[Pair, ...]


def job_of(layer: Layer) -> SimLayer:
    """The layer as the simulator gets it: the input that its outputs reach, without padding."""
    if isinstance(layer, GemmLayer):
        return SimLayer(
            height=layer.m,
            width=layer.k,
            kernel_h=1,
            kernel_w=layer.k,
            channels=1,
            filters=layer.n,
        )
    require(isinstance(layer, ConvLayer), f"{layer.name} has no multiplications")
    assert isinstance(layer, ConvLayer)
    return SimLayer(
        height=(layer.out_h - 1) * layer.stride_h + layer.kernel_h,
        width=(layer.out_w - 1) * layer.stride_w + layer.kernel_w,
        kernel_h=layer.kernel_h,
        kernel_w=layer.kernel_w,
        channels=layer.channels,
        filters=layer.filters,
        stride_h=layer.stride_h,
        stride_w=layer.stride_w,
    )


def resnet74_cases() -> list[Case]:
    """ResNet-74's distinct layers on two arrays in three dataflows."""
    layers = [layer for own in NETWORKS["resnet74"]().values() for layer in own]
    jobs = list(dict.fromkeys(job_of(layer) for layer in layers))
    return [
        Case(name=f"{name} {dataflow}", pairs=tuple((job, array) for job in jobs))
        for name in HARDWARE
        for dataflow in DATAFLOWS
        for array in [load_hardware(name).with_(dataflow=dataflow).array("float32")]
    ]


def large_cases() -> list[Case]:
    """ImageNet-size layers on 32x32, one case each."""
    return [
        Case(name=f"{name} {dataflow}", pairs=((layer, array),))
        for name, layer in LARGE.items()
        for dataflow in LARGE_DATAFLOWS
        for array in [load_hardware(HARDWARE[0]).with_(dataflow=dataflow).array("float32")]
    ]


def timed(simulate: Simulate, pairs: Sequence[Pair]) -> tuple[float, list[SimCounts]]:
    """Seconds for all pairs, and their counts."""
    began = time.perf_counter()
    found = [simulate(*pair) for pair in pairs]
    return time.perf_counter() - began, found


def compared(
    cases: Sequence[Case], turns: int, *, ours: Simulate, theirs: Simulate
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each case by turn, ours and the simulator's; both must count the same.

    Raises:
        UnfairError: a count differs.
    """
    quick: dict[str, list[float]] = {case.name: [] for case in cases}
    slow: dict[str, list[float]] = {case.name: [] for case in cases}
    for _ in range(turns):
        for case in cases:
            samples = [timed(ours, case.pairs) for _ in range(_OURS_PER_TURN)]
            seconds, counts = timed(theirs, case.pairs)
            require(samples[0][1] == counts, f"{case.name}: the simulator counts otherwise")
            quick[case.name].append(float(np.median([s for s, _ in samples])))
            slow[case.name].append(seconds)
    return quick, slow


def speedup_row(
    name: str, quick: dict[str, list[float]], slow: dict[str, list[float]], what: str
) -> Row:
    """The simulator's time for all cases over ours; the note has each case's."""
    each = [
        f"{case} {np.median(slow[case]) / np.median(quick[case]):.0f}x "
        f"({np.median(slow[case]):.3g} s, {1e3 * np.median(quick[case]):.3g} ms)"
        for case in quick
    ]
    note = f"{what}, SCALE-Sim's time over ours; {len(slow[next(iter(slow))])} turns; "
    return derived_row(
        name,
        lambda a, b: a / b,
        np.sum(list(slow.values()), axis=0),
        np.sum(list(quick.values()), axis=0),
        note=note + ", ".join(each),
    )


def simulator() -> Simulate:
    """The simulator itself.

    Raises:
        MissingError: it is not installed.
    """
    from dynrt.energy.simulator import simulate

    try:
        simulate(
            SimLayer(height=3, width=3, kernel_h=2, kernel_w=2, channels=1, filters=1),
            load_hardware(HARDWARE[0]).array("float32"),
        )
    except DynrtError as exc:
        raise MissingError(str(exc)) from exc
    return simulate


def _resnet74_speedup(request: Request) -> list[Row]:
    turns = min(request.rounds, _MOST_SIMULATED)
    found = compared(resnet74_cases(), turns, ours=analytic.simulate, theirs=simulator())
    return [speedup_row("resnet74_speedup", *found, "ResNet-74's distinct layers")]


def _large_speedup(_: Request) -> list[Row]:
    found = compared(large_cases(), 1, ours=analytic.simulate, theirs=simulator())
    return [speedup_row("imagenet_layer_speedup", *found, "56x56x64 3x3 and 224 stem, 32x32")]


def child(*arguments: str) -> Any:
    """What ``python -m bench.energy_child`` with these arguments reports."""
    command = [sys.executable, "-m", "bench.energy_child", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def _cold(network: str, rounds: int) -> tuple[list[float], list[float], str]:
    """Seconds and peak memory of each round's dearest process; which took what at the median."""
    ways = [(hardware, dataflow) for hardware in HARDWARE for dataflow in DATAFLOWS]
    seconds: list[list[float]] = []
    peaks: list[float] = []
    for _ in range(rounds):
        runs = [child(network, *way) for way in ways]
        seconds.append([run["seconds"] for run in runs])
        peaks.append(max(run["peak_mb"] for run in runs))
    medians = np.median(seconds, axis=0)
    each = ", ".join(
        f"{' '.join(way)} {value:.3g} s" for way, value in zip(ways, medians, strict=True)
    )
    return [max(turn) for turn in seconds], peaks, each


def _resnet74_cold(request: Request) -> list[Row]:
    seconds, _, each = _cold("resnet74", min(request.rounds, _MOST_PROCESSES))
    note = f"all of ResNet-74 in a fresh process behind numpy, the slowest of: {each}"
    return [row_of("resnet74_cold_s", seconds, "s", note)]


def _resnet50_cold(request: Request) -> list[Row]:
    seconds, peaks, each = _cold("resnet50", min(request.rounds, _MOST_LARGE_PROCESSES))
    note = f"all of ResNet-50 at 224 in a fresh process behind numpy, the slowest of: {each}"
    return [
        row_of("resnet50_cold_s", seconds, "s", note),
        row_of("resnet50_peak_mb", peaks, "MB", "the most that was resident in any of them"),
    ]


MEASUREMENTS = (
    Measurement(names=("resnet74_speedup",), rows=_resnet74_speedup),
    Measurement(names=("imagenet_layer_speedup",), rows=_large_speedup),
    Measurement(names=("resnet74_cold_s",), rows=_resnet74_cold),
    Measurement(names=("resnet50_cold_s", "resnet50_peak_mb"), rows=_resnet50_cold),
)
