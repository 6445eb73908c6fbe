"""Mask values so near the limit of a kept group that rounding turns them between two executions.

A network with channel gates makes hundreds of such decisions on one input. To compare all that
comes after, a turned value that is within rounding of the reference's is settled as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dynrt.exporters.compare import Tolerance
from dynrt.ir.graph import Array, ComputeNode, Graph, NodeId, PortRef
from dynrt.ir.masks import KEPT_FROM


def mask_ports(graph: Graph) -> frozenset[PortRef]:
    """Output ports whose tensor is some node's channel mask."""
    found = set()
    for node in graph.nodes:
        if isinstance(node, ComputeNode) and node.mask is not None:
            edge = graph.edge_into.get(PortRef(node.name, node.mask.port))
            if edge is not None:
                found.add(edge.source)
    return frozenset(found)


@dataclass(slots=True, kw_only=True)
class Settler:
    """Settles turned mask values as a reference has them.

    Attributes:
        ports: that give masks.
        limit: what counts as rounding.
        reference: outputs by node of the run that is followed; a node that is not in it is left
            as it is.
        settled: how many values were.
    """

    ports: frozenset[PortRef]
    limit: Tolerance
    reference: Mapping[NodeId, Mapping[str, Array]] = field(default_factory=dict)
    settled: int = 0

    def __call__(self, name: NodeId, given: Mapping[str, Array]) -> Mapping[str, Array]:
        """What node ``name`` gave, with turned values settled."""
        known = self.reference.get(name)
        if known is None:
            return given
        out = dict(given)
        for port, value in given.items():
            if PortRef(name, port) not in self.ports or known[port].shape != value.shape:
                continue
            want = known[port]
            turned = (value >= KEPT_FROM) != (want >= KEPT_FROM)
            if turned.any():
                near = turned & (np.abs(value - want) <= self.limit.allowed(want))
                out[port] = np.where(near, want, value)
                self.settled += int(near.sum())
        return out
