"""Programs for the tests of kernels: a builder, random ones, and the LSTM gate of the papers."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
import pytest
from hypothesis import strategies as st

from dynrt.ir.graph import Array
from dynrt.runtime.kernels import plain
from dynrt.runtime.kernels.program import (
    BINARY,
    LANES,
    REDUCE,
    UNARY,
    Operation,
    Pool,
    Program,
    Region,
    padded,
)

#: Instruction sets of the native back end; a processor that lacks one uses the next lower.
SIMD = ("base", "avx2", "avx512")


def native_kernels() -> ModuleType:
    """The native back end, or a skip where no compiler built it."""
    module: ModuleType = pytest.importorskip("dynrt.runtime.kernels.native", exc_type=ImportError)
    return module


def back_ends() -> list[ModuleType]:
    """Plain, and native if it was built."""
    try:
        from dynrt.runtime.kernels import native
    except ImportError:
        return [plain]
    return [plain, native]


class Builder:
    """A program, constants first, then what is added."""

    def __init__(self, *constants: Array) -> None:
        self.parts: list[bytes] = []
        self.floats = 0
        self.operations: list[Operation] = []
        self.loads: dict[str, Region] = {}
        self.constants: list[Region] = []
        for value in constants:
            flat = np.zeros(padded(value.size), "<f4")
            flat[: value.size] = value.reshape(-1)
            self.parts.append(flat.tobytes())
            self.constants.append(self.room(value.size))

    def room(self, size: int) -> Region:
        region = Region(self.floats, size)
        self.floats += padded(size)
        return region

    def load(self, port: str, size: int) -> Region:
        self.loads[port] = self.room(size)
        return self.loads[port]

    def add(self, kind: str, size: int, *takes: Region, values: tuple[float, ...] = ()) -> Region:
        out = self.room(size)
        self.operations.append(Operation(kind=kind, out=out, takes=takes, values=values))
        return out

    def program(self, stores: dict[str, Region], pools: dict[str, Pool] | None = None) -> Program:
        return Program(
            pools=pools or {},
            loads=self.loads,
            stores=stores,
            operations=tuple(self.operations),
            floats=self.floats + LANES,
            constants=b"".join(self.parts),
        )


def lstm_gate(channels: int = 16, seed: int = 0) -> Program:
    """Pool, 10 features, LSTM of 10 units, one score: ports x, h, c; h2, c2, score."""
    rng = np.random.default_rng(seed)
    shapes = ((10, channels), (10,), (40, 10), (40, 10), (40,), (1, 10), (1,))
    builder = Builder(*(rng.normal(0, 0.3, shape).astype(np.float32) for shape in shapes))
    w, b, wx, rh, bias, last, shift = builder.constants
    x, h, c = builder.load("x", channels), builder.load("h", 10), builder.load("c", 10)
    seen = builder.add("linear", 10, x, w, b)
    both = builder.add("lstm", 20, seen, h, c, wx, rh, bias)
    hidden, cell = Region(both.start, 10), Region(both.start + 10, 10)
    score = builder.add("linear", 1, hidden, last, shift)
    pools = {"x": Pool(shape=(channels, 8, 8))}
    return builder.program({"h2": hidden, "c2": cell, "score": score}, pools)


def run(
    kernels: ModuleType, program: Program, takes: dict[str, Array], times: int = 1
) -> dict[str, Array]:
    """What the program gives, run so often on the same memory."""
    gives = {port: np.full(r.size, np.nan, np.float32) for port, r in program.stores.items()}
    bound = kernels.bind_program(program, takes, gives)
    for _ in range(times):
        bound()
    return gives


@st.composite
def programs(draw: st.DrawFn) -> tuple[Program, dict[str, Array]]:
    """A random program, every value of it an output, and vectors for its inputs."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = st.integers(1, 70)
    steps = draw(
        st.lists(st.sampled_from((*UNARY, *BINARY, *REDUCE, "cat", "fc", "lstm")), max_size=8)
    )
    inputs = draw(st.lists(sizes, min_size=1, max_size=3))
    units = [draw(sizes) for _ in steps]
    lengths = list(inputs)
    weights: list[Array] = []
    plans: list[tuple[str, list[int], int]] = []
    for kind, unit in zip(steps, units, strict=True):
        a = draw(st.integers(0, len(lengths) - 1))
        if kind in BINARY:
            b = draw(
                st.sampled_from([i for i, n in enumerate(lengths) if n == lengths[a] or n == 1])
            )
            plans.append((kind, [a, b] if rng.random() < 0.5 else [b, a], lengths[a]))
        elif kind == "cat":
            b = draw(st.integers(0, len(lengths) - 1))
            plans.append((kind, [a, b], lengths[a] + lengths[b]))
        elif kind in ("fc", "lstm"):
            m = unit if kind == "fc" else 4 * (unit := unit % 24 + 1)
            shapes = [(m, lengths[a])] + ([(m, unit)] if kind == "lstm" else []) + [(m,)]
            shapes += [(unit,)] * 2 if kind == "lstm" else []
            plans.append((kind, [a, len(weights)], unit if kind == "fc" else 2 * unit))
            weights += [rng.normal(0, 0.3, s).astype(np.float32) for s in shapes]
        else:
            plans.append((kind, [a], 1 if kind in REDUCE else lengths[a]))
        lengths.append(plans[-1][2])
    builder = Builder(*weights)
    constants = builder.constants
    made = [builder.load(f"in{i}", n) for i, n in enumerate(inputs)]
    for kind, operands, size in plans:
        made.append(_step(builder, constants, made, kind, operands, size))
    stores = {f"out{i}": region for i, region in enumerate(made)}
    takes = {f"in{i}": rng.normal(0, 2, n).astype(np.float32) for i, n in enumerate(inputs)}
    return builder.program(stores), takes


def _step(
    builder: Builder,
    constants: Sequence[Region],
    made: Sequence[Region],
    kind: str,
    operands: Sequence[int],
    size: int,
) -> Region:
    if kind == "fc":
        w, b = constants[operands[1] : operands[1] + 2]
        return builder.add("linear", size, made[operands[0]], w, b)
    if kind == "lstm":
        w, r, b, h, c = constants[operands[1] : operands[1] + 5]
        return builder.add("lstm", size, made[operands[0]], h, c, w, r, b)
    if kind == "clip":
        return builder.add("clip", size, made[operands[0]], values=(-0.5, 1.5))
    if kind == "sqrt":  # of a rounding error below zero it would be NaN, in one and not the other
        kept = builder.add("clip", size, made[operands[0]], values=(0.0, 3e38))
        return builder.add("sqrt", size, kept)
    name = "concat" if kind == "cat" else kind
    return builder.add(name, size, *(made[i] for i in operands))
