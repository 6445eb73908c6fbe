"""Evaluation records (``dynrt eval --json``) as plots need them, checked on the way in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynrt.errors import DataError

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
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise DataError(f"{path}: over {_LIMIT_BYTES} bytes; this is no evaluation record")
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: it cannot be read as text") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: this is no JSON: {error}") from error
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
        n=int(_number(value, "n", place)),
        full_flops=int(_number(value, "full_flops", place)),
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
    cap = None if budget["flops"] is None else int(_number(budget, "flops", place))
    accuracy = _number(value, "accuracy", place)
    if accuracy > 1:
        raise DataError(f"{place}: accuracy is {accuracy}; a fraction is needed")
    return RecordPoint(
        budget_flops=cap,
        accuracy=accuracy,
        mean_flops=_number(value, "mean_flops", place),
        max_flops=_number(value, "max_flops", place),
        exits=exits,
    )


def _number(value: Mapping[str, Any], name: str, place: str) -> float:
    found = value.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < 1e300:
        raise DataError(f"{place}: {name} is {found!r}; a number is needed")
    return found
