"""Count tables <-> the bytes of ``counts.json``, and sources of energy <-> the field ``energy``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from dynrt.bundle.fields import choice, integer, items, plain, table, text
from dynrt.bundle.layer_json import label, node_fields, read_table
from dynrt.bundle.limits import Limits, bound
from dynrt.bundle.model import nodes_with_models
from dynrt.bundle.names import COUNTS, shown
from dynrt.bundle.strict_json import canonical_json
from dynrt.errors import ManifestError
from dynrt.ir.counts import (
    COUNT_NAMES,
    AccessCounts,
    CountTable,
    EnergySource,
    Gap,
    NodeCounts,
    TypedCounts,
)
from dynrt.ir.graph import ChannelMask, ComputeNode, Graph, NodeId
from dynrt.ir.layers import WORD_BITS

_TABLE = ("backend", "columns", "hardware", "nodes", "policy")
_NODE = ("gaps", "kept", "typed")
_TYPED = ("counts", "dtype")
_GAP = ("bytes_moved", "count", "macs", "op", "reason")
_SOURCE = ("backend", "hardware", "policy", "table", "unit")
_DTYPES = tuple(WORD_BITS)
#: The units of energy, and the field of a cost that is in each.
COST_FIELD: Mapping[str, str] = {"J": "femtojoules", "MACeq": "milli_mac_equivalents"}


# --- encoding


def encode_counts(counts: CountTable) -> bytes:
    """The bytes of ``counts.json``: canonical JSON.

    Raises:
        ManifestError: a value has no JSON form.
    """
    value = {
        "hardware": counts.hardware,
        "policy": counts.policy,
        "backend": counts.backend,
        "columns": list(COUNT_NAMES),
        "nodes": {name: _encode_node(node) for name, node in counts.nodes.items()},
    }
    return canonical_json(value, place=COUNTS)


def _encode_node(node: NodeCounts) -> dict[str, object]:
    return {
        "typed": _encode_typed(node.typed),
        "kept": [_encode_typed(row) for row in node.kept],
        "gaps": [{name: getattr(gap, name) for name in _GAP} for gap in node.gaps],
    }


def _encode_typed(typed: tuple[TypedCounts, ...]) -> list[dict[str, object]]:
    return [
        {"dtype": t.dtype, "counts": [getattr(t.counts, name) for name in COUNT_NAMES]}
        for t in typed
    ]


def encode_energy(energy: EnergySource | None) -> dict[str, object] | None:
    """The field ``energy`` of the manifest."""
    return None if energy is None else {name: getattr(energy, name) for name in _SOURCE}


# --- decoding


def decode_counts(raw: bytes, *, graph: Graph, limits: Limits) -> CountTable:
    """The count table in ``raw``, in the order of the graph's nodes.

    Args:
        raw: the member.
        graph: whose nodes it is of.
        limits: what is accepted.

    Raises:
        BundleSizeError: more than ``limits`` allow.
        ManifestError: not what the format says; names the node and the field.
    """
    value = read_table(raw, COUNTS, _TABLE, limits)
    hardware = decode_hardware(value["hardware"], limits)
    if value["columns"] != list(COUNT_NAMES):
        raise ManifestError(f"{COUNTS}: columns: expected {', '.join(COUNT_NAMES)}")
    of_nodes = node_fields(value["nodes"], COUNTS, graph)
    nodes: dict[NodeId, NodeCounts] = {}
    for node in nodes_with_models(graph):
        mask = node.mask if isinstance(node, ComputeNode) else None
        at = f"{COUNTS}: nodes.{node.name}"
        nodes[node.name] = _decode_node(of_nodes[node.name], at, limits, mask)
    return CountTable(
        hardware=hardware,
        policy=label(value["policy"], f"{COUNTS}: policy", limits),
        backend=label(value["backend"], f"{COUNTS}: backend", limits),
        nodes=nodes,
    )


def decode_hardware(value: object, limits: Limits) -> Mapping[str, object]:
    """A hardware: free JSON, bounded in depth and size as a card is."""
    place = f"{COUNTS}: hardware"
    if not isinstance(value, Mapping):
        raise ManifestError(f"{place}: expected an object, got {shown(value)}")
    out = plain(value, place, limits=limits, depth=limits.card_depth)
    bound(place, len(canonical_json(out, place=place)), limits.card_bytes)
    return cast("Mapping[str, object]", out)  # plain() of a mapping is one


def _decode_node(value: object, place: str, limits: Limits, mask: ChannelMask | None) -> NodeCounts:
    entry = table(value, place, _NODE)
    typed = _decode_typed(entry["typed"], f"{place}.typed")
    groups = 0 if mask is None else mask.groups
    rows = items(entry["kept"], f"{place}.kept", limit=limits.groups + 1)
    if rows and mask is None:
        raise ManifestError(f"{place}.kept: {len(rows)} rows, and the node has no channel mask")
    if rows and len(rows) != groups + 1:
        raise ManifestError(f"{place}.kept: {len(rows)} rows for 0 to {groups} kept groups")
    kept = tuple(_decode_typed(row, f"{place}.kept[{i}]") for i, row in enumerate(rows))
    if kept and kept[-1] != typed:
        raise ManifestError(f"{place}.kept[{groups}]: all groups kept, and it is not typed")
    gaps = items(entry["gaps"], f"{place}.gaps", limit=limits.layers)
    return NodeCounts(
        typed=typed,
        gaps=tuple(_decode_gap(gap, f"{place}.gaps[{i}]", limits) for i, gap in enumerate(gaps)),
        kept=kept,
    )


def _decode_typed(value: object, place: str) -> tuple[TypedCounts, ...]:
    out: list[TypedCounts] = []
    for i, item in enumerate(items(value, place, limit=len(_DTYPES))):
        here = f"{place}[{i}]"
        entry = table(item, here, _TYPED)
        dtype = choice(entry["dtype"], f"{here}.dtype", _DTYPES)
        if out and dtype <= out[-1].dtype:
            raise ManifestError(f"{here}.dtype: {dtype} is not behind {out[-1].dtype} in order")
        numbers = items(entry["counts"], f"{here}.counts", limit=len(COUNT_NAMES))
        if len(numbers) != len(COUNT_NAMES):
            raise ManifestError(
                f"{here}.counts: {len(numbers)} numbers for {len(COUNT_NAMES)} columns"
            )
        counts = {
            name: integer(number, f"{here}.counts.{name}")
            for name, number in zip(COUNT_NAMES, numbers, strict=True)
        }
        out.append(TypedCounts(dtype=dtype, counts=AccessCounts(**counts)))
    return tuple(out)


def _decode_gap(value: object, place: str, limits: Limits) -> Gap:
    entry = table(value, place, _GAP)
    moved = entry["bytes_moved"]
    return Gap(
        op=label(entry["op"], f"{place}.op", limits),
        count=integer(entry["count"], f"{place}.count", low=1),
        macs=integer(entry["macs"], f"{place}.macs"),
        bytes_moved=None if moved is None else integer(moved, f"{place}.bytes_moved"),
        reason=text(entry["reason"], f"{place}.reason", limit=limits.text_chars),
    )


def decode_energy(value: object, limits: Limits) -> EnergySource | None:
    """The field ``energy`` of a manifest."""
    if value is None:
        return None
    entry = table(value, "energy", _SOURCE)
    return EnergySource(
        table=label(entry["table"], "energy.table", limits),
        hardware=label(entry["hardware"], "energy.hardware", limits),
        policy=label(entry["policy"], "energy.policy", limits),
        backend=label(entry["backend"], "energy.backend", limits),
        unit=choice(entry["unit"], "energy.unit", tuple(COST_FIELD)),
    )


def check_energy(energy: EnergySource | None, graph: Graph) -> None:
    """Energies have a source, the source's unit is theirs, and there is no source of nothing.

    Raises:
        ManifestError: names the node whose energy is of no source, or the unit without energies.
    """
    unit = None if energy is None else energy.unit
    met = False
    for node in nodes_with_models(graph):
        mask = node.mask if isinstance(node, ComputeNode) else None
        for of, field in COST_FIELD.items():
            kept = mask is not None and bool(getattr(mask, f"kept_{field}"))
            if getattr(node.cost, field) is None and not kept:
                continue
            if of != unit:
                raise ManifestError(
                    f"energy: node {shown(node.name)} has {field}, and "
                    + ("there is no source" if unit is None else f"the source is in {unit}")
                )
            met = True
    if energy is not None and not met:
        raise ManifestError(
            f"energy: a source in {unit}, and no node has {COST_FIELD[energy.unit]}"
        )
