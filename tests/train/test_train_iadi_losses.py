"""The resource loss: what a run takes, its gradient, and alpha's sign."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynrt.errors import RecipeError
from dynrt.train.iadi_losses import RunCost, alpha_sign, resource_loss, skipping_costs
from dynrt.zoo import DenseNet, GatedNetwork, GatedOutput, ResNet, count_costs
from dynrt.zoo.gate_costs import GatedCosts, UnitCost
from dynrt.zoo.gated_building import ChannelKind


def network(channel: ChannelKind, *, layer: bool = True, dense: bool = False) -> GatedNetwork:
    backbone = DenseNet(16, growth=4) if dense else ResNet(14, width=4)
    size = 2 if channel == "inner" else 1
    return GatedNetwork(backbone, layer=layer, channel=channel, group_channels=size)


def output(net: GatedNetwork, runs: list[list[int]], kept: list[list[list[int]]]) -> GatedOutput:
    """What a network would give that decides so, by picture; ``kept`` also by unit."""
    layer = torch.tensor(runs, dtype=torch.float32).reshape(len(runs), -1)
    masks = []
    for i, name in enumerate(net.channelled):
        mask = torch.tensor([one[i] for one in kept], dtype=torch.float32)
        if name in net.gated:
            mask = mask * layer[:, [net.gated.index(name)]]
        masks.append(mask)
    return GatedOutput((), layer, layer, tuple(masks))


def by_hand(net: GatedNetwork, costs: GatedCosts, runs: list[int], kept: list[list[int]]) -> float:
    total = costs.ends
    for name, cost in costs.units.items():
        total += cost.layer_gate
        if name in net.gated and not runs[net.gated.index(name)]:
            continue
        total += cost.channel_gate
        groups = sum(kept[net.channelled.index(name)]) if name in net.channelled else -1
        total += cost.kept[groups]
    return total / costs.backbone


@given(st.data())
@settings(max_examples=40)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    ("channel", "layer"),
    [("none", True), ("output", True), ("inner", True), ("output", False), ("inner", False)],
)
def test_a_runs_cost_is_the_sum_of_what_ran(
    dense: bool, channel: ChannelKind, layer: bool, data: st.DataObject
) -> None:
    net = network(channel, layer=layer, dense=dense)
    costs = count_costs(net, height=16, width=16)
    bits = st.integers(0, 1)
    runs = [data.draw(st.lists(bits, min_size=len(net.gated), max_size=len(net.gated)))]
    kept = [[data.draw(st.lists(bits, min_size=g, max_size=g)) for g in net.groups.values()]]
    share = RunCost(costs, net)(output(net, runs, kept))
    assert float(share) == pytest.approx(by_hand(net, costs, runs[0], kept[0]), rel=1e-5)


def test_curves_that_are_not_straight_are_looked_up() -> None:
    net = network("output")
    whole = count_costs(net, height=16, width=16)
    units = {
        name: UnitCost(
            kept=tuple(float(k * k + 1) for k in range(len(cost.kept))),
            layer_gate=0.5,
            channel_gate=0.25,
            gated=cost.gated,
        )
        for name, cost in whole.units.items()
    }
    costs = GatedCosts(unit="J", units=units, ends=3.0, heads={})
    runs = [[1] * len(net.gated), [0] * len(net.gated)]
    kept = [[[1] + [0] * (g - 1) for g in net.groups.values()]] * 2
    share = RunCost(costs, net)(output(net, runs, kept)).tolist()
    assert share[0] == pytest.approx(by_hand(net, costs, runs[0], kept[0]))
    assert share[1] == pytest.approx(by_hand(net, costs, runs[1], kept[1]))


def test_gradients_are_what_a_decision_is_worth() -> None:
    net = network("output")
    costs = count_costs(net, height=16, width=16)
    runs = torch.ones(1, len(net.gated), requires_grad=True)
    masks = [torch.ones(1, g, requires_grad=True) for g in net.groups.values()]
    seen = tuple(m * runs[:, [i]] for i, m in enumerate(masks))
    RunCost(costs, net)(GatedOutput((), runs, runs, seen)).sum().backward()
    assert runs.grad is not None
    for i, name in enumerate(net.gated):
        unit = costs.units[name]
        worth = (unit.channel_gate + unit.whole) / costs.backbone
        assert float(runs.grad[0, i]) == pytest.approx(worth, rel=1e-5)
        of_mask = masks[i].grad
        assert of_mask is not None
        one = (unit.kept[1] - unit.kept[0]) / costs.backbone
        assert of_mask[0].tolist() == pytest.approx([one] * len(unit.kept[1:]), rel=1e-4)


def test_the_papers_measure_counts_units_and_shares_of_channels() -> None:
    net = network("output")
    cost = RunCost(skipping_costs(net), net)
    groups = list(net.groups.values())
    half = [[1] * (g // 2) + [0] * (g - g // 2) for g in groups]
    runs = [[1] * len(groups), [0] * len(groups)]
    assert cost(output(net, runs, [half, half])).tolist() == pytest.approx([0.5, 0.0])
    layers = network("none")
    one = RunCost(skipping_costs(layers), layers)
    assert one(output(layers, [[1, 0, 0]], [])).tolist() == pytest.approx([1 / 3])
    assert one.units == len(layers.gated) == 3


def test_costs_of_another_network_are_refused() -> None:
    with pytest.raises(RecipeError, match="not those of this network's units"):
        RunCost(count_costs(network("none", dense=True)), network("none"))


@given(st.floats(-0.2, 1), st.floats(0, 1))
def test_alpha_is_positive_below_the_target_and_negative_above(saved: float, target: float) -> None:
    sign = alpha_sign(saved, target)
    assert sign == (1 if saved < target else -1 if saved > target else 0)


@given(st.floats(-0.2, 1), st.floats(0, 1), st.floats(0.01, 0.5))
def test_within_the_band_alpha_fades(saved: float, target: float, band: float) -> None:
    faded, bare = alpha_sign(saved, target, band), alpha_sign(saved, target)
    assert abs(faded) <= 1
    assert faded * bare >= 0
    if abs(target - saved) >= band:
        assert faded == bare
    else:
        assert faded == pytest.approx((target - saved) / band)


def test_the_loss_drives_towards_the_target() -> None:
    def slope(shares: list[float], target: float) -> float:
        share = torch.tensor(shares, requires_grad=True)
        loss: Tensor = resource_loss(share, units=10, target=target, alpha=0.5)
        loss.backward()
        assert share.grad is not None
        return float(share.grad.sum())

    assert slope([0.8, 0.9], 0.5) == pytest.approx(5.0)  # spends too much: cheaper
    assert slope([0.2, 0.1], 0.5) == pytest.approx(-5.0)  # saves too much: dearer
    assert slope([1.0, 1.0], 0.0) == 0.0
    loss = resource_loss(torch.tensor([0.8]), units=10, target=0.5, alpha=0.5)
    assert float(loss) == pytest.approx(4.0)
