"""Channel masks: which groups of a node's channels are kept, and what the run is charged for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dynrt.ir.cost import Cost
from dynrt.ir.graph import Array, ComputeNode, Exit

#: A group is kept where the mask is at least this.
KEPT_FROM = 0.5


def kept_groups(mask: Array) -> tuple[int, ...]:
    """The groups, in rising order, that one sample's mask ``(groups,)`` keeps; NaN keeps none."""
    return tuple(np.flatnonzero(mask >= KEPT_FROM).tolist())


def charged(node: ComputeNode | Exit, inputs: Mapping[str, Array]) -> Cost:
    """What a run of ``node`` on one sample costs.

    Multiplications go down by those of the dropped groups; energy and time stay those of all
    groups, which is an upper bound.

    Args:
        node: any node; without a mask its cost is its cost.
        inputs: one sample by input port, without or with a batch axis of 1.
    """
    mask = node.mask if isinstance(node, ComputeNode) else None
    if mask is None:
        return node.cost
    dropped = mask.groups - int(np.count_nonzero(inputs[mask.port] >= KEPT_FROM))
    return replace(node.cost, macs=node.cost.macs - dropped * mask.group_macs)
