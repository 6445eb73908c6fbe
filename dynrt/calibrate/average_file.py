"""The file of an average policy: its levels as JSON, with where they come from."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from dynrt.calibrate.average import AveragePolicy
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
from dynrt.calibrate.policy_file import calibration_of
from dynrt.calibrate.scores import Resource
from dynrt.calibrate.thresholds import Calibration
from dynrt.errors import DataError
from dynrt.runtime.priced import PriceLevel

FORMAT = "dynrt-average-policy"
VERSION = 1

_FIGURES = (
    "accuracy",
    "mean_cost",
    "fixed_accuracy",
    "fixed_mean_cost",
    "full_accuracy",
)


def average_json(policy: AveragePolicy) -> dict[str, Any]:
    """The file's object. Costs are whole units of ``resource``; a missing cap is null."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "bundle": {"name": policy.bundle, "sha256": policy.bundle_sha256},
        "resource": policy.resource,
        "average": policy.average,
        "cap": policy.cap,
        "burst": policy.burst,
        "dearest": policy.dearest,
        "levels": [
            {
                "thresholds": {k: threshold_json(v) for k, v in level.thresholds.items()},
                "accuracy": level.accuracy,
                "mean_cost": level.mean_cost,
                "price": level.price,
            }
            for level in policy.levels
        ],
        "data": {"name": policy.data, "n": policy.n},
        "figures": {name: getattr(policy, name) for name in _FIGURES},
    }


def write_average(path: Path, policy: AveragePolicy, *, force: bool = False) -> None:
    """Write the file, whole or not at all.

    Raises:
        OutputExistsError: ``path`` exists and ``force`` is not set.
        DataError: it cannot be written.
    """
    text = json.dumps(average_json(policy), indent=2, allow_nan=False) + "\n"
    write_text(path, text, force=force)


def read_average(path: Path) -> AveragePolicy:
    """Read what :func:`write_average` writes; unknown, missing or doubled fields are refused.

    Raises:
        DataError: the file is missing, too large, no JSON, or no such file.
    """
    value = read_json(path, what="average policy")
    try:
        return _policy(value)
    except FieldError as error:
        raise DataError(f"{path}: {error}") from error


def read_any_policy(path: Path) -> Calibration | AveragePolicy:
    """Read a policy of either kind: fixed thresholds, or levels for a stream's average.

    Raises:
        DataError: the file is missing, too large, no JSON, or neither.
    """
    value = read_json(path, what="policy file")
    average = isinstance(value, dict) and value.get("format") == FORMAT
    try:
        return _policy(value) if average else calibration_of(value)
    except FieldError as error:
        raise DataError(f"{path}: {error}") from error


def _policy(value: object) -> AveragePolicy:
    names = ("format", "version", "bundle", "resource", "average", "cap", "burst", "dearest")
    root = as_object(value, "the policy", (*names, "levels", "data", "figures"))
    if root["format"] != FORMAT or root["version"] != VERSION or root["version"] is True:
        raise FieldError(
            f"format {root['format']!r} version {root['version']!r}; {FORMAT} {VERSION} is read here"
        )
    if root["resource"] not in get_args(Resource):
        raise FieldError(
            f"resource is {root['resource']!r}; {', '.join(get_args(Resource))} are known"
        )
    bundle = as_object(root["bundle"], "bundle", ("name", "sha256"))
    data = as_object(root["data"], "data", ("name", "n"))
    figures = as_object(root["figures"], "figures", _FIGURES)
    if not isinstance(root["levels"], list) or not root["levels"]:
        raise FieldError("levels is not a list of levels")
    levels = tuple(_level(v, f"levels[{i}]") for i, v in enumerate(root["levels"]))
    for i, (cheap, dear) in enumerate(itertools.pairwise(levels)):
        if dear.mean_cost <= cheap.mean_cost or dear.thresholds.keys() != cheap.thresholds.keys():
            raise FieldError(
                f"levels[{i + 1}] is not dearer than the one before, for the same exits"
            )
    average, burst = as_count(root["average"], "average"), as_count(root["burst"], "burst")
    dearest = as_count(root["dearest"], "dearest")
    cap = None if root["cap"] is None else as_count(root["cap"], "cap")
    if not average or not burst or not dearest or (cap is not None and cap < average):
        raise FieldError("average, burst and dearest are above 0, and a cap not below the average")
    numbers = {
        name: as_number(
            figures[name],
            f"figures.{name}",
            least=0,
            most=1 if name.endswith("accuracy") else 1e300,
        )
        for name in _FIGURES
    }
    return AveragePolicy(
        resource=root["resource"],
        average=average,
        cap=cap,
        burst=burst,
        dearest=dearest,
        levels=levels,
        bundle=as_text(bundle["name"], "bundle.name"),
        bundle_sha256=as_text(bundle["sha256"], "bundle.sha256"),
        data=as_text(data["name"], "data.name"),
        n=as_count(data["n"], "data.n"),
        **numbers,
    )


def _level(value: object, place: str) -> PriceLevel:
    level = as_object(value, place, ("thresholds", "accuracy", "mean_cost", "price"))
    if not isinstance(level["thresholds"], dict):
        raise FieldError(f"{place}.thresholds is not an object")
    return PriceLevel(
        thresholds=MappingProxyType(
            {k: as_threshold(v, f"{place}.thresholds.{k}") for k, v in level["thresholds"].items()}
        ),
        accuracy=as_number(level["accuracy"], f"{place}.accuracy", least=0, most=1),
        mean_cost=as_number(level["mean_cost"], f"{place}.mean_cost", least=0),
        price=as_number(level["price"], f"{place}.price", least=0),
    )
