"""Chains whose segments are skipped as a whole, or some of their channels, or both (DDI's MGL2S).

A segment with a layer gate runs where its gate says so; its channel gate then runs too, and says
which groups of channels the segment is to compute (Wang et al., section III-A, equation 3). What a
skipped residual block hands on are the features that it would have taken; a skipped dense layer
repeats the new features of the one before it (section III-A3)::

    units = [GatedUnit(name="stem", module=stem), GatedUnit(name="block1", module=block, gate=gate)]
    net = gated_chain("skipper", kind, units, {"block1": head}, state=state)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from dynrt.errors import ExportError
from dynrt.exporters.heads import ExitNumbers, Gate, Head
from dynrt.exporters.spec import NetworkBuilder, Wire, wire, wire_of
from dynrt.ir.graph import Constant, NodeId, PortRef, TensorType, Threshold


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GatedUnit:
    """One segment of a chain.

    Attributes:
        name: of its node; its gate is the node ``NAME_gate`` with the decision
            ``NAME_gate_control``, its channel gate ``NAME_mask``, what joins it ``NAME_join``.
        module: features to features; takes, as further arguments, what ``repeats`` and
            ``channel_gate`` say: ``module(x)``, ``module(x, mask)``, ``module(x, previous, mask)``.
        gate: whether it runs, or ``None``: always.
        channel_gate: features to the mask ``(n, groups)``, or ``None``. It runs only where the
            segment runs. The mask's groups are of the channels between two convolutions of the
            module (``dynrt.exporters.mask_macs``) or of the channels that it gives
            (``dynrt.exporters.output_masks``).
        dense: the module gives only new features, which are put behind those that it took; where
            it is skipped, those of the dense segment before it are put there once more.
        repeats: of a dense segment: the module also takes the new features of the one before it.
    """

    name: NodeId
    module: nn.Module
    gate: Gate | nn.Module | None = None
    channel_gate: nn.Module | None = None
    dense: bool = False
    repeats: bool = False


def gated_chain(
    name: str,
    kind: TensorType,
    units: Sequence[GatedUnit],
    exits: Mapping[NodeId, Head | nn.Module],
    *,
    state: Mapping[str, TensorType] | None = None,
    input_name: NodeId = "image",
) -> NetworkBuilder:
    """Segments in order, of which some are skipped, with exits behind some of them.

    Recurrent gates (DDI's LSTM: ``state={"h": ..., "c": ...}``) take the state after the features
    and give the next after the score; a gate that does not run hands its state through. The first
    state is zeros, and a runtime parameter.

    Args:
        name: of the network.
        kind: of its input.
        units: the segments; one with a gate gives the shape that it takes, or is dense.
        exits: heads by the segment after which they stand; one stands after the last segment.
        state: types of the gates' state tensors, batch axis left out.
        input_name: of the input.

    Raises:
        ExportError: an unknown segment, two of one name, no exit at the end, or a dense segment
            that may be skipped and has no other before it whose features it could repeat.
    """
    names = [unit.name for unit in units]
    require_known(names, exits, "exit")
    if not names or names[-1] not in exits:
        raise ExportError("no exit after the last segment; some path would give no answer")
    net = NetworkBuilder(name)
    chain = _Chain(
        net=net,
        features=wire_of(net.input(input_name, kind.shape, kind.dtype)),
        state={
            key: wire_of(net.param(f"{key}_0", Constant.zeros(type_).value))
            for key, type_ in (state or {}).items()
        },
    )
    heads = ExitNumbers(net=net, last="final")
    for unit in units:
        chain.add(unit)
        if unit.name in exits:
            heads.add(exits[unit.name], chain.features, final=unit.name == names[-1])
    return net


class Join(nn.Module):
    """Features and the new ones behind them, along the channels."""

    def forward(self, x: Tensor, new: Tensor) -> Tensor:
        """``(n, c, h, w)`` and ``(n, k, h, w)`` to ``(n, c + k, h, w)``."""
        return torch.cat([x, new], 1)


@dataclass(slots=True, kw_only=True)
class _Chain:
    """The chain so far.

    Attributes:
        net: what it is added to.
        features: what the next segment takes.
        state: what the next gate takes, by name.
        new: the new features of the dense segment just added, on the input port of its join.
    """

    net: NetworkBuilder
    features: Wire
    state: dict[str, Wire]
    new: tuple[Wire, PortRef] | None = None

    def add(self, unit: GatedUnit) -> None:
        """Add a segment with its gates."""
        if not unit.dense:
            self.new = None
        if (unit.dense and unit.gate is not None and self.new is None) or (
            unit.repeats and (self.new is None or not unit.dense)
        ):
            raise ExportError(
                f"segment {unit.name!r} would repeat the new features of the dense segment before "
                "it, and there is none"
            )
        mask = None if unit.channel_gate is None else f"{unit.name}_mask"
        if unit.gate is not None:
            self._gate(unit, [unit.name, *([mask] if mask else [])])
        takes = {"x": self.features}
        if unit.repeats and self.new is not None:
            takes["previous"] = self.new[0]
        if mask is not None and unit.channel_gate is not None:
            kept = self.net.compute(mask, unit.channel_gate, {"x": self.features}, ("kept",))
            takes["mask"] = wire_of(kept)
        after = self.net.compute(
            unit.name, unit.module, takes, mask=None if mask is None else "mask"
        )
        if unit.dense:
            self._join(unit, after)
        elif unit.gate is not None:
            self.features = wire(after, default=PortRef(unit.name, "x"))
        else:
            self.features = wire_of(after)

    def _gate(self, unit: GatedUnit, targets: list[NodeId]) -> None:
        given = unit.gate
        if given is None:
            return
        gate = given if isinstance(given, Gate) else Gate(module=given)
        node = f"{unit.name}_gate"
        self.net.gate(
            node,
            gate.module,
            {"x": self.features, **self.state},
            actions=[targets],
            rule=Threshold(thresholds=(gate.threshold,)),
            outputs=("scores", *(f"{key}_next" for key in self.state)),
        )
        self.state = {
            key: wire(PortRef(node, f"{key}_next"), default=PortRef(node, key))
            for key in self.state
        }

    def _join(self, unit: GatedUnit, after: PortRef) -> None:
        node = f"{unit.name}_join"
        skipped = self.new[1] if unit.gate is not None and self.new is not None else None
        new = wire_of(after) if skipped is None else wire(after, default=skipped)
        joined = self.net.compute(node, Join(), {"x": self.features, "new": new})
        self.new = new, PortRef(node, "new")
        self.features = wire_of(joined)


def require_known(names: Sequence[str], wanted: Mapping[str, object], what: str) -> None:
    """Check that segments have names of their own, and that what is ``wanted`` is among them.

    Raises:
        ExportError: two of one name, or an unknown one.
    """
    for name in sorted(set(names)):
        if names.count(name) > 1:
            raise ExportError(f"two segments are called {name!r}")
    for name in wanted:
        if name not in names:
            near = get_close_matches(name, names, n=3)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ExportError(f"{what} after {name!r}: no such segment{hint}")
