"""``dynrt energy``: what a network takes on an accelerator, per node, level, exit and path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from dynrt.bundle import Bundle, write_bundle
from dynrt.cli import energy_runs, energy_sweep, options
from dynrt.cli.bundles import open_bundle
from dynrt.cli.energy_compare import compare, comparison_page
from dynrt.cli.energy_draw import check_plot, draw_blocks, draw_levels, draw_sweep
from dynrt.cli.energy_json import describe, describe_all
from dynrt.cli.energy_lists import list_page, listed, published, published_page
from dynrt.cli.energy_page import grid_page, page
from dynrt.cli.text import to_json
from dynrt.energy.hardware import DATAFLOWS
from dynrt.energy.policy import POLICIES
from dynrt.energy.sweep_points import KEYS
from dynrt.errors import OutputExistsError

_SIZE = click.IntRange(1)
_FILE = click.Path(dir_okay=False, path_type=Path)


def _dataflows(
    _ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """``ws``, ``os`` and ``is``, given several times or joined by commas; each once."""
    found = [name for text in value for name in text.split(",")]
    for name in found:
        if name not in DATAFLOWS:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(DATAFLOWS)}")
    return tuple(dict.fromkeys(found))


@click.command()
@click.argument("words", nargs=-1, metavar="[BUNDLE]")
@click.option(
    "--hardware",
    "hardware",
    multiple=True,
    metavar="H",
    help="A name that --list shows, or a TOML file; several give one table.",
)
@click.option("--table", "prices", metavar="T", help="Energy table: a name, or a TOML file.")
@click.option("--policy", type=click.Choice(list(POLICIES)), help="What is done about faults.")
@click.option(
    "--backend",
    type=click.Choice(["analytic", "scalesim"]),
    help="What counts: our closed forms, or SCALE-Sim itself.",
)
@click.option(
    "--dataflow", multiple=True, callback=_dataflows, metavar="D", help="Instead: ws, os, is."
)
@click.option("--rows", type=_SIZE, metavar="N", help="Instead: rows of the array.")
@click.option("--cols", type=_SIZE, metavar="N", help="Instead: columns of the array.")
@click.option("--sram", type=_SIZE, metavar="KB", help="Instead: kB of each of the three buffers.")
@click.option("--hops", is_flag=True, help="Price words handed between processing elements too.")
@click.option(
    "--write",
    "out",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="Write a bundle that carries counts and energies; OUT may be BUNDLE, with --force.",
)
@click.option(
    "--compare",
    "other",
    type=_FILE,
    metavar="FILE",
    help="Beside another run's --json, node by node.",
)
@click.option(
    "--sweep",
    "sweep",
    multiple=True,
    metavar="KEY=VALUES...",
    help=f"Every combination: rows=8:64 dataflow=ws,os,is sram=16:256. Keys: {', '.join(KEYS)}.",
)
@click.option(
    "--record", type=_FILE, metavar="FILE", help="Of a sweep: kept as it goes, and gone on from."
)
@click.option("--ray", metavar="ADDRESS", help="Of a sweep: on this Ray cluster (auto, HOST:PORT).")
@click.option("--workers", type=click.IntRange(1, 1024), metavar="N", help="Processes at a time.")
@click.option(
    "--plot", "plot_file", type=_FILE, metavar="FILE", help="Draw it (.svg, .png or .pdf)."
)
@click.option(
    "--nodes",
    "prefix",
    metavar="PREFIX",
    help="Of a plot of several hardware: only nodes whose names begin so, such as block.",
)
@click.option("--published", "show_published", is_flag=True, help="Ours beside published figures.")
@click.option("--list", "show_list", is_flag=True, help="Hardware, tables and policies.")
@options.force_option
@options.json_option
def command(
    words: tuple[str, ...],
    hardware: tuple[str, ...],
    prices: str | None,
    policy: str | None,
    backend: str | None,
    dataflow: tuple[str, ...],
    rows: int | None,
    cols: int | None,
    sram: int | None,
    hops: bool,
    out: Path | None,
    other: Path | None,
    sweep: tuple[str, ...],
    record: Path | None,
    ray: str | None,
    workers: int | None,
    plot_file: Path | None,
    prefix: str | None,
    show_published: bool,
    show_list: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Model the energy that BUNDLE takes on an accelerator: per node, level, exit and path.

    BUNDLE is a .dynrt file, a folder, or a name that `dynrt models` lists; without it, the packaged
    default. Counts that the bundle carries are used where they are of the hardware and policy that
    are asked for (or where none is); others are computed. Every figure is modelled, not measured.
    """
    if show_list or show_published:
        _lists(show_list, show_published, words, policy, as_json)
        return
    name, sweep = _split(words, sweep)
    asked = energy_runs.Asked(
        hardware=hardware,
        table=prices,
        policy=policy,
        backend=backend,
        dataflows=dataflow,
        rows=rows,
        cols=cols,
        sram_kb=sram,
        hops=hops,
        workers=workers,
    )
    several = len(hardware) > 1 or len(dataflow) > 1
    if prefix is not None and not (several and plot_file is not None):
        raise click.UsageError("--nodes goes with --plot of several hardware or dataflows")
    _check(sweep, several, out=out, other=other, record=record, ray=ray)
    if workers is not None and not sweep and backend != "scalesim":
        raise click.UsageError("--workers goes with --sweep or --backend scalesim")
    if out is not None and out.exists() and not force:  # before the work, not after it
        raise OutputExistsError(f"{out} exists; it is replaced only with --force")
    if plot_file is not None:
        check_plot(plot_file, force=force)
    found = open_bundle(name)
    if sweep:
        swept = energy_sweep.swept(found, asked, sweep, ray=ray, record=record)
        if plot_file is not None:
            draw_sweep(swept, plot_file, force=force)
        click.echo(to_json(swept.to_json()) if as_json else energy_sweep.page(swept))
    elif several:
        _grid(found, asked, plot_file, prefix or "", force=force, as_json=as_json)
    else:
        _one(found, asked, out, other, plot_file, force=force, as_json=as_json)


