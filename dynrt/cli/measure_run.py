"""``dynrt measure run``: a session from the first greeting to its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dynrt.bundle import Bundle, packaged_models, resolve
from dynrt.cli import options
from dynrt.cli.bundles import open_bundle
from dynrt.cli.measure_live import LiveLine
from dynrt.cli.measure_options import bench_of, bench_options
from dynrt.cli.measure_show import check_plot, draw, show
from dynrt.cli.measure_work import (
    COUNT,
    cases_of,
    default_folder,
    same_network,
    samples_of,
    work_of,
)
from dynrt.cli.run import split_names
from dynrt.errors import MeasureError
from dynrt.fpga.cases import RATIOS
from dynrt.fpga.conduct import conduct
from dynrt.fpga.replay import Outcome, read_session
from dynrt.fpga.rules import METHOD, Rules
from dynrt.fpga.session import require_resumable


def _ratios(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[float, ...]:
    """``0,20,40`` in per cent."""
    if value is None:
        return ()
    try:
        found = tuple(float(part.rstrip("% ")) / 100 for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of per cents, such as 0,20,40") from None
    if not all(0 <= ratio <= 1 for ratio in found):
        raise click.BadParameter(f"{value!r}: a skipping ratio is from 0 to 100 per cent")
    return found


@click.command()
@click.argument("names", nargs=-1, metavar="[BUNDLE] [INPUT]...")
@bench_options
@click.option("--data", metavar="DATA", help="Pictures of cifar10:DIR, mnist:DIR, npz:FILE, ...")
@click.option(
    "--count",
    type=click.IntRange(1, 10_000),
    default=COUNT,
    show_default=True,
    help="So many pictures of --data, or demo pictures.",
)
@click.option("--paths", is_flag=True, help="Measure the path to each exit too.")
@click.option(
    "--skip",
    callback=_ratios,
    metavar="PERCENTS",
    help=f"Measure skipping ratios too: {','.join(f'{100 * r:g}' for r in RATIOS)}.",
)
@click.option(
    "--window",
    "window_s",
    type=click.FloatRange(0.1, 3600),
    default=METHOD.window_s,
    show_default=True,
    metavar="S",
    help="Length of a window; below 10 s nothing is resolved.",
)
@click.option(
    "--first",
    type=click.IntRange(2),
    default=METHOD.first_runs,
    show_default=True,
    help="Runs of the first stage, whose scatter says how many there are in all.",
)
@click.option(
    "--most",
    type=click.IntRange(2),
    default=METHOD.most_runs,
    show_default=True,
    help="Runs at most.",
)
@click.option("--lag", "lag_s", type=float, metavar="S", help="Averaging time of the meter.")
@click.option(
    "--warm-up",
    "warm_up_s",
    type=click.FloatRange(0),
    metavar="S",
    help="Unmetered, first [hardware: 60].",
)
@click.option(
    "--settle",
    "settle_s",
    type=click.FloatRange(0),
    metavar="S",
    help="Rest between windows [hardware: 1].",
)
@click.option(
    "-o", "--session", "folder", type=click.Path(path_type=Path), help="Folder to keep it in."
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Go on with a session that was broken off.",
)
@click.option("--hardware", metavar="H", help="Model on this hardware, beside the figures.")
@click.option("--table", metavar="T", help="Model with this energy table.")
@click.option(
    "--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE"
)
@options.force_option
@options.json_option
def command(
    names: tuple[str, ...],
    data: str | None,
    count: int,
    paths: bool,
    skip: tuple[float, ...],
    window_s: float,
    first: int,
    most: int,
    lag_s: float | None,
    warm_up_s: float | None,
    settle_s: float | None,
    folder: Path | None,
    resume: Path | None,
    hardware: str | None,
    table: str | None,
    plot_file: Path | None,
    force: bool,
    as_json: bool,
    **bench_args: Any,
) -> None:
    """Verify BUNDLE on the board, then measure its energy per inference.

    Without BUNDLE, the packaged default; without INPUT or --data, the demo pictures. Outputs, every
    decision and every exit are first compared with onnxruntime. Windows of board and idle power
    alternate until the 95 % interval is within 1 %. Raw bytes are kept in the session's folder.
    """
    bench = bench_of(bench_args)
    if first > most:
        raise click.UsageError(f"--first {first} is more than --most {most}")
    if plot_file is not None:
        check_plot(plot_file, force=force)
    bundle_name, rest = split_names(names)
    if data is not None and rest:
        raise click.UsageError("--data and INPUT exclude each other")
    if resume is not None and (names or data or paths or skip or folder is not None):
        raise click.UsageError("--resume takes network, inputs and cases from the session")
    rules = Rules(
        window_s=window_s, first_runs=first, most_runs=most, lag_s=0.0 if lag_s is None else lag_s
    )
    emulated = bench.emulated
    rests: dict[str, float] = {
        "warm_up_s": (0.0 if emulated else 60.0) if warm_up_s is None else warm_up_s,
        "settle_s": (0.0 if emulated else 1.0) if settle_s is None else settle_s,
    }
    if resume is not None:
        bundle_name, rest, data, count = _known(resume)
    bundle = open_bundle(bundle_name)
    where = resume or folder or default_folder(bundle)
    with LiveLine() as live:
        live.stage("inputs", 0, 1)
        samples = samples_of(bundle, rest, data, count)
        with bench.open() as ports:
            info, _ = ports.greet()
            work = work_of(
                bundle, samples, info, given=[str(Path(n).absolute()) for n in rest], data=data
            )
            if resume is None:
                cases = cases_of(bundle, paths=paths, skip=skip)
                plan = work.plan(_lasting(bundle_name, bundle), cases, ports, rules)
            else:
                plan = require_resumable(read_session(resume))
                same_network(bundle, plan)
                cases = plan.cases
            live.stage("onnxruntime", 0, 1)
            found = _conduct(
                where,
                ports=ports,
                load=work.load(cases),
                plan=plan if resume is None else None,
                watch=live,
                listen=live.listen,
                **rests,
            )
    if plot_file is not None:
        draw(where, plot_file, force=force)
    show(found, where, as_json=as_json, bundle=bundle, hardware=hardware, table=table)
    if not found.valid:
        click.get_current_context().exit(1)


def _conduct(where: Path, **rest: Any) -> Outcome:
    """Run it; a session that broke off says how it goes on.

    Raises:
        MeasureError: it broke off.
    """
    try:
        return conduct(where, **rest)
    except MeasureError as exc:
        if rest["plan"] is not None and not any(where.glob("journal-*")):
            raise
        raise type(exc)(f"{exc}; dynrt measure run --resume {where} goes on with it") from exc
    except KeyboardInterrupt:
        click.echo(f"stopped; dynrt measure run --resume {where} goes on with it", err=True)
        raise


def _lasting(name: str | None, bundle: Bundle) -> str:
    """What names the bundle from any folder: its packaged name, or its whole path."""
    if name is None or name in [model.name for model in packaged_models()]:
        return bundle.name if name is None else name
    return str(resolve(name).absolute())


def _known(folder: Path) -> tuple[str, tuple[str, ...], str | None, int]:
    """What a session to be resumed was run on.

    Raises:
        SessionError: it has ended, or has no plan.
    """
    plan = require_resumable(read_session(folder))
    return plan.bundle_path, plan.given, plan.data, len(plan.inputs)
