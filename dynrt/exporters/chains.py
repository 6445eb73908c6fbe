"""The two usual dynamic networks, said in one call: early exits, and gated residual blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from torch import nn

from dynrt.errors import ExportError
from dynrt.exporters.spec import NetworkBuilder, Wire, wire, wire_of
from dynrt.ir.graph import Accept, Constant, NodeId, PortRef, TensorType, Threshold

Segments = Sequence[tuple[NodeId, nn.Module]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """An exit's module and rule.

    Attributes:
        module: takes the features; gives ``outputs``.
        outputs: names of its results.
        answer: which of them is the answer; by default the first.
        accept: when it ends the run; by default maximum softmax of the answer of at least 0.9, and
            ``always`` for the last exit.
        name: of the exit; by default ``exit1``, ``exit2``, ... and ``final``.
    """

    module: nn.Module
    outputs: tuple[str, ...] = ("logits",)
    answer: str | None = None
    accept: Accept | None = None
    name: NodeId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A gate that decides whether a block runs.

    Attributes:
        module: takes the features (and, if the gates are recurrent, the state tensors) and gives
            one score ``(n, 1)`` (and the next state).
        threshold: the block runs where the score is at least this.
    """

    module: nn.Module
    threshold: float = 0.5


def d_gate(
    module: nn.Module, *, threshold: float, outputs: Sequence[str] = ("logits", "distances")
) -> Head:
    """An exit that leaves by hinge distance (Shafiee et al., algorithm 1).

    Args:
        module: gives ``distances``: ``w'x - b`` per class, and whatever else ``outputs`` names.
        threshold: least largest distance that is accepted.
        outputs: names of the results; the first is the answer (``("distances",)``: the gate alone).
    """
    if "distances" not in outputs:
        raise ExportError(f"a d-gate gives 'distances'; its outputs are {', '.join(outputs)}")
    rule = Accept(kind="hinge", port="distances", threshold=threshold)
    return Head(module=module, outputs=tuple(outputs), accept=rule)


@dataclass(slots=True, kw_only=True)
class ExitNumbers:
    """Adds heads to a builder under the usual names."""

    net: NetworkBuilder
    last: NodeId
    count: int = field(default=0)

    def add(self, head: Head | nn.Module, features: Wire, *, final: bool) -> None:
        """Add one exit that reads ``features``."""
        known = head if isinstance(head, Head) else Head(module=head)
        self.count += 1
        name = known.name or (self.last if final else f"exit{self.count}")
        answer = known.answer or known.outputs[0]
        usual = Accept(kind="max_softmax", port=answer, threshold=0.9)
        rule = known.accept or (Accept(kind="always") if final else usual)
        self.net.exit(
            name,
            known.module,
            {"x": features},
            outputs=known.outputs,
            answer=answer,
            accept=rule,
        )


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
    a runtime parameter.

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
    names = [n for n, _ in blocks]
    _require_known(names, gates, "gate")
    _require_known(names, exits, "exit")
    if not names or names[-1] not in exits:
        raise ExportError("no exit after the last segment; some path would give no answer")
    net = NetworkBuilder(name)
    features = wire_of(net.input(input_name, kind.shape, kind.dtype))
    held = {
        key: wire_of(net.param(f"{key}_0", Constant.zeros(type_).value))
        for key, type_ in (state or {}).items()
    }
    heads = ExitNumbers(net=net, last="final")
    for block, module in blocks:
        if block in gates:
            given = gates[block]
            gate = given if isinstance(given, Gate) else Gate(module=given)
            node = f"{block}_gate"
            net.gate(
                node,
                gate.module,
                {"x": features, **held},
                actions=[[block]],
                rule=Threshold(thresholds=(gate.threshold,)),
                outputs=("scores", *(f"{key}_next" for key in held)),
            )
            held = {
                key: wire(PortRef(node, f"{key}_next"), default=PortRef(node, key)) for key in held
            }
        after = net.compute(block, module, {"x": features})
        features = wire(after, default=PortRef(block, "x")) if block in gates else wire_of(after)
        if block in exits:
            heads.add(exits[block], features, final=block == names[-1])
    return net


def _require_known(names: Sequence[str], wanted: Mapping[str, object], what: str) -> None:
    for name in sorted(set(names)):
        if names.count(name) > 1:
            raise ExportError(f"two segments are called {name!r}")
    for name in wanted:
        if name not in names:
            near = get_close_matches(name, names, n=3)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ExportError(f"{what} after {name!r}: no such segment{hint}")
