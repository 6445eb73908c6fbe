"""``train``: a recipe's stages in sequence, each resumable, each leaving its weights.

OUT holds ``recipe.toml`` and ``run.json`` (what is trained), ``STAGE.safetensors`` of each finished
stage, ``STAGE.checkpoint.safetensors`` (the one under way) and ``records.jsonl`` (one line per epoch).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from dynrt.calibrate.datasets import Dataset, Split, load_dataset
from dynrt.errors import OutputExistsError, RecipeError
from dynrt.train.checkpoint import write_atomically
from dynrt.train.pictures import Pictures
from dynrt.train.progress import Journal, Progress, Record, Watch
from dynrt.train.recipe import Recipe, WeightStage
from dynrt.train.recipe_file import load_recipe
from dynrt.train.stages import (
    Materials,
    Run,
    check_imports,
    checkpoint_path,
    refuse_foreign,
    weights_path,
)

_LEAST_SIDE = 8
_SAVE_EVERY_S = 120.0
_SPLITS: tuple[Split, ...] = ("train", "validation")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """How a call of :func:`train` ended.

    Attributes:
        recipe, schedule: what was trained.
        finished: whether all stages are; if not, call again to go on.
        weights: files of the finished stages.
        accuracy: by finished stage and exit, fractions on the validation pictures.
        measures: by finished stage, shares that its gates saved there.
        records: the file of records, one JSON object per epoch.
        seconds: that this call took.
    """

    recipe: str
    schedule: str
    finished: bool
    weights: Mapping[str, Path]
    accuracy: Mapping[str, Mapping[str, float]]
    measures: Mapping[str, Mapping[str, float]]
    records: Path
    seconds: float


def train(
    recipe: str | Path,
    data: str,
    out: Path,
    *,
    schedule: str = "cpu",
    settings: Sequence[str] = (),
    resume: bool = True,
    progress: Callable[[Progress], None] = lambda _: None,
    seconds: float | None = None,
    finished: Mapping[str, Path] | None = None,
    weight_folders: Sequence[Path] = (),
    threads: int | None = None,
    save_every_s: float = _SAVE_EVERY_S,
    clock: Callable[[], float] = time.monotonic,
) -> TrainResult:
    """Train a recipe, or go on with it.

    Args:
        recipe: a file, or a name from :func:`~dynrt.train.recipe_file.recipe_names`.
        data: ``cifar10:DIR``, ``mnist:DIR``, ``imagefolder:DIR`` or ``npz:FILE``.
        out: folder for weights, checkpoints and records; made if it is not there.
        schedule: ``cpu`` or ``paper``.
        settings: ``KEY=VALUE`` texts that are put over what the recipe says.
        resume: go on with what ``out`` holds; otherwise refuse if it holds anything of a run.
        progress: called after every step.
        seconds: stop at the first step after so long, ready to go on; ``None`` for no limit. The
            features that d-gates learn from are computed in one go (minutes).
        finished: weights of stages that need not be trained here, by stage.
        weight_folders: where weights that a recipe names are looked for first; then in the
            recipe's folder, in ``out``, in the data's folder and its ``weights``, in ``models``.
        threads: of torch for this call; ``None`` leaves them as they are. Weights are the same to
            the bit after an interruption at ``precision = "float32"`` and one thread.
        save_every_s: seconds between checkpoints within an epoch; each epoch ends with one too.
        clock: monotonic seconds.

    Raises:
        RecipeError: a wrong recipe, schedule, checkpoint or file of weights, or the loss diverges.
        DataError: the data cannot be read.
        OutputExistsError: ``resume`` is off and ``out`` holds a run.
    """
    watch = Watch(tell=progress, limit_s=seconds, save_every_s=save_every_s, clock=clock)
    chosen = load_recipe(recipe, schedule=schedule, settings=settings)
    imported = check_imports(chosen, finished or {})
    parts = {name: load_dataset(data, split=name) for name in _SPLITS}
    materials = _materials(chosen, data, parts, (*weight_folders, chosen.folder, out))
    _prepare_folder(out, chosen, parts["train"], resume=resume)
    run = Run(
        recipe=chosen,
        materials=materials,
        out=out,
        imported=imported,
        watch=watch,
        journal=Journal(out / "records.jsonl"),
    )
    with _torch_threads(threads):
        return _run_stages(run)


def _run_stages(run: Run) -> TrainResult:
    names = list(run.recipe.stages)
    weights: dict[str, Path] = {}
    accuracy: dict[str, Mapping[str, float]] = {}
    measures: dict[str, Mapping[str, float]] = {}
    before: Mapping[str, Tensor] = {}
    for stage in names[names.index(run.first_stage()) :]:
        content = run.finish(stage, before)
        if content is None:
            break
        records = cast("list[Record]", content.state["records"])
        run.journal.finish(records)
        before = content.tensors
        weights[stage] = weights_path(run.out, stage)
        accuracy[stage] = records[-1]["accuracy"]
        if "measures" in records[-1]:
            measures[stage] = records[-1]["measures"]
    return TrainResult(
        recipe=run.recipe.name,
        schedule=run.recipe.schedule,
        finished=names[-1] in weights,
        weights=weights,
        accuracy=accuracy,
        measures=measures,
        records=run.journal.path,
        seconds=run.watch.seconds,
    )


def _prepare_folder(out: Path, recipe: Recipe, shown: Dataset, *, resume: bool) -> None:
    held = [
        path
        for stage in recipe.stages
        for path in (weights_path(out, stage), checkpoint_path(out, stage))
        if path.exists()
    ]
    if held and not resume:
        raise OutputExistsError(f"{held[0]}: {out} holds a run; resume it, or train elsewhere")
    refuse_foreign(out, recipe)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"{out}: no folder can be made: {error.strerror or error}") from error
    write_atomically(out / "recipe.toml", recipe.text.encode())
    about = {
        "recipe": recipe.name,
        "schedule": recipe.schedule,
        "seed": recipe.seed,
        "data": shown.source,
        "labels": list(shown.names),
        "picture_size": list(shown.pictures.shape[1:3]),
    }
    write_atomically(out / "run.json", (json.dumps(about, sort_keys=True) + "\n").encode())


def _materials(
    recipe: Recipe, data: str, parts: Mapping[Split, Dataset], folders: Sequence[Path]
) -> Materials:
    digest = hashlib.sha256()
    for name, part in parts.items():
        _check_data(recipe, part, learnt=name == "train")
        digest.update(f"{name} {part.pictures.shape}".encode())
        digest.update(part.pictures.tobytes())
        digest.update(part.labels.tobytes())
    place = Path(data.partition(":")[2]).expanduser()
    home = place if place.is_dir() else place.parent
    made = {
        name: Pictures(part.pictures, part.labels, recipe.pictures, place=part.source)
        for name, part in parts.items()
    }
    return Materials(
        train=made["train"],
        validation=made["validation"],
        sha256=digest.hexdigest(),
        folders=(*folders, home, home / "weights", Path("models")),
    )


def _check_data(recipe: Recipe, part: Dataset, *, learnt: bool) -> None:
    height, width = part.pictures.shape[1:3]
    if len(part.names) != recipe.network.classes:
        raise RecipeError(
            f"recipe {recipe.name!r}: network.classes = {recipe.network.classes}, but "
            f"{part.source} has {len(part.names)}"
        )
    if min(height, width) < _LEAST_SIDE:
        raise RecipeError(
            f"{part.source}: pictures of {height}x{width}; the network needs at least "
            f"{_LEAST_SIDE}x{_LEAST_SIDE}"
        )
    for stage, settings in recipe.stages.items():
        if isinstance(settings, WeightStage):
            continue
        if learnt and len(part) < settings.descent.batch:
            raise RecipeError(
                f"recipe {recipe.name!r}: stages.{stage}.{recipe.schedule}.batch = "
                f"{settings.descent.batch}, but {part.source} has {len(part)} pictures"
            )


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