def _split(words: Sequence[str], sweep: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """The bundle's name among the words, and what a sweep goes over.

    ``--sweep`` takes one word; the words behind it that are ``KEY=VALUES`` belong to it too.
    """
    more = [w for w in words if sweep and "=" in w and w.partition("=")[0] in KEYS]
    names = [w for w in words if w not in more]
    if len(names) > 1:
        raise click.UsageError(f"one bundle at a time: {names[0]} and {names[1]} were given")
    return (names[0] if names else None), (*sweep, *more)


def _check(
    sweep: Sequence[str],
    several: bool,
    *,
    out: Path | None,
    other: Path | None,
    record: Path | None,
    ray: str | None,
) -> None:
    """What excludes what.

    Raises:
        UsageError: two options that do not go together.
    """
    if not sweep and (record is not None or ray is not None):
        raise click.UsageError("--record and --ray go with --sweep")
    for option, given in (("--write", out), ("--compare", other)):
        if given is not None and sweep:
            raise click.UsageError(f"{option} and --sweep exclude each other")
        if given is not None and several:
            raise click.UsageError(f"{option} takes one hardware and one dataflow")
    if sweep and several:
        raise click.UsageError("--sweep takes one hardware; its dataflows are dataflow=ws,os,is")


def _lists(
    show_list: bool, show_published: bool, words: Sequence[str], policy: str | None, as_json: bool
) -> None:
    if show_list and show_published:
        raise click.UsageError("--list and --published exclude each other")
    if words:
        raise click.UsageError("--list and --published take no bundle")
    if show_list:
        lists = listed()
        click.echo(to_json(lists) if as_json else list_page(lists))
    else:
        compared = published(policy)
        click.echo(to_json(compared) if as_json else published_page(compared))


def _one(
    found: Bundle,
    asked: energy_runs.Asked,
    out: Path | None,
    other: Path | None,
    plot_file: Path | None,
    *,
    force: bool,
    as_json: bool,
) -> None:
    run = energy_runs.run(found, asked)
    record = describe(run)
    text = page(record)
    if other is not None:
        record["comparison"] = compare(record, other)
        text = f"{text}\n\n{comparison_page(record['comparison'], record)}"
    if plot_file is not None:
        draw_levels(record, plot_file, force=force)
    if out is not None:
        write_bundle(run.priced(), out, force=force)
    click.echo(to_json(record) if as_json else text)
    if out is not None:
        click.echo(f"wrote {out}", err=True)


def _grid(
    found: Bundle,
    asked: energy_runs.Asked,
    plot_file: Path | None,
    prefix: str,
    *,
    force: bool,
    as_json: bool,
) -> None:
    record = describe_all(energy_runs.runs(found, asked))
    if plot_file is not None:
        draw_blocks(record, plot_file, prefix=prefix, force=force)
    click.echo(to_json(record) if as_json else grid_page(record))
