"""``dynrt report``: the papers' tables and figures with ours, or a picture of records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dynrt.cli import options
from dynrt.cli.bundles import open_bundle
from dynrt.cli.report_options import (
    FILE,
    asked,
    bundle_option,
    bundles_option,
    check_plot,
    common,
    open_kind,
    open_static,
    threshold_set,
)
from dynrt.errors import DataError, OutputExistsError
from dynrt.ir.cost import Budget
from dynrt.report import averages, ddi_table, paper_tables, paper_tables_dgates, skipping


class _Report(click.Group):
    """What is no table's name is a record to draw."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The table's command; ``--debug`` is taken by all of them."""
        found = super().get_command(ctx, cmd_name)
        if found is not None and all(p.name != "debug" for p in found.params):
            found.params.append(
                click.Option(["--debug"], is_flag=True, expose_value=False, hidden=True)
            )
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A file's name stands for ``draw`` and that file."""
        if args and super().get_command(ctx, args[0]) is None and Path(args[0]).suffix == ".json":
            args = ["draw", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_Report)
def command() -> None:
    """Make one of the papers' tables with ours beside it, or draw RECORD... -o OUT.

    Every figure is of the exported bundle, run by dynrt. Records (--json) can be drawn again later:
    as a plot, or all together as a page (.html).
    """


@command.command("draw")
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=FILE, help="A plot, or a page (.html).")
@options.force_option
def draw(records: tuple[Path, ...], out: Path, force: bool) -> None:
    """Draw records that tables or `dynrt eval --json` wrote."""
    from dynrt.report.plots import plot_accuracy_against_cost
    from dynrt.report.records import Record
    from dynrt.report.tables_page import read_any, write_page
    from dynrt.report.tables_plots import plot_table

    if out.exists() and not force:
        raise OutputExistsError(f"{out} exists; it is replaced only with --force")
    page = out.suffix.lower() in (".html", ".htm")
    check_plot(Path("page.svg") if page else out)
    found = [read_any(path) for path in records]
    evaluations = [record for record in found if isinstance(record, Record)]
    tables = [record for record in found if not isinstance(record, Record)]
    if page:
        write_page(found, out, force=force)
    elif evaluations and not tables:
        plot_accuracy_against_cost(evaluations, out, force=force)
    elif len(found) == 1:
        plot_table(tables[0], out, force=force)
    else:
        raise DataError(f"{len(found)} records of several kinds do not fit one plot: write a .html")
    click.echo(f"wrote {out}", err=True)


@command.command("ddi-table-2")
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    metavar="BUNDLE",
    help="A bundle, or several of other savings; the packaged default if none is named.",
)
@click.option(
    "--static",
    "statics",
    multiple=True,
    metavar="[NAME=]NET",
    help="A static net to compare with: a bundle, or resnetN=FILE.safetensors.",
)
@click.option(
    "--paper",
    type=click.Choice(list(ddi_table.DDI_TABLE_II)),
    default="resnet74",
    show_default=True,
    help="Which half of the paper's table.",
)
@click.option(
    "--budgets", callback=options.budgets, metavar="B,B,...", help="Others than the paper's."
)
@common
def ddi_table_2(
    bundles: tuple[str, ...],
    statics: tuple[str, ...],
    paper: str,
    budgets: tuple[Budget, ...] | None,
    **given: Any,
) -> None:
    """DDI's table II: accuracy under hard budgets, beside the paper and static nets.

    Of several bundles, each budget is given to the one that is best on the validation pictures.
    """
    ask = asked(given)
    flops = [b.flops for b in budgets or () if b.flops is not None and len(b.limits()) == 1]
    if len(flops) != len(budgets or ()):
        raise click.UsageError("--budgets: the table is of FLOPs or MACs")
    networks = [open_bundle(name) for name in bundles or (None,)]
    others = [open_static(text) for text in statics]
    held = ask.dataset(networks[0], "validation") if len(networks) > 1 else None
    with ask.how() as how:
        ask.give(
            ddi_table.ddi_table_2(
                networks,
                ask.dataset(networks[0]),
                chosen_on=held,
                statics=others,
                paper=paper,
                budgets=flops,
                how=how,
            )
        )


@command.command("iadi")
@bundles_option
@click.option(
    "--base",
    metavar="[NAME=]NET",
    help="The static net below the gates: as --static of ddi-table-2.",
)
@common
def iadi(bundles: tuple[str, ...], base: str | None, **given: Any) -> None:
    """Skipping networks: accuracy, and FLOPs, energy and time saved."""
    ask = asked(given)
    networks = [open_bundle(name) for name in bundles]
    static = None if base is None else open_static(base)
    with ask.how() as how:
        ask.give(paper_tables.iadi_table(networks, ask.dataset(networks[0]), base=static, how=how))


@command.command("dgate-table-1")
@bundle_option
@click.option(
    "--thresholds",
    "sets",
    multiple=True,
    metavar="T,T,...",
    help="A row of the table; may be given often. By default found on the validation pictures, "
    "for the losses of the paper's rows.",
)
@common
def dgate_table_1(bundle: str | None, sets: tuple[str, ...], **given: Any) -> None:
    """Table 1 of the decision gates: threshold sets, FLOPs saved, time saved."""
    from dynrt.calibrate.parallel_scores import collect_scores

    ask = asked(given)
    network = open_bundle(bundle)
    with ask.how() as how:
        if sets:
            early = paper_tables_dgates.gate_names(network.graph)
            chosen = [threshold_set(text, early) for text in sets]
        else:
            validation = collect_scores(
                network, ask.dataset(network, "validation"), spread=how.spread
            )
            chosen = paper_tables_dgates.chosen_sets(validation)
        ask.give(paper_tables_dgates.dgate_table_1(network, ask.dataset(network), chosen, how=how))


