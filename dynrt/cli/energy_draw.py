"""The plots of ``dynrt energy --plot``."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynrt.cli.energy_sweep import Sweep
from dynrt.errors import MissingExtraError, OutputExistsError
from dynrt.report.energy_records import parse_energy_record


def check_plot(path: Path, *, force: bool) -> None:
    """Find out before the work whether there can be a plot at the end.

    Raises:
        DataError: the file's name says no format.
        OutputExistsError: it is there, and ``force`` is not set.
        MissingExtraError: matplotlib is not installed.
    """
    from dynrt.report.figures import check_format

    check_format(path)
    if path.exists() and not force:
        raise OutputExistsError(f"{path} exists; it is replaced only with --force")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "report")


def draw_levels(record: Mapping[str, Any], path: Path, *, force: bool) -> None:
    """One network on one hardware: a bar for each node, split by level."""
    from dynrt.report.energy_plots import plot_levels

    plot_levels(parse_energy_record(dict(record)), path, force=force)


def draw_blocks(record: Mapping[str, Any], path: Path, *, prefix: str, force: bool) -> None:
    """One network on several: what each node whose name begins so takes, against its FLOPs."""
    from dynrt.report.energy_plots import plot_block_energy

    records = [parse_energy_record(run) for run in record["runs"]]
    plot_block_energy(records, path, prefix=prefix, force=force)


def draw_sweep(found: Sweep, path: Path, *, force: bool) -> None:
    """Energy against cycles, the Pareto front marked."""
    from dynrt.report.energy_plots import plot_sweep

    title = f"{found.bundle.name}: energy against cycles ({found.table.name}, {found.policy})"
    plot_sweep(found.points, path, title=title, force=force)
