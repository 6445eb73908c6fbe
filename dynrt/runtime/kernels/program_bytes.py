"""Programs as bytes: a magic number, the length of a JSON text, the text, the constants.

The text names everything but the constants; unknown or missing fields are refused, and
:class:`~dynrt.runtime.kernels.program.Program` checks all that it says.
"""

from __future__ import annotations

import json
import struct
from typing import Any, cast

from dynrt.errors import CacheError
from dynrt.runtime.kernels.program import MAX_OPERATIONS, Operation, Pool, Program, Region

MAGIC = b"dynrtK01"
HEADER = struct.Struct("<8sI")
MAX_TEXT_BYTES = 1 << 22


def write_program(program: Program) -> bytes:
    """``program`` as bytes; the same program gives the same bytes."""
    text = json.dumps(
        {
            "pools": {port: [*pool.shape, pool.dtype] for port, pool in program.pools.items()},
            "loads": {port: list(region) for port, region in program.loads.items()},
            "stores": {port: list(region) for port, region in program.stores.items()},
            "operations": [
                [o.kind, list(o.out), [list(r) for r in o.takes], list(o.values)]
                for o in program.operations
            ],
            "floats": program.floats,
            "constants": len(program.constants),
        },
        separators=(",", ":"),
    ).encode()
    return HEADER.pack(MAGIC, len(text)) + text + program.constants


def read_program(raw: bytes, *, checked: bool = False) -> Program:
    """The program that :func:`write_program` wrote.

    Raises:
        CacheError: ``raw`` is anything else.
    """
    if len(raw) < HEADER.size:
        raise CacheError(f"no kernel program: {len(raw)} bytes")
    magic, length = HEADER.unpack_from(raw)
    end = HEADER.size + length
    if magic != MAGIC or length > MAX_TEXT_BYTES or end > len(raw):
        raise CacheError(f"no kernel program: begins with {raw[: HEADER.size]!r}")
    try:
        text = json.loads(raw[HEADER.size : end].decode(), object_pairs_hook=_once)
        return _program(text, bytes(raw[end:]), checked=checked)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as exc:
        raise CacheError(f"no kernel program: {type(exc).__name__}: {exc}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is given twice")
    return found


def _program(text: Any, constants: bytes, *, checked: bool) -> Program:
    if not isinstance(text, dict) or len(text) != 6:
        raise ValueError("not the six fields")
    if type(text["constants"]) is not int or text["constants"] != len(constants):
        raise ValueError(f"{len(constants)} bytes of constants")
    pools, loads, stores = (_mapping(text[name]) for name in ("pools", "loads", "stores"))
    operations = _items(text["operations"])
    if len(operations) > MAX_OPERATIONS:
        raise ValueError(f"{len(operations)} operations")
    return Program(
        pools={port: _pool(value) for port, value in pools.items()},
        loads={port: _region(value) for port, value in loads.items()},
        stores={port: _region(value) for port, value in stores.items()},
        operations=tuple(map(_operation, operations)),
        floats=text["floats"],
        constants=constants,
        checked=checked,
    )


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("ports are no object")
    return cast("dict[str, Any]", value)


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("a list is something else")
    return value


def _region(value: Any) -> Region:
    start, size = _items(value)
    return Region(start, size)


def _pool(value: Any) -> Pool:
    c, h, w, dtype = _items(value)
    if not isinstance(dtype, str):
        raise TypeError("a dtype is no text")
    return Pool(shape=(c, h, w), dtype=cast("Any", dtype))


def _operation(value: Any) -> Operation:
    kind, out, takes, values = _items(value)
    if not isinstance(kind, str):
        raise TypeError("a kind is no text")
    return Operation(
        kind=kind,
        out=_region(out),
        takes=tuple(map(_region, _items(takes))),
        values=tuple(_items(values)),
    )
