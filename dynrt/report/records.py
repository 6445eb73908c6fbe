"""Evaluation records (``dynrt eval --json``) as plots need them, checked on the way in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dynrt.errors import DataError
from dynrt.report.json_files import number, read_json

_LIMIT_BYTES = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPoint:
    """A network's figures under one budget.

    Attributes:
        budget_flops: hard cap per input, ``None`` where FLOPs were not capped.
        accuracy: a fraction.
        mean_flops: per input.
        max_flops: of the dearest input.
        exits: inputs answered at each exit, in exit order.
    """

    budget_flops: int | None
    accuracy: float
    mean_flops: float
    max_flops: float
    exits: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One evaluation.

    Attributes:
        name: of the network.
        data: what it ran on.
        n: inputs.
        full_flops: of the dearest path.
        uncapped: the run without a budget.
        points: one per budget.
    """

    name: str
    data: str
    n: int
    full_flops: int
    uncapped: RecordPoint
    points: tuple[RecordPoint, ...]


def read_record(path: Path) -> Record:
    """Read an evaluation record.

    Raises:
        DataError: the file is missing, no JSON, or no such record.
    """
    value = read_json(path, what="evaluation", limit_bytes=_LIMIT_BYTES)
    return parse_record(value, place=str(path))


def parse_record(value: object, *, place: str = "record") -> Record:
    """Check the object of ``dynrt eval --json``.

    Raises:
        DataError: a field that plots need is missing or of another kind.
    """
    if not isinstance(value, dict):
        raise DataError(f"{place}: an evaluation record is an object")
    points = value.get("points")
    if not isinstance(points, list):
        raise DataError(f"{place}: points is not a list")
    bundle = value.get("bundle")
    name = bundle.get("name") if isinstance(bundle, dict) else None
    if not isinstance(name, str) or not isinstance(value.get("data"), str):
        raise DataError(f"{place}: bundle.name or data is missing")
    return Record(
        name=name,
        data=value["data"],
        n=int(number(value, "n", place)),
        full_flops=int(number(value, "full_flops", place)),
        uncapped=_point({"budget": {"flops": None}} | value, place),
        points=tuple(_point(p, f"{place}: points[{i}]") for i, p in enumerate(points)),
    )


def _point(value: object, place: str) -> RecordPoint:
    if not isinstance(value, dict):
        raise DataError(f"{place} is not an object")
    budget, exits = value.get("budget"), value.get("exits")
    if not isinstance(budget, dict) or "flops" not in budget:
        raise DataError(f"{place}: budget.flops is missing")
    if not isinstance(exits, dict) or not exits or not all(type(v) is int for v in exits.values()):
        raise DataError(f"{place}: exits is no table of counts")
    cap = None if budget["flops"] is None else int(number(budget, "flops", place))
    accuracy = number(value, "accuracy", place)
    if accuracy > 1:
        raise DataError(f"{place}: accuracy is {accuracy}; a fraction is needed")
    return RecordPoint(
        budget_flops=cap,
        accuracy=accuracy,
        mean_flops=number(value, "mean_flops", place),
        max_flops=number(value, "max_flops", place),
        exits=exits,
    )
