"""``dynrt energy --compare``: this run beside another run's record, node by node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynrt.cli.energy_page import digits, scale_of
from dynrt.cli.text import table
from dynrt.errors import EnergyError
from dynrt.report.energy_records import EnergyRecord, read_energy_record

Record = Mapping[str, Any]


def compare(record: Record, path: Path) -> dict[str, Any]:
    """The run of ``record`` against the one in a file that ``dynrt energy --json`` printed.

    Raises:
        DataError: the file holds no such record.
        EnergyError: its energies are in another unit, or it has none of our nodes.
    """
    other = read_energy_record(path)
    if other.unit != record["unit"]:
        raise EnergyError(
            f"{path}: its energies are in {other.unit}, these in {record['unit']}: no ratio"
        )
    theirs = {node.name: node.energy for node in other.nodes}
    ours = {node["name"]: node["energy"] for node in record["nodes"]}
    both = [name for name in ours if name in theirs]
    if not both:
        raise EnergyError(f"{path}: a record of {other.network or 'a network'} with other nodes")
    return {
        "file": str(path),
        "bundle": other.network,
        **_source(other),
        "nodes": [
            {
                "name": name,
                "energy": ours[name],
                "other": theirs[name],
                "ratio": _ratio(ours[name], theirs[name]),
            }
            for name in both
        ],
        "shared": _pair(sum(ours[n] for n in both), sum(theirs[n] for n in both)),
        "only_here": [name for name in ours if name not in theirs],
        "only_there": [name for name in theirs if name not in ours],
    }


def _source(other: EnergyRecord) -> dict[str, str]:
    names = ("hardware", "table", "policy", "backend")
    return {name: getattr(other, name) for name in names}


def _pair(energy: float, other: float) -> dict[str, float | None]:
    return {"energy": energy, "other": other, "ratio": _ratio(energy, other)}


def _ratio(energy: float, other: float) -> float | None:
    return energy / other if other else None


def comparison_page(comparison: Record, record: Record) -> str:
    """The same for people: ours, theirs, ours over theirs."""
    rows = [*comparison["nodes"], {"name": "together", **comparison["shared"]}]
    unit, factor = scale_of(record["unit"], [row["energy"] for row in rows])
    cells = [
        [
            row["name"],
            digits(row["energy"] / factor),
            digits(row["other"] / factor),
            "-" if row["ratio"] is None else f"{row['ratio']:.3f}",
        ]
        for row in rows
    ]
    there = ", ".join(comparison[n] for n in ("hardware", "table", "policy", "backend"))
    lines = [
        f"beside {comparison['file']}: {comparison['bundle']} on {there}",
        table(["node", unit, "there", "ratio"], cells, right=(1, 2, 3)),
    ]
    for key, text in (("only_here", "only here"), ("only_there", "only there")):
        if comparison[key]:
            lines.append(f"{text}: {', '.join(comparison[key])}")
    return "\n".join(lines)
