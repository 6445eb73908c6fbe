"""Random layers and arrays on which the two backends are compared, and the comparison itself."""

from __future__ import annotations

import importlib.util
import math
import os
import random
from collections.abc import Callable
from dataclasses import fields

import pytest

from dynrt.energy import analytic
from dynrt.energy.array import Dataflow, SimCounts, SimLayer, SystolicArray
from dynrt.energy.simulator import Outcome, Pair
from dynrt.errors import EnergyError, SimulatorError

ARRAYS = ((32, 32), (16, 16), (8, 8), (12, 14), (8, 32), (32, 8), (5, 3), (1, 16), (9, 1), (1, 1))
DATAFLOWS: tuple[Dataflow, ...] = ("ws", "os", "is")
#: Words of a buffer: from the smallest that the simulator runs with, past what any layer here needs.
WORDS = (100, 128, 777, 1000, 1024, 1500, 2048, 4096, 5000, 8192, 16384, 65536)
#: The simulator gives percentages as sums over folds, in binary floating point.
_PERCENT_TOLERANCE = 1e-9


def work(layer: SimLayer, array: SystolicArray) -> int:
    """About how much the simulator has to do: words in and out, and cells of its matrices."""
    out_h = math.ceil((layer.height - layer.kernel_h + layer.stride_h) / layer.stride_h)
    out_w = math.ceil((layer.width - layer.kernel_w + layer.stride_w) / layer.stride_w)
    pixels = out_h * out_w
    window = layer.kernel_h * layer.kernel_w * layer.channels
    rows, cols, steps = {
        "ws": (window, layer.filters, pixels),
        "os": (pixels, layer.filters, window),
        "is": (window, pixels, layer.filters),
    }[array.dataflow]
    folds = math.ceil(rows / array.rows) * math.ceil(cols / array.cols)
    lines = folds * (steps + 2 * array.rows + array.cols)
    words = lines * min(array.rows, rows) + folds * rows * min(array.cols, cols)
    return words + lines * (array.rows + 2 * array.cols)


def draw(seed: int, *, most_work: int) -> Pair:
    """A layer on an array, always the same for a seed, that the simulator soon finishes."""
    rng = random.Random(f"{seed}/{most_work}")  # noqa: S311 - layers, no secrets
    kind = KINDS[seed % len(KINDS)]
    while True:
        rows, cols = rng.choice(ARRAYS)
        array = SystolicArray(
            rows=rows,
            cols=cols,
            dataflow=rng.choice(DATAFLOWS),
            ifmap_words=rng.choice(WORDS),
            filter_words=rng.choice(WORDS),
            ofmap_words=rng.choice(WORDS),
        )
        layer = kind(rng)
        if work(layer, array) <= most_work:
            return layer, array


def _convolution(rng: random.Random) -> SimLayer:
    """Kernels of up to 7x7, strides 1 to 3, with outputs that the input gives exactly."""
    kernel_h, kernel_w = rng.choice(((3, 3), (5, 5), (7, 7), (1, 3), (3, 1), (2, 2), (4, 2)))
    stride = rng.choice((1, 1, 2, 3))
    return SimLayer(
        height=(rng.randint(1, 24) - 1) * stride + kernel_h,
        width=(rng.randint(1, 24) - 1) * stride + kernel_w,
        kernel_h=kernel_h,
        kernel_w=kernel_w,
        channels=rng.randint(1, 48),
        filters=rng.randint(1, 80),
        stride_h=stride,
        stride_w=stride,
    )


def _any_size(rng: random.Random) -> SimLayer:
    """Any input: outputs that are rounded up, uneven strides, strides larger than the kernel."""
    kernel_h, kernel_w = rng.randint(1, 5), rng.randint(1, 5)
    return SimLayer(
        height=kernel_h + rng.randint(0, 25),
        width=kernel_w + rng.randint(0, 25),
        kernel_h=kernel_h,
        kernel_w=kernel_w,
        channels=rng.randint(1, 20),
        filters=rng.randint(1, 40),
        stride_h=rng.randint(1, 7),
        stride_w=rng.randint(1, 7),
    )


def _pointwise(rng: random.Random) -> SimLayer:
    stride = rng.choice((1, 1, 2))
    return SimLayer(
        height=rng.randint(1, 28),
        width=rng.randint(1, 28),
        kernel_h=1,
        kernel_w=1,
        channels=rng.randint(1, 256),
        filters=rng.randint(1, 256),
        stride_h=stride,
        stride_w=stride,
    )


def _one_channel(rng: random.Random) -> SimLayer:
    kernel = rng.randint(1, 7)
    return SimLayer(
        height=kernel + rng.randint(0, 40),
        width=kernel + rng.randint(0, 40),
        kernel_h=kernel,
        kernel_w=kernel,
        channels=1,
        filters=rng.choice((1, 1, 2, 16)),
        stride_h=rng.randint(1, 2),
        stride_w=rng.randint(1, 2),
    )


def _product(rng: random.Random) -> SimLayer:
    return _gemm(rng.randint(1, 300), rng.randint(1, 300), rng.randint(1, 300))


def _fully_connected(rng: random.Random) -> SimLayer:
    return _gemm(1, rng.randint(1, 2048), rng.randint(1, 512))


def _tiny(rng: random.Random) -> SimLayer:
    kernel_h, kernel_w = rng.randint(1, 3), rng.randint(1, 3)
    return SimLayer(
        height=kernel_h + rng.randint(0, 3),
        width=kernel_w + rng.randint(0, 3),
        kernel_h=kernel_h,
        kernel_w=kernel_w,
        channels=rng.randint(1, 4),
        filters=rng.randint(1, 5),
        stride_h=rng.randint(1, 4),
        stride_w=rng.randint(1, 4),
    )


def _gemm(m: int, k: int, n: int) -> SimLayer:
    return SimLayer(height=m, width=k, kernel_h=1, kernel_w=k, channels=1, filters=n)


#: Kinds of layers; a seed's remainder says which.
KINDS: tuple[Callable[[random.Random], SimLayer], ...] = (
    _convolution,
    _pointwise,
    _fully_connected,
    _product,
    _one_channel,
    _any_size,
    _convolution,
    _tiny,
)


def differences(pair: Pair, simulated: Outcome) -> list[str]:
    """Where the analytic backend says other than the simulator did; a refusal is met by one."""
    try:
        computed: SimCounts | EnergyError = analytic.simulate(*pair)
    except EnergyError as exc:
        computed = exc
    if isinstance(simulated, SimulatorError) or isinstance(computed, EnergyError):
        if isinstance(simulated, SimulatorError) and isinstance(computed, EnergyError):
            return []
        return [f"simulator {simulated!r}, analytic {computed!r}"]
    found = []
    for field in fields(SimCounts):
        theirs, ours = getattr(simulated, field.name), getattr(computed, field.name)
        if type(ours) is not type(theirs) or not (
            math.isclose(theirs, ours, rel_tol=_PERCENT_TOLERANCE)
            if isinstance(theirs, float)
            else theirs == ours
        ):
            found.append(f"{field.name}: simulator {theirs!r}, analytic {ours!r}")
    return found


def require(module: str, extra: str) -> None:
    """Skip the test or module that calls it where a package is not installed; in CI that fails."""
    if importlib.util.find_spec(module) is not None:
        return
    if os.environ.get("CI"):
        pytest.fail(f"{module} is missing: CI installs dynrt[{extra}]", pytrace=False)
    pytest.skip(f"{module} is not installed (dynrt[{extra}])", allow_module_level=True)


def require_simulator() -> None:
    """The same for SCALE-Sim."""
    require("scalesim", "energy")
