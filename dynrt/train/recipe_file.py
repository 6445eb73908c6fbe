"""Reads recipes: strict TOML in ``recipes/``, one file per family of models.

What a stage states holds for both schedules; what differs stands in its tables ``cpu`` (what two
cores manage in hours) and ``paper`` (what the paper states).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from dynrt.errors import RecipeError
from dynrt.train.fields import Fields
from dynrt.train.recipe import (
    CHANNELS,
    FORMAT,
    SCHEDULES,
    DenseSpec,
    GateSpec,
    NetworkSpec,
    PictureSpec,
    Recipe,
    Schedule,
)
from dynrt.train.recipe_stages import read_stages
from dynrt.train.recipe_variants import Table, overridden, parse, resolve, to_toml, variant_names

_RECIPE_BYTES = 1 << 16


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with dynrt, variants written out."""
    return tuple(sorted(_packaged()))


def load_recipe(
    path_or_name: str | Path, *, schedule: str = "cpu", settings: Sequence[str] = ()
) -> Recipe:
    """Read and check a recipe, both its schedules, and choose one of them.

    Args:
        path_or_name: a file, ``FILE:VARIANT`` if it has variants, or a name that
            :func:`recipe_names` lists.
        schedule: ``cpu`` or ``paper``.
        settings: ``KEY=VALUE`` texts that are put over what the file says.

    Raises:
        RecipeError: no such recipe or schedule, or a field is missing, unknown or out of range;
            the message names the file, the field, its value and what is allowed.
    """
    if schedule not in SCHEDULES:
        raise RecipeError(f"schedule {schedule!r}: {' or '.join(map(repr, SCHEDULES))} is allowed")
    path, variant = _find(str(path_or_name))
    text = _read(path, str(path_or_name))
    raw = parse(text, path.name)
    if variant or settings or "variants" in raw:
        raw = overridden(resolve(raw, variant, path.name), settings)
        text = to_toml(raw)
    return {str(name): _recipe(text, path, name) for name in SCHEDULES}[schedule]


def _find(asked: str) -> tuple[Path, str]:
    """The file, and its variant."""
    if asked in (known := _packaged()):
        return known[asked]
    file, colon, variant = asked.rpartition(":")
    if colon and file.endswith(".toml"):
        return Path(file), variant
    return Path(asked), ""


def _packaged() -> dict[str, tuple[Path, str]]:
    folder = Path(str(resources.files("dynrt.train") / "recipes"))
    out = {}
    for path in sorted(folder.glob("*.toml")):
        raw = parse(_read(path, path.name), path.name)
        for variant in variant_names(raw, path.name):
            out["-".join(filter(None, (path.stem, variant)))] = (path, variant)
    return out


def _read(path: Path, asked: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_RECIPE_BYTES + 1)
        if len(raw) > _RECIPE_BYTES:
            raise RecipeError(f"{path}: larger than {_RECIPE_BYTES} bytes, which no recipe is")
        return raw.decode()
    except FileNotFoundError as error:
        known = ", ".join(recipe_names())
        raise RecipeError(f"{asked}: no such recipe file; dynrt has {known}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise RecipeError(f"{asked}: cannot be read as a recipe: {reason}") from error


def _recipe(text: str, path: Path, schedule: Schedule) -> Recipe:
    raw: Table = parse(text, path.name)
    top = Fields(raw, place=f"{path.name}: recipe")
    top.integer("format", low=FORMAT, high=FORMAT)
    name, summary = top.text("name", longest=64), top.text("summary")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise top.refuse("name", name, "small letters, digits and '-'")
    seed = top.integer("seed", low=0, high=10**6)
    network = _network(top.table("network"))
    gates = _gates(top.table("gates")) if top.has("gates") else None
    points = top.texts("exit_points") if top.has("exit_points") else None
    grid = top.integer("exit_grid", low=1, high=8) if top.has("exit_grid") else 1
    pictures = _pictures(top.table("pictures"))
    stages = read_stages(top.table("stages"), network, gates, schedule)
    top.done()
    return Recipe(
        name=name,
        summary=summary,
        seed=seed,
        network=network,
        gates=gates,
        exit_points=points,
        exit_grid=grid,
        pictures=pictures,
        stages=stages,
        schedule=schedule,
        folder=path.resolve().parent,
        text=text,
    )


def _network(table: Fields) -> NetworkSpec | DenseSpec:
    family = table.choice("family", ("resnet", "densenet")) if table.has("family") else "resnet"
    if family == "densenet":
        return _densenet(table)
    depth = table.integer("depth", low=8, high=1202)
    if depth % 6 != 2:
        raise table.refuse("depth", depth, "6k + 2 (8, 14, 20, ..., 38, ..., 74, ...)")
    width = table.integer("width", low=1, high=512)
    classes = table.integer("classes", low=2, high=1000)
    table.done()
    return NetworkSpec(depth=depth, width=width, classes=classes)


def _densenet(table: Fields) -> DenseSpec:
    depth, bottleneck = table.integer("depth", low=7, high=1204), table.flag("bottleneck")
    step = 6 if bottleneck else 3
    if depth < 4 + step or (depth - 4) % step:
        raise table.refuse("depth", depth, f"{step}n + 4 (10, 16, ..., 40, ..., 100, ...)")
    spec = DenseSpec(
        depth=depth,
        growth=table.integer("growth", low=1, high=256),
        bottleneck=bottleneck,
        compression=table.number("compression", low=0.05, high=1),
        classes=table.integer("classes", low=2, high=1000),
    )
    table.done()
    return spec


def _gates(table: Fields) -> GateSpec:
    layer, channel = table.flag("layer"), table.choice("channel", CHANNELS)
    if not layer and channel == "none":
        raise table.refuse("channel", channel, "'output' or 'inner' without layer gates")
    size = table.integer("group_channels", low=1, high=1024)
    table.done()
    return GateSpec(layer=layer, channel=channel, group_channels=size)


def _pictures(table: Fields) -> PictureSpec:
    mean = table.numbers("mean", low=0, high=1, least=3)
    std = table.numbers("std", low=1e-6, high=1e6, least=3)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != 3:
            raise table.refuse(name, list(values), "one number for each of 3 channels")
    padding, flip = table.integer("crop_padding", low=0, high=64), table.flag("flip")
    table.done()
    return PictureSpec(mean=mean, std=std, crop_padding=padding, flip=flip)
