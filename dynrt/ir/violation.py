"""One broken invariant of a graph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One broken invariant.

    Attributes:
        code: short, stable name, such as ``cycle``.
        place: the node, port or edge.
        message: what is wrong there, with the values.
        mend: what would make it right.
    """

    code: str
    place: str
    message: str
    mend: str

    def __str__(self) -> str:
        return f"{self.code} at {self.place}: {self.message}; {self.mend}"
