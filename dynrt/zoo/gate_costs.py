"""Multiply-accumulates of a gated network's parts, and the shares of its gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from dynrt.zoo.gated import GatedNetwork

#: Shares of a residual block that the paper states (section III-A, for a ResNet-34), and of a dense
#: layer (figure 4).
PAPER_LAYER_SHARE = 0.0004
PAPER_CHANNEL_SHARE = 0.125
PAPER_DENSE_CHANNEL_SHARE = 0.11


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCost:
    """What one unit takes; MACs, joules, or whatever its network is counted in.

    Attributes:
        kept: with 0, 1, ... all of its channel groups computed; one value without a channel gate.
        layer_gate, channel_gate: of its gates; 0 where it has none. The layer gate always runs,
            the channel gate where the unit runs.
        gated: whether it has a layer gate.
    """

    kept: tuple[float, ...]
    layer_gate: float = 0.0
    channel_gate: float = 0.0
    gated: bool = False

    @property
    def whole(self) -> float:
        """With all channels, without its gates."""
        return self.kept[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedCosts:
    """What the parts of a gated network take for one picture.

    Attributes:
        unit: of the numbers: ``MACs``, ``J``, ...
        units: by name, in order; units without a gate too.
        ends: stem and the last exit's head.
        heads: branch heads by exit.
    """

    unit: str
    units: Mapping[str, UnitCost]
    ends: float
    heads: Mapping[str, float]

    @property
    def backbone(self) -> float:
        """The network without gates and branches: what savings are shares of."""
        return self.ends + sum(cost.whole for cost in self.units.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class GateShares:
    """How much the gates take.

    Attributes:
        layer, channel: a gate's share of its unit, in the mean over the gated units; ``None``
            where there are no such gates.
        network: all gates' share of the whole backbone, everything running.
    """

    layer: float | None
    channel: float | None
    network: float


def count_costs(net: GatedNetwork, *, height: int = 32, width: int = 32) -> GatedCosts:
    """MACs of the parts of ``net`` on one RGB picture of that size.

    Convolutions, linear layers and the LSTM count; as everywhere in dynrt, adding, pooling and
    normalising do not. A dropped ``output`` channel saves its filter in the unit's last
    convolution, a dropped ``inner`` group its share of both convolutions.
    """
    macs = _macs_by_module(net, (1, 3, height, width))
    gates = max(1, len(net.gated))
    shared = sum(_under(macs, f"layer_gates.{name}") for name in ("cell", "score")) / gates
    units: dict[str, UnitCost] = {}
    for unit in net.chain.units:
        own = {k: n for k, n in macs.items() if k.startswith(f"backbone.{unit.path}.")}
        whole, groups = float(sum(own.values())), net.groups.get(unit.name)
        gated = unit.name in net.gated
        at = net.gated.index(unit.name) if gated else 0
        projection = _under(macs, f"layer_gates.projections.{at}")
        saved = 0.0
        channel_gate = 0.0
        if groups is not None:
            masked = own if net.kind == "inner" else dict([list(own.items())[-1]])
            saved = sum(masked.values()) / groups
            channel_gate = _under(macs, f"channel_gates.{net.channelled.index(unit.name)}")
        units[unit.name] = UnitCost(
            kept=tuple(whole - saved * (groups or 0) + saved * k for k in range((groups or 0) + 1)),
            layer_gate=projection + shared if gated else 0.0,
            channel_gate=channel_gate,
            gated=gated,
        )
    heads = {name: _under(macs, f"branches.{i}") for i, name in enumerate(net.exit_names[:-1])}
    backbone = sum(n for k, n in macs.items() if k.startswith("backbone."))
    ends = backbone - sum(cost.whole for cost in units.values())
    return GatedCosts(unit="MACs", units=units, ends=ends, heads=heads)


def gate_shares(costs: GatedCosts) -> GateShares:
    """The gates' shares of what they gate, and of the network."""
    layer = [c.layer_gate / c.whole for c in costs.units.values() if c.gated]
    channel = [c.channel_gate / c.whole for c in costs.units.values() if len(c.kept) > 1]
    every = sum(c.layer_gate + c.channel_gate for c in costs.units.values())
    return GateShares(
        layer=sum(layer) / len(layer) if layer else None,
        channel=sum(channel) / len(channel) if channel else None,
        network=every / costs.backbone,
    )


def _under(macs: Mapping[str, int], name: str) -> float:
    return float(sum(n for k, n in macs.items() if k == name or k.startswith(name + ".")))


def _macs_by_module(net: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """MACs of each leaf in one forward pass, in the order in which they first run."""
    found: dict[str, int] = {}
    hooks = []
    for name, module in net.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear | nn.LSTMCell):
            continue

        def count(
            module: nn.Module, _: object, out: Tensor | tuple[Tensor, Tensor], name: str = name
        ) -> None:
            found[name] = found.get(name, 0) + _macs(module, out)

        hooks.append(module.register_forward_hook(count))
    was = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.no_grad():
            net(torch.zeros(shape))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in was.items():
            module.training = training
    return found


def _macs(module: nn.Module, out: Tensor | tuple[Tensor, Tensor]) -> int:
    if isinstance(module, nn.LSTMCell):
        return 4 * module.hidden_size * (module.input_size + module.hidden_size)
    if isinstance(module, nn.Conv2d) and isinstance(out, Tensor):
        return out.numel() * prod(module.weight.shape[1:])
    if isinstance(module, nn.Linear) and isinstance(out, Tensor):
        return out.numel() * module.in_features
    return 0
