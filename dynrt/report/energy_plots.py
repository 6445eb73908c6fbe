"""Plots of energy: a sweep with its Pareto front, blocks against their FLOPs, levels of each node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dynrt.energy.sweep_record import SweepPoint
from dynrt.errors import DataError
from dynrt.report.energy_records import EnergyRecord, NodeEnergy
from dynrt.report.figures import FAINT, INK, MARKERS, SERIES, check_format, figure, grid, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FLOPS_PER_MAC = 2
#: What levels are called in plots, and the colour of each: the same in every plot.
_LEVELS = {
    "mac": ("multiply-accumulates", SERIES[2]),
    "operation": ("other operations", SERIES[3]),
    "register_file": ("register files", SERIES[4]),
    "hop": ("forwarding", "#999999"),
    "buffer": ("on-chip buffers", SERIES[5]),
    "dram": ("DRAM", SERIES[1]),
}
_UNITS = {"J": (("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9), ("pJ", 1e-12))}
_MAC_UNITS = (("GMACeq", 1e9), ("MMACeq", 1e6), ("kMACeq", 1e3), ("MACeq", 1.0))
#: Of the larger unit in a point: femtojoules, thousandths of a multiply-accumulate.
_POINT_UNIT = {"J": 1e-15, "MACeq": 1e-3}
_MOST_BARS = 200


def plot_sweep(
    found: Sequence[SweepPoint], path: Path, *, title: str = "", force: bool = False
) -> None:
    """Draw energy against cycles of every point, a series per dataflow, the Pareto front marked.

    Bars are the bounds that the table gives. Points of the front are labelled with array and
    buffers, others are not.

    Args:
        found: of one sweep, with ``front`` set.
        path: ``.png``, ``.svg`` or ``.pdf``.
        title: above the plot.
        force: replace an existing file.

    Raises:
        DataError: no points, points of two units, or the file cannot be written.
        OutputExistsError: ``path`` exists and ``force`` is not set.
        MissingExtraError: matplotlib is not installed.
    """
    if not found:
        raise DataError("no points of a sweep: nothing to draw")
    if len({point.unit for point in found}) > 1:
        raise DataError("points of a sweep in two units: J and MACeq do not go into one plot")
    check_format(path)
    unit = found[0].unit
    base = _POINT_UNIT[unit]
    name, factor = _scale(unit, max(base * p.energy for p in found))
    scale = base / factor
    with figure(7.6, 5.2) as made:
        axes = made.add_subplot()
        for i, dataflow in enumerate(dict.fromkeys(p.hardware.dataflow for p in found)):
            part = [p for p in found if p.hardware.dataflow == dataflow]
            axes.errorbar(
                [p.cycles for p in part],
                [scale * p.energy for p in part],
                yerr=[
                    [scale * (p.energy - p.low) for p in part],
                    [scale * (p.high - p.energy) for p in part],
                ],
                linestyle="none",
                marker=MARKERS[i % len(MARKERS)],
                markersize=5.5,
                color=SERIES[i % len(SERIES)],
                ecolor="#CFCFCF",
                elinewidth=0.8,
                label=f"{dataflow} ({len(part)} points)",
            )
        front = sorted((p for p in found if p.front), key=lambda p: p.cycles)
        axes.plot(
            [p.cycles for p in front],
            [scale * p.energy for p in front],
            color=INK,
            linewidth=1.1,
            marker="o",
            markersize=10,
            markerfacecolor="none",
            drawstyle="steps-post",
            label="Pareto front: nothing else takes less of both",
        )
        for point in front:
            axes.annotate(
                _size(point),
                (point.cycles, scale * point.energy),
                xytext=(6, 7),
                textcoords="offset points",
                fontsize=7.5,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.tick_params(which="minor", labelsize=7.5)
        axes.set_xlabel("cycles of the array, all nodes")
        axes.set_ylabel(f"energy in {name}, all nodes (bars: the table's bounds)")
        axes.set_title(title or "Energy against cycles")
        grid(axes)
        made.legend(loc="outside lower left", fontsize=8.5, ncols=2)
        save(made, path, force=force)


def plot_block_energy(
    records: Sequence[EnergyRecord],
    path: Path,
    *,
    prefix: str = "",
    title: str = "",
    force: bool = False,
) -> None:
    """Draw what each block takes against its FLOPs, both as multiples of their mean.

    Where FLOPs told the energy, every series would lie on the gray bars. The legend gives how many
    times the dearest block takes of the cheapest.

    Args:
        records: of one network, a series each.
        path: ``.png``, ``.svg`` or ``.pdf``.
        prefix: only nodes whose names begin so; those without multiplications are left out.
        title: above the plot.
        force: replace an existing file.

    Raises:
        DataError: there is nothing to draw, records of different nodes, or the file cannot be
            written.
        OutputExistsError: ``path`` exists and ``force`` is not set.
        MissingExtraError: matplotlib is not installed.
    """
    if not records:
        raise DataError("no energy records: nothing to draw")
    series = [_chosen(record, prefix) for record in records]
    blocks = [(node.name, node.macs) for node in series[0]]
    if not blocks:
        raise DataError(f"no node {prefix!r}... that multiplies: nothing to draw")
    for record, nodes in zip(records, series, strict=True):
        if [(node.name, node.macs) for node in nodes] != blocks:
            raise DataError(f"the record of {record.hardware} is of other nodes: one network only")
        if min(node.energy for node in nodes) <= 0:
            raise DataError(f"the record of {record.hardware} has a node without energy")
    check_format(path)
    names, macs = [name for name, _ in blocks], [float(count) for _, count in blocks]
    with figure(max(7.6, 0.19 * len(names) + 2), 4.4 + 0.1 * len(records)) as made:
        axes = made.add_subplot()
        axes.bar(
            range(len(names)),
            _of_mean(macs),
            color="#E3E3E3",
            width=0.9,
            label=f"FLOPs: {max(macs) / min(macs):.2g} times between blocks",
        )
        for i, (record, nodes) in enumerate(zip(records, series, strict=True)):
            taken = [node.energy for node in nodes]
            axes.plot(
                range(len(names)),
                _of_mean(taken),
                color=SERIES[i % len(SERIES)],
                marker=MARKERS[i % len(MARKERS)],
                linestyle="-" if i < len(SERIES) else "--",
                markersize=3.5,
                linewidth=1.2,
                label=f"energy on {_place(record)}: {max(taken) / min(taken):.2g} times",
            )
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_xlim(-0.8, len(names) - 0.2)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("multiple of the mean block")
        first = records[0]
        subject = f"Energy of each block of {first.network}, against its FLOPs"
        axes.set_title(title or subject)
        axes.set_xlabel(f"prices: {first.table}; policy: {first.policy}", fontsize=8.5)
        grid(axes)
        made.legend(loc="outside lower left", fontsize=8.5, ncols=2)
        save(made, path, force=force)


def plot_levels(record: EnergyRecord, path: Path, *, title: str = "", force: bool = False) -> None:
    """Draw the energy of each node as a bar, split by the level that takes it.

    Args:
        record: of a network on one hardware.
        path: ``.png``, ``.svg`` or ``.pdf``.
        title: above the plot.
        force: replace an existing file.

    Raises:
        DataError: too many nodes to draw, or the file cannot be written.
        OutputExistsError: ``path`` exists and ``force`` is not set.
        MissingExtraError: matplotlib is not installed.
    """
    nodes = record.nodes
    if len(nodes) > _MOST_BARS:
        raise DataError(f"{len(nodes)} nodes; at most {_MOST_BARS} go into one plot")
    check_format(path)
    name, factor = _scale(record.unit, max(node.high for node in nodes))
    with figure(7.6, 1.9 + 0.22 * len(nodes)) as made:
        axes = made.add_subplot()
        _stack(axes, nodes, factor)
        axes.errorbar(
            [node.energy / factor for node in nodes],
            range(len(nodes)),
            xerr=[
                [(node.energy - node.low) / factor for node in nodes],
                [(node.high - node.energy) / factor for node in nodes],
            ],
            linestyle="none",
            ecolor=INK,
            elinewidth=0.7,
            capsize=1.5,
            label="the table's bounds",
        )
        axes.set_yticks(range(len(nodes)), [node.name for node in nodes], fontsize=7.5)
        axes.set_ylim(len(nodes) - 0.4, -0.6)
        axes.set_xlim(left=0)
        source = f"{record.table}, {record.policy}, counted by {record.backend}"
        axes.set_xlabel(f"energy in {name} ({source})", fontsize=8.5)
        axes.set_title(title or f"Where {record.network} takes its energy on {_place(record)}")
        grid(axes, axis="x")
        made.legend(loc="outside lower left", fontsize=8.5, ncols=4)
        save(made, path, force=force)


def _stack(axes: Axes, nodes: Sequence[NodeEnergy], factor: float) -> None:
    """Levels side by side, in one order and in one colour each."""
    present = {level for node in nodes for level in node.levels}
    order = [*(level for level in _LEVELS if level in present), *sorted(present - _LEVELS.keys())]
    left = [0.0] * len(nodes)
    for level in order:
        label, colour = _LEVELS.get(level, (level, FAINT))
        widths = [node.levels.get(level, 0.0) / factor for node in nodes]
        if any(widths):
            axes.barh(range(len(nodes)), widths, left=left, color=colour, label=label)
        left = [a + b for a, b in zip(left, widths, strict=True)]


def _chosen(record: EnergyRecord, prefix: str) -> list[NodeEnergy]:
    return [node for node in record.nodes if node.macs and node.name.startswith(prefix)]


def _of_mean(values: Sequence[float]) -> list[float]:
    mean = sum(values) / len(values)
    return [value / mean for value in values]


def _scale(unit: str, largest: float) -> tuple[str, float]:
    """The prefix that makes the largest value readable, and what it stands for."""
    units = _UNITS.get(unit, _MAC_UNITS)
    return next((item for item in units if largest >= item[1]), units[-1])


def _place(record: EnergyRecord) -> str:
    """Hardware and dataflow; the name of a changed hardware has its dataflow already."""
    named = not record.dataflow or f"dataflow={record.dataflow}" in record.hardware
    return record.hardware if named else f"{record.hardware} {record.dataflow}"


def _size(point: SweepPoint) -> str:
    hardware = point.hardware
    sizes = [
        hardware.ifmap_sram_bytes,
        hardware.filter_sram_bytes,
        hardware.ofmap_sram_bytes,
    ]
    kilobytes = "/".join(f"{size / 1024:g}" for size in dict.fromkeys(sizes))
    shown = kilobytes if len(set(sizes)) == 1 else "/".join(f"{size / 1024:g}" for size in sizes)
    return f"{hardware.rows}x{hardware.cols} {shown} kB"
