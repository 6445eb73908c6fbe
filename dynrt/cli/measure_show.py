"""Prints a stored session, draws it, and puts the model beside it."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import click

from dynrt.bundle import Bundle
from dynrt.cli import energy_runs
from dynrt.cli.bundles import open_bundle
from dynrt.cli.measure_page import compared_page, page
from dynrt.cli.text import to_json
from dynrt.errors import DynrtError, MissingExtraError, OutputExistsError
from dynrt.fpga.digest import Window
from dynrt.fpga.modelled import compare_cases, compared_json
from dynrt.fpga.replay import Outcome, read_session
from dynrt.fpga.samples import Samples


def show(
    found: Outcome,
    folder: Path,
    *,
    as_json: bool,
    bundle: Bundle | None = None,
    hardware: str | None = None,
    table: str | None = None,
) -> None:
    """Print the figures, and the model's where the network has one.

    Args:
        found: the figures.
        folder: of the session.
        as_json: one JSON object instead of tables.
        bundle: the network; without it the one that the session names, if it is still there.
        hardware: to model; without it what the bundle was counted on.
        table: of energies; without it the bundle's.

    Raises:
        EnergyError: a model was asked for and there is none.
    """
    record = found.to_json(str(folder))
    text = page(found, str(folder))
    try:
        model, shown = _modelled(found, bundle, hardware, table)
    except DynrtError as exc:
        if hardware is not None or table is not None:
            raise
        record["modelled"] = None
        text += f"\nno model beside it: {exc}"
    else:
        record["modelled"] = model
        text += f"\n\n{shown}"
    click.echo(to_json(record) if as_json else text)


def _modelled(
    found: Outcome, bundle: Bundle | None, hardware: str | None, table: str | None
) -> tuple[dict[str, Any], str]:
    network = bundle or open_bundle(found.bundle_path)
    asked = energy_runs.Asked(hardware=(hardware,) if hardware else (), table=table)
    run = energy_runs.run(network, asked)
    rows = compare_cases(found, run.report)
    model = compared_json(rows, found, run.report)
    return model, compared_page(rows, found, str(run.report.source), run.report.unit)


def check_plot(path: Path, *, force: bool) -> None:
    """Find out before the work whether there can be a plot at the end.

    Raises:
        DataError, OutputExistsError, MissingExtraError: there cannot.
    """
    from dynrt.report.figures import check_format

    check_format(path)
    if path.exists() and not force:
        raise OutputExistsError(f"{path} exists; it is replaced only with --force")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "report")


def draw(folder: Path, path: Path, *, force: bool) -> None:
    """Draw a session's power over time.

    Raises:
        DataError: it has no samples.
    """
    from dynrt.report.power_plot import PowerWindow, plot_power

    kept: list[tuple[Window, Samples]] = []
    digest = read_session(folder, keep=lambda window, samples: kept.append((window, samples)))
    cases = digest.plan.cases
    several = len(cases) > 1
    windows = []
    for window, samples in kept:
        own = window.spoiled_cut
        clock = samples.meter_s if math.isfinite(samples.meter_s[:1].sum()) else samples.host_s
        name = cases[window.case].name if window.case >= 0 and several else ""
        windows.append(
            PowerWindow(
                kind=window.kind,
                label=name,
                seconds=clock - clock[:1],
                watts=samples.watts,
                mean_w=math.nan if own is None else own.whole.mean_w,
                valid=own is not None and not own.faults,
            )
        )
    source = digest.source or "emulated"
    plot_power(windows, path, title=f"{digest.plan.bundle}", source=source, force=force)
