"""``dynrt calibrate --average``: levels for a stream under an average and a cap per input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from dynrt.calibrate.average import DEFAULT_BURST, AveragePolicy, for_average
from dynrt.calibrate.average_file import average_json, write_average
from dynrt.calibrate.scores import Resource, ScoreTable
from dynrt.cli.text import table, to_json
from dynrt.ir.cost import Budget, describe_cost

_RESOURCES: dict[str, Resource] = {
    "macs": "macs",
    "femtojoules": "femtojoules",
    "milli_mac_equivalents": "milli_mac_equivalents",
}


def resource_of(average: Budget, cap: Budget | None) -> Resource:
    """What an average counts.

    Raises:
        UsageError: seconds, or several things at once, or the cap counts something else.
    """
    limits = average.limits()
    if len(limits) != 1 or not limits.keys() <= _RESOURCES.keys():
        raise click.UsageError("--average: one amount in FLOPs, MACs, J or MACeq")
    if cap is not None and cap.limits().keys() != limits.keys():
        raise click.UsageError("--cap is counted in what --average is counted in")
    return _RESOURCES[next(iter(limits))]


def choose(
    scores: ScoreTable, average: Budget, cap: Budget | None, burst: int | None
) -> AveragePolicy:
    """The levels.

    Raises:
        CalibrationError, BudgetRefusedError: as :func:`~dynrt.calibrate.average.for_average`.
    """
    most = None if cap is None else cap.limits()[scores.resource]
    each = average.limits()[scores.resource]
    return for_average(scores, each, most, burst=DEFAULT_BURST if burst is None else burst)


def write(policy: AveragePolicy, out: Path, *, force: bool, as_json: bool) -> None:
    """Write the policy file and say what is in it.

    Raises:
        OutputExistsError, DataError: it cannot be written.
    """
    write_average(out, policy, force=force)
    click.echo(to_json(average_json(policy)) if as_json else page(policy))


def page(policy: AveragePolicy) -> str:
    """The levels as a table, and what they come to at the average."""
    rows = [
        [_short(policy, level.mean_cost), f"{level.accuracy:.2%}", _open(level.thresholds)]
        for level in policy.levels
    ]
    cap = "" if policy.cap is None else f", at most {describe_cost(policy.resource, policy.cap)}"
    return "\n".join(
        [
            table(["mean", "accuracy", "thresholds"], rows, right=(0, 1), elastic=2),
            f"on {policy.n} inputs of {policy.data}: accuracy {policy.accuracy:.2%} at "
            f"{describe_cost(policy.resource, policy.average)} on average{cap}; fixed thresholds "
            f"{policy.fixed_accuracy:.2%}, in full {policy.full_accuracy:.2%}",
        ]
    )


def _short(policy: AveragePolicy, cost: float) -> str:
    return describe_cost(policy.resource, round(cost)).partition(" (")[0]


def _open(thresholds: Mapping[str, float]) -> str:
    """The exits that may accept, with their thresholds."""
    return " ".join(
        f"{name} {'always' if bound == float('-inf') else f'{bound:.3f}'}"
        for name, bound in thresholds.items()
        if bound != float("inf")
    )
