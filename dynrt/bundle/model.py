"""What a bundle holds, once it is read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dynrt.bundle.held import Held
from dynrt.ir.certificate import Certificate
from dynrt.ir.counts import CountTable, EnergySource
from dynrt.ir.graph import ComputeNode, Exit, Graph, NodeId
from dynrt.ir.layers import LayerTable

Resize = Literal["bilinear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How a picture becomes the network's input: ``(channels, height, width)``, float32.

    The picture is resized, scaled to 0..1, and then ``(x - mean) / std`` per channel.

    Attributes:
        height, width: of the input, in pixels.
        channels: 3 (RGB) or 1 (gray).
        mean, std: one per channel, on the scale 0..1.
        resize: how a picture of another size is brought to this one.
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Resize = "bilinear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A checked dynamic network. Made by ``read_bundle`` and ``build_bundle`` only.

    The mappings are plain dictionaries so that they can be written as JSON; do not change them.

    Attributes:
        name: of the network.
        graph: valid, and with an answer on every path.
        models: plain ONNX of each compute node and exit; inputs and outputs are named and typed as
            the node's ports, with a first axis ``batch``.
        labels: names of the classes; empty if there are none.
        preprocessing: how pictures become inputs; ``None`` if the input is no picture.
        card: the model card as plain JSON values.
        provenance: what made the bundle.
        certificate: of ``graph``, recomputed.
        sha256: of the manifest's bytes, which hold the hash of every member.
        energy: where the energies in the graph's costs come from; ``None`` if that is not said.
        held_layers, held_counts: behind :attr:`layers` and :attr:`counts`.
    """

    name: str
    graph: Graph
    models: Mapping[NodeId, bytes]
    labels: tuple[str, ...]
    preprocessing: Preprocessing | None
    card: Mapping[str, object]
    provenance: Mapping[str, str]
    certificate: Certificate
    sha256: str
    energy: EnergySource | None = None
    held_layers: Held[LayerTable | None] | None = None
    held_counts: Held[CountTable | None] | None = None

    @property
    def layers(self) -> LayerTable | None:
        """What each operator of each node works on, or ``None``; decoded on first use.

        Raises:
            BundleError: the member is not what the format says.
        """
        return None if self.held_layers is None else self.held_layers.get()

    @property
    def counts(self) -> CountTable | None:
        """Access counts on one hardware, or ``None``; decoded on first use.

        Raises:
            BundleError: the member is not what the format says.
        """
        return None if self.held_counts is None else self.held_counts.get()


def nodes_with_models(graph: Graph) -> tuple[ComputeNode | Exit, ...]:
    """The nodes that have a subgraph, in the order of ``graph.nodes``."""
    return tuple(n for n in graph.nodes if isinstance(n, ComputeNode | Exit))
