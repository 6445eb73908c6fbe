"""``dynrt eval``: accuracy and cost on a data set, per budget."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

import dynrt
from dynrt.calibrate.average import AveragePolicy
from dynrt.calibrate.datasets import load_dataset
from dynrt.calibrate.evaluate import Evaluation, EvaluationPoint, evaluate, sweep, write_csv
from dynrt.calibrate.evaluate_stream import evaluate_stream
from dynrt.cli import options
from dynrt.cli.bundles import open_bundle
from dynrt.cli.energies import Energy, table_option, with_table
from dynrt.cli.policies import policy_option, read_policy_for, source_of
from dynrt.cli.progress import bar
from dynrt.cli.text import budget_text, megaflops, table, to_json
from dynrt.errors import CalibrationError, MissingExtraError, OutputExistsError
from dynrt.ir.cost import Budget


@click.command()
@click.argument("bundle", required=False)
@options.data_option
@options.split_option("test")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N pictures.")
@click.option(
    "--budgets",
    callback=options.budgets,
    metavar="B,B,...",
    help="Hard budgets to try: 58M,74M,117M,144M, or 2mJ.",
)
@click.option(
    "--sweep",
    "count",
    type=click.IntRange(2),
    metavar="N",
    help="N budgets from the cheapest answer to the full network.",
)
@options.threshold_option
@policy_option
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write one row for each budget.",
)
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw accuracy against cost (.svg, .png or .pdf).",
)
@click.option(
    "--beside",
    type=click.Choice(["ddi"]),
    help="Draw a paper's figures in the same plot: DDI's table II.",
)
@table_option
@options.spread_options
@options.force_option
@options.json_option
def command(
    bundle: str | None,
    data: str,
    split: options.Split,
    limit: int | None,
    budgets: tuple[Budget, ...] | None,
    count: int | None,
    thresholds: dict[str, tuple[float, ...]],
    policy_file: Path | None,
    csv_file: Path | None,
    plot_file: Path | None,
    beside: str | None,
    table_name: str | None,
    workers: int | None,
    ray: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Run BUNDLE on labelled pictures: accuracy, average and worst cost, exits used.

    Without BUNDLE, the packaged default. The first figures are those without a hard budget, under
    the thresholds in force; then those under each budget.
    """
    for out in (csv_file, plot_file):
        if out is not None and out.exists() and not force:  # before the work, not after it
            raise OutputExistsError(f"{out} exists; it is replaced only with --force")
    if plot_file is not None:
        _check_plot(plot_file)
    found = with_table(open_bundle(bundle), table_name)
    if found.preprocessing is None:
        raise CalibrationError(f"{found.name} takes no pictures (its bundle has no preprocessing)")
    policy = None if policy_file is None else read_policy_for(found, policy_file)
    streamed = isinstance(policy, AveragePolicy)
    if streamed and (budgets or count or thresholds or workers or ray):
        raise click.UsageError(
            "a policy that keeps an average sets budgets and thresholds itself, one picture after "
            "the other: not with --budgets, --sweep, --threshold, --workers or --ray"
        )
    asked = [*(budgets or ()), *(sweep(found.certificate, count) if count else ())]
    size = (found.preprocessing.height, found.preprocessing.width)
    dataset = load_dataset(data, split=split, size=size)
    if limit is not None:
        dataset = dataset.first(limit)
    spread = options.spread(workers, ray)
    with dynrt.load(found) as network, bar("pictures") as tell:
        if isinstance(policy, AveragePolicy):
            result = evaluate_stream(network, dataset, source_of(policy, network), progress=tell)
        else:
            if policy is not None:
                network.set(thresholds=policy.thresholds)
            network.set(thresholds=options.bounds(thresholds))
            result = evaluate(network, dataset, budgets=asked, spread=spread, progress=tell)
    if csv_file is not None:
        write_csv(csv_file, result, force=force)
    if plot_file is not None:
        _plot(result, plot_file, beside=beside, force=force)
    click.echo(to_json(result.to_json()) if as_json else _page(result))


def _plot(result: Evaluation, path: Path, *, beside: str | None, force: bool) -> None:
    from dynrt.report.plots import DDI_TABLE_II, plot_accuracy_against_cost
    from dynrt.report.records import parse_record

    references = DDI_TABLE_II if beside == "ddi" else ()
    record = parse_record(result.to_json())
    plot_accuracy_against_cost([record], path, references=references, force=force)


def _check_plot(path: Path) -> None:
    """Find out before the work whether there can be a plot at the end.

    Raises:
        DataError: the file's name says no format.
        MissingExtraError: matplotlib is not installed.
    """
    from dynrt.report.figures import check_format

    check_format(path)
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "report")


def _page(result: Evaluation) -> str:
    points = [result.uncapped, *(p for p in result.points if p.budget.capped)]
    titles = ["hard budget", "accuracy", "mean", "max MFLOPs", "stopped", "exits"]
    rows = [_row(point) for point in points]
    unit = result.uncapped.energy_unit
    if unit is not None:
        titles.insert(4, "mean energy")
        for row, point in zip(rows, points, strict=True):
            mean = point.mean_energy
            row.insert(4, "" if mean is None else str(Energy(mean, unit)))
    right = range(1, len(titles) - 1)
    lines = [
        f"{result.bundle} on {result.uncapped.n} pictures of {result.data}; "
        f"the full network: {megaflops(result.full_flops)} MFLOPs",
        table(titles, rows, right=tuple(right), elastic=len(titles) - 1),
    ]
    if result.energy_source is not None:
        lines.append(f"energy: {result.energy_source}; modelled, not measured")
    return "\n".join(lines)


def _row(point: EvaluationPoint) -> list[str]:
    exits = " ".join(f"{name} {n / point.n:.0%}" for name, n in point.exits.items() if n)
    return [
        budget_text(point.budget) if point.budget.capped else "none",
        f"{point.accuracy:.2%}",
        megaflops(point.mean_flops),
        megaflops(point.max_flops),
        f"{point.stopped / point.n:.0%}",
        exits,
    ]