@command.command("dgate-figure-4")
@click.option(
    "--gates",
    "kinds",
    multiple=True,
    required=True,
    metavar="NAME=BUNDLE",
    help="Gates of one kind, as in hinge=A.dynrt; two or more.",
)
@click.option("--points", type=click.IntRange(2), default=12, show_default=True, metavar="N")
@common
def dgate_figure_4(kinds: tuple[str, ...], points: int, **given: Any) -> None:
    """Figure 4 of the decision gates: hinge against cross-entropy at equal FLOPs."""
    from dynrt.calibrate.parallel_scores import collect_scores

    ask = asked(given)
    with ask.how() as how:
        found = []
        for name, network in map(open_kind, kinds):
            parts = [ask.dataset(network, "validation"), ask.dataset(network)]
            tables = [collect_scores(network, part, spread=how.spread) for part in parts]
            found.append((name, tables[0], tables[1]))
        ask.give(paper_tables_dgates.dgate_figure_4(found, points=points))


@command.command("dgate-figure-5")
@bundle_option
@click.option("--low", type=float, default=0.0, show_default=True, help="Least threshold.")
@click.option("--high", type=float, default=3.0, show_default=True, help="Largest threshold.")
@click.option("--steps", type=click.IntRange(2), default=13, show_default=True, metavar="N")
@common
def dgate_figure_5(bundle: str | None, low: float, high: float, steps: int, **given: Any) -> None:
    """Figure 5 of the decision gates: FLOPs and accuracy over two gates' thresholds."""
    from dynrt.calibrate.parallel_scores import collect_scores

    ask = asked(given)
    network = open_bundle(bundle)
    with ask.how() as how:
        scores = collect_scores(network, ask.dataset(network), spread=how.spread)
    ask.give(paper_tables_dgates.dgate_figure_5(scores, low=low, high=high, steps=steps))


@command.command("dgate-figure-7")
@bundle_option
@click.option("--least", type=float, help="Score from which an exit is sure.")
@common
def dgate_figure_7(bundle: str | None, least: float | None, **given: Any) -> None:
    """Figure 7 of the decision gates: which classes each exit tells apart."""
    from dynrt.calibrate.parallel_scores import collect_scores

    ask = asked(given)
    network = open_bundle(bundle)
    dataset = ask.dataset(network)
    with ask.how() as how:
        scores = collect_scores(network, dataset, spread=how.spread)
    ask.give(paper_tables_dgates.dgate_figure_7(scores, dataset.names, least=least))


@command.command("skipping")
@bundle_option
@common
def skipping_(bundle: str | None, **given: Any) -> None:
    """DDI's figure 15: how many inputs skip each block, and how many of its channels."""
    ask = asked(given)
    network = open_bundle(bundle)
    with ask.how() as how:
        ask.give(skipping.skipping_table(network, ask.dataset(network), how=how))


@command.command("easy-hard")
@bundle_option
@click.option("--count", type=click.IntRange(1), default=12, show_default=True, metavar="N")
@common
def easy_hard(bundle: str | None, count: int, **given: Any) -> None:
    """DDI's figure 13: easy and hard pictures (--plot draws them from your data)."""
    ask = asked(given)
    network = open_bundle(bundle)
    dataset = ask.dataset(network)
    with ask.how() as how:
        ask.give(skipping.easy_hard(network, dataset, count=count, how=how), dataset)


@command.command("exits-used")
@bundle_option
@click.option("--budgets", callback=options.budgets, metavar="B,B,...", help="Hard budgets.")
@common
def exits_used(bundle: str | None, budgets: tuple[Budget, ...] | None, **given: Any) -> None:
    """Which exit answers how many inputs, per hard budget."""
    ask = asked(given)
    network = open_bundle(bundle)
    with ask.how() as how:
        ask.give(skipping.exits_used(network, ask.dataset(network), budgets=budgets or (), how=how))


@command.command("averages")
@bundle_option
@click.option(
    "--averages",
    "allowed",
    callback=options.budgets,
    required=True,
    metavar="B,B,...",
    help="FLOPs per input: 60M,80M.",
)
@click.option("--cap", callback=options.budget, metavar="B", help="A hard cap for each input.")
@common
def averages_table(
    bundle: str | None, allowed: tuple[Budget, ...], cap: Budget | None, **given: Any
) -> None:
    """An average kept three ways: value-aware, by fixed thresholds, by MSDNet's quantiles.

    Levels and thresholds are chosen on the validation pictures.
    """
    ask = asked(given)
    network = open_bundle(bundle)
    caps = [limit.macs for limit in (*allowed, *([] if cap is None else [cap]))]
    if None in caps:
        raise click.UsageError("--averages and --cap are counted in FLOPs here")
    with ask.how() as how:
        ask.give(
            averages.averages(
                network,
                ask.dataset(network, "validation"),
                ask.dataset(network),
                [macs for macs in caps[: len(allowed)] if macs is not None],
                cap_macs=None if cap is None else caps[-1],
                how=how,
            )
        )
