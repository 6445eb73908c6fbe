"""Copies between tensors that are walked through by strides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from dynrt.bundle.board_kinds import OpKind
from dynrt.errors import BoardFitError
from dynrt.exporters.board_lowering import NodeLowering

AXES = 4
#: One copy for each place along the axes that are too many for one; more is refused.
MOST_COPIES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """Places in a tensor, in order; all in elements.

    Attributes:
        sizes: of the axes.
        strides: of the axes; negative ones go back, 0 repeats.
        offset: of the first place.
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> Self:
        """All of a tensor, in the order in which it lies."""
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        return cls(sizes=shape, strides=strides, offset=0)

    def part(self, axis: int, *, start: int, size: int, step: int = 1) -> Self:
        """Some places along one axis."""
        sizes, strides = list(self.sizes), list(self.strides)
        offset = self.offset + start * strides[axis]
        sizes[axis], strides[axis] = size, strides[axis] * step
        return type(self)(sizes=tuple(sizes), strides=tuple(strides), offset=offset)

    def turned(self, axes: tuple[int, ...]) -> Self:
        """The same places with the axes in another order."""
        return type(self)(
            sizes=tuple(self.sizes[a] for a in axes),
            strides=tuple(self.strides[a] for a in axes),
            offset=self.offset,
        )


def copied(
    low: NodeLowering, source: int, taken: Walk, dst: int, given: Walk, element_bytes: int
) -> None:
    """Copy the places ``taken`` of one slot to the places ``given`` of another.

    Raises:
        BoardFitError: too many axes that cannot be joined.
    """
    axes: list[tuple[int, int, int]] = []  # size, stride there, stride here
    for size, there, here in zip(taken.sizes, given.strides, taken.strides, strict=True):
        if size == 1:
            continue
        if axes and axes[-1][1] == there * size and axes[-1][2] == here * size:
            axes[-1] = (axes[-1][0] * size, there, here)
        else:
            axes.append((size, there, here))
    outer, inner = axes[:-AXES], axes[-AXES:]
    if math.prod(size for size, _, _ in outer) > MOST_COPIES:
        raise BoardFitError(f"{low.builder.label}: moves over {len(axes)} axes")
    starts = [(given.offset, taken.offset)]
    for size, there, here in outer:
        starts = [(d + k * there, s + k * here) for d, s in starts for k in range(size)]
    padded = [(1, 0, 0)] * (AXES - len(inner)) + inner
    words: dict[str, int] = {}
    for k, (size, there, here) in enumerate(padded):
        words |= {f"size{k}": size, f"dst_stride{k}": there, f"src_stride{k}": here}
    for d, s in starts:
        low.builder.add(
            OpKind.COPY,
            dst=dst,
            a=source,
            dst_offset=d,
            src_offset=s,
            element_bytes=element_bytes,
            **words,
        )
