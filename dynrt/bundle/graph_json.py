"""Graphs <-> JSON: the ``graph`` field of the manifest.

Decoding checks types, names and bounds of every field; whether the graph makes sense is
``dynrt.ir.check``'s business.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

from dynrt.bundle.fields import choice, integer, items, kind_of, name, number, table, threshold
from dynrt.bundle.limits import Limits, bound
from dynrt.bundle.names import shown
from dynrt.bundle.tensor_json import (
    ConstantDecoder,
    decode_ports,
    decode_tensor_type,
    encode_constant,
    encode_port,
    encode_type,
)
from dynrt.bundle.versions import MASKS_SINCE, TABLES_SINCE, version_of
from dynrt.errors import ManifestError
from dynrt.ir.cost import Cost
from dynrt.ir.graph import (
    DTYPES,
    Accept,
    Argmax,
    ChannelMask,
    Combine,
    ComputeNode,
    Constant,
    ControlEdge,
    ControlNode,
    DataEdge,
    Default,
    Exit,
    Graph,
    InputNode,
    Node,
    PortRef,
    Rule,
    ScoreKind,
    Threshold,
)

_SCORES: tuple[ScoreKind, ...] = get_args(ScoreKind)
_COMBINES: tuple[Literal["first", "last", "sum", "max", "concat"], ...] = (
    "first",
    "last",
    "sum",
    "max",
    "concat",
)

_COST = ("femtojoules", "macs")
_KEPT = ("kept_femtojoules", "kept_milli_mac_equivalents")
_GRAPH = ("combine", "control", "data", "exits", "nodes")
_NODE = {
    "input": ("kind", "name", "type", "param"),
    "compute": ("kind", "name", "inputs", "outputs", "cost"),
    "control": ("kind", "name", "actions", "dtype", "rule"),
    "exit": ("kind", "name", "inputs", "outputs", "answer", "accept", "cost"),
}


# --- encoding


def encode_graph(graph: Graph, version: int | None = None) -> dict[str, object]:
    """``graph`` as plain JSON values of ``version``; by default the oldest that can hold it."""
    version = version_of(graph) if version is None else version
    return {
        "nodes": [_encode_node(n, version) for n in graph.nodes],
        "data": [
            {
                "source": _encode_ref(e.source),
                "target": _encode_ref(e.target),
                "default": _encode_default(e.default),
            }
            for e in graph.data
        ],
        "control": [
            {"control": e.control, "target": e.target, "action": e.action} for e in graph.control
        ],
        "exits": list(graph.exits),
        "combine": {"kind": graph.combine.kind, "absent": graph.combine.absent},
    }


def _encode_node(node: Node, version: int) -> dict[str, object]:
    out: dict[str, object] = {"name": node.name}
    if isinstance(node, InputNode):
        param = None if node.param is None else encode_constant(node.param)
        return out | {"kind": "input", "type": encode_type(node.type), "param": param}
    if isinstance(node, ControlNode):
        return out | {
            "kind": "control",
            "actions": node.actions,
            "dtype": node.dtype,
            "rule": _encode_rule(node.rule),
        }
    out |= {
        "inputs": [encode_port(p) for p in node.inputs],
        "outputs": [encode_port(p) for p in node.outputs],
        "cost": _encode_cost(node.cost, node.name, version),
    }
    if isinstance(node, ComputeNode):
        masks = {"mask": _encode_mask(node.mask, version)} if version >= MASKS_SINCE else {}
        return out | {"kind": "compute"} | masks
    accept = node.accept
    return out | {
        "kind": "exit",
        "answer": node.answer,
        "accept": {
            "kind": accept.kind,
            "port": accept.port,
            "threshold": _encode_threshold(accept.threshold),
        },
    }


def _encode_mask(mask: ChannelMask | None, version: int) -> dict[str, object] | None:
    if mask is None:
        return None
    kept = {key: list(getattr(mask, key)) for key in _KEPT} if version >= TABLES_SINCE else {}
    return {"port": mask.port, "groups": mask.groups, "group_macs": mask.group_macs} | kept


def _encode_rule(rule: Rule) -> dict[str, object]:
    if isinstance(rule, Argmax):
        return {"kind": "argmax"}
    return {"kind": "threshold", "thresholds": [_encode_threshold(t) for t in rule.thresholds]}


def _encode_threshold(value: float) -> float | str:
    return str(float(value)) if value in (math.inf, -math.inf) else value


def _encode_cost(cost: Cost, node: str, version: int) -> dict[str, object]:
    if cost.nanoseconds is not None:
        raise ManifestError(
            f"node {shown(node)}: cost.nanoseconds is {cost.nanoseconds}, but time is a profile of "
            "one device and no part of a bundle"
        )
    return {key: getattr(cost, key) for key in _cost_keys(version)}


def _cost_keys(version: int) -> tuple[str, ...]:
    return (*_COST, "milli_mac_equivalents") if version >= TABLES_SINCE else _COST


def _encode_ref(ref: PortRef) -> list[str]:
    return [ref.node, ref.port]


def _encode_default(default: Default | None) -> dict[str, object] | None:
    if default is None:
        return None
    if isinstance(default, Constant):
        return encode_constant(default)
    return {"kind": "port", "port": _encode_ref(default)}


# --- decoding


def decode_graph(value: object, place: str, limits: Limits, version: int = 1) -> Graph:
    """A graph from plain JSON values; not yet checked for sense.

    Args:
        value: what the JSON holds.
        place: where, for errors.
        limits: what is accepted.
        version: of the format.

    Raises:
        ManifestError: a field is missing, unknown, or of the wrong kind.
        BundleSizeError: more than ``limits`` allow.
    """
    entry = table(value, place, _GRAPH)
    constants = ConstantDecoder(limits)
    nodes = items(entry["nodes"], f"{place}.nodes", limit=limits.nodes)
    data = items(entry["data"], f"{place}.data", limit=limits.edges)
    control = items(entry["control"], f"{place}.control", limit=limits.edges)
    exits = items(entry["exits"], f"{place}.exits", limit=limits.nodes)
    combine = table(entry["combine"], f"{place}.combine", ("absent", "kind"))
    return Graph(
        nodes=tuple(
            _decode_node(n, f"{place}.nodes[{i}]", limits, constants, version)
            for i, n in enumerate(nodes)
        ),
        data=tuple(
            _decode_data(e, f"{place}.data[{i}]", limits, constants) for i, e in enumerate(data)
        ),
        control=tuple(
            _decode_control(e, f"{place}.control[{i}]", limits) for i, e in enumerate(control)
        ),
        exits=tuple(name(n, f"{place}.exits[{i}]") for i, n in enumerate(exits)),
        combine=Combine(
            kind=choice(combine["kind"], f"{place}.combine.kind", _COMBINES),
            absent=number(combine["absent"], f"{place}.combine.absent"),
        ),
    )


def _decode_node(
    value: object, place: str, limits: Limits, constants: ConstantDecoder, version: int
) -> Node:
    kind = kind_of(value, place)
    if kind not in _NODE:
        raise ManifestError(f"{place}.kind: {shown(kind)} is none of {', '.join(_NODE)}")
    masks = ("mask",) if kind == "compute" and version >= MASKS_SINCE else ()
    entry = table(value, place, (*_NODE[kind], *masks))
    called = name(entry["name"], f"{place}.name")
    if kind == "input":
        param = entry["param"]
        return InputNode(
            name=called,
            type=decode_tensor_type(entry["type"], f"{place}.type", limits),
            param=None if param is None else constants.decode(param, f"{place}.param"),
        )
    if kind == "control":
        actions = integer(entry["actions"], f"{place}.actions", low=1)
        bound(f"{place}.actions", actions, limits.actions, "actions")
        return ControlNode(
            name=called,
            actions=actions,
            rule=_decode_rule(entry["rule"], f"{place}.rule", limits),
            dtype=choice(entry["dtype"], f"{place}.dtype", DTYPES),
        )
    inputs = decode_ports(entry["inputs"], f"{place}.inputs", limits)
    outputs = decode_ports(entry["outputs"], f"{place}.outputs", limits)
    cost = _decode_cost(entry["cost"], f"{place}.cost", version)
    if kind == "compute":
        mask = _decode_mask(entry["mask"], f"{place}.mask", limits, version) if masks else None
        return ComputeNode(name=called, inputs=inputs, outputs=outputs, cost=cost, mask=mask)
    return Exit(
        name=called,
        inputs=inputs,
        outputs=outputs,
        answer=name(entry["answer"], f"{place}.answer"),
        accept=_decode_accept(entry["accept"], f"{place}.accept", limits),
        cost=cost,
    )


def _decode_mask(value: object, place: str, limits: Limits, version: int) -> ChannelMask | None:
    if value is None:
        return None
    since = _KEPT if version >= TABLES_SINCE else ()
    entry = table(value, place, ("group_macs", "groups", "port", *since))
    groups = integer(entry["groups"], f"{place}.groups", low=1)
    bound(f"{place}.groups", groups, limits.groups, "groups")
    return ChannelMask(
        port=name(entry["port"], f"{place}.port"),
        groups=groups,
        group_macs=integer(entry["group_macs"], f"{place}.group_macs"),
        **{key: _decode_kept(entry[key], f"{place}.{key}", groups) for key in since},
    )


def _decode_kept(value: object, place: str, groups: int) -> tuple[int, ...]:
    """Energies of a node by kept groups, or none at all."""
    rows = items(value, place, limit=groups + 1)
    if rows and len(rows) != groups + 1:
        raise ManifestError(f"{place}: {len(rows)} energies for 0 to {groups} kept groups")
    return tuple(integer(row, f"{place}[{i}]") for i, row in enumerate(rows))


def _decode_rule(value: object, place: str, limits: Limits) -> Rule:
    kind = kind_of(value, place)
    if kind == "argmax":
        table(value, place, ("kind",))
        return Argmax()
    if kind != "threshold":
        raise ManifestError(f"{place}.kind: {shown(kind)} is none of argmax, threshold")
    entry = table(value, place, ("kind", "thresholds"))
    values = items(entry["thresholds"], f"{place}.thresholds", limit=limits.actions)
    return Threshold(
        thresholds=tuple(threshold(t, f"{place}.thresholds[{i}]") for i, t in enumerate(values))
    )


def _decode_accept(value: object, place: str, limits: Limits) -> Accept:
    entry = table(value, place, ("kind", "port", "threshold"))
    kind = choice(entry["kind"], f"{place}.kind", _SCORES)
    port = entry["port"]
    return Accept(
        kind=kind,
        port="" if port == "" else name(port, f"{place}.port"),
        threshold=threshold(entry["threshold"], f"{place}.threshold"),
    )


def _decode_cost(value: object, place: str, version: int) -> Cost:
    entry = table(value, place, _cost_keys(version))

    def energy(key: str) -> int | None:
        return None if entry.get(key) is None else integer(entry[key], f"{place}.{key}")

    return Cost(
        macs=integer(entry["macs"], f"{place}.macs"),
        femtojoules=energy("femtojoules"),
        milli_mac_equivalents=energy("milli_mac_equivalents"),
    )


def _decode_ref(value: object, place: str) -> PortRef:
    parts = items(value, place, limit=2)
    if len(parts) != 2:
        raise ManifestError(f"{place}: expected [NODE, PORT], got {len(parts)} items")
    return PortRef(name(parts[0], f"{place}[0]"), name(parts[1], f"{place}[1]"))


def _decode_data(value: object, place: str, limits: Limits, constants: ConstantDecoder) -> DataEdge:
    entry = table(value, place, ("source", "target", "default"))
    default = entry["default"]
    return DataEdge(
        source=_decode_ref(entry["source"], f"{place}.source"),
        target=_decode_ref(entry["target"], f"{place}.target"),
        default=None
        if default is None
        else _decode_default(default, f"{place}.default", limits, constants),
    )


def _decode_default(
    value: object, place: str, limits: Limits, constants: ConstantDecoder
) -> Default:
    if kind_of(value, place) != "port":
        return constants.decode(value, place)
    entry = table(value, place, ("kind", "port"))
    return _decode_ref(entry["port"], f"{place}.port")


def _decode_control(value: object, place: str, limits: Limits) -> ControlEdge:
    entry = table(value, place, ("control", "target", "action"))
    return ControlEdge(
        control=name(entry["control"], f"{place}.control"),
        target=name(entry["target"], f"{place}.target"),
        action=integer(entry["action"], f"{place}.action", high=limits.actions - 1),
    )
