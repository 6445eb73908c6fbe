"""Which nodes compute in integers, which ports carry uint8, and which tensors share one scale."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx

from dynrt.exporters.int8_plan import NodePlan, plan_node
from dynrt.ir.flow import gates_of
from dynrt.ir.graph import ComputeNode, ControlNode, Exit, Graph, InputNode, NodeId, PortRef


class Classes:
    """Things that belong together, found by joining pairs (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[PortRef, PortRef] = {}

    def of(self, item: PortRef) -> PortRef:
        """The one that stands for all that belong with ``item``."""
        path = []
        while (parent := self._parent.get(item, item)) != item:
            path.append(item)
            item = parent
        for passed in path:
            self._parent[passed] = item
        return item

    def join(self, a: PortRef, b: PortRef) -> None:
        """Let ``a`` and ``b`` belong together."""
        self._parent[self.of(b)] = self.of(a)


@dataclass(frozen=True, kw_only=True)
class Borders:
    """What is decided before any range is known.

    Attributes:
        plans: of the nodes that compute in integers.
        whole: ports that carry uint8.
        scales: ports and tensors (``node.tensor``) that share one scale.
    """

    plans: Mapping[NodeId, NodePlan]
    whole: frozenset[PortRef]
    scales: Classes


def borders_of(
    graph: Graph, models: Mapping[NodeId, onnx.ModelProto], *, keep: Collection[NodeId]
) -> Borders:
    """Decide for each compute node and each port of ``graph``.

    Ports that an edge's source and default can exchange are alike. They carry uint8 if they are
    float32, lie between compute nodes and exits only, and one of these nodes reads or gives them as
    integers anyway.

    Args:
        graph: of a float network.
        models: by node.
        keep: nodes that stay float.

    Raises:
        ExportError: a node's operator set is too old, or its shapes are unknown.
    """
    float_nodes = {*keep, *gates_of(graph), *_deciding(graph)}
    plans: dict[NodeId, NodePlan] = {}
    for name in graph.order:
        node = graph.by_name[name]
        if isinstance(node, ComputeNode) and name not in float_nodes:
            plan = plan_node(models[name], node)
            if plan is not None:
                plans[name] = plan
    ports, scales = Classes(), Classes()
    for edge in graph.data:
        for classes in (ports, scales):
            classes.join(edge.source, edge.target)
            if isinstance(edge.default, PortRef):
                classes.join(edge.source, edge.default)
    for name, plan in plans.items():
        for a, b in plan.tied():
            scales.join(PortRef(name, a), PortRef(name, b))
    return Borders(plans=plans, whole=_whole(graph, plans, ports), scales=scales)


def _deciding(graph: Graph) -> set[NodeId]:
    """Compute nodes that give scores or channel masks."""
    out = set()
    for edge in graph.data:
        target = graph.by_name[edge.target.node]
        mask = target.mask if isinstance(target, ComputeNode) else None
        if isinstance(target, ControlNode) or (mask is not None and mask.port == edge.target.port):
            out.add(edge.source.node)
    return out


def _whole(graph: Graph, plans: Mapping[NodeId, NodePlan], ports: Classes) -> frozenset[PortRef]:
    gates = gates_of(graph)
    asked: set[PortRef] = set()
    barred: set[PortRef] = set()
    members: dict[PortRef, list[PortRef]] = {}
    linked = {r for e in graph.data for r in (e.source, e.target)}
    for node in graph.nodes:
        plan = plans.get(node.name)
        given = {p.name for p in node.outputs}
        mask = node.mask.port if isinstance(node, ComputeNode) and node.mask is not None else None
        for port in (*node.inputs, *node.outputs):
            ref = PortRef(node.name, port.name)
            group = ports.of(ref)
            members.setdefault(group, []).append(ref)
            if plan is not None and port.name in plan.asked:
                asked.add(group)
            if (
                isinstance(node, InputNode | ControlNode)
                or port.type.dtype != "float32"
                or port.name == mask
                or (port.name in given and (node.name in gates or isinstance(node, Exit)))
                or ref not in linked
            ):
                barred.add(group)
    return frozenset(r for group in asked - barred for r in members[group])
