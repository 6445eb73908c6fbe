"""ImageNet's networks: published sizes, torchvision's names, and that they can be gated."""

from __future__ import annotations

import pytest
import torch

from dynrt.errors import DynrtError
from dynrt.zoo import (
    GatedNetwork,
    ImageNetDenseNet,
    ImageNetResNet,
    count_costs,
    densenet201,
    resnet101,
)
from tests.zoo.test_zoo_densenet import by_chain, parameters


def test_resnet101_has_torchvisions_size() -> None:
    net = resnet101()
    # torchvision: 44,549,160 parameters, 7.801 G multiply-accumulates, for its weights
    assert parameters(net) == 44_549_160
    costs = count_costs(GatedNetwork(net), height=224, width=224)
    assert round(costs.backbone / 1e9, 3) == 7.801
    keys = net.state_dict()
    assert {"conv1.weight", "layer3.22.bn3.bias", "layer2.0.downsample.1.running_mean"} <= set(keys)
    assert keys["fc.weight"].shape == (1000, 2048)


def test_densenet201_has_torchvisions_size() -> None:
    net = densenet201()
    # torchvision: 20,013,928 parameters, 4.291 G multiply-accumulates; DDI's table III: 4 G
    assert parameters(net) == 20_013_928
    costs = count_costs(GatedNetwork(net), height=224, width=224)
    assert round(costs.backbone / 1e9, 3) == 4.291
    keys = net.state_dict()
    wanted = {"features.conv0.weight", "features.norm5.bias", "classifier.bias"}
    assert wanted <= set(keys)
    assert "features.denseblock3.denselayer48.norm2.weight" in keys
    assert "features.transition3.conv.weight" in keys


@pytest.mark.parametrize(
    "net",
    [
        ImageNetResNet((2, 2), width=8, classes=4),
        ImageNetDenseNet((2, 3), growth=4, classes=4),
    ],
)
def test_small_ones_are_their_chains_and_take_all_gates(
    net: ImageNetResNet | ImageNetDenseNet,
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    net.eval()
    assert torch.equal(by_chain(net, x), net(x))
    gated = GatedNetwork(net, layer=True, channel="output").eval()
    out = gated(x)
    assert out.logits[-1].shape == (2, 4)
    assert len(out.channel) == out.layer.shape[1] == len(gated.gated)
    costs = count_costs(gated, height=32, width=32)
    # the light gate, not one that costs more than what it gates
    assert all(c.channel_gate < 0.5 * c.whole for c in costs.units.values())


def test_empty_stages_are_refused() -> None:
    with pytest.raises(DynrtError, match="at least one block"):
        ImageNetResNet((3, 0))
    with pytest.raises(DynrtError, match="at least one layer"):
        ImageNetDenseNet(())


def test_branches_are_for_cifar() -> None:
    with pytest.raises(DynrtError, match="branches are not made for a ImageNetResNet"):
        GatedNetwork(ImageNetResNet((2, 2), width=8), branches=True)
