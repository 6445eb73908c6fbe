"""``dynrt run``: classify inputs under a hard budget."""

from __future__ import annotations

import contextlib
import io
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

import click
import numpy as np

import dynrt
from dynrt.bundle import Bundle
from dynrt.calibrate.average import AveragePolicy
from dynrt.cli import demo, inputs, one_line, options, records
from dynrt.cli.bundles import names_bundle, open_bundle
from dynrt.cli.energies import table_option, with_table
from dynrt.cli.policies import Streamed, policy_option, read_policy_for
from dynrt.cli.printers import Head, JsonPrinter, TablePrinter
from dynrt.cli.reference import ReferenceNetwork
from dynrt.cli.text import to_json
from dynrt.errors import BundleNotFoundError, DynrtError, InputError
from dynrt.ir.cost import Budget
from dynrt.ir.graph import Array
from dynrt.runtime import Network, Result

Read = inputs.Sample | inputs.Unreadable


@click.command()
@click.argument("names", nargs=-1, metavar="[BUNDLE] [INPUT]...")
@click.option(
    "--budget",
    callback=options.budget,
    metavar="B",
    help="Hard cap for each input: 100M (FLOPs), 50MMAC, 2mJ, 300MMACeq, 5ms.",
)
@options.threshold_option
@click.option(
    "--param",
    "params",
    multiple=True,
    callback=options.assignments,
    metavar="NAME=V",
    help="Value of a runtime parameter; may be given for several.",
)
@click.option(
    "--trace",
    "trace_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.jsonl",
    help="Write what ran, what was skipped and why, one JSON line for each input.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 4096),
    default=1,
    show_default=True,
    help="Run so many inputs at a time.",
)
@click.option(
    "--mode",
    type=click.Choice(["compiled", "portable", "reference"]),
    default="compiled",
    show_default=True,
    help="compiled: for this device, once; portable: node by node; reference: slow and plain, it "
    "defines what the answer is.",
)
@table_option
@policy_option
@options.json_option
@click.pass_context
def command(
    ctx: click.Context,
    names: tuple[str, ...],
    budget: Budget | None,
    thresholds: dict[str, tuple[float, ...]],
    params: dict[str, tuple[float, ...]],
    trace_file: Path | None,
    batch: int,
    mode: str,
    table_name: str | None,
    policy_file: Path | None,
    as_json: bool,
) -> None:
    """Classify each INPUT under a hard budget.

    An INPUT is a picture, an .npy or .npz file, a folder of them, or - for a stream of paths on
    stdin. Without any, the demo photographs are shown. BUNDLE is a .dynrt file, a folder, or a name
    that `dynrt models` lists; left out, it is the default network.
    """
    bundle_name, rest = split_names(names)
    if mode == "reference" and trace_file is not None:
        raise click.UsageError("--trace needs --mode compiled or portable")
    bundle = with_table(open_bundle(bundle_name), table_name)
    policy = None if policy_file is None else read_policy_for(bundle, policy_file)
    if isinstance(policy, AveragePolicy):
        if mode == "reference" or batch > 1 or budget is not None or thresholds:
            raise click.UsageError(
                "a policy that keeps an average sets budgets and thresholds itself, one input at a "
                "time: not with --budget, --threshold, --batch or --mode reference"
            )
    elif policy is not None:
        thresholds = {name: (bound,) for name, bound in policy.thresholds.items()} | thresholds
    with open_network(bundle, mode=mode) as network, contextlib.ExitStack() as stack:
        network.set(
            budget=budget,
            thresholds=options.bounds(thresholds),
            params={k: np.array(v) if len(v) > 1 else v[0] for k, v in params.items()},
        )
        trace: IO[str] | None = None
        if trace_file is not None:
            trace = stack.enter_context(trace_file.open("w", encoding="utf-8"))
        used = network.mode if isinstance(network, Network) else mode
        head = Head(bundle=bundle, mode=used, budget=network.policy.budget)
        printer = JsonPrinter(head) if as_json else TablePrinter(head)
        stack.enter_context(printer)
        failed = 0
        wanted = trace is not None
        runner: Runner = network
        if isinstance(policy, AveragePolicy) and isinstance(network, Network):
            runner = Streamed(network, policy)
        for name, outcome in _outcomes(runner, _read(rest, bundle), batch, trace=wanted):
            if isinstance(outcome, DynrtError):
                failed += 1
                _complain(name, outcome)
                continue
            printer.row(name, outcome)
            if trace is not None and outcome.trace is not None:
                record = records.trace_record(name, outcome, outcome.trace)
                trace.write(to_json(record, indent=None) + "\n")
    if failed:
        ctx.exit(1)


