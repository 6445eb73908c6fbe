"""The CIFAR ResNet: its costs in closed form, its shortcut, its published keys."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dynrt.errors import DynrtError
from dynrt.zoo import BasicBlock, ResNet, segments


def macs_of(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of one picture (or map) of ``shape``, as torch counts them."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module.eval()(torch.zeros(1, *shape))
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return int(flops // 2)


def test_resnet38_costs_what_the_paper_says() -> None:
    # stem 9 * 3 * 16 * 32^2; 16 plain blocks of 2 * 9 * 16^2 * 32^2; the first block of stages 2
    # and 3 has half the input channels in its first convolution; 64 * 10 at the end.
    stem, plain = 9 * 3 * 16 * 32**2, 2 * 9 * 16**2 * 32**2
    narrow = 9 * 16 * 32 * 16**2 + 9 * 32**2 * 16**2
    assert (stem, plain, narrow) == (442_368, 4_718_592, 3_538_944)
    total = stem + 16 * plain + 2 * narrow + 640
    assert macs_of(ResNet(38), (3, 32, 32)) == total == 83_018_368
    assert f"{2 * total / 1e6:.2f}" == "166.04"


def test_resnet74_costs_what_the_paper_says() -> None:
    # 36 blocks: 34 plain ones. The paper's 340 MFLOPs is this, rounded.
    assert macs_of(ResNet(74), (3, 32, 32)) == 442_368 + 34 * 4_718_592 + 2 * 3_538_944 + 640


def test_parameter_count_of_resnet38() -> None:
    assert sum(p.numel() for p in ResNet(38).parameters()) == 561_370


def test_segments_cost_what_their_blocks_cost() -> None:
    shape: tuple[int, ...] = (3, 32, 32)
    x = torch.zeros(1, *shape)
    costs = {}
    for name, module in segments(ResNet(38)):
        costs[name] = macs_of(module, shape)
        with torch.no_grad():
            x = module.eval()(x)
        shape = tuple(x.shape[1:])
    assert list(costs) == ["stem", *(f"block{i}" for i in range(1, 19))]
    assert costs.pop("stem") == 442_368
    assert costs.pop("block7") == costs.pop("block13") == 3_538_944
    assert set(costs.values()) == {4_718_592}
    assert shape == (64, 8, 8)


def test_segments_in_a_row_are_the_network() -> None:
    torch.manual_seed(1)
    net = ResNet(14, width=4).eval()
    x = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        y = x
        for _, module in segments(net):
            y = module(y)
        assert torch.equal(net.head(y), net(x))


def test_option_a_takes_every_second_pixel_and_pads_channels_on_both_sides() -> None:
    block = BasicBlock(2, 4, 2).eval()
    nn.init.zeros_(block.bn2.weight)  # the convolutions give zero: only the shortcut is left
    x = torch.arange(2 * 4 * 4, dtype=torch.float32).reshape(1, 2, 4, 4)
    with torch.no_grad():
        y: Tensor = block(x)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert not y[:, 0].any()
    assert not y[:, 3].any()
    assert [name for name, _ in block.named_parameters() if "conv" not in name] == [
        "bn1.weight",
        "bn1.bias",
        "bn2.weight",
        "bn2.bias",
    ]


def test_state_dict_has_the_published_keys() -> None:
    keys = set(ResNet(20).state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer3.2.conv2.weight", "linear.bias"} <= keys
    assert {key.split(".")[0] for key in keys} == {
        "conv1",
        "bn1",
        "layer1",
        "layer2",
        "layer3",
        "linear",
    }


@settings(max_examples=12)
@given(k=st.integers(1, 6), width=st.integers(1, 4), classes=st.integers(2, 5))
def test_any_depth_6k_plus_2(k: int, width: int, classes: int) -> None:
    net = ResNet(6 * k + 2, width=width, classes=classes).eval()
    assert len(net.blocks()) == 3 * k
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules()) == 6 * k + 2
    with torch.no_grad():
        assert net(torch.zeros(2, 3, 8, 8)).shape == (2, classes)


@pytest.mark.parametrize("depth", [2, 7, 36, 110 - 1, -4])
def test_other_depths_are_refused(depth: int) -> None:
    with pytest.raises(DynrtError, match=f"6k \\+ 2 .* not {depth}"):
        ResNet(depth)


@pytest.mark.parametrize(("width", "classes"), [(0, 10), (16, 1)])
def test_a_network_needs_channels_and_classes(width: int, classes: int) -> None:
    with pytest.raises(DynrtError, match=f"width {width} .* classes {classes}"):
        ResNet(8, width=width, classes=classes)
