"""The two usual dynamic networks, said in one call: early exits, and gated residual blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from dynrt.exporters.gated import GatedUnit, gated_chain, require_known
from dynrt.exporters.heads import Gate, Head, d_gate
from dynrt.exporters.spec import NetworkBuilder
from dynrt.ir.graph import NodeId, TensorType

__all__ = ["Gate", "Head", "Segments", "d_gate", "gated_blocks", "sequential_exits"]

Segments = Sequence[tuple[NodeId, nn.Module]]


def sequential_exits(
    name: str,
    kind: TensorType,
    segments: Segments,
    exits: Mapping[NodeId, Head | nn.Module],
    *,
    input_name: NodeId = "image",
) -> NetworkBuilder:
    """A chain of segments with exits after some of them; the last exit always answers.

    Args:
        name: of the network.
        kind: of its input.
        segments: names and modules in order; each takes what the one before it gives.
        exits: heads by the segment after which they stand; one stands after the last segment.
        input_name: of the input.

    Raises:
        ExportError: an unknown segment, two of one name, or no exit at the end.
    """
    return gated_blocks(name, kind, segments, {}, exits, input_name=input_name)


def gated_blocks(
    name: str,
    kind: TensorType,
    blocks: Segments,
    gates: Mapping[NodeId, Gate | nn.Module],
    exits: Mapping[NodeId, Head | nn.Module],
    *,
    state: Mapping[str, TensorType] | None = None,
    input_name: NodeId = "image",
) -> NetworkBuilder:
    """A chain of blocks of which some are skipped: their features then pass unchanged.

    The gate of block ``b`` is the node ``b_gate``, its decision ``b_gate_control``. Recurrent gates
    (DDI's LSTM: ``state={"h": ..., "c": ...}``) take the state after the features and give the next
    after the score; a gate that does not run hands its state through. The first state is zeros, and
    a runtime parameter. Channel gates and dense layers: :func:`~dynrt.exporters.gated.gated_chain`.

    Args:
        name: of the network.
        kind: of its input.
        blocks: names and modules in order.
        gates: by block; a gated block gives the shape that it takes.
        exits: heads by block; one stands after the last block.
        state: types of the gates' state tensors, batch axis left out.
        input_name: of the input.

    Raises:
        ExportError: an unknown block, two of one name, or no exit at the end.
    """
    require_known([n for n, _ in blocks], gates, "gate")
    units = [GatedUnit(name=n, module=module, gate=gates.get(n)) for n, module in blocks]
    return gated_chain(name, kind, units, exits, state=state, input_name=input_name)
