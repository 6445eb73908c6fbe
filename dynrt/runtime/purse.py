"""What is left to spend: asked by a walk before it runs or decides anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import le
from typing import Protocol

from dynrt.ir.completion import Amounts, Front
from dynrt.ir.cost import Cost

_TIME = "nanoseconds"
_NO_CAP = 1 << 62


class Purse(Protocol):
    """Answers whether more can be spent, given what was spent."""

    def covers(self, spent: Cost, price: Amounts, *, in_time: bool = True) -> bool:
        """Whether ``price`` is there; a time cap counts only if ``in_time``."""
        ...

    def fits(self, spent: Cost, price: Amounts, front: Front) -> bool:
        """Whether ``price`` and any point of ``front`` are there."""
        ...

    def left(self, spent: Cost, *, in_time: bool = True) -> Amounts:
        """What remains of each capped resource; without ``in_time``, time is no matter."""
        ...


class Limits:
    """Hard caps of one run.

    Args:
        limits: by resource (names of :class:`~dynrt.ir.cost.Cost` fields).
        elapsed_ns: nanoseconds since this input began.
    """

    def __init__(self, limits: Mapping[str, int], elapsed_ns: Callable[[], int]) -> None:
        self._limits = tuple(limits.items())
        self._elapsed_ns = elapsed_ns

    def left(self, spent: Cost, *, in_time: bool = True) -> Amounts:
        """See :class:`Purse`."""
        out = []
        for name, limit in self._limits:
            if name == _TIME:
                out.append(limit - self._elapsed_ns() if in_time else _NO_CAP)
            else:
                out.append(limit - getattr(spent, name))
        return tuple(out)

    def covers(self, spent: Cost, price: Amounts, *, in_time: bool = True) -> bool:
        """See :class:`Purse`."""
        return all(map(le, price, self.left(spent, in_time=in_time)))

    def fits(self, spent: Cost, price: Amounts, front: Front) -> bool:
        """See :class:`Purse`."""
        left = tuple(a - b for a, b in zip(self.left(spent), price, strict=True))
        return any(all(map(le, point, left)) for point in front)


class Ample:
    """Grants everything and notes how much that took: with so much left, no cap would interfere.

    Args:
        resources: names of the capped resources.

    Attributes:
        needs: least amounts, counted from where ``spent`` was nought, with which every question
            so far would have been granted too (exactly so for one resource; for several, the first
            point of each front is taken).
    """

    def __init__(self, resources: Sequence[str]) -> None:
        self._resources = tuple(resources)
        self.needs = [0] * len(self._resources)

    def _note(self, spent: Cost, price: Sequence[int], *, in_time: bool = True) -> None:
        for i, name in enumerate(self._resources):
            if name != _TIME:
                self.needs[i] = max(self.needs[i], getattr(spent, name) + price[i])
            elif in_time:
                self.needs[i] = max(self.needs[i], (spent.nanoseconds or 0) + price[i])

    def left(self, spent: Cost, *, in_time: bool = True) -> Amounts:
        """See :class:`Purse`."""
        return (_NO_CAP,) * len(self._resources)

    def covers(self, spent: Cost, price: Amounts, *, in_time: bool = True) -> bool:
        """See :class:`Purse`."""
        self._note(spent, price, in_time=in_time)
        return True

    def fits(self, spent: Cost, price: Amounts, front: Front) -> bool:
        """See :class:`Purse`."""
        if not front:
            return False
        self._note(spent, tuple(a + b for a, b in zip(price, front[0], strict=True)))
        return True
