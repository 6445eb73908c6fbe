"""Reads recipes: strict TOML in ``recipes/``, one file per published model.

Each stage states every field twice, once per schedule: ``cpu`` is what two cores manage in hours,
``paper`` what the paper states.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path

from dynrt.errors import RecipeError
from dynrt.train.fields import Fields
from dynrt.train.recipe import (
    FORMAT,
    PRECISIONS,
    RATE_KINDS,
    SCHEDULES,
    STAGES,
    Descent,
    GateStage,
    NetworkSpec,
    NetworkStage,
    PictureSpec,
    Rate,
    Recipe,
    Schedule,
    Stage,
    StageName,
    Teacher,
    WeightFile,
)
from dynrt.zoo import branch_positions

_RECIPE_BYTES = 1 << 16


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with dynrt."""
    folder = resources.files("dynrt.train") / "recipes"
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(n.removesuffix(".toml") for n in names if n.endswith(".toml")))


def load_recipe(path_or_name: str | Path, *, schedule: str = "cpu") -> Recipe:
    """Read and check a recipe, both its schedules, and choose one of them.

    Args:
        path_or_name: a file, or a name that :func:`recipe_names` lists.
        schedule: ``cpu`` or ``paper``.

    Raises:
        RecipeError: no such recipe or schedule, or a field is missing, unknown or out of range;
            the message names the file, the field, its value and what is allowed.
    """
    if schedule not in SCHEDULES:
        raise RecipeError(f"schedule {schedule!r}: {' or '.join(map(repr, SCHEDULES))} is allowed")
    path = Path(path_or_name)
    if str(path_or_name) in recipe_names():
        path = Path(str(resources.files("dynrt.train") / "recipes" / f"{path_or_name}.toml"))
    text = _read(path, str(path_or_name))
    return {str(name): _recipe(text, path, name) for name in SCHEDULES}[schedule]


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
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"{path.name}: not TOML: {error}") from error
    top = Fields(raw, place=f"{path.name}: recipe")
    top.integer("format", low=FORMAT, high=FORMAT)
    name, summary = top.text("name", longest=64), top.text("summary")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise top.refuse("name", name, "small letters, digits and '-'")
    seed = top.integer("seed", low=0, high=10**6)
    network = _network(top.table("network"))
    pictures = _pictures(top.table("pictures"))
    per_stage = network.depth // 6
    exits = len(branch_positions(per_stage)) + 1
    readers: dict[StageName, Callable[[Fields], Stage]] = {
        "base": partial(_network_stage, exits=1, may_start=True),
        "branches": partial(_network_stage, exits=exits, may_start=False),
        "gates": _gate_stage,
    }
    table = top.table("stages")
    stages: dict[StageName, Stage] = {}
    for stage in STAGES:
        if stage != "base" and not table.has(stage):
            continue
        if stage == "gates" and "branches" not in stages:
            raise table.refuse("gates", {}, "it only after a stage 'branches'")
        tables = table.table(stage)
        checked = {one: readers[stage](tables.table(one)) for one in SCHEDULES}
        tables.done()
        stages[stage] = checked[schedule]
    table.done()
    top.done()
    return Recipe(
        name=name,
        summary=summary,
        seed=seed,
        network=network,
        pictures=pictures,
        stages=stages,
        schedule=schedule,
        folder=path.resolve().parent,
        text=text,
    )


def _network(table: Fields) -> NetworkSpec:
    depth = table.integer("depth", low=8, high=1202)
    if depth % 6 != 2:
        raise table.refuse("depth", depth, "6k + 2 (8, 14, 20, ..., 38, ..., 74, ...)")
    width = table.integer("width", low=1, high=512)
    classes = table.integer("classes", low=2, high=1000)
    table.done()
    return NetworkSpec(depth=depth, width=width, classes=classes)


def _pictures(table: Fields) -> PictureSpec:
    mean = table.numbers("mean", low=0, high=1, least=3)
    std = table.numbers("std", low=1e-6, high=1e6, least=3)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != 3:
            raise table.refuse(name, list(values), "one number for each of 3 channels")
    padding, flip = table.integer("crop_padding", low=0, high=64), table.flag("flip")
    table.done()
    return PictureSpec(mean=mean, std=std, crop_padding=padding, flip=flip)


def _rate(table: Fields) -> Rate:
    kind = table.choice("kind", RATE_KINDS)
    peak = table.number("peak", low=1e-9, high=1e3)
    if kind == "one-cycle":
        rate = Rate(
            kind="one-cycle",
            peak=peak,
            warmup=table.number("warmup", low=0, high=0.9),
            start_divisor=table.number("start_divisor", low=1, high=1e9),
            end_divisor=table.number("end_divisor", low=1, high=1e9),
        )
    else:
        at = table.numbers("at", low=0, high=1, least=0)
        if list(at) != sorted(set(at)):
            raise table.refuse("at", list(at), "a rising list of shares")
        rate = Rate(
            kind="drops", peak=peak, at=at, divisor=table.number("divisor", low=1, high=1e9)
        )
    table.done()
    return rate


def _descent(table: Fields) -> Descent:
    return Descent(
        epochs=table.integer("epochs", low=1, high=10_000),
        batch=table.integer("batch", low=1, high=65_536),
        rate=_rate(table.table("rate")),
        momentum=table.number("momentum", low=0, high=0.9999),
        momentum_at_peak=table.number("momentum_at_peak", low=0, high=0.9999),
        weight_decay=table.number("weight_decay", low=0, high=1),
    )


def _network_stage(table: Fields, *, exits: int, may_start: bool) -> NetworkStage:
    descent = _descent(table)
    precision = table.choice("precision", PRECISIONS)
    channels_last = table.flag("channels_last")
    weights = table.numbers("exit_weights", low=0, high=1e3, least=1)
    if len(weights) != exits or not any(weights):
        raise table.refuse(
            "exit_weights", list(weights), f"one number for each of {exits} exits, not all zero"
        )
    teacher = _teacher(table.table("teacher")) if table.has("teacher") else None
    start = _weight_file(table.table("start")) if may_start and table.has("start") else None
    table.done()
    return NetworkStage(
        descent=descent,
        precision=precision,
        channels_last=channels_last,
        exit_weights=weights,
        teacher=teacher,
        start=start,
    )


def _teacher(table: Fields) -> Teacher:
    spec = NetworkSpec(
        depth=table.integer("depth", low=8, high=1202),
        width=table.integer("width", low=1, high=512),
        classes=2,
    )
    if spec.depth % 6 != 2:
        raise table.refuse("depth", spec.depth, "6k + 2 (8, 14, 20, ..., 56, ...)")
    weights = _weight_file(table.table("weights"))
    share = table.number("share", low=0, high=1)
    temperature = table.number("temperature", low=1e-3, high=1e3)
    table.done()
    return Teacher(
        depth=spec.depth, width=spec.width, weights=weights, share=share, temperature=temperature
    )


def _weight_file(table: Fields) -> WeightFile:
    file = table.text("file")
    sha256 = table.text("sha256", longest=64) if table.has("sha256") else None
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise table.refuse("sha256", sha256, "64 hexadecimal digits in small letters")
    table.done()
    return WeightFile(file=file, sha256=sha256)


def _gate_stage(table: Fields) -> GateStage:
    stage = GateStage(
        descent=_descent(table),
        norm_weight=table.number("norm_weight", low=0, high=1e3),
        flipped=table.flag("flipped"),
        baseline=table.flag("baseline"),
    )
    table.done()
    return stage
