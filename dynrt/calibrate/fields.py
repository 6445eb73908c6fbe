"""Fields of a JSON file, read strictly: unknown, missing and doubled ones are refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dynrt.errors import DataError

_LIMIT_BYTES = 1 << 20
_WORDS = {float("inf"): "never", float("-inf"): "always"}
_NUMBERS = {word: number for number, word in _WORDS.items()}


def read_json(path: Path, *, what: str) -> object:
    """The value of a small JSON file.

    Args:
        path: the file.
        what: it should be, for messages.

    Raises:
        DataError: it is missing, too large, or no JSON.
    """
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise DataError(f"{path}: over {_LIMIT_BYTES} bytes; this is no {what}")
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: it cannot be read as text") from error
    try:
        value: object = json.loads(text, object_pairs_hook=_no_doubles, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: this is no {what}: {error}") from error
    return value


def threshold_json(value: float) -> float | str:
    """A threshold as it stands in a file: a number, ``"never"`` or ``"always"``."""
    return _WORDS.get(value, value)


class FieldError(Exception):
    """A field is not what it should be."""


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a field stands there twice")
    return out


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def as_object(value: object, place: str, names: tuple[str, ...]) -> dict[str, Any]:
    """An object with just these fields.

    Raises:
        FieldError: ``value`` is none.
    """
    if not isinstance(value, dict):
        raise FieldError(f"{place} is not an object")
    if differ := value.keys() ^ set(names):
        raise FieldError(f"{place}: missing or unknown: {', '.join(sorted(differ))}")
    return value


def as_text(value: object, place: str) -> str:
    """A text.

    Raises:
        FieldError: ``value`` is none.
    """
    if not isinstance(value, str):
        raise FieldError(f"{place} is {value!r}; text is needed")
    return value


def as_number(
    value: object, place: str, *, least: float = -math.inf, most: float = math.inf
) -> float:
    """A finite number in a range.

    Raises:
        FieldError: ``value`` is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FieldError(f"{place} is {value!r}; a number is needed")
    if not least <= value <= most or abs(value) > 1e300:
        raise FieldError(f"{place} is {value}; {least} to {most} is possible")
    return float(value)


def as_count(value: object, place: str) -> int:
    """A whole number that is not negative.

    Raises:
        FieldError: ``value`` is none.
    """
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise FieldError(f"{place} is {value!r}; a whole number is needed")
    return value


def as_threshold(value: object, place: str) -> float:
    """What :func:`threshold_json` made.

    Raises:
        FieldError: ``value`` is none.
    """
    if isinstance(value, str) and value in _NUMBERS:
        return _NUMBERS[value]
    if isinstance(value, str):
        raise FieldError(f"{place} is {value!r}; a number, 'never' or 'always' is needed")
    return as_number(value, place)
