"""JSON without its traps: bounded before it is decoded, no duplicate keys, no NaN, no huge numbers."""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn

from dynrt.bundle.limits import Limits, bound
from dynrt.bundle.names import shown
from dynrt.errors import ManifestError

#: Whole numbers are those of a signed 64-bit integer, so that every language reads the same.
INT_MAX = 2**63 - 1
INT_MIN = -(2**63)

_INT_CHARS = 20
_FLOAT_CHARS = 64

# A string is one token, so that brackets inside it do not count; a lone quote ends the scan at once.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|([\[{])|([\]}])|([,:])|(")', re.DOTALL)


def parse_json(raw: bytes, *, place: str, limits: Limits) -> object:
    """Decode ``raw`` (UTF-8, no byte order mark) to plain Python values.

    Raises:
        BundleSizeError: deeper or with more values than ``limits`` allow.
        ManifestError: not UTF-8, not JSON, a key twice in one object, NaN or an infinity, a number
            beyond 64 bits.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise ManifestError(f"{place}: not UTF-8 at byte {exc.start}") from None
    _scan(text, place=place, limits=limits)

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        out = dict(items)
        if len(out) != len(items):
            keys = [k for k, _ in items]
            twice = next(k for k in keys if keys.count(k) > 1)
            raise ManifestError(f"{place}: key {shown(twice)} is there twice in one object")
        return out

    def whole(digits: str) -> int:
        if len(digits) <= _INT_CHARS and INT_MIN <= (value := int(digits)) <= INT_MAX:
            return value
        raise ManifestError(f"{place}: {_clip(digits)} is no 64-bit integer")

    def real(digits: str) -> float:
        if len(digits) <= _FLOAT_CHARS and math.isfinite(value := float(digits)):
            return value
        raise ManifestError(
            f"{place}: {_clip(digits)} is no 64-bit float of {_FLOAT_CHARS} characters"
        )

    def constant(name: str) -> NoReturn:
        raise ManifestError(f"{place}: {name} is no JSON")

    try:
        value: object = json.loads(
            text,
            object_pairs_hook=pairs,
            parse_int=whole,
            parse_float=real,
            parse_constant=constant,
        )
    except json.JSONDecodeError as exc:
        raise ManifestError(
            f"{place}: not JSON at line {exc.lineno} column {exc.colno}: {exc.msg}"
        ) from None
    return value


def canonical_json(value: object, *, place: str) -> bytes:
    """``value`` as JSON in the one form that bundles use: sorted keys, no blanks, UTF-8.

    Raises:
        ManifestError: something in it is no JSON.
    """
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as exc:
        raise ManifestError(f"{place} cannot be written as JSON: {shown(str(exc))}") from None


def _clip(digits: str) -> str:
    return digits if len(digits) <= 24 else f"{digits[:24]}... ({len(digits)} characters)"


def _scan(text: str, *, place: str, limits: Limits) -> None:
    depth = deepest = values = 0
    for match in _TOKEN.finditer(text):
        kind = match.lastindex
        if kind is None:
            continue
        if kind == 4:
            raise ManifestError(
                f"{place}: a text that starts at character {match.start()} never ends"
            )
        values += 1
        if kind == 1:
            depth += 1
            deepest = max(deepest, depth)
            if deepest > limits.json_depth:
                bound(f"{place}: nesting", deepest, limits.json_depth, "levels")
        elif kind == 2:
            depth -= 1
        if values > limits.json_values:
            bound(f"{place}: values", values, limits.json_values, "separators")
