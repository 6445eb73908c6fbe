"""Recipes of one family in one file: choices that are put over what all have in common.

A recipe may have a table ``variants``: groups of named tables, each shaped like the recipe itself.
One choice per group is merged over the rest, and the names of the choices follow the file's own:
``resnet38-iadi`` with the choices ``layer`` and ``45`` is ``resnet38-iadi-layer-45``. Overrides from
the command line are merged in the same way.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import product
from typing import cast

from dynrt.errors import RecipeError

Table = dict[str, object]


def parse(text: str, place: str) -> Table:
    """TOML.

    Raises:
        RecipeError: it is none.
    """
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"{place}: not TOML: {error}") from error


def variant_names(raw: Mapping[str, object], place: str) -> dict[str, tuple[Table, ...]]:
    """What can be put over a recipe, by the end of its name; ``{"": ()}`` without variants.

    Raises:
        RecipeError: ``variants`` is not a table of groups of tables.
    """
    groups = raw.get("variants", {})
    if not isinstance(groups, dict) or not all(_is_group(g) for g in groups.values()):
        raise RecipeError(f"{place}: variants: groups of tables are allowed here")
    out: dict[str, tuple[Table, ...]] = {}
    for chosen in product(*(group.items() for group in groups.values())):
        out["-".join(name for name, _ in chosen)] = tuple(table for _, table in chosen)
    return out


def _is_group(group: object) -> bool:
    return (
        isinstance(group, dict)
        and bool(group)
        and all(
            isinstance(table, dict) and re.fullmatch("[a-z0-9][a-z0-9-]*", name)
            for name, table in group.items()
        )
    )


def resolve(raw: Mapping[str, object], variant: str, place: str) -> Table:
    """The recipe with its variant, under the whole name, and without ``variants``.

    Raises:
        RecipeError: there is no such variant.
    """
    known = variant_names(raw, place)
    if variant not in known:
        names = ", ".join(known) if "" not in known else "none"
        asked = f"no variant {variant!r}" if variant else "no variant chosen"
        raise RecipeError(f"{place}: {asked}; the variants are {names}")
    out: Table = {key: value for key, value in raw.items() if key != "variants"}
    for table in known[variant]:
        out = merged(out, table)
    if variant and isinstance(out.get("name"), str):
        out["name"] = f"{out['name']}-{variant}"
    return out


def merged(below: Mapping[str, object], above: Mapping[str, object]) -> Table:
    """``above`` put over ``below``: tables are merged, everything else is replaced."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        out[key] = (
            merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return out


def overridden(raw: Mapping[str, object], settings: Iterable[str]) -> Table:
    """The recipe with ``KEY=VALUE`` texts put over it; keys are dotted, values TOML or plain words.

    Raises:
        RecipeError: a text is none of these.
    """
    out = dict(raw)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", key.strip()):
            raise RecipeError(
                f"--set {setting}: KEY=VALUE is allowed, as in stages.iadi.target=0.5"
            )
        table: Table = {"value": value.strip()}
        with suppress(RecipeError):
            read = parse(f"value = {value}", "")
            table = read if read.keys() == table.keys() else table
        held = table["value"]
        for part in reversed(key.strip().split(".")):
            held = {part: held}
        out = merged(out, cast("Table", held))
    return out


def to_toml(raw: Mapping[str, object]) -> str:
    """TOML that :func:`parse` reads back as ``raw``: tables, texts, numbers, flags and lists."""
    lines: list[str] = []
    _write(raw, (), lines)
    return "\n".join(lines).lstrip("\n") + "\n"


def _write(table: Mapping[str, object], path: tuple[str, ...], lines: list[str]) -> None:
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    plain = {key: value for key, value in table.items() if key not in inner}
    if path and (plain or not inner):
        lines += ["", "[" + ".".join(map(_key, path)) + "]"]
    lines += [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in inner.items():
        _write(value, (*path, key), lines)


def _key(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    raise RecipeError(
        f"a recipe holds {value!r}: texts, numbers, flags, lists and tables are allowed"
    )
