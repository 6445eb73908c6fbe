"""One figure of a benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A figure and its spread.

    Attributes:
        name: stable name.
        value: the median over rounds.
        low, high: first and third quartile.
        unit: of all three.
        note: what was measured, in words.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str
    note: str

    def to_json(self) -> dict[str, object]:
        """As an object of the JSON record."""
        return asdict(self)


def row_of(name: str, samples: Sequence[float], unit: str, note: str) -> Row:
    """The median of ``samples`` with its quartiles."""
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Row(name=name, value=middle, low=low, high=high, unit=unit, note=note)
