"""``dynrt train``: a recipe's stages, each resumable."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dynrt.cli.options import data_option, json_option
from dynrt.cli.progress import clock
from dynrt.cli.text import to_json

if TYPE_CHECKING:
    from dynrt.train import Progress, TrainResult


@click.command()
@click.argument("recipe")
@data_option
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for weights, checkpoints and records.",
)
@click.option(
    "--schedule",
    type=click.Choice(["paper", "cpu"]),
    default="cpu",
    show_default=True,
    help="As long as the paper trains, or what a few cores do overnight.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Put over what the recipe says, as in stages.iadi.target=0.5; may be given often.",
)
@click.option(
    "--finished",
    multiple=True,
    metavar="STAGE=FILE",
    help="Take a stage's weights from FILE instead of training it; may be given often.",
)
@click.option(
    "--sweep",
    metavar="KEY=V,V,...",
    help="Train one run for each value, as in stages.iadi.target=0.3,0.5, each in a folder of OUT.",
)
@click.option(
    "--threads", type=click.IntRange(1), help="Of torch; as many as there are if not given."
)
@json_option
def command(
    recipe: str,
    data: str,
    out: Path,
    schedule: str,
    settings: tuple[str, ...],
    finished: tuple[str, ...],
    sweep: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Train RECIPE: a .toml file, or the name of one that comes with dynrt.

    Interrupt it at any time; the same command goes on where it stopped. `dynrt export OUT` makes a
    bundle of what was trained.
    """
    from dynrt.train import train, train_sweep  # torch

    given = dict(map(_stage_file, finished))
    if sweep is not None:
        key, equals, values = sweep.partition("=")
        if not (key and equals and values):
            raise click.BadParameter(f"{sweep!r}: KEY=V,V,... is allowed", param_hint="--sweep")
        points = train_sweep(
            recipe,
            data,
            out,
            key=key,
            values=values.split(","),
            schedule=schedule,
            settings=settings,
            finished=given,
            threads=threads,
            progress=_Teller().tell,
            tell=lambda value, folder: click.echo(f"{key} = {value}: {folder}", err=True),
        )
        records = {value: _record(point) for value, point in points.items()}
        pages = [_page(p, p.records.parent) for p in points.values()]
        click.echo(to_json({"key": key, "points": records}) if as_json else "\n".join(pages))
        return
    result = train(
        recipe,
        data,
        out,
        schedule=schedule,
        settings=settings,
        finished=given,
        threads=threads,
        progress=_Teller().tell,
    )
    click.echo(to_json(_record(result)) if as_json else _page(result, out))


def _stage_file(text: str) -> tuple[str, Path]:
    stage, equals, file = text.partition("=")
    if not (stage and equals and file):
        raise click.BadParameter(f"{text!r}: STAGE=FILE is allowed", param_hint="--finished")
    return stage, Path(file)


class _Teller:
    """Writes progress to stderr: one line that changes on a terminal, one line an epoch elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._width = 0

    def tell(self, progress: Progress) -> None:
        """Show where the training stands."""
        ended = progress.step >= progress.steps and progress.accuracy is not None
        if not (ended or self._live):
            return
        text = (
            f"{progress.stage} epoch {progress.epoch}/{progress.epochs} "
            f"step {progress.step}/{progress.steps}"
        )
        if progress.loss is not None:
            text += f" loss {progress.loss:.4f}"
        if progress.accuracy:
            exits = " ".join(f"{k} {v:.2%}" for k, v in progress.accuracy.items())
            text += f" accuracy {exits}"
        if progress.measures:
            text += "".join(f" {name} {value:.2%}" for name, value in progress.measures.items())
        text += f" time {clock(progress.seconds)} left {clock(progress.eta_s)}"
        blank = " " * max(0, self._width - len(text))
        self._width = 0 if ended else len(text)
        start = "\r" if self._live else ""
        click.echo(f"{start}{text}{blank}", nl=ended, err=True)


def _record(result: TrainResult) -> dict[str, object]:
    return {
        "recipe": result.recipe,
        "schedule": result.schedule,
        "finished": result.finished,
        "weights": {stage: str(path) for stage, path in result.weights.items()},
        "accuracy": result.accuracy,
        "measures": result.measures,
        "records": str(result.records),
        "seconds": result.seconds,
    }


def _page(result: TrainResult, out: Path) -> str:
    lines = [
        f"{stage}: {path}, validation accuracy "
        + ", ".join(f"{name} {value:.2%}" for name, value in result.accuracy[stage].items())
        + "".join(f", {name} {v:.2%}" for name, v in result.measures.get(stage, {}).items())
        for stage, path in result.weights.items()
    ]
    return "\n".join(
        [*lines, f"{result.recipe} ({result.schedule}) is in {out}, {clock(result.seconds)}"]
    )