class Runner(Protocol):
    """What this command needs of a network."""

    def run(self, inputs: Mapping[str, Array], *, trace: bool = False) -> Result:
        """Answer one input."""
        ...

    def run_batch(self, inputs: Mapping[str, Array], *, trace: bool = False) -> list[Result]:
        """Answer several inputs."""
        ...


def open_network(bundle: Bundle, *, mode: str) -> Network | ReferenceNetwork:
    """The bundle, ready to run.

    Raises:
        BackendError: onnxruntime refuses a model.
    """
    if mode != "reference":
        return dynrt.load(bundle, mode="portable" if mode == "portable" else "compiled")
    from dynrt.runtime.ort import OrtBackend

    return ReferenceNetwork(bundle, OrtBackend(bundle.models))


def split_names(names: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """The bundle, if the first name is one, and the inputs.

    Raises:
        BundleNotFoundError: the first name is neither a file nor a packaged bundle.
    """
    if not names or names[0] == "-":
        return None, tuple(names)
    first = names[0]
    if names_bundle(first):
        return first, tuple(names[1:])
    path = Path(first)
    if len(path.parts) == 1 and not path.suffix and not path.exists():
        raise BundleNotFoundError(
            f"{first}: no such input file, and no bundle of that name (see dynrt models)"
        )
    return None, tuple(names)


def _read(names: Sequence[str], bundle: Bundle) -> Iterator[Read]:
    """All inputs, lazily: a stream is read as it comes."""
    if not names:
        yield from inputs.picture_samples(demo.pictures(), bundle)
    for name in names:
        if name == "-":
            if isinstance(sys.stdin, io.TextIOWrapper):  # a path may be any bytes
                sys.stdin.reconfigure(errors="surrogateescape")
            lines = inputs.stream_lines(sys.stdin)
            yield from inputs.samples(lines, bundle, expand=False)
        else:
            yield from inputs.samples([name], bundle)


def _outcomes(
    network: Runner, read: Iterable[Read], batch: int, *, trace: bool
) -> Iterator[tuple[str, Result | DynrtError]]:
    """What became of each input, in order; a bad input spoils no other in its batch."""
    reading = iter(read)
    while group := list(itertools.islice(reading, batch)):
        good = [sample for sample in group if isinstance(sample, inputs.Sample)]
        results = iter(_run_group(network, good, trace=trace))
        for sample in group:
            if isinstance(sample, inputs.Unreadable):
                yield sample.name, sample.error
            else:
                yield sample.name, next(results)


def _run_group(
    network: Runner, group: Sequence[inputs.Sample], *, trace: bool
) -> list[Result | InputError]:
    if len(group) > 1:
        stacked = {
            name: np.stack([sample.values[name] for sample in group]) for name in group[0].values
        }
        try:
            return list(network.run_batch(stacked, trace=trace))
        except InputError:
            pass  # one of them is bad: find out which
    out: list[Result | InputError] = []
    for sample in group:
        try:
            out.append(network.run(sample.values, trace=trace))
        except InputError as exc:
            out.append(exc)
    return out


def _complain(name: str, error: DynrtError) -> None:
    text = str(error)
    place = "" if text.startswith(name) else f"{name}: "
    click.echo(f"error: {one_line(place + text)}", err=True)
