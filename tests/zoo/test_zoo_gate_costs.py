"""What gates cost: by hand, against torch's counter, and beside the paper's shares."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dynrt.zoo import DenseNet, GatedNetwork, ResNet, count_costs, gate_shares
from dynrt.zoo.gate_costs import (
    PAPER_CHANNEL_SHARE,
    PAPER_DENSE_CHANNEL_SHARE,
    PAPER_LAYER_SHARE,
    GatedCosts,
)

BLOCK = 4_718_592  # 2 * 9 * 16 * 16 * 32 * 32, and the same in every stage


def _counted(module: nn.Module, *inputs: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(*inputs)
    return int(counter.get_total_flops()) // 2


def resnet38(channel: str = "none", size: int = 1) -> GatedCosts:
    net = GatedNetwork(ResNet(38), channel=channel, group_channels=size, branches=True)  # type: ignore[arg-type]
    return count_costs(net)


def test_resnet38_by_hand() -> None:
    costs = resnet38()
    assert costs.backbone == 83_018_368
    assert costs.ends == 9 * 3 * 16 * 32 * 32 + 640
    assert list(costs.units["block2"].kept) == [BLOCK]
    assert list(costs.units["block7"].kept) == [3_538_944]
    # projection, LSTM, score
    assert costs.units["block2"].layer_gate == 16 * 10 + 4 * 10 * 20 + 10
    assert costs.units["block18"].layer_gate == 64 * 10 + 4 * 10 * 20 + 10
    assert costs.units["block1"].layer_gate == 0
    assert sum(c.gated for c in costs.units.values()) == 15
    assert costs.heads["exit1"] == 294_912 + 320


def test_output_channels_save_the_second_convolutions_filters() -> None:
    costs = resnet38("output")
    block = costs.units["block8"]
    assert len(block.kept) == 33
    assert block.whole == BLOCK
    assert block.kept[0] == BLOCK // 2
    assert block.kept[1] - block.kept[0] == BLOCK // 64
    # 3x3 convolution of stride 2, linear layer
    assert block.channel_gate == BLOCK // 8 + 32 * 32


def test_inner_groups_save_both_convolutions() -> None:
    block = resnet38("inner", 16).units["block14"]
    assert list(block.kept) == [0, BLOCK / 4, BLOCK / 2, 3 * BLOCK / 4, BLOCK]
    assert block.channel_gate == 64 * 4


def test_dense_layers_by_hand() -> None:
    net = GatedNetwork(DenseNet(100), channel="output")
    layer = count_costs(net).units["dense2"]
    # 1x1 from 24 + 12 channels to 48, 3x3 to 12, on 32 x 32
    assert layer.whole == (36 * 48 + 9 * 48 * 12) * 1024
    assert layer.kept[0] == 36 * 48 * 1024
    # 1x1/2 to 24 channels, 3x3 to 12, linear layer
    assert layer.channel_gate == (36 * 24 + 9 * 24 * 12) * 256 + 144


@pytest.mark.parametrize("kind", ["resnet", "densenet"])
def test_torch_counts_the_same(kind: str) -> None:
    backbone = ResNet(14) if kind == "resnet" else DenseNet(16)
    net = GatedNetwork(backbone, channel="output", branches=True)
    costs = count_costs(net)
    features = {"x": torch.zeros(1, 3, 32, 32)}
    chain = net.chain
    x = chain.stem(features["x"])
    masks = dict(zip(net.channelled, net.channel_gates or (), strict=True))
    ends = _counted(chain.stem, features["x"])
    for unit in chain.units:
        assert costs.units[unit.name].whole == _counted(unit.module, x)
        if unit.name in masks:
            assert costs.units[unit.name].channel_gate == _counted(masks[unit.name], x)
        y = unit.module(x)
        x = torch.cat([x, y], 1) if unit.dense else y
    assert costs.ends == ends + chain.classifier.weight.numel()


def test_counting_changes_nothing() -> None:
    net = GatedNetwork(ResNet(14), channel="output")
    net.freeze_backbone()
    net.train()
    before = {k: t.clone() for k, t in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    count_costs(net)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(t, before[k]) for k, t in net.state_dict().items())


def test_shares_beside_the_papers() -> None:
    resnet = gate_shares(resnet38("output"))
    assert resnet.channel == pytest.approx(PAPER_CHANNEL_SHARE, rel=0.01)
    # the paper's 0.04 % is of a ResNet-34's block; a CIFAR block of the same form is smaller
    assert resnet.layer is not None
    assert resnet.layer == pytest.approx(0.00025, rel=0.01)
    assert resnet.layer < PAPER_LAYER_SHARE
    dense = gate_shares(count_costs(GatedNetwork(DenseNet(100), channel="output")))
    # one eighth of a dense layer, and of the whole network what the paper states
    assert dense.channel == pytest.approx(0.125, rel=0.01)
    assert dense.network == pytest.approx(PAPER_DENSE_CHANNEL_SHARE, abs=0.006)


def test_shares_of_gates_that_are_not_there() -> None:
    shares = gate_shares(resnet38())
    assert shares.channel is None
    assert shares.network == pytest.approx(15 * 0.00025 * BLOCK / 83_018_368, rel=0.01)
    only = GatedNetwork(ResNet(14), layer=False, channel="output")
    assert gate_shares(count_costs(only)).layer is None
