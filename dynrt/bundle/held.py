"""A table of a bundle that is decoded when somebody asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

_Table = TypeVar("_Table")


class Held(Generic[_Table]):
    """A value that is made on first use, and then kept.

    Args:
        make: makes it; called again if it fails.
    """

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], _Table]) -> None:
        self._make: Callable[[], _Table] | None = make
        self._made: list[_Table] = []

    @classmethod
    def of(cls, value: _Table) -> Held[_Table]:
        """One that is made already."""
        held = cls(lambda: value)
        held.get()
        return held

    def get(self) -> _Table:
        """The value; raises what making it raises."""
        make = self._make
        if make is not None:
            self._made = [make()]
            self._make = None  # what it was made of is no longer held
        return self._made[0]

    def __eq__(self, other: object) -> bool:
        return self.get() == other.get() if isinstance(other, Held) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # equal by a value that has none
