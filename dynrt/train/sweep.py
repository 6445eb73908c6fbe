"""One recipe at several values of a setting: each point a run of its own, shared stages trained once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dynrt.errors import RecipeError
from dynrt.train.progress import Progress
from dynrt.train.recipe_file import load_recipe
from dynrt.train.run import TrainResult, train


def train_sweep(
    recipe: str | Path,
    data: str,
    out: Path,
    *,
    key: str,
    values: Sequence[str],
    schedule: str = "cpu",
    settings: Sequence[str] = (),
    finished: Mapping[str, Path] | None = None,
    threads: int | None = None,
    seconds: float | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    tell: Callable[[str, Path], None] = lambda _value, _folder: None,
) -> dict[str, TrainResult]:
    """Train a recipe once for each value, in the order given; resumable like a single run.

    What comes before the stage that ``key`` changes is trained for the first value only, and stands
    for that stage at the others.

    Args:
        recipe: a file or a name, as for :func:`~dynrt.train.run.train`.
        data: as there.
        schedule: as there.
        settings: as there, at every point.
        finished: as there, at every point.
        threads: as there.
        progress: as there.
        out: the point of value V is trained in ``out/KEY=V``, KEY being the key's last part.
        key: a setting, as in ``stages.iadi.target``.
        values: texts; no two alike.
        seconds: for each point; the first that is not done by then is the last.
        tell: told of each value and its folder before it starts.

    Returns:
        The results by value; a point whose time was up is the last one.

    Raises:
        RecipeError: values are missing or doubled, or as ``train``; every point is checked before
            the first is trained.
    """
    if not key or not values or len(set(values)) < len(values) or not all(values):
        raise RecipeError(
            f"a sweep of {key!r} over {', '.join(values) or 'nothing'}: values differ"
        )
    points = {value: (*settings, f"{key}={value}") for value in values}
    loaded = [load_recipe(recipe, schedule=schedule, settings=p) for p in points.values()]
    shared = _stage_before(key, [str(stage) for stage in loaded[0].stages])
    given = dict(finished or {})
    results: dict[str, TrainResult] = {}
    for value, point in points.items():
        folder = out / f"{key.rpartition('.')[2]}={value}"
        tell(value, folder)
        results[value] = train(
            recipe,
            data,
            folder,
            schedule=schedule,
            settings=point,
            finished=given,
            threads=threads,
            seconds=seconds,
            progress=progress,
        )
        if not results[value].finished:
            break
        file = results[value].weights.get(shared) if shared else None
        if shared and file is not None:
            given.setdefault(shared, file)
    return results


def _stage_before(key: str, stages: Sequence[str]) -> str | None:
    """The stage whose weights no value of ``key`` changes, if one comes right before."""
    parts = key.split(".")
    if len(parts) < 3 or parts[0] != "stages" or parts[1] not in stages:
        return None
    at = stages.index(parts[1])
    return stages[at - 1] if at else None
