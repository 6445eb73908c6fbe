"""Figures of a benchmark, and figures that could not be had."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from bench.timing import Seconds


class MissingError(Exception):
    """A figure cannot be measured here; the message says why."""


class UnfairError(Exception):
    """The alternatives do not do the same work; the message says where they differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A figure and its spread.

    Attributes:
        name: stable name.
        value: a ratio of medians, or a median over rounds.
        low, high: first and third quartile over rounds.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for.

    Attributes:
        rounds: turns of each alternative.
        data: pictures for what needs real ones (``cifar10:DIR``), or none.
    """

    rounds: int
    data: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Rows that are measured together.

    Attributes:
        names: of the rows.
        rows: measures them; may raise MissingError.
    """

    names: tuple[str, ...]
    rows: Callable[[Request], list[Row]]


def row_of(name: str, samples: Sequence[float] | Seconds, unit: str, note: str) -> Row:
    """The median of ``samples`` with its quartiles."""
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Row(name=name, value=middle, low=low, high=high, unit=unit, note=note)


def derived_row(
    name: str, figure: Callable[..., float], *series: Seconds, note: str, unit: str = "ratio"
) -> Row:
    """``figure`` of the medians of several series; quartiles are of the figure of each round.

    Args:
        name, unit, note: of the row.
        figure: takes one number per series.
        series: ``(rounds,)`` each, of the same rounds.
    """
    value = figure(*(float(np.median(s)) for s in series))
    each = [figure(*map(float, turn)) for turn in zip(*series, strict=True)]
    low, high = (float(q) for q in np.percentile(each, (25, 75)))
    return Row(name=name, value=float(value), low=low, high=high, unit=unit, note=note)


def ratio_row(name: str, above: Seconds, below: Seconds, note: str) -> Row:
    """``above`` over ``below``."""
    return derived_row(name, lambda a, b: a / b, above, below, note=note)


def require(condition: bool, what: str) -> None:
    """Stop a measurement whose alternatives do not do the same work.

    Raises:
        UnfairError: ``condition`` does not hold.
    """
    if not condition:
        raise UnfairError(what)
