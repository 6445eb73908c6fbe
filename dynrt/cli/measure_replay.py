"""``dynrt measure replay``: a stored session's figures again, from its raw bytes."""

from __future__ import annotations

from pathlib import Path

import click

from dynrt.cli import options
from dynrt.cli.measure_show import check_plot, draw, show
from dynrt.fpga.replay import replay


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="SESSION")
@click.option("--hardware", metavar="H", help="Model on this hardware, beside the figures.")
@click.option("--table", metavar="T", help="Model with this energy table.")
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw power over time, windows marked.",
)
@options.force_option
@options.json_option
def command(
    folder: Path,
    hardware: str | None,
    table: str | None,
    plot_file: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Decode SESSION's raw bytes again and compute its figures: the same ones, to the last bit."""
    if plot_file is not None:
        check_plot(plot_file, force=force)
    found = replay(folder)
    if plot_file is not None:
        draw(folder, plot_file, force=force)
    show(found, folder, as_json=as_json, hardware=hardware, table=table)
