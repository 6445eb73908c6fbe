"""What a small node computes: global average pools, then a straight line of vector operations.

A program is made by ``dynrt.runtime.compile.recognise`` from a node's ONNX, stored in the cache, and
bound to memory by one of two back ends (native, plain). All values are float32 vectors in one memory:
constants first, then whatever is loaded, then what each operation writes, each place written once.
:class:`Program` checks every offset when it is made, so that a back end can trust it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass
from typing import Literal, NamedTuple

import numpy as np

from dynrt.errors import CacheError
from dynrt.ir.graph import Array

PortName = str

#: Floats that one vector register holds at most; every region is followed by room up to a multiple.
LANES = 16
MAX_FLOATS = 1 << 22
MAX_OPERATIONS = 1 << 12
MAX_OPERANDS = 1 << 8
MAX_PORTS = 1 << 8
MAX_PIXELS = 1 << 22

UNARY = ("copy", "neg", "exp", "sqrt", "relu", "sigmoid", "tanh", "clip", "softmax")
BINARY = ("add", "sub", "mul", "div", "max", "min")
REDUCE = ("reduce_max", "reduce_sum", "reduce_mean")
#: Every kind of operation; the position is its code in the native back end.
KINDS = (*UNARY, *BINARY, *REDUCE, "concat", "linear", "lstm")


class Region(NamedTuple):
    """``size`` floats of a program's memory from ``start`` on."""

    start: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A global average pool over one stored sample of a feature port; the mean as stored.

    What scale and zero point make of a quantised mean is left to the program's operations.

    Attributes:
        shape: ``(c, h, w)`` as the port declares it.
        dtype: of the stored sample.
    """

    shape: tuple[int, int, int]
    dtype: Literal["float32", "uint8", "int8"] = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One step of a program.

    Attributes:
        kind: one of :data:`KINDS`. ``linear`` takes x ``(n,)``, weight ``(m, n)`` and bias ``(m,)``;
            ``lstm`` takes x ``(n,)``, h and c ``(k,)``, W ``(4 k, n)``, R ``(4 k, k)`` and bias
            ``(4 k,)`` with the gates in the order input, output, forget, cell (as ONNX has them),
            and writes h then c, ``(2 k,)``. Weights and biases are constants. Of a binary
            operation's operands, one may be a scalar.
        out: where it writes.
        takes: what it reads.
        values: lower and upper bound of ``clip``.
    """

    kind: str
    out: Region
    takes: tuple[Region, ...]
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A small node, ready to be bound to memory.

    Attributes:
        pools: of its input ports, those that are only read through a global average pool; the
            vector ``(c,)`` that the pool gives is what :attr:`loads` takes for that port.
        loads: where each input port's vector is put before the first operation.
        stores: where each output port's vector lies after the last one.
        operations: in order.
        floats: size of the memory.
        constants: float32 (little-endian) values at the memory's beginning.
        checked: it was checked before, and is not again.
    """

    pools: Mapping[PortName, Pool]
    loads: Mapping[PortName, Region]
    stores: Mapping[PortName, Region]
    operations: tuple[Operation, ...]
    floats: int
    constants: bytes

    checked: InitVar[bool] = False

    def __post_init__(self, checked: bool) -> None:
        if not checked:
            check_program(self)

    @property
    def takes(self) -> tuple[PortName, ...]:
        """Its input ports."""
        return tuple(self.loads)

    @property
    def gives(self) -> tuple[PortName, ...]:
        """Its output ports."""
        return tuple(self.stores)

    @property
    def macs(self) -> int:
        """Multiplications of its ``linear`` and ``lstm`` operations."""
        return sum(
            sum(r.size for r in o.takes[1:2] if o.kind == "linear")
            + sum(r.size for r in o.takes[3:5] if o.kind == "lstm")
            for o in self.operations
        )

    def constant_values(self) -> Array:
        """The constants, float32 ``(n,)``, read-only."""
        return np.frombuffer(self.constants, dtype="<f4")

    def to_bytes(self) -> bytes:
        """The program as bytes that :meth:`from_bytes` reads."""
        from dynrt.runtime.kernels.program_bytes import write_program

        return write_program(self)

    @classmethod
    def from_bytes(cls, raw: bytes, *, checked: bool = False) -> Program:
        """A program from bytes that need not be trusted.

        Args:
            raw: what :meth:`to_bytes` gave.
            checked: they are known to be the bytes of a program that was checked (their hash is
                its hash), so that its offsets need not be checked again. The native back end
                checks them all the same when it binds.

        Raises:
            CacheError: these bytes are no program.
        """
        from dynrt.runtime.kernels.program_bytes import read_program

        return read_program(raw, checked=checked)


def padded(size: int) -> int:
    """``size`` rounded up to whole vector registers."""
    return -(-size // LANES) * LANES


def check_program(program: Program) -> None:
    """Refuses a program with an offset, size or value that a back end could not trust.

    Raises:
        CacheError: naming the first fault.
    """
    floats = program.floats
    _require(type(floats) is int and 0 <= floats <= MAX_FLOATS, f"a memory of {floats!r} floats")
    count, rest = divmod(len(program.constants), 4)
    _require(rest == 0 and count <= floats, f"{len(program.constants)} bytes of constants")
    _require(len(program.operations) <= MAX_OPERATIONS, f"{len(program.operations)} operations")
    _require(max(len(program.loads), len(program.stores)) <= MAX_PORTS, "too many ports")
    _require(len(program.stores) > 0, "no output")
    for port, pool in program.pools.items():
        _check_pool(port, pool, program.loads)

    known = np.zeros(floats, dtype=np.bool_)  # holds a value
    taken = np.zeros(floats, dtype=np.bool_)  # may not be written again
    known[:count] = True
    taken[:count] = True

    def write(place: str, region: Region) -> None:
        _check_region(place, region, floats)
        end = region.start + padded(region.size)
        _require(not taken[region.start : end].any(), f"{place} overwrites at {region.start}")
        taken[region.start : end] = True
        known[region.start : region.start + region.size] = True

    def read(place: str, region: Region, *, constant: bool = False) -> None:
        _check_region(place, region, floats)
        end = region.start + region.size
        _require(bool(known[region.start : end].all()), f"{place} reads nothing at {region.start}")
        _require(not constant or end <= count, f"{place} has weights that are no constants")

    for port, region in program.loads.items():
        write(f"input {port!r}", region)
    for i, operation in enumerate(program.operations):
        place = f"operation {i} ({operation.kind})"
        _check_operation(place, operation)
        first_constant = {"linear": 1, "lstm": 3}.get(operation.kind, MAX_OPERANDS)
        for k, region in enumerate(operation.takes):
            read(place, region, constant=k >= first_constant)
        write(place, operation.out)
    for port, region in program.stores.items():
        read(f"output {port!r}", region)


def _check_pool(port: PortName, pool: Pool, loads: Mapping[PortName, Region]) -> None:
    place = f"pool {port!r}"
    _require(port in loads, f"{place} is no input")
    _require(_are_ints(pool.shape), f"{place} of shape {pool.shape}")
    c, h, w = pool.shape
    _require(min(pool.shape) > 0 and h * w <= MAX_PIXELS, f"{place} of shape {pool.shape}")
    _require(c == loads[port].size, f"{place} gives {c} values, {loads[port].size} are loaded")
    _require(pool.dtype in ("float32", "uint8", "int8"), f"{place} of dtype {pool.dtype!r}")


def _check_region(place: str, region: Region, floats: int) -> None:
    _require(_are_ints(region), f"{place}: {region!r} is no region")
    start, size = region
    inside = start >= 0 and 0 < size <= MAX_FLOATS and start + padded(size) <= floats
    _require(inside, f"{place}: {size} floats at {start} of {floats}")


def _check_operation(place: str, operation: Operation) -> None:
    """Refuses operands whose number or sizes do not fit the kind."""
    kind, takes, out = operation.kind, operation.takes, operation.out
    _require(kind in KINDS, f"{place} is unknown")
    _require(0 < len(takes) <= MAX_OPERANDS, f"{place} has {len(takes)} operands")
    for region in (out, *takes):
        _require(_are_ints(region), f"{place}: {region!r} is no region")
    sizes = [region.size for region in takes]
    values = operation.values
    if kind == "clip":
        bounded = len(values) == 2 and _are_floats(values) and not any(map(math.isnan, values))
        _require(bounded, f"{place} has bounds {values!r}")
    else:
        _require(not values, f"{place} takes no values")
    if kind in UNARY:
        fits = sizes == [out.size]
    elif kind in BINARY:
        fits = len(sizes) == 2 and max(sizes) == out.size and set(sizes) <= {1, out.size}
    elif kind in REDUCE:
        fits = len(sizes) == 1 and out.size == 1
    elif kind == "concat":
        fits = sum(sizes) == out.size
    elif kind == "linear":
        fits = len(sizes) == 3 and sizes[1:] == [out.size * sizes[0], out.size]
    else:
        k = sizes[1] if len(sizes) == 6 else 0
        fits = k > 0 and sizes[2:] == [k, 4 * k * sizes[0], 4 * k * k, 4 * k] and out.size == 2 * k
    _require(fits, f"{place} has operands of {sizes} for {out.size} floats")


def _are_ints(values: Iterable[object]) -> bool:
    return all(type(v) is int for v in values)


def _are_floats(values: Iterable[object]) -> bool:
    return all(type(v) is float for v in values)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise CacheError(f"no kernel program: {what}")
