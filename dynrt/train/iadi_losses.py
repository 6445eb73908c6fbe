"""The resource loss of IADI (Wang et al., equation 5): what a gated run takes, and alpha's sign."""

from __future__ import annotations

import torch
from torch import Tensor

from dynrt.errors import RecipeError
from dynrt.zoo.gate_costs import GatedCosts, UnitCost
from dynrt.zoo.gated import GatedNetwork, GatedOutput


class RunCost:
    """What runs of a gated network take, as a share of its backbone; differentiable.

    With r 1 where a unit runs and k the number of its channel groups that are computed,

        E = ends + sum_i gate_i + r_i (channel gate_i + e_i(0)) + e_i(k_i) - e_i(0)

    over the backbone's own sum. Its value is that of the hard decisions; its gradient that of their
    scores (straight through). Between whole numbers of groups e is taken as linear.

    Attributes:
        unit: of what is counted.
        units: how many units have gates; the paper's E is this many times the share.

    Args:
        costs: of the network's parts.
        net: says which units are gated.

    Raises:
        RecipeError: the costs are of another network.
    """

    def __init__(self, costs: GatedCosts, net: GatedNetwork) -> None:
        if tuple(costs.units) != net.unit_names:
            raise RecipeError("the costs are not those of this network's units")
        self.unit = costs.unit
        self._full = costs.backbone
        self._fixed = costs.ends
        self._always = torch.zeros(len(net.gated))
        self._kept: list[Tensor] = []
        at = {name: i for i, name in enumerate(net.gated)}
        channelled = set(net.channelled)
        for name, cost in costs.units.items():
            self._fixed += cost.layer_gate
            runs = cost.channel_gate + cost.kept[0]
            if name in at:
                self._always[at[name]] = runs
            else:
                self._fixed += runs
            if name in channelled:
                self._kept.append(torch.tensor(cost.kept) - cost.kept[0])
        self.units = len(set(net.gated) | channelled)

    def __call__(self, out: GatedOutput) -> Tensor:
        """Shares ``(n,)``, float32; 1 is the backbone, and gates may make a run dearer than that."""
        # No matrix product: autocast would round it to bfloat16.
        total = (out.layer.float() * self._always).sum(1) + self._fixed
        for mask, kept in zip(out.channel, self._kept, strict=True):
            total = total + _between(kept, mask.float().sum(1))
        share: Tensor = total / self._full
        return share


def _between(values: Tensor, at: Tensor) -> Tensor:
    """``values`` at whole numbers ``at``, ``(n,)``; the gradient is the slope there."""
    whole = at.detach().round().long().clamp(0, len(values) - 1)
    above, below = (whole + 1).clamp(max=len(values) - 1), (whole - 1).clamp(min=0)
    slope = (values[above] - values[below]) / (above - below).clamp(min=1)
    return values[whole] + slope * (at - at.detach())


def skipping_costs(net: GatedNetwork) -> GatedCosts:
    """The paper's measure: every gated unit counts 1, times the share of its channels; gates nothing."""
    gated = set(net.gated) | set(net.channelled)
    units = {}
    for name in net.unit_names:
        groups = net.groups.get(name)
        kept = (1.0,) if groups is None else tuple(k / groups for k in range(groups + 1))
        units[name] = UnitCost(kept=kept if name in gated else (0.0,), gated=name in set(net.gated))
    return GatedCosts(unit="units", units=units, ends=0.0, heads={})


def alpha_sign(saved: float, target: float, band: float = 0.0) -> float:
    """Section IV-A: 1 where the batch saves less than the target, -1 where more, 0 where just that.

    Args:
        saved: by the batch.
        target: of the saving.
        band: within so much of the target the sign fades, in proportion to what is missing: a
            large alpha, as short schedules need, else drives the gates of a whole batch to and fro.
            The paper has none.
    """
    missing = target - saved
    if abs(missing) >= band:
        return float((missing > 0) - (missing < 0))
    return missing / band


def resource_loss(
    share: Tensor, *, units: int, target: float, alpha: float, band: float = 0.0
) -> Tensor:
    """``alpha * E`` with the sign that drives the batch towards the target.

    Args:
        share: of :class:`RunCost`, ``(n,)``.
        units: how many of the network's units E counts.
        target: saving, 0..1.
        alpha: positive; its sign is chosen here.
        band: of :func:`alpha_sign`.
    """
    mean = share.mean()
    return alpha_sign(1 - float(mean.detach()), target, band) * alpha * units * mean
