"""The policy file: calibrated thresholds as JSON, with where they come from."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from dynrt.calibrate.files import write_text
from dynrt.calibrate.thresholds import Calibration, Goal
from dynrt.errors import DataError
from dynrt.ir.graph import Exit, Graph
from dynrt.units import FLOPS_PER_MAC

FORMAT = "dynrt-policy"
VERSION = 1
_LIMIT_BYTES = 1 << 20
_WORDS = {float("inf"): "never", float("-inf"): "always"}
_NUMBERS = {word: number for number, word in _WORDS.items()}


def policy_json(calibration: Calibration) -> dict[str, Any]:
    """The policy file's object. Thresholds are numbers, ``"never"`` or ``"always"``."""
    c = calibration
    return {
        "format": FORMAT,
        "version": VERSION,
        "bundle": {"name": c.bundle, "sha256": c.bundle_sha256},
        "thresholds": {k: _WORDS.get(v, v) for k, v in c.thresholds.items()},
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
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise DataError(f"{path}: over {_LIMIT_BYTES} bytes; this is no policy file")
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: it cannot be read as text") from error
    try:
        value = json.loads(text, object_pairs_hook=_no_doubles, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: this is no policy file: {error}") from error
    try:
        return _calibration(value)
    except _FieldError as error:
        raise DataError(f"{path}: {error}") from error


class _FieldError(Exception):
    """A field is not what it should be."""


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a field stands there twice")
    return out


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _object(value: object, place: str, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _FieldError(f"{place} is not an object")
    if differ := value.keys() ^ set(names):
        raise _FieldError(f"{place}: missing or unknown: {', '.join(sorted(differ))}")
    return value


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise _FieldError(f"{place} is {value!r}; text is needed")
    return value


def _number(
    value: object, place: str, *, least: float = -math.inf, most: float = math.inf
) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _FieldError(f"{place} is {value!r}; a number is needed")
    if not least <= value <= most or abs(value) > 1e300:
        raise _FieldError(f"{place} is {value}; {least} to {most} is possible")
    return float(value)


def _count(value: object, place: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise _FieldError(f"{place} is {value!r}; a whole number is needed")
    return value


def _threshold(value: object, place: str) -> float:
    if isinstance(value, str) and value in _NUMBERS:
        return _NUMBERS[value]
    if isinstance(value, str):
        raise _FieldError(f"{place} is {value!r}; a number, 'never' or 'always' is needed")
    return _number(value, place)


def _calibration(value: object) -> Calibration:
    names = ("format", "version", "bundle", "thresholds", "goal", "data", "figures")
    root = _object(value, "the policy", names)
    if root["format"] != FORMAT or root["version"] != VERSION or root["version"] is True:
        raise _FieldError(
            f"format {root['format']!r} version {root['version']!r}; {FORMAT} {VERSION} is read here"
        )
    bundle = _object(root["bundle"], "bundle", ("name", "sha256"))
    goal = _object(root["goal"], "goal", ("kind", "target", "confidence", "method"))
    data = _object(root["data"], "data", ("name", "n"))
    figures = _object(
        root["figures"],
        "figures",
        ("accuracy", "full_accuracy", "mean_flops", "max_flops", "full_flops", "exits"),
    )
    if goal["kind"] not in get_args(Goal):
        raise _FieldError(f"goal.kind is {goal['kind']!r}; {', '.join(get_args(Goal))} are known")
    if not isinstance(root["thresholds"], dict) or not isinstance(figures["exits"], dict):
        raise _FieldError("thresholds and figures.exits are objects")
    confidence = goal["confidence"]
    return Calibration(
        thresholds=MappingProxyType(
            {k: _threshold(v, f"thresholds.{k}") for k, v in root["thresholds"].items()}
        ),
        goal=goal["kind"],
        target=_number(goal["target"], "goal.target"),
        confidence=None
        if confidence is None
        else _number(confidence, "goal.confidence", least=0, most=1),
        method=_text(goal["method"], "goal.method"),
        bundle=_text(bundle["name"], "bundle.name"),
        bundle_sha256=_text(bundle["sha256"], "bundle.sha256"),
        data=_text(data["name"], "data.name"),
        n=_count(data["n"], "data.n"),
        accuracy=_number(figures["accuracy"], "figures.accuracy", least=0, most=1),
        full_accuracy=_number(figures["full_accuracy"], "figures.full_accuracy", least=0, most=1),
        mean_macs=_number(figures["mean_flops"], "figures.mean_flops", least=0) / FLOPS_PER_MAC,
        max_macs=_count(figures["max_flops"], "figures.max_flops") // FLOPS_PER_MAC,
        full_macs=_count(figures["full_flops"], "figures.full_flops") // FLOPS_PER_MAC,
        exits=MappingProxyType(
            {k: _count(v, f"figures.exits.{k}") for k, v in figures["exits"].items()}
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
