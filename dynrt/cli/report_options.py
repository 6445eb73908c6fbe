"""Options of ``dynrt report`` and what they become: data, ways to get figures, thresholds, outputs."""

from __future__ import annotations

import importlib.util
import math
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from dynrt.bundle import Bundle, read_bundle, resolve
from dynrt.calibrate.datasets import Dataset, Split, load_dataset
from dynrt.calibrate.files import write_text
from dynrt.cli import options
from dynrt.cli.bundles import open_bundle
from dynrt.cli.progress import bar
from dynrt.cli.text import table as text_table
from dynrt.cli.text import to_json
from dynrt.errors import CalibrationError, MissingExtraError, OutputExistsError
from dynrt.report.tables import Table
from dynrt.report.tables_figures import How

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

FILE = click.Path(dir_okay=False, path_type=Path)
#: Options that say where and how fast, and nothing about the figures.
_UNSAID = frozenset(["json_file", "plot_file", "markdown_file", "force", "workers", "ray"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options that all tables share."""

    data: str
    split: Split
    limit: int | None
    timed: int
    rounds: int
    workers: int | None
    ray: str | None
    json_file: Path | None
    plot_file: Path | None
    markdown_file: Path | None
    force: bool

    def check(self) -> None:
        """Find out before the work whether its outputs can be written.

        Raises:
            OutputExistsError: one of them is there.
            DataError: the plot's file name says no format.
            MissingExtraError: a plot is asked for without matplotlib.
        """
        for out in (self.json_file, self.plot_file, self.markdown_file):
            if out is not None and out.exists() and not self.force:
                raise OutputExistsError(f"{out} exists; it is replaced only with --force")
        if self.plot_file is not None:
            check_plot(self.plot_file)

    def dataset(self, bundle: Bundle, split: Split | None = None) -> Dataset:
        """Pictures in the size that ``bundle`` takes.

        Raises:
            CalibrationError: it takes no pictures.
            DataError: the data cannot be read.
        """
        if bundle.preprocessing is None:
            raise CalibrationError(
                f"{bundle.name} takes no pictures (its bundle has no preprocessing)"
            )
        size = (bundle.preprocessing.height, bundle.preprocessing.width)
        found = load_dataset(self.data, split=split or self.split, size=size)
        return found if self.limit is None else found.first(self.limit)

    @contextmanager
    def how(self) -> Iterator[How]:
        """How figures are got, with a bar while they are."""
        with bar("pictures") as tell:
            yield How(
                spread=options.spread(self.workers, self.ray),
                timed=self.timed,
                rounds=self.rounds,
                tell=lambda _, done, total: tell(done, total),
            )

    def give(self, table: Table, dataset: Dataset | None = None) -> None:
        """Write what was asked for, and print the table."""
        from dynrt.report.tables_plots import plot_table

        table = replace(table, command=said(click.get_current_context()))
        if self.json_file is not None:
            write_text(self.json_file, to_json(table.to_json()) + "\n", force=self.force)
        if self.markdown_file is not None:
            write_text(self.markdown_file, table.markdown(), force=self.force)
        if self.plot_file is not None:
            plot_table(table, self.plot_file, dataset=dataset, force=self.force)
        click.echo(page(table))


def check_plot(path: Path) -> None:
    """Find out before the work whether there can be a plot at the end.

    Raises:
        DataError: the file's name says no format.
        MissingExtraError: matplotlib is not installed.
    """
    from dynrt.report.figures import check_format

    check_format(path)
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "report")


def page(table: Table) -> str:
    """The table for a terminal, its notes below."""
    titles = [column.title for column in table.columns]
    right = [i for i, column in enumerate(table.columns) if column.unit != "text"]
    wide = sum(len(t) for t in titles) + 400
    return "\n".join(
        [
            f"{table.title} ({table.data}, {table.n:,} inputs)",
            text_table(titles, table.cells(), right=right, width=wide),
            *table.notes,
        ]
    )


def said(ctx: click.Context) -> str:
    """The command as it was given, without this machine's folders and without its outputs."""
    words = ["dynrt", "report", str(ctx.info_name)]
    for param in ctx.command.params:
        value = ctx.params.get(param.name or "")
        if param.name in _UNSAID or not isinstance(param, click.Option) or value is None:
            continue
        if ctx.get_parameter_source(param.name or "") is not ParameterSource.COMMANDLINE:
            continue
        for item in value if isinstance(value, tuple) and param.multiple else [value]:
            words += [param.opts[0]] if param.is_flag else [param.opts[0], _shown(param, item)]
    return shlex.join(words)


def _shown(param: click.Option, value: Any) -> str:
    if param.name == "data":
        kind, _, _ = str(value).partition(":")
        return f"{kind}:DIR"
    if param.name == "budgets":
        return ",".join(f"{b.flops}" if b.flops is not None else str(b) for b in value)
    name, equals, place = str(value).rpartition("=")
    return f"{name}{equals}{Path(place).name}"


def common(decorated: Decorated) -> Decorated:
    """The options of :class:`Asked`; :func:`asked` takes them out of a command's arguments."""
    for option in reversed(_COMMON):
        decorated = option(decorated)
    return options.data_option(decorated)


_COMMON = (
    options.split_option("test"),
    click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N pictures."),
    click.option(
        "--timed",
        type=click.IntRange(0),
        default=500,
        show_default=True,
        metavar="N",
        help="Time single runs of N pictures; 0: no time.",
    ),
    click.option(
        "--rounds",
        type=click.IntRange(1),
        default=10,
        show_default=True,
        metavar="N",
        help="Turns of each setting when timed.",
    ),
    options.spread_options,
    click.option("--json", "json_file", type=FILE, metavar="FILE", help="Write the record."),
    click.option(
        "--plot", "plot_file", type=FILE, metavar="FILE", help="Draw it (.svg, .png or .pdf)."
    ),
    click.option(
        "--markdown", "markdown_file", type=FILE, metavar="FILE", help="Write it for a README."
    ),
    options.force_option,
)


def asked(given: dict[str, Any]) -> Asked:
    """Take the common options out of ``given``, check the outputs, and give them."""
    found = Asked(**{name: given.pop(name) for name in Asked.__dataclass_fields__})
    found.check()
    return found


bundle_option = click.option(
    "--bundle", metavar="BUNDLE", help="A bundle; the packaged default if none is named."
)
bundles_option = click.option(
    "--bundle", "bundles", multiple=True, required=True, metavar="BUNDLE", help="One for each row."
)


def open_static(text: str) -> Bundle:
    """A static network: a bundle, or ``NAME=WEIGHTS.safetensors`` with a name such as resnet20.

    Raises:
        UsageError: weights without the name of their architecture.
        BundleError, RecipeError, ExportError: it cannot be read or made.
        MissingExtraError: weights without torch.
    """
    name, equals, place = text.rpartition("=")
    if Path(place).suffix != ".safetensors":
        found = open_bundle(place)
        return replace(found, name=name) if equals else found
    if not re.fullmatch(r"resnet\d+", name):
        raise click.UsageError(f"{text!r}: write resnetN=FILE.safetensors, such as resnet20=...")
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch", "train")
    from dynrt.train.package_static import static_resnet

    return static_resnet(name, Path(place))


def open_kind(text: str) -> tuple[str, Bundle]:
    """``NAME=BUNDLE``.

    Raises:
        UsageError: there is no name.
        BundleError: there is no such bundle.
    """
    name, equals, place = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"{text!r}: write NAME=BUNDLE, such as hinge=my.dynrt")
    return name, read_bundle(resolve(place))


def threshold_set(text: str, exits: tuple[str, ...]) -> tuple[str, dict[str, float]]:
    """``1.0,0.6,1.5`` as thresholds of the early exits, in order; ``never`` closes one.

    Raises:
        UsageError: not one number for each exit.
    """
    try:
        values = [math.inf if p.strip() == "never" else float(p) for p in text.split(",")]
    except ValueError:
        raise click.UsageError(f"--thresholds {text!r}: these are no numbers") from None
    if len(values) != len(exits) or any(map(math.isnan, values)):
        raise click.UsageError(
            f"--thresholds {text!r}: one number for each of {', '.join(exits)} is needed"
        )
    return "given", dict(zip(exits, values, strict=True))
