"""Memory that segments and kernels read and write, numbered."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

from dynrt.ir.graph import Array, Constant
from dynrt.runtime.compiled import Layout


class Kind(NamedTuple):
    """What a buffer can hold: one sample's declared type, and how it lies in memory."""

    dtype: str
    shape: tuple[int, ...]
    layout: Layout


class Buffers:
    """Buffers of ``rows`` samples each, handed out by number; never given back to the system.

    Args:
        rows: samples in each.
        handle: makes of an array what calls are bound to; it must share the array's memory.
    """

    def __init__(self, rows: int, handle: Callable[[Array], Any]) -> None:
        self.rows = rows
        self._handle = handle
        self.kinds: list[Kind] = []
        self.arrays: list[Array] = []
        self.handles: list[Any] = []
        self._pools: dict[Kind, list[int]] = {}
        self._constants: dict[tuple[int, Kind], int] = {}
        self._kept: list[Constant] = []

    def own(self, kind: Kind) -> int:
        """A new buffer that :meth:`take` never hands out."""
        shape = (self.rows, *kind.layout.stored_shape(kind.shape))
        array = np.zeros(shape, kind.dtype)
        self.kinds.append(kind)
        self.arrays.append(array)
        self.handles.append(self._handle(array))
        return len(self.arrays) - 1

    def take(self, kind: Kind, busy: Collection[int]) -> int:
        """The lowest buffer of a kind that is not ``busy``; always the same for the same ``busy``."""
        pool = self._pools.setdefault(kind, [])
        for ref in pool:
            if ref not in busy:
                return ref
        pool.append(self.own(kind))
        return pool[-1]

    def constant(self, value: Constant, kind: Kind) -> int:
        """A buffer with ``value`` in every row."""
        key = (id(value), kind)
        if key not in self._constants:
            ref = self.own(kind)
            self.arrays[ref][...] = kind.layout.from_plain(np.ascontiguousarray(value.value[None]))
            self._kept.append(value)  # so that its id stays its own
            self._constants[key] = ref
        return self._constants[key]

    def is_shared(self, ref: int) -> bool:
        """Whether results may be put into this buffer."""
        return ref in self._pools.get(self.kinds[ref], ())

    def plain(self, ref: int, row: int) -> Array:
        """One row as declared, with a batch axis of 1."""
        kind = self.kinds[ref]
        return kind.layout.to_plain(self.arrays[ref][row : row + 1], kind.shape)

    def put(self, ref: int, row: int, value: Array) -> None:
        """Store one declared sample, with a batch axis of 1."""
        self.arrays[ref][row : row + 1] = self.kinds[ref].layout.from_plain(value)
