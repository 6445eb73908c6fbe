"""The policy file: calibrated thresholds as JSON, with where they come from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from dynrt.calibrate.fields import (
    FieldError,
    as_count,
    as_number,
    as_object,
    as_text,
    as_threshold,
    read_json,
    threshold_json,
)
from dynrt.calibrate.files import write_text
from dynrt.calibrate.thresholds import Calibration, Goal
from dynrt.errors import DataError
from dynrt.ir.graph import Exit, Graph
from dynrt.units import FLOPS_PER_MAC

FORMAT = "dynrt-policy"
VERSION = 1


def policy_json(calibration: Calibration) -> dict[str, Any]:
    """The policy file's object. Thresholds are numbers, ``"never"`` or ``"always"``."""
    c = calibration
    return {
        "format": FORMAT,
        "version": VERSION,
        "bundle": {"name": c.bundle, "sha256": c.bundle_sha256},
        "thresholds": {k: threshold_json(v) for k, v in c.thresholds.items()},
        "goal": {
            "kind": c.goal,
            "target": c.target,
            "confidence": c.confidence,
            "method": c.method,
        },
        "data": {"name": c.data, "n": c.n},
        "figures": {
            "accuracy": c.accuracy,
            "full_accuracy": c.full_accuracy,
            "mean_flops": FLOPS_PER_MAC * c.mean_macs,
            "max_flops": FLOPS_PER_MAC * c.max_macs,
            "full_flops": FLOPS_PER_MAC * c.full_macs,
            "exits": dict(c.exits),
        },
    }


def write_policy(path: Path, calibration: Calibration, *, force: bool = False) -> None:
    """Write a policy file, whole or not at all.

    Raises:
        OutputExistsError: ``path`` exists and ``force`` is not set.
        DataError: it cannot be written.
    """
    text = json.dumps(policy_json(calibration), indent=2, allow_nan=False) + "\n"
    write_text(path, text, force=force)


def read_policy(path: Path) -> Calibration:
    """Read a policy file; unknown, missing or doubled fields are refused.

    Raises:
        DataError: the file is missing, too large, no JSON, or not what :func:`write_policy` writes.
    """
    value = read_json(path, what="policy file")
    try:
        return calibration_of(value)
    except FieldError as error:
        raise DataError(f"{path}: {error}") from error


def calibration_of(value: object) -> Calibration:
    """What a policy file's object says.

    Raises:
        FieldError: it is not what :func:`policy_json` gives.
    """
    names = ("format", "version", "bundle", "thresholds", "goal", "data", "figures")
    root = as_object(value, "the policy", names)
    if root["format"] != FORMAT or root["version"] != VERSION or root["version"] is True:
        raise FieldError(
            f"format {root['format']!r} version {root['version']!r}; {FORMAT} {VERSION} is read here"
        )
    bundle = as_object(root["bundle"], "bundle", ("name", "sha256"))
    goal = as_object(root["goal"], "goal", ("kind", "target", "confidence", "method"))
    data = as_object(root["data"], "data", ("name", "n"))
    figures = as_object(
        root["figures"],
        "figures",
        ("accuracy", "full_accuracy", "mean_flops", "max_flops", "full_flops", "exits"),
    )
    if goal["kind"] not in get_args(Goal):
        raise FieldError(f"goal.kind is {goal['kind']!r}; {', '.join(get_args(Goal))} are known")
    if not isinstance(root["thresholds"], dict) or not isinstance(figures["exits"], dict):
        raise FieldError("thresholds and figures.exits are objects")
    confidence = goal["confidence"]
    return Calibration(
        thresholds=MappingProxyType(
            {k: as_threshold(v, f"thresholds.{k}") for k, v in root["thresholds"].items()}
        ),
        goal=goal["kind"],
        target=as_number(goal["target"], "goal.target"),
        confidence=None
        if confidence is None
        else as_number(confidence, "goal.confidence", least=0, most=1),
        method=as_text(goal["method"], "goal.method"),
        bundle=as_text(bundle["name"], "bundle.name"),
        bundle_sha256=as_text(bundle["sha256"], "bundle.sha256"),
        data=as_text(data["name"], "data.name"),
        n=as_count(data["n"], "data.n"),
        accuracy=as_number(figures["accuracy"], "figures.accuracy", least=0, most=1),
        full_accuracy=as_number(figures["full_accuracy"], "figures.full_accuracy", least=0, most=1),
        mean_macs=as_number(figures["mean_flops"], "figures.mean_flops", least=0) / FLOPS_PER_MAC,
        max_macs=as_count(figures["max_flops"], "figures.max_flops") // FLOPS_PER_MAC,
        full_macs=as_count(figures["full_flops"], "figures.full_flops") // FLOPS_PER_MAC,
        exits=MappingProxyType(
            {k: as_count(v, f"figures.exits.{k}") for k, v in figures["exits"].items()}
        ),
    )


def with_thresholds(graph: Graph, calibration: Calibration) -> Graph:
    """``graph`` with calibrated thresholds in its accept rules, for a new bundle.

    The rules stay, also where the threshold is infinite, so that a run may set another one.
    """

    def changed(node: Exit) -> Exit:
        bound = calibration.thresholds.get(node.name)
        if bound is None or not node.accept.scored:
            return node
        return replace(node, accept=replace(node.accept, threshold=bound))

    return replace(
        graph, nodes=tuple(changed(n) if isinstance(n, Exit) else n for n in graph.nodes)
    )
