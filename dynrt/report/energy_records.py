"""Energy records (``dynrt energy --json``) as plots need them, checked on the way in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynrt.errors import DataError

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
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise DataError(f"{path}: over {_LIMIT_BYTES} bytes; this is no energy record")
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: it cannot be read as text") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: this is no JSON: {error}") from error
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
        macs=int(_number(node, "macs", place)),
        energy=_number(node, "energy", place),
        low=_number(node, "low", place),
        high=_number(node, "high", place),
        levels={level: _number(levels, level, f"{place}: levels") for level in levels},
    )
    if not made.low <= made.energy <= made.high:
        raise DataError(f"{place}: energy is not between low and high")
    return made


def _object(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{place} is no object")
    return value


def _number(value: Mapping[str, Any], name: str, place: str) -> float:
    found = value.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < math.inf:
        raise DataError(f"{place}: {name} is {repr(found)[:40]}; a number is needed")
    return found
