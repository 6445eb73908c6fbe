"""``dynrt calibrate``: thresholds for an accuracy, an average budget or a risk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dynrt.bundle import Bundle, replace_parts, write_bundle
from dynrt.calibrate.datasets import load_dataset
from dynrt.calibrate.parallel_scores import collect_scores
from dynrt.calibrate.policy_file import policy_json, with_thresholds, write_policy
from dynrt.calibrate.risk import for_risk
from dynrt.calibrate.scores import Resource, ScoreTable
from dynrt.calibrate.thresholds import Calibration, for_accuracy, for_budget, for_loss
from dynrt.cli import calibrate_average, options
from dynrt.cli.bundles import open_bundle
from dynrt.cli.energies import table_option, with_table
from dynrt.cli.progress import bar
from dynrt.cli.text import megaflops, table, to_json
from dynrt.errors import CalibrationError, OutputExistsError
from dynrt.ir.cost import Budget
from dynrt.units import macs_to_flops
from dynrt.workers import Spread


@click.command()
@click.argument("bundle", required=False)
@options.data_option
@options.split_option("validation")
@click.option("--target-accuracy", type=float, metavar="A", help="At least so accurate: 0.92.")
@click.option(
    "--loss", type=float, metavar="L", help="At most so much less accurate than in full: 0.005."
)
@click.option(
    "--budget",
    callback=options.budget,
    metavar="B",
    help="At most so many FLOPs on average: 80M. (A hard budget needs no calibration.)",
)
@click.option(
    "--risk",
    type=float,
    metavar="R",
    help="A loss of less than R, with --confidence, on inputs not seen here.",
)
@click.option(
    "--average",
    callback=options.budget,
    metavar="B",
    help="A stream's average per input, 80M or 2mJ, kept at every moment; writes a policy file.",
)
@click.option(
    "--cap",
    callback=options.budget,
    metavar="B",
    help="With --average: a hard cap for each input.",
)
@click.option(
    "--burst",
    type=click.IntRange(1, 1_000_000),
    metavar="N",
    help="With --average: save up the average of at most N inputs.",
)
@click.option(
    "--folds",
    type=click.IntRange(0, 100),
    default=10,
    show_default=True,
    help="Held-out parts by which --loss and --target-accuracy correct for luck; 0: not.",
)
@click.option("--confidence", type=float, metavar="C", help="Of --risk; 0.95 if it is left out.")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="The new bundle or policy."
)
@options.spread_options
@table_option
@click.option("--policy", is_flag=True, help="Write a policy file (JSON) instead of a bundle.")
@options.force_option
@options.json_option
def command(
    bundle: str | None,
    data: str,
    split: options.Split,
    target_accuracy: float | None,
    loss: float | None,
    budget: Budget | None,
    risk: float | None,
    average: Budget | None,
    cap: Budget | None,
    burst: int | None,
    confidence: float | None,
    folds: int,
    workers: int | None,
    ray: str | None,
    out: Path,
    table_name: str | None,
    policy: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Find thresholds for the exits of BUNDLE and write a bundle that has them.

    Give one of --target-accuracy, --loss, --budget, --risk and --average (which writes a policy
    for streams instead). The data must be labelled pictures that the network was neither trained
    nor will be judged on. Without BUNDLE, the packaged default.
    """
    if average is None and (cap is not None or burst is not None):
        raise click.UsageError("--cap and --burst go with --average")
    goals = [target_accuracy, loss, budget, risk, average]
    if goals.count(None) != len(goals) - 1:
        raise click.UsageError(
            "give one of --target-accuracy, --loss, --budget, --risk and --average"
        )
    if confidence is not None and risk is None:
        raise click.UsageError("--confidence goes with --risk")
    choose: Callable[[ScoreTable], Calibration] | None = None
    resource: Resource = "macs"
    if average is None:
        choose = _goal(target_accuracy, loss, budget, risk, confidence, folds)
    else:
        resource = calibrate_average.resource_of(average, cap)
    if out.exists() and not force:  # before the work, not after it
        raise OutputExistsError(f"{out} exists; it is replaced only with --force")
    found = with_table(open_bundle(bundle), table_name)
    scores = _scores(found, data, split, resource, options.spread(workers, ray))
    if choose is None and average is not None:
        levels = calibrate_average.choose(scores, average, cap, burst)
        calibrate_average.write(levels, out, force=force, as_json=as_json)
    elif choose is not None:
        _write(found, choose(scores), out, policy=policy, force=force, as_json=as_json)
    click.echo(f"wrote {out}", err=True)


def _write(
    found: Bundle, calibration: Calibration, out: Path, *, policy: bool, force: bool, as_json: bool
) -> None:
    if policy:
        write_policy(out, calibration, force=force)
    else:
        write_bundle(calibrated_bundle(found, calibration), out, force=force)
    click.echo(to_json(policy_json(calibration)) if as_json else _page(calibration))


def _goal(
    target_accuracy: float | None,
    loss: float | None,
    budget: Budget | None,
    risk: float | None,
    confidence: float | None,
    folds: int,
) -> Callable[[ScoreTable], Calibration]:
    """What was asked for, as a function of the scores.

    Raises:
        UsageError: a mean budget in something else than FLOPs.
    """
    if target_accuracy is not None:
        return lambda scores: for_accuracy(scores, target_accuracy, folds=folds)
    if loss is not None:
        return lambda scores: for_loss(scores, loss, folds=folds)
    if risk is not None:
        return lambda scores: for_risk(scores, risk, 0.95 if confidence is None else confidence)
    flops = budget.flops if budget is not None else None
    if flops is None or (budget is not None and len(budget.limits()) != 1):
        raise click.UsageError("--budget: an average is in FLOPs or MACs here")
    return lambda scores: for_budget(scores, flops)


def _scores(
    bundle: Bundle, data: str, split: options.Split, resource: Resource, spread: Spread
) -> ScoreTable:
    if bundle.preprocessing is None:
        raise CalibrationError(f"{bundle.name} takes no pictures (its bundle has no preprocessing)")
    size = (bundle.preprocessing.height, bundle.preprocessing.width)
    dataset = load_dataset(data, split=split, size=size)
    with bar("scores") as tell:
        return collect_scores(bundle, dataset, resource=resource, spread=spread, progress=tell)


def calibrated_bundle(bundle: Bundle, calibration: Calibration) -> Bundle:
    """``bundle`` with new thresholds; its card says where they come from."""
    return replace_parts(
        bundle,
        graph=with_thresholds(bundle.graph, calibration),
        card={**bundle.card, "calibration": policy_json(calibration)},
        provenance={**bundle.provenance, "calibrated_from": bundle.sha256},
    )


def _page(calibration: Calibration) -> str:
    c = calibration
    shares: dict[str, Any] = dict(c.exits)
    rows = [
        [
            name,
            _threshold(c.thresholds.get(name)),
            f"{count / c.n:.1%}",
        ]
        for name, count in shares.items()
    ]
    return "\n".join(
        [
            table(["exit", "threshold", "answers"], rows, right=(1, 2)),
            f"on {c.n} inputs of {c.data}: accuracy {c.accuracy:.2%} (in full {c.full_accuracy:.2%}), "
            f"mean {megaflops(2 * c.mean_macs)} MFLOPs (in full "
            f"{megaflops(macs_to_flops(c.full_macs))}), {c.saving:.1%} saved",
        ]
    )


def _threshold(value: float | None) -> str:
    if value is None:
        return ""
    return {float("inf"): "never", float("-inf"): "always"}.get(value, f"{value:.4f}")
