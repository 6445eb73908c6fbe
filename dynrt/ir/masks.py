"""Channel masks: which groups of a node's channels are kept, and what the run is charged for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dynrt.ir.cost import Cost
from dynrt.ir.graph import Array, ChannelMask, ComputeNode, Exit

#: A group is kept where the mask is at least this.
KEPT_FROM = 0.5


def kept_groups(mask: Array) -> tuple[int, ...]:
    """The groups, in rising order, that one sample's mask ``(groups,)`` keeps; NaN keeps none."""
    return tuple(np.flatnonzero(mask >= KEPT_FROM).tolist())


def charged(node: ComputeNode | Exit, inputs: Mapping[str, Array]) -> Cost:
    """What a run of ``node`` on one sample costs; see :func:`cost_of_kept`.

    Args:
        node: any node; without a mask its cost is its cost.
        inputs: one sample by input port, without or with a batch axis of 1.
    """
    mask = node.mask if isinstance(node, ComputeNode) else None
    if mask is None:
        return node.cost
    return cost_of_kept(node.cost, mask, int(np.count_nonzero(inputs[mask.port] >= KEPT_FROM)))


def cost_of_kept(cost: Cost, mask: ChannelMask, kept: int) -> Cost:
    """What a node costs of which ``kept`` groups run.

    Multiplications go down by those of the dropped groups, and energy to what is modelled for so
    many; energy that is not modelled so, and time, stay those of all groups: an upper bound.

    Args:
        cost: of the node with all groups.
        mask: the node's.
        kept: how many groups run.
    """
    fj, milli = mask.kept_femtojoules, mask.kept_milli_mac_equivalents
    return replace(
        cost,
        macs=cost.macs - (mask.groups - kept) * mask.group_macs,
        femtojoules=fj[kept] if fj else cost.femtojoules,
        milli_mac_equivalents=milli[kept] if milli else cost.milli_mac_equivalents,
    )
