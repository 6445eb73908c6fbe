"""Assembles a kernel program: operations on values that have a shape, batch axis (of 1) included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from dynrt.ir.graph import Array
from dynrt.runtime.kernels.program import (
    LANES,
    MAX_FLOATS,
    MAX_OPERATIONS,
    Operation,
    Pool,
    PortName,
    Program,
    Region,
    padded,
)

Shape = tuple[int, ...]

#: Multiplications above which onnxruntime is as fast, and floats above which a memory is no cache's.
MAX_MACS = 200_000
MAX_VECTOR = 1 << 16


class UnfitError(Exception):
    """The node is nothing for a kernel; never leaves this package."""


class Feature(NamedTuple):
    """An input port of ``(c, h, w)`` that was not pooled yet.

    Attributes:
        port: its name.
        shape: ``(1, c, ...)``, with whatever axes the graph gave its pixels.
        stored: ``(c, h, w)`` as the port declares it.
        scale: of a quantised port; ``None`` of a float port, and before DequantizeLinear.
        zero: its zero point.
        dtype: of the port.
    """

    port: PortName
    shape: Shape
    stored: tuple[int, int, int]
    dtype: str
    scale: float | None = None
    zero: int = 0


class Vector(NamedTuple):
    """Float32 values in the program's memory, C order; ``start`` counts behind the constants."""

    shape: Shape
    start: int

    @property
    def size(self) -> int:
        """How many floats."""
        return math.prod(self.shape)


#: An array is a constant.
Value = Feature | Vector | Array


@dataclass(slots=True)
class Step:
    """An operation whose operands' places are not final."""

    kind: str
    out: Vector
    takes: list[Vector | Array]
    values: tuple[float, ...] = ()


@dataclass(slots=True)
class Assembler:
    """A program in the making.

    Attributes:
        pools, loads: as of the program.
        steps: so far.
        floats: of memory behind the constants.
        macs: multiplications so far.
    """

    pools: dict[PortName, Pool] = field(default_factory=dict)
    loads: dict[PortName, Vector] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    floats: int = 0
    macs: int = 0
    _pooled: dict[tuple[PortName, float | None, int], Vector] = field(default_factory=dict)

    def room(self, shape: Shape) -> Vector:
        """Memory for a vector.

        Raises:
            UnfitError: it is empty or too large.
        """
        size = math.prod(shape)
        if not 0 < size <= MAX_VECTOR or self.floats > MAX_FLOATS // 2:
            raise UnfitError(f"a vector of {shape}")
        start = self.floats
        self.floats += padded(size)
        return Vector(shape, start)

    def load(self, port: PortName, shape: Shape) -> Vector:
        """An input port's vector."""
        self.loads[port] = vector = self.room(shape)
        return vector

    def pooled(self, feature: Feature, shape: Shape) -> Vector:
        """The mean over a feature's pixels, ``shape`` being ``(1, c)`` and ones."""
        if feature.dtype != "float32" and feature.scale is None:
            raise UnfitError("a pool of raw integers")
        key = (feature.port, feature.scale, feature.zero)
        if key not in self._pooled:
            c = feature.stored[0]
            if feature.port not in self.loads:
                self.pools[feature.port] = Pool(
                    shape=feature.stored,
                    dtype=feature.dtype,  # type: ignore[arg-type]
                )
                self.load(feature.port, (1, c))
            vector = self.loads[feature.port]
            if feature.scale is not None:
                zero = np.array([feature.zero], np.float32)
                vector = self.emit("sub", (1, c), [vector, zero])
                scale = np.array([feature.scale], np.float32)
                vector = self.emit("mul", (1, c), [vector, scale])
            self._pooled[key] = vector
        return Vector(shape, self._pooled[key].start)

    def emit(
        self,
        kind: str,
        shape: Shape,
        takes: list[Vector | Array],
        values: tuple[float, ...] = (),
    ) -> Vector:
        """One operation; constants are taken as they lie, flat.

        Raises:
            UnfitError: the program became too long.
        """
        if len(self.steps) >= MAX_OPERATIONS:
            raise UnfitError("too many operations")
        if kind in ("linear", "lstm"):
            self.macs += sum(t.size for t in takes[{"linear": 1, "lstm": 3}[kind] :])
        if self.macs > MAX_MACS:
            raise UnfitError(f"{self.macs} multiplications")
        out = self.room(shape)
        self.steps.append(Step(kind, out, takes, values))
        return out

    def linear(self, x: Vector, weight: Array, bias: Array | None, shape: Shape) -> Vector:
        """``weight (m, n)`` times ``x (n,)`` plus bias."""
        m, n = weight.shape
        if x.size != n or math.prod(shape) != m:
            raise UnfitError(f"{weight.shape} times {x.shape}")
        added = np.zeros(m) if bias is None else np.broadcast_to(bias.reshape(-1), (m,))
        return self.emit("linear", shape, [x, weight, added])

    def add_to_bias(self, x: Vector, more: Array) -> Vector | None:
        """``x`` plus a constant, by the bias of the linear operation that gave ``x``, if one did.

        Only for an ``x`` that nothing else reads.
        """
        step = self.steps[-1] if self.steps else None
        if step is None or step.kind != "linear" or step.out.start != x.start:
            return None
        bias = step.takes[2]
        assert isinstance(bias, np.ndarray)  # noqa: S101 - as linear made it
        step.takes[2] = bias + np.broadcast_to(more, x.shape).reshape(-1)
        return x

    def program(
        self, inputs: Sequence[PortName], stores: dict[PortName, Vector | Array]
    ) -> Program:
        """The finished program; it takes those of the inputs that were loaded, in order.

        Raises:
            UnfitError: it is too large.
        """
        pool = _Constants()
        wanted = [t for s in self.steps for t in s.takes] + list(stores.values())
        for value in wanted:
            if isinstance(value, np.ndarray):
                pool.place(value)
        base = pool.floats
        floats = base + self.floats + LANES  # a view of a vector's end is read in whole registers
        if floats > MAX_FLOATS:
            raise UnfitError(f"{floats} floats")

        def region(value: Vector | Array) -> Region:
            if isinstance(value, np.ndarray):
                return pool.place(value)
            return Region(base + value.start, value.size)

        return Program(
            pools=self.pools,
            loads={port: region(self.loads[port]) for port in inputs if port in self.loads},
            stores={port: region(v) for port, v in stores.items()},
            operations=tuple(
                Operation(
                    kind=s.kind,
                    out=region(s.out),
                    takes=tuple(map(region, s.takes)),
                    values=s.values,
                )
                for s in self.steps
            ),
            floats=floats,
            constants=b"".join(pool.parts),
        )


class _Constants:
    """Constants one behind the other, equal ones once."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.floats = 0
        self._placed: dict[bytes, Region] = {}

    def place(self, value: Array) -> Region:
        """Where a constant lies."""
        raw = np.ascontiguousarray(value, dtype="<f4").tobytes()
        if raw not in self._placed:
            size = len(raw) // 4
            if not 0 < size <= MAX_FLOATS - self.floats:
                raise UnfitError(f"a constant of {value.shape}")
            self._placed[raw] = Region(self.floats, size)
            self.parts.append(raw + bytes(4 * (padded(size) - size)))
            self.floats += padded(size)
        return self._placed[raw]
