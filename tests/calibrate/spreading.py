"""Data and comparisons for work that is done in several places."""

from __future__ import annotations

from typing import Any

import numpy as np

from dynrt.calibrate.datasets import Dataset
from dynrt.calibrate.evaluate import Evaluation
from dynrt.calibrate.observe import Observed
from dynrt.calibrate.scores import ScoreTable

SIDE = 8


def colour_data(count: int, *, seed: int = 0) -> Dataset:
    """Pictures of one colour on gray, from clear to faint, with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    pixels = np.full((count, SIDE, SIDE, 3), 60.0)
    pixels[np.arange(count), :, :, labels] = rng.uniform(55, 255, count)[:, None, None]
    pixels += rng.normal(0, 30, pixels.shape)
    return Dataset(
        pictures=pixels.clip(0, 255).astype(np.uint8),
        labels=labels,
        names=("red", "green", "blue"),
        source="colours test",
    )


def without_time(evaluation: Evaluation) -> dict[str, Any]:
    """The record of an evaluation without what differs from run to run."""
    record = evaluation.to_json()
    for part in (record, *record["points"]):
        assert part.pop("seconds") > 0
    return record


def same_evaluation(one: Evaluation, other: Evaluation) -> bool:
    """Whether all figures but the times are equal to the bit."""
    return without_time(one) == without_time(other)


def same_scores(one: ScoreTable, other: ScoreTable) -> bool:
    """Whether two tables are equal to the bit, NaN where there is no score."""
    arrays = ("scores", "predicted", "labels", "step_macs", "step_exit")
    names = ("exits", "kinds", "bundle", "bundle_sha256", "data")
    return all(
        np.array_equal(getattr(one, a), getattr(other, a), equal_nan=a == "scores") for a in arrays
    ) and all(getattr(one, n) == getattr(other, n) for n in names)


def same_observed(one: Observed, other: Observed) -> bool:
    """Whether two are equal input by input."""
    arrays = ("labels", "predicted", "ended", "macs", "accepted", "forced", "ran")
    return all(np.array_equal(getattr(one, a), getattr(other, a)) for a in arrays) and (
        (one.nodes, one.exits, one.setting) == (other.nodes, other.exits, other.setting)
    )
