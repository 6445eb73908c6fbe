"""Reads the pickles of the original CIFAR-10 batches without running anything.

A pickle is a program. This reader interprets only the operations that those files use (dictionaries,
lists, tuples, whole numbers, byte strings) and knows three names, ``numpy``'s array, its data type
and the function that makes an empty array; each is a plain value of ours, so nothing is imported,
called or allocated on the word of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dynrt.errors import DataError

_MARK = object()
_RECONSTRUCT = object()
_NDARRAY = object()
_DTYPE = object()
_GLOBALS = {
    "numpy.core.multiarray _reconstruct": _RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _RECONSTRUCT,
    "numpy ndarray": _NDARRAY,
    "numpy dtype": _DTYPE,
}
# Operations by their byte; those with an argument also with its form.
_PLAIN = {
    ord("}"): "EMPTY_DICT",
    ord("]"): "EMPTY_LIST",
    ord("("): "MARK",
    0x85: "TUPLE1",
    0x86: "TUPLE2",
    0x87: "TUPLE3",
    ord("t"): "TUPLE",
    ord("N"): "NONE",
    0x88: "NEWTRUE",
    0x89: "NEWFALSE",
    ord("a"): "APPEND",
    ord("e"): "APPENDS",
    ord("s"): "SETITEM",
    ord("u"): "SETITEMS",
    ord("R"): "REDUCE",
    ord("b"): "BUILD",
    ord("."): "STOP",
}
_WITH_NUMBER = {
    0x80: ("PROTO", "<B"),
    ord("K"): ("BININT1", "<B"),
    ord("M"): ("BININT2", "<H"),
    ord("J"): ("BININT", "<i"),
    ord("q"): ("BINPUT", "<B"),
    ord("r"): ("LONG_BINPUT", "<I"),
    ord("h"): ("BINGET", "<B"),
    ord("j"): ("LONG_BINGET", "<I"),
}
_WITH_BYTES = {ord("U"): ("SHORT_BINSTRING", "<B"), ord("T"): ("BINSTRING", "<i")}
_CONSTANTS = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True}
_WHOLE = ("BININT", "BININT1", "BININT2")
_STRINGS = ("SHORT_BINSTRING", "BINSTRING")
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(slots=True)
class _Dtype:
    """``numpy.dtype('u1')`` and nothing else."""

    def build(self, state: object) -> None:
        if not isinstance(state, tuple) or state[:2] != (3, b"|"):
            raise DataError(f"element type state {state!r} is not that of unsigned bytes")


@dataclass(slots=True)
class _Pending:
    """An array of unsigned bytes whose contents come with a later BUILD."""

    value: npt.NDArray[np.uint8] | None = field(default=None)

    def build(self, state: object) -> None:
        match state:
            case (1, (int() as rows, int() as columns), _Dtype(), False, bytes() as raw):
                if rows < 0 or columns < 0 or rows * columns != len(raw):
                    raise DataError(f"array of {rows}x{columns} bytes holds {len(raw)}")
                self.value = np.frombuffer(raw, np.uint8).reshape(rows, columns)
            case _:
                raise DataError("an array is not a table of unsigned bytes in C order")


class _Machine:
    """The stack and memo of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop_mark(self) -> list[Any]:
        """All values above the topmost mark, which goes too."""
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                values = self.stack[at + 1 :]
                del self.stack[at:]
                return values
        raise IndexError("no mark")

    def step(self, name: str, arg: Any) -> None:
        """Run one operation."""
        stack = self.stack
        if name in _WHOLE or name in _STRINGS:
            stack.append(arg)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[arg] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[arg])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in _TUPLES:
            count = _TUPLES[name]
            if len(stack) < count:
                raise IndexError("stack is too short")
            values = tuple(stack[-count:])
            del stack[-count:]
            stack.append(values)
        elif name == "TUPLE":
            stack.append(tuple(self.pop_mark()))
        else:
            self.combine(name, arg)

    def combine(self, name: str, arg: Any) -> None:
        """Run one operation that changes or makes an object."""
        stack = self.stack
        if name == "APPENDS":
            values = self.pop_mark()
            _expect(stack[-1], list).extend(values)
        elif name == "APPEND":
            value = stack.pop()
            _expect(stack[-1], list).append(value)
        elif name == "SETITEMS":
            values = self.pop_mark()
            pairs = zip(values[::2], values[1::2], strict=True)
            _expect(stack[-1], dict).update({_expect(k, bytes): v for k, v in pairs})
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _expect(stack[-1], dict)[_expect(key, bytes)] = value
        elif name == "GLOBAL":
            if arg not in _GLOBALS:
                raise DataError(
                    f"it asks for {arg.replace(' ', '.')[:80]!r}, which no data set needs"
                )
            stack.append(_GLOBALS[arg])
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_made(function, arguments))
        else:  # BUILD
            state = stack.pop()
            target = stack[-1]
            if not isinstance(target, _Dtype | _Pending):
                raise DataError(f"it sets the state of a {type(target).__name__}")
            target.build(state)


def _operations(raw: bytes) -> Iterator[tuple[str, Any]]:
    """Each operation's name and argument, up to the end of the file."""
    at = 0
    while at < len(raw):
        code = raw[at]
        at += 1
        if code in _PLAIN:
            yield _PLAIN[code], None
        elif code in _WITH_NUMBER:
            name, form = _WITH_NUMBER[code]
            (number,) = struct.unpack_from(form, raw, at)
            at += struct.calcsize(form)
            yield name, number
        elif code in _WITH_BYTES:
            name, form = _WITH_BYTES[code]
            (length,) = struct.unpack_from(form, raw, at)
            at += struct.calcsize(form)
            if not 0 <= length <= len(raw) - at:
                raise IndexError("a string runs over the end")
            yield name, raw[at : at + length]
            at += length
        elif code == ord("c"):
            middle = raw.index(b"\n", at)
            end = raw.index(b"\n", middle + 1)
            yield "GLOBAL", (raw[at:middle] + b" " + raw[middle + 1 : end]).decode("latin-1")
            at = end + 1
        else:
            raise DataError(f"it uses the operation {code:#04x}, which no data set needs")
    raise IndexError("the end is missing")


def _expect(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise DataError(f"it holds a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _made(function: object, arguments: object) -> _Dtype | _Pending:
    if function is _RECONSTRUCT and arguments == (_NDARRAY, (0,), b"b"):
        return _Pending()
    if function is _DTYPE and arguments in ((b"u1", 0, 1), (b"u1", False, True)):
        return _Dtype()
    raise DataError("it calls something that no data set needs")


def read_pickled_dict(raw: bytes) -> dict[bytes, Any]:
    """Decode the pickle of a CIFAR batch: a dictionary of bytes, numbers, lists and byte tables.

    Args:
        raw: the whole file.

    Returns:
        Its dictionary; arrays are ``uint8``, two-dimensional and read-only.

    Raises:
        DataError: the bytes are damaged, or use more than such a file needs.
    """
    machine = _Machine()
    try:
        for name, arg in _operations(raw):
            if name == "STOP":
                break
            if name != "PROTO":
                machine.step(name, arg)
        value = _expect(machine.stack.pop(), dict)
    except DataError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, struct.error) as error:
        raise DataError("it is damaged or cut short") from error
    out: dict[bytes, Any] = {}
    for key, item in value.items():
        if isinstance(item, _Pending):
            if item.value is None:
                raise DataError(f"the array {key.decode('latin-1')!r} has no contents")
            item = item.value
        out[key] = item
    return out
