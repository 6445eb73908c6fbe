"""Energy records (``dynrt energy --json``) as plots need them, checked on the way in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynrt.errors import DataError
from dynrt.report.json_files import number, read_json

_LIMIT_BYTES = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEnergy:
    """What one node takes.

    Attributes:
        name: of the node.
        macs: multiply-accumulates.
        energy, low, high: in the record's unit; low and high are the table's bounds.
        levels: energy by level (``mac``, ``register_file``, ``buffer``, ``dram``, ...).
    """

    name: str
    macs: int
    energy: float
    low: float
    high: float
    levels: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyRecord:
    """A network's energy on one hardware.

    Attributes:
        network: its name.
        hardware, table, policy, backend: names.
        dataflow: ``ws``, ``os`` or ``is``; may be empty.
        unit: ``J`` or ``MACeq``.
        nodes: in the order of the record.
    """

    network: str
    hardware: str
    dataflow: str
    table: str
    policy: str
    backend: str
    unit: str
    nodes: tuple[NodeEnergy, ...]


def read_energy_record(path: Path) -> EnergyRecord:
    """Read what ``dynrt energy --json`` printed.

    Raises:
        DataError: the file is missing, no JSON, or no such record.
    """
    value = read_json(path, what="energy", limit_bytes=_LIMIT_BYTES)
    return parse_energy_record(value, place=str(path))


def parse_energy_record(value: object, *, place: str = "record") -> EnergyRecord:
    """Check the object of ``dynrt energy --json``.

    Raises:
        DataError: a field that plots need is missing or of another kind.
    """
    record = _object(value, place)
    nodes = record.get("nodes")
    if not isinstance(nodes, list) or not nodes:
        raise DataError(f"{place}: nodes is no list of nodes")
    bundle = record.get("bundle")
    network = bundle.get("name") if isinstance(bundle, dict) else bundle
    names = {name: record.get(name) for name in ("hardware", "table", "policy", "backend", "unit")}
    for name, found in names.items():
        if isinstance(found, dict):
            names[name] = found = found.get("name")
        if not isinstance(found, str):
            raise DataError(f"{place}: {name} is missing")
    if names["unit"] not in ("J", "MACeq"):
        raise DataError(f"{place}: unit is {str(names['unit'])[:40]!r}; J or MACeq is needed")
    return EnergyRecord(
        network=network if isinstance(network, str) else "",
        dataflow=record["dataflow"] if isinstance(record.get("dataflow"), str) else "",
        nodes=tuple(_node(n, f"{place}: nodes[{i}]") for i, n in enumerate(nodes)),
        **{name: str(found) for name, found in names.items()},
    )


def _node(value: object, place: str) -> NodeEnergy:
    node = _object(value, place)
    name = node.get("name")
    if not isinstance(name, str):
        raise DataError(f"{place}: name is missing")
    levels = _object(node.get("levels"), f"{place}: levels")
    made = NodeEnergy(
        name=name,
        macs=int(number(node, "macs", place)),
        energy=number(node, "energy", place),
        low=number(node, "low", place),
        high=number(node, "high", place),
        levels={level: number(levels, level, f"{place}: levels") for level in levels},
    )
    if not made.low <= made.energy <= made.high:
        raise DataError(f"{place}: energy is not between low and high")
    return made


def _object(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{place} is no object")
    return value
