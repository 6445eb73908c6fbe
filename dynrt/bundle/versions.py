"""The versions of the format, and which of them a graph needs; see ``docs/format.md``."""

from __future__ import annotations

from dynrt.ir.graph import ComputeNode, Exit, Graph

#: The version in which compute nodes got the field ``mask``.
MASKS_SINCE = 2
#: The version with layer and count tables, sources of energy, and energy in MAC-equivalents.
TABLES_SINCE = 3
#: The newest version; a bundle has the oldest that can hold it.
VERSION = TABLES_SINCE


def version_of(graph: Graph) -> int:
    """The oldest version of the format that can hold ``graph``.

    3 if an energy is in MAC-equivalents, or is given by kept groups of a channel mask; else 2 if a
    node has such a mask; else 1.
    """
    nodes = [n for n in graph.nodes if isinstance(n, ComputeNode | Exit)]
    masks = [n.mask for n in nodes if isinstance(n, ComputeNode) and n.mask is not None]
    if any(n.cost.milli_mac_equivalents is not None for n in nodes) or any(
        m.kept_femtojoules or m.kept_milli_mac_equivalents for m in masks
    ):
        return TABLES_SINCE
    return MASKS_SINCE if masks else 1
