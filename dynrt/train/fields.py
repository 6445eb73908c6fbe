"""Reads one TOML table strictly: every field has one type and a range, and none is left over."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TypeVar

from dynrt.errors import RecipeError

Choice = TypeVar("Choice", bound=str)


class Fields:
    """A table of a recipe. Each ``take`` method removes one field; ``done`` refuses what is left.

    Args:
        table: as ``tomllib`` gives it.
        place: of the table, for messages: ``recipe.toml: stages.base.cpu``.
    """

    def __init__(self, table: object, *, place: str) -> None:
        if not isinstance(table, dict):
            raise RecipeError(f"{place} = {table!r}: a table is allowed here")
        self._left: dict[str, object] = dict(table)
        self._place = place

    def refuse(self, name: str, value: object, allowed: str) -> RecipeError:
        """The error for a field: the file, the field, its value, and what is allowed."""
        shown = repr(value)
        return RecipeError(
            f"{self._place}.{name} = {shown if len(shown) <= 80 else shown[:77] + '...'}: "
            f"{allowed} is allowed"
        )

    def _take(self, name: str, allowed: str) -> object:
        if name not in self._left:
            raise RecipeError(f"{self._place}.{name} is missing: {allowed} is allowed")
        return self._left.pop(name)

    def has(self, name: str) -> bool:
        """Whether the field is there and not yet taken."""
        return name in self._left

    def table(self, name: str) -> Fields:
        """A table inside this one."""
        value = self._take(name, "a table")
        if not isinstance(value, dict):
            raise self.refuse(name, value, "a table")
        return Fields(value, place=f"{self._place}.{name}")

    def layered(self, name: str, names: Sequence[str]) -> Fields:
        """The table ``name``, and beside it the fields that all of ``names`` have in common.

        Raises:
            RecipeError: a field stands in both.
        """
        value = self._left.get(name)
        if not isinstance(value, dict):
            self.table(name)  # says what is wrong
        common = {key: held for key, held in self._left.items() if key not in names}
        own = Fields(value, place=f"{self._place}.{name}")
        for key in common.keys() & own._left.keys():
            raise own.refuse(key, own._left[key], f"it here or in {self._place}, not in both,")
        own._left.update(common)
        return own

    def text(self, name: str, *, longest: int = 200) -> str:
        """A text that is not empty."""
        allowed = f"a text of 1 to {longest} characters"
        value = self._take(name, allowed)
        if not isinstance(value, str) or not 1 <= len(value) <= longest or "\0" in value:
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

    def flag(self, name: str) -> bool:
        """``true`` or ``false``."""
        value = self._take(name, "true or false")
        if not isinstance(value, bool):
            raise self.refuse(name, value, "true or false")
        return value

    def integer(self, name: str, *, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``."""
        allowed = f"a whole number from {low} to {high}"
        value = self._take(name, allowed)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refuse(name, value, allowed)
        return value

    def number(self, name: str, *, low: float, high: float) -> float:
        """A finite number from ``low`` to ``high``."""
        allowed = f"a number from {low:g} to {high:g}"
        value = self._take(name, allowed)
        if not _is_number(value, low, high):
            raise self.refuse(name, value, allowed)
        return float(value)  # type: ignore[arg-type]  # _is_number has seen to it

    def numbers(self, name: str, *, low: float, high: float, least: int) -> tuple[float, ...]:
        """A list of at least ``least`` and at most 64 finite numbers from ``low`` to ``high``."""
        allowed = f"a list of {least} to 64 numbers from {low:g} to {high:g}"
        value = self._take(name, allowed)
        if (
            not isinstance(value, list)
            or not least <= len(value) <= 64
            or not all(_is_number(v, low, high) for v in value)
        ):
            raise self.refuse(name, value, allowed)
        return tuple(float(v) for v in value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of 1 to 64 texts, none empty."""
        allowed = "a list of 1 to 64 texts"
        value = self._take(name, allowed)
        if not isinstance(value, list) or not 1 <= len(value) <= 64:
            raise self.refuse(name, value, allowed)
        if not all(isinstance(v, str) and 1 <= len(v) <= 64 for v in value):
            raise self.refuse(name, value, allowed)
        return tuple(str(v) for v in value)

    def done(self) -> None:
        """Refuse fields that nobody took.

        Raises:
            RecipeError: there are any.
        """
        if self._left:
            name, value = next(iter(self._left.items()))
            raise self.refuse(name, value, "no such field")


def _is_number(value: object, low: float, high: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isfinite(value) and low <= value <= high
