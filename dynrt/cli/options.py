"""Options that several commands share: amounts, ``NAME=NUMBER`` pairs, data sets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import click

from dynrt.errors import BudgetError, QuantityError
from dynrt.ir.cost import Budget
from dynrt.workers import Spread

Split = Literal["train", "validation", "test"]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def budget(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Budget | None:
    """``100M``, ``50MMAC``, ``2mJ``, ``5ms``, or several joined by commas; for ``callback=``."""
    if value is None:
        return None
    try:
        return Budget.parse(value)
    except (QuantityError, BudgetError) as exc:
        raise click.BadParameter(str(exc)) from exc


def budgets(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> tuple[Budget, ...] | None:
    """Budgets with one cap each, joined by commas: ``58M,74M,100M``; for ``callback=``."""
    if value is None:
        return None
    try:
        return tuple(Budget.parse(part) for part in value.split(","))
    except (QuantityError, BudgetError) as exc:
        raise click.BadParameter(str(exc)) from exc


def assignments(
    _ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]
) -> dict[str, tuple[float, ...]]:
    """``NAME=NUMBER`` or ``NAME=NUMBER,NUMBER,...``, each name once; for ``callback=``."""
    out: dict[str, tuple[float, ...]] = {}
    for text in value:
        name, equals, numbers = text.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{text!r} is not NAME=NUMBER")
        try:
            parsed = tuple(float(part) for part in numbers.split(","))
        except ValueError:
            raise click.BadParameter(f"{text!r}: {numbers!r} is no number") from None
        if any(map(math.isnan, parsed)):
            raise click.BadParameter(f"{text!r}: NaN is no number")
        if name in out:
            raise click.BadParameter(f"{name!r} is given twice")
        out[name] = parsed
    return out


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
force_option = click.option("--force", is_flag=True, help="Replace the output if it is there.")
data_option = click.option(
    "--data",
    required=True,
    metavar="DATA",
    help="cifar10:DIR, mnist:DIR, imagefolder:DIR or npz:FILE.",
)


def split_option(default: Split) -> Callable[[Decorated], Decorated]:
    """Which part of a data set is read."""
    return click.option(
        "--split",
        type=click.Choice(["train", "validation", "test"]),
        default=default,
        show_default=True,
        help="The part of the data; validation is the end of the training pictures.",
    )


def bounds(given: Mapping[str, tuple[float, ...]]) -> dict[str, float | tuple[float, ...]]:
    """What :func:`assignments` read, as ``Network.set`` takes thresholds."""
    return {name: values if len(values) > 1 else values[0] for name, values in given.items()}


def spread_options(decorated: Decorated) -> Decorated:
    """``--workers`` and ``--ray``; :func:`spread` makes one value of them."""
    workers = click.option(
        "--workers",
        type=click.IntRange(1),
        metavar="N",
        help="Spread the pictures over N processes; with --ray, the most tasks in flight.",
    )
    ray = click.option(
        "--ray",
        metavar="ADDRESS",
        help="Spread the pictures over a Ray cluster: HOST:PORT, auto, or local.",
    )
    return workers(ray(decorated))


def spread(workers: int | None, ray: str | None) -> Spread:
    """Where the work is done; without either option in this process."""
    return Spread(workers=workers or 1, ray=ray)


threshold_option = click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    callback=assignments,
    metavar="NODE=T",
    help="Another threshold at an exit or control node; may be given for several.",
)
