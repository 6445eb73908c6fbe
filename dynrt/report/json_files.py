"""JSON records from disk: bounded, and with errors that name the file and the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynrt.errors import DataError

#: A larger figure is no figure (JSON has whole numbers that no float can hold).
_MOST = 1e300


def read_json(path: Path, *, what: str, limit_bytes: int) -> object:
    """The value in a JSON file.

    Args:
        path: the file.
        what: names the kind of record in errors.
        limit_bytes: the most that is read.

    Raises:
        DataError: the file is missing, too large, or no JSON.
    """
    try:
        if path.stat().st_size > limit_bytes:
            raise DataError(f"{path}: over {limit_bytes} bytes; this is no {what} record")
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: it cannot be read as text") from error
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: this is no JSON: {error}") from error
    return value


def number(value: Mapping[str, Any], name: str, place: str) -> float:
    """A finite number that is not negative.

    Raises:
        DataError: the field is missing or something else.
    """
    found = value.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < _MOST:
        raise DataError(f"{place}: {name} is {repr(found)[:40]}; a number is needed")
    return found
