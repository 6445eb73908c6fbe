"""The points of a sweep, as people write them: ``rows=8:64 dataflow=ws,os,is sram=16:256``.

``KEY=A,B,C`` lists values, ``KEY=A:B`` doubles from A as long as B is not passed, and
``KEY=A:B:S`` goes in steps of S; lists may hold ranges. Sizes are in kB of 1,024 bytes. The points
are all combinations; the last key varies fastest.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from dynrt.energy.array import Dataflow
from dynrt.energy.hardware import DATAFLOWS, MOST_LINES, MOST_SRAM_BYTES
from dynrt.errors import HardwareError

#: More points than anybody reads.
MOST_POINTS = 100_000
_BYTES_PER_KB = 1024
_MOST_SRAM_KB = MOST_SRAM_BYTES // _BYTES_PER_KB
_BUFFERS = ("ifmap_sram", "filter_sram", "ofmap_sram")
#: What each key sets; two keys of a sweep must not set the same.
_SETS: dict[str, tuple[str, ...]] = {
    "rows": ("rows",),
    "cols": ("cols",),
    "array": ("rows", "cols"),
    "dataflow": ("dataflow",),
    "sram": _BUFFERS,
    **{name: (name,) for name in _BUFFERS},
}
KEYS = tuple(_SETS)
_NUMBER = re.compile(r"[0-9]{1,9}")
_ARRAY = re.compile(r"([0-9]{1,9})[xX]([0-9]{1,9})")

Field = Literal[
    "rows", "cols", "dataflow", "ifmap_sram_bytes", "filter_sram_bytes", "ofmap_sram_bytes"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What a point of a sweep changes of a hardware; ``None`` stays as it is there.

    Attributes:
        rows, cols: processing elements.
        dataflow: ``ws``, ``os`` or ``is``.
        ifmap_sram_bytes, filter_sram_bytes, ofmap_sram_bytes: of the three buffers.
    """

    rows: int | None = None
    cols: int | None = None
    dataflow: Dataflow | None = None
    ifmap_sram_bytes: int | None = None
    filter_sram_bytes: int | None = None
    ofmap_sram_bytes: int | None = None

    def changes(self) -> dict[Field, int | str]:
        """The fields that it sets, by their names in a hardware."""
        values: dict[Field, int | str | None] = {
            "rows": self.rows,
            "cols": self.cols,
            "dataflow": self.dataflow,
            "ifmap_sram_bytes": self.ifmap_sram_bytes,
            "filter_sram_bytes": self.filter_sram_bytes,
            "ofmap_sram_bytes": self.ofmap_sram_bytes,
        }
        return {name: value for name, value in values.items() if value is not None}


def points(texts: Sequence[str]) -> tuple[Point, ...]:
    """All combinations of the values of ``texts``, each ``KEY=VALUES``; none twice.

    Raises:
        HardwareError: no text, an unknown key, a wrong value, a field that is set twice, or more
            than ``MOST_POINTS`` points; the message names the text.
    """
    if not texts:
        raise HardwareError(f"a sweep needs KEY=VALUES; the keys are {', '.join(KEYS)}")
    seen: dict[str, str] = {}
    axes: list[tuple[dict[Field, int | str], ...]] = []
    count = 1
    for text in texts:
        key, sign, values = text.partition("=")
        if not sign or key not in _SETS:
            raise HardwareError(
                f"sweep {_shown(text)}: write KEY=VALUES; the keys are {', '.join(KEYS)}"
            )
        for name in _SETS[key]:
            if name in seen:
                raise HardwareError(f"sweep {_shown(text)}: {seen[name]} sets {name} already")
            seen[name] = key
        axis = tuple(_changes(key, value) for value in _values(key, values, text))
        axes.append(axis)
        count *= len(axis)
        if count > MOST_POINTS:
            raise HardwareError(
                f"sweep {_shown(text)}: {count} points; the limit is {MOST_POINTS} points"
            )
    return tuple(_point(parts) for parts in itertools.product(*axes))


def _point(parts: Sequence[dict[Field, int | str]]) -> Point:
    merged: dict[Field, int | str] = {}
    for part in parts:
        merged |= part
    return Point(
        rows=cast("int | None", merged.get("rows")),
        cols=cast("int | None", merged.get("cols")),
        dataflow=cast("Dataflow | None", merged.get("dataflow")),
        ifmap_sram_bytes=cast("int | None", merged.get("ifmap_sram_bytes")),
        filter_sram_bytes=cast("int | None", merged.get("filter_sram_bytes")),
        ofmap_sram_bytes=cast("int | None", merged.get("ofmap_sram_bytes")),
    )


def _changes(key: str, value: int | str | tuple[int, int]) -> dict[Field, int | str]:
    if isinstance(value, tuple):
        return {"rows": value[0], "cols": value[1]}
    if key in ("rows", "cols", "dataflow"):
        return {cast("Field", key): value}
    size = int(value) * _BYTES_PER_KB
    return {cast("Field", f"{name}_bytes"): size for name in _SETS[key]}


def _values(key: str, values: str, text: str) -> list[int | str | tuple[int, int]]:
    """The values of one key in the order in which they are written, each once."""
    found: dict[int | str | tuple[int, int], None] = {}
    for item in values.split(","):
        place = f"sweep {_shown(text)}: {_shown(item)}"
        if key == "dataflow":
            if item not in DATAFLOWS:
                raise HardwareError(f"{place} is no dataflow: {', '.join(DATAFLOWS)}")
            found[item] = None
        elif key == "array":
            match = _ARRAY.fullmatch(item)
            if match is None:
                raise HardwareError(f"{place} is no array: write ROWSxCOLS, such as 12x14")
            found[_side(match[1], place), _side(match[2], place)] = None
        else:
            most = MOST_LINES if key in ("rows", "cols") else _MOST_SRAM_KB
            found |= dict.fromkeys(_range(item, place, most))
        if len(found) > MOST_POINTS:
            raise HardwareError(f"{place}: over {MOST_POINTS} values; that is the limit")
    return list(found)


def _side(number: str, place: str) -> int:
    if not 1 <= int(number) <= MOST_LINES:
        raise HardwareError(f"{place}: {number} is not between 1 and {MOST_LINES}")
    return int(number)


def _range(item: str, place: str, most: int) -> Sequence[int]:
    """``8``, ``8:64`` or ``8:64:8`` as numbers."""
    parts = item.split(":")
    if len(parts) > 3 or not all(_NUMBER.fullmatch(part) for part in parts):
        raise HardwareError(
            f"{place} is no value: write 8, 8:64 (doubling) or 8:64:8 (in steps of 8)"
        )
    numbers = [int(part) for part in parts]
    for number in numbers:
        if not 1 <= number <= most:
            raise HardwareError(f"{place}: {number} is not between 1 and {most}")
    first, last = numbers[0], numbers[-1] if len(numbers) == 1 else numbers[1]
    if last < first:
        raise HardwareError(f"{place}: the range ends before it begins")
    if len(numbers) == 3:
        return range(first, last + 1, numbers[2])
    return [first << step for step in range((last // first).bit_length())]


def _shown(text: str) -> str:
    """``text`` as one line of at most 80 characters, whatever is in it."""
    quoted = repr(text)
    return quoted if len(quoted) <= 80 else quoted[:77] + "..."
