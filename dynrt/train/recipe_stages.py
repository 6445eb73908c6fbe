"""Reads the stages of a recipe."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from dynrt.train.fields import Fields
from dynrt.train.recipe import (
    PRECISIONS,
    RATE_KINDS,
    RESOURCES,
    SCHEDULES,
    STAGES,
    DenseSpec,
    Descent,
    GatedStage,
    GateSpec,
    GateStage,
    NetworkSpec,
    NetworkStage,
    Rate,
    Resource,
    Schedule,
    Stage,
    StageName,
    Teacher,
    WeightFile,
    WeightStage,
)
from dynrt.zoo import branch_positions

_GATED: tuple[StageName, ...] = ("open", "iadi", "ddi")
#: What must come before a stage, if it is not the first.
_BEFORE: dict[StageName, tuple[StageName, ...]] = {
    "branches": ("base",),
    "open": ("base",),
    "iadi": ("open",),
    "ddi": ("iadi",),
    "gates": ("ddi", "branches", "base"),
}


def read_stages(
    table: Fields,
    network: NetworkSpec | DenseSpec,
    gates: GateSpec | None,
    schedule: Schedule,
) -> dict[StageName, Stage]:
    """All stages of a recipe in the order in which they run, checked for both schedules.

    Raises:
        RecipeError: a field is wrong, or a stage stands where it cannot.
    """
    exits = len(branch_positions(_per_stage(network))) + 1
    readers: dict[StageName, Callable[[Fields], Stage]] = {
        "base": partial(_network_stage, exits=1, may_start=True),
        "branches": partial(_network_stage, exits=exits, may_start=False),
        "open": partial(_gated_stage, exits=1),
        "iadi": partial(_gated_stage, exits=1),
        "ddi": partial(_gated_stage, exits=exits),
        "gates": _gate_stage,
    }
    stages: dict[StageName, Stage] = {}
    for stage in STAGES:
        if stage != "base" and not table.has(stage):
            continue
        tables = table.table(stage)
        _check_place(table, stage, stages, network, gates)
        if tables.has("weights") and stage == "base":
            stages[stage] = WeightStage(weights=_weight_file(tables.table("weights")))
            tables.done()
            continue
        checked = {one: readers[stage](tables.layered(one, SCHEDULES)) for one in SCHEDULES}
        stages[stage] = checked[schedule]
    table.done()
    return stages


def _check_place(
    table: Fields,
    stage: StageName,
    before: dict[StageName, Stage],
    network: NetworkSpec | DenseSpec,
    gates: GateSpec | None,
) -> None:
    wanted = _BEFORE.get(stage, ())
    if wanted and not any(one in before for one in wanted):
        raise table.refuse(stage, {}, f"it only after a stage {wanted[0]!r}")
    if stage in _GATED and gates is None:
        raise table.refuse(stage, {}, "it only in a recipe with a table 'gates'")
    if stage in _GATED and "branches" in before:
        raise table.refuse(stage, {}, "it only without a stage 'branches'")
    if stage == "branches" and isinstance(network, DenseSpec):
        raise table.refuse(stage, {}, "it only for a ResNet; a DenseNet's branches come in 'ddi'")


def _per_stage(network: NetworkSpec | DenseSpec) -> int:
    if isinstance(network, DenseSpec):
        return (network.depth - 4) // (6 if network.bottleneck else 3)
    return network.depth // 6


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
    stage = _learnt(table, exits=exits, may_start=may_start)
    table.done()
    return stage


def _learnt(table: Fields, *, exits: int, may_start: bool) -> NetworkStage:
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
    return NetworkStage(
        descent=descent,
        precision=precision,
        channels_last=channels_last,
        exit_weights=weights,
        teacher=teacher,
        start=start,
    )


def _gated_stage(table: Fields, *, exits: int) -> GatedStage:
    network = _learnt(table, exits=exits, may_start=False)
    kind = table.choice("resource", RESOURCES)
    energy = kind == "energy"
    stage = GatedStage(
        network=network,
        resource=Resource(
            kind=kind,
            hardware=table.text("hardware") if energy else None,
            table=table.text("table") if energy else None,
        ),
        target=table.number("target", low=0, high=1),
        alpha=table.number("alpha", low=0, high=1e3),
        # The paper has none of these.
        band=table.number("band", low=0, high=1) if table.has("band") else 0.0,
        gate_rate=(
            table.number("gate_rate", low=1e-6, high=1e3) if table.has("gate_rate") else 1.0
        ),
        channel_rate=(
            table.number("channel_rate", low=1e-6, high=1e3) if table.has("channel_rate") else 1.0
        ),
        epoch_share=(
            table.number("epoch_share", low=0.001, high=1) if table.has("epoch_share") else 1.0
        ),
        explored=table.number("explored", low=0, high=1) if table.has("explored") else 1.0,
        clip_norm=(
            table.number("clip_norm", low=1e-6, high=1e6) if table.has("clip_norm") else None
        ),
    )
    table.done()
    return stage


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
