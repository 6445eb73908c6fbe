"""Reads TOML strictly: every field has one type and a range, and none is left over.

A wrong one is named with its file, its line, its value and what is allowed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from dynrt.energy.toml_lines import KeyPath, key_lines, line_of
from dynrt.errors import EnergyError

Choice = TypeVar("Choice", bound=str)

FILE_BYTES = 1 << 16
#: More digits than any measurement has; a bound on the size of exact fractions.
_MOST_DIGITS = 30
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A TOML file, its lines and the error that its wrong fields raise."""

    file: str
    lines: Mapping[KeyPath, int]
    error: type[EnergyError]


def read_document(path: Path, *, what: str, error: type[EnergyError]) -> Fields:
    """Read ``path`` as TOML.

    Args:
        path: the file; at most ``FILE_BYTES``.
        what: it is, for messages: ``hardware``.
        error: raised for whatever is wrong with it.

    Raises:
        EnergyError: of class ``error``: the file cannot be read, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES + 1)
        if len(raw) > FILE_BYTES:
            raise error(f"{path}: larger than {FILE_BYTES} bytes, which no {what} file is")
        text = raw.decode()
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8 text"
        raise error(f"{path}: cannot be read as {what}: {reason}") from exc
    return parse_document(text, file=path.name, error=error)


def parse_document(text: str, *, file: str, error: type[EnergyError]) -> Fields:
    """``text`` as the top table of a TOML file called ``file``.

    Raises:
        EnergyError: of class ``error``: it is not TOML (a field given twice is not either).
    """
    text = text.replace("\r\n", "\n")
    try:
        top = tomllib.loads(text, parse_float=_decimal)
        lines = key_lines(text)
    except tomllib.TOMLDecodeError as exc:
        place = re.search(r"\(at line (\d+), column \d+\)", str(exc))
        line = int(place[1]) if place else text.count("\n") + 1
        reason = re.sub(r" \(at .*\)$", "", str(exc).splitlines()[0])[:200]
        raise error(f"{file}:{line}: not TOML: {reason}") from exc
    except (RecursionError, ValueError, ArithmeticError) as exc:
        raise error(f"{file}: not TOML: nested too deep, or a number too long") from exc
    return Fields(top, document=Document(file=file, lines=lines, error=error), path=())


class Fields:
    """One table. Each ``take`` method removes one field; ``done`` refuses what is left."""

    def __init__(self, table: Mapping[str, object], *, document: Document, path: KeyPath) -> None:
        self._left = dict(table)
        self._document = document
        self._path = path

    def refuse(self, name: str, value: object, allowed: str) -> EnergyError:
        """The error for a field: file, line, field, value, and what is allowed."""
        shown = str(value) if isinstance(value, Decimal) else repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return self._error(name, f"{_dotted((*self._path, name))} = {shown}: {allowed} is allowed")

    def wrong(self, message: str) -> EnergyError:
        """The error for the table as a whole."""
        return self._error("", f"{_dotted(self._path)}: {message}")

    def _error(self, name: str, message: str) -> EnergyError:
        line = line_of(self._document.lines, (*self._path, name) if name else self._path)
        return self._document.error(f"{self._document.file}:{line}: field {message}")

    def _take(self, name: str, allowed: str) -> object:
        if name not in self._left:
            raise self._error(
                name, f"{_dotted((*self._path, name))} is missing: {allowed} is allowed"
            )
        return self._left.pop(name)

    def has(self, name: str) -> bool:
        """Whether the field is there and not yet taken."""
        return name in self._left

    def table(self, name: str) -> Fields:
        """A table inside this one."""
        value = self._take(name, "a table")
        if not isinstance(value, dict):
            raise self.refuse(name, value, "a table")
        return Fields(value, document=self._document, path=(*self._path, name))

    def tables(self, name: str, *, most: int = 64) -> tuple[Fields, ...]:
        """The tables ``[[name]]``; none where the field is not there."""
        if not self.has(name):
            return ()
        value = self._take(name, "")
        allowed = f"1 to {most} tables [[{name}]]"
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            raise self.refuse(name, value, allowed)
        if not all(isinstance(entry, dict) for entry in value):
            raise self.refuse(name, value, allowed)
        return tuple(
            Fields(entry, document=self._document, path=(*self._path, name, index))
            for index, entry in enumerate(value)
        )

    def text(self, name: str, *, longest: int = 1000) -> str:
        """A text of one line that is not empty."""
        allowed = f"a text of one line, 1 to {longest} characters"
        value = self._take(name, allowed)
        if not isinstance(value, str) or not 1 <= len(value) <= longest or not value.isprintable():
            raise self.refuse(name, value, allowed)
        return value

    def matching(self, name: str, pattern: str, *, allowed: str) -> str:
        """A text that ``pattern`` matches whole."""
        value = self._take(name, allowed)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self.refuse(name, value, allowed)
        return value

    def choice(self, name: str, choices: Sequence[Choice]) -> Choice:
        """One of ``choices``."""
        allowed = " or ".join(repr(str(c)) for c in choices)
        value = self._take(name, allowed)
        for one in choices:
            if value == one:
                return one
        raise self.refuse(name, value, allowed)

    def integer(self, name: str, *, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``."""
        allowed = f"a whole number from {low} to {high}"
        value = self._take(name, allowed)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refuse(name, value, allowed)
        return value

    def amount(self, name: str, units: Mapping[str, int], *, low: int, high: int) -> int:
        """A text such as ``"36 kB"``: a number and one of ``units``, whole in the base unit."""
        names = ", ".join(units)
        allowed = f"a text of a number and a unit ({names}), {low} to {high} {next(iter(units))},"
        value = self._take(name, allowed)
        match = _AMOUNT.fullmatch(value) if isinstance(value, str) and len(value) <= 40 else None
        if match is None or match[2] not in units:
            raise self.refuse(name, value, allowed)
        amount = Fraction(match[1]) * units[match[2]]
        if amount.denominator != 1 or not low <= amount <= high:
            raise self.refuse(name, value, allowed)
        return int(amount)

    def fraction(self, name: str, *, low: str, high: str) -> Fraction:
        """A finite number from ``low`` to ``high``, exactly as written in decimals."""
        allowed = f"a number from {low} to {high}"
        value = self._take(name, allowed)
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise self.refuse(name, value, allowed)
        number = Decimal(value)
        if not number.is_finite() or not Decimal(low) <= number <= Decimal(high):
            raise self.refuse(name, value, allowed)
        exponent = number.as_tuple().exponent
        if not isinstance(exponent, int) or exponent < -_MOST_DIGITS:
            raise self.refuse(name, value, f"{allowed} with at most {_MOST_DIGITS} decimals")
        return Fraction(number)

    def done(self) -> None:
        """Refuse fields that nobody took.

        Raises:
            EnergyError: there are any.
        """
        if self._left:
            name, value = next(iter(self._left.items()))
            raise self.refuse(name, value, "no such field")


def packaged_names(folder: Path) -> tuple[str, ...]:
    """Names of the TOML files that come with dynrt in ``folder``."""
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))


def find_file(name_or_path: str | Path, folder: Path, *, error: type[EnergyError]) -> Path:
    """The file that ``name_or_path`` means: a packaged name comes first, else a path.

    Raises:
        EnergyError: of class ``error``: there is neither; lists the names.
    """
    text = str(name_or_path)
    names = packaged_names(folder)
    if isinstance(name_or_path, str) and text in names:
        return folder / f"{text}.toml"
    path = Path(name_or_path)
    try:
        if text and path.is_file():
            return path
    except (OSError, ValueError):  # too long a name; a NUL in it
        pass
    shown = text if len(text) <= 80 and text.isprintable() else repr(text[:80])
    raise error(f"{shown or repr(text)}: no such file; dynrt has {', '.join(names)}")


def _dotted(path: KeyPath) -> str:
    """``dram[1].value``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if part.isprintable() and len(part) <= 40 else repr(part[:40])
            text += f".{name}" if text else name
    return text or "(top)"


def _decimal(text: str) -> Decimal:
    return Decimal(text.replace("_", ""))
