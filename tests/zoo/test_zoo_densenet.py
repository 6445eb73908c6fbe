"""The CIFAR DenseNet: its sizes, its parts, and that the chain is the network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dynrt.errors import DynrtError
from dynrt.zoo import DenseNet, GatedNetwork, count_costs
from dynrt.zoo.chain import Backbone
from dynrt.zoo.densenet import DenseLayer, MaskedDenseLayer


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def by_chain(net: Backbone, x: Tensor) -> Tensor:
    chain = net.chain()
    x = chain.stem(x)
    for unit in chain.units:
        assert x.shape[1] == unit.c_in, unit.name
        y = unit.module(x)
        assert y.shape[1] == unit.c_out, unit.name
        x = torch.cat([x, y], 1) if unit.dense else y
        assert x.shape[1] == unit.c_behind, unit.name
    logits: Tensor = chain.classifier(chain.pool(x))
    return logits


def test_bc_100_has_the_published_size() -> None:
    net = DenseNet(100)
    assert parameters(net) == 769_162  # 0.8 M in Huang et al., table 2
    assert count_costs(GatedNetwork(net)).backbone == 287_929_692  # 576 MFLOPs; DDI: 580


def test_plain_100_has_the_published_size() -> None:
    # 7.0 M in Huang et al., table 2 (growth rate 12, no bottleneck, no compression)
    net = DenseNet(100, bottleneck=False, compression=1.0)
    assert round(parameters(net) / 1e6, 1) == 7.0
    assert [len(stage) for stage in net.chain().stages()] == [33, 33, 32]


def test_weights_have_the_usual_names() -> None:
    keys = DenseNet(10).state_dict()
    assert {"conv1.weight", "block1.layer.0.bn2.running_var", "trans2.conv1.weight"} <= keys.keys()
    assert {"bn1.weight", "fc.bias"} <= keys.keys()


@pytest.mark.parametrize("bottleneck", [True, False])
def test_the_chain_is_the_network(bottleneck: bool) -> None:
    torch.manual_seed(0)
    net = DenseNet(16, growth=4, bottleneck=bottleneck, compression=0.5).eval()
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(by_chain(net, x), net(x))


def test_the_first_layer_of_a_dense_block_and_transitions_always_run() -> None:
    units = DenseNet(22).chain().units
    always = [u.name for u in units if not u.skippable]
    assert always == ["dense1", "transition1", "dense4", "transition2", "dense7"]
    for unit in units:
        assert DenseNet(22).get_submodule(unit.path).__class__ is unit.module.__class__


@pytest.mark.parametrize(
    ("depth", "bottleneck", "message"),
    [
        (101, True, "with bottlenecks has depth 6n \\+ 4, not 101"),
        (4, True, "not 4"),
        (9, False, "depth 3n \\+ 4, not 9"),
    ],
)
def test_depths_that_do_not_exist_are_refused(depth: int, bottleneck: bool, message: str) -> None:
    with pytest.raises(DynrtError, match=message):
        DenseNet(depth, bottleneck=bottleneck)


@pytest.mark.parametrize("wrong", [{"growth": 0}, {"classes": 1}, {"compression": 0.0}])
def test_sizes_that_do_not_exist_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(DynrtError, match="growth"):
        DenseNet(10, **wrong)  # type: ignore[arg-type]


def test_a_masked_layer_is_the_layer_and_drops_groups() -> None:
    torch.manual_seed(0)
    layer = DenseLayer(6, 4, 8).eval()
    masked = MaskedDenseLayer.of(layer, groups=2)
    x = torch.randn(2, 6, 5, 5)
    assert torch.equal(masked(x, torch.ones(2, 2)), layer(x))
    with torch.no_grad():  # without the second group's filters
        layer.conv2.weight[:, 4:] = 0
    assert torch.allclose(masked(x, torch.tensor([[1.0, 0.0]] * 2)), layer(x), atol=1e-6)


@pytest.mark.parametrize(("middle", "groups"), [(0, 1), (8, 3), (8, 0)])
def test_masks_need_whole_groups(middle: int, groups: int) -> None:
    with pytest.raises(DynrtError, match="equal groups"):
        MaskedDenseLayer(6, 4, middle, groups=groups)
