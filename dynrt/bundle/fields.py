"""Typed access to decoded JSON: every field is required, none is unknown, each error names its place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

from dynrt.bundle.limits import Limits, bound
from dynrt.bundle.names import NAME_RULE, is_name, shown, unseen
from dynrt.bundle.strict_json import INT_MAX, INT_MIN
from dynrt.errors import ManifestError

_Choice = TypeVar("_Choice", bound=str)


def table(value: object, place: str, keys: tuple[str, ...]) -> Mapping[str, object]:
    """A JSON object with exactly ``keys``."""
    if not isinstance(value, dict):
        raise ManifestError(f"{place}: expected an object, got {shown(value)}")
    for key in keys:
        if key not in value:
            raise ManifestError(f"{place}: field {key!r} is missing")
    if len(value) != len(keys):
        unknown = min(k for k in value if k not in keys)
        raise ManifestError(f"{place}: unknown field {shown(unknown)}")
    return value


def kind_of(value: object, place: str) -> str:
    """The text in the field ``kind`` of a JSON object."""
    if not isinstance(value, dict):
        raise ManifestError(f"{place}: expected an object, got {shown(value)}")
    kind = value.get("kind")
    if not isinstance(kind, str):
        raise ManifestError(f"{place}.kind: expected a text, got {shown(kind)}")
    return kind


def items(value: object, place: str, *, limit: int) -> list[object]:
    """A JSON array of at most ``limit`` items."""
    if not isinstance(value, list):
        raise ManifestError(f"{place}: expected an array, got {shown(value)}")
    bound(place, len(value), limit, "items")
    return value


def integer(value: object, place: str, *, low: int = 0, high: int = INT_MAX) -> int:
    """A whole number in ``low..high``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ManifestError(f"{place}: expected a whole number, got {shown(value)}")
    if not low <= value <= high:
        raise ManifestError(f"{place}: {value} is not in {low}..{high}")
    return value


def number(value: object, place: str) -> float:
    """A finite number, whole or not, as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ManifestError(f"{place}: expected a number, got {shown(value)}")
    if not math.isfinite(value):
        raise ManifestError(f"{place}: {value} is not finite")
    return float(value)


def threshold(value: object, place: str) -> float:
    """A finite number, or one of the texts ``inf`` and ``-inf``: JSON has no infinities."""
    if isinstance(value, str):
        return float(choice(value, place, ("inf", "-inf")))
    return number(value, place)


def boolean(value: object, place: str) -> bool:
    """``true`` or ``false``."""
    if not isinstance(value, bool):
        raise ManifestError(f"{place}: expected true or false, got {shown(value)}")
    return value


def text(value: object, place: str, *, limit: int, lines: bool = False) -> str:
    """A text of at most ``limit`` visible characters; with ``lines`` line feeds and tabs too."""
    if not isinstance(value, str):
        raise ManifestError(f"{place}: expected a text, got {shown(value)}")
    bound(place, len(value), limit, "characters")
    hidden = unseen(value.translate({9: " ", 10: " "}) if lines else value)
    if hidden is not None:
        raise ManifestError(f"{place}: holds the invisible character U+{ord(hidden):04X}")
    return value


def name(value: object, place: str) -> str:
    """A name that is safe as a file: see ``dynrt.bundle.names.is_name``."""
    if not isinstance(value, str):
        raise ManifestError(f"{place}: expected a name, got {shown(value)}")
    if not is_name(value):
        raise ManifestError(f"{place}: {shown(value)} is no name ({NAME_RULE})")
    return value


def choice(value: object, place: str, choices: tuple[_Choice, ...]) -> _Choice:
    """One of ``choices``."""
    for known in choices:
        if value == known:
            return known
    raise ManifestError(f"{place}: {shown(value)} is none of {', '.join(choices)}")


def plain(value: object, place: str, *, limits: Limits, depth: int) -> object:
    """A copy of a free JSON value, checked: ``depth`` levels, visible texts, 64-bit numbers."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return integer(value, place, low=INT_MIN)
    if isinstance(value, float):
        return number(value, place)
    if isinstance(value, str):
        return text(value, place, limit=limits.text_chars, lines=True)
    if not isinstance(value, Mapping | list | tuple):
        raise ManifestError(f"{place}: {shown(value)} is no JSON value")
    bound(f"{place}: nesting", limits.card_depth + 1 - depth, limits.card_depth, "levels")
    if isinstance(value, Mapping):
        return {
            text(k, f"{place}: a key", limit=limits.name_chars): plain(
                v, f"{place}.{shown(k)[1:-1]}", limits=limits, depth=depth - 1
            )
            for k, v in value.items()
        }
    return [plain(v, f"{place}[{i}]", limits=limits, depth=depth - 1) for i, v in enumerate(value)]
