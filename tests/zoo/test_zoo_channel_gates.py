"""Channel gates: what they compute, and what a masked unit hands on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from dynrt.errors import DynrtError
from dynrt.zoo.channel_gates import (
    ChannelGate,
    DenseOutputMasked,
    LightGate,
    OutputMasked,
    spread,
    whole_groups,
)
from dynrt.zoo.densenet import DenseLayer
from dynrt.zoo.resnet import BasicBlock


def test_the_gate_is_convolution_pool_linear_sigmoid() -> None:
    torch.manual_seed(0)
    gate = ChannelGate(4, 6).eval()
    x = torch.randn(2, 4, 9, 9)
    y = functional.conv2d(x, gate.conv.weight, stride=2, padding=1)
    vector = gate.bn(y).clamp(min=0).mean((2, 3))
    wanted = torch.sigmoid(vector @ gate.linear.weight.T + gate.linear.bias)
    assert y.shape[2:] == (5, 5)
    assert torch.allclose(gate(x), wanted, atol=1e-6)


def test_the_light_gate_is_the_dense_layer_on_a_quarter_of_the_pixels() -> None:
    gate = LightGate(10, 4, 3, 3).eval()
    assert gate.conv1.stride == (2, 2)
    assert gate.conv1.weight.shape == (4, 10, 1, 1)
    assert gate.conv2.weight.shape == (3, 4, 3, 3)
    assert gate(torch.randn(2, 10, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize("gate", [ChannelGate(8, 8), LightGate(8, 4, 4, 4)])
def test_gates_start_with_every_channel_kept(gate: ChannelGate | LightGate) -> None:
    torch.manual_seed(0)
    scores = gate(torch.randn(16, 8, 8, 8))
    assert bool((scores > 0.5).all())
    assert bool((scores < 1).all())


masks = st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4)


@given(masks)
@settings(max_examples=25)
def test_equation_2_channel_by_channel(mask: list[float]) -> None:
    torch.manual_seed(1)
    block = BasicBlock(4, 4, 1).eval()
    x, m = torch.randn(1, 4, 6, 6), torch.tensor([mask])
    with torch.no_grad():
        out, whole = OutputMasked(block, 4, 4)(x, m), block(x)
    for channel, value in enumerate(mask):
        source = whole if value >= 0.5 else x
        assert torch.equal(out[:, channel], source[:, channel])


@given(masks)
@settings(max_examples=25)
def test_a_dense_layers_dropped_channel_is_the_one_before(mask: list[float]) -> None:
    torch.manual_seed(1)
    layer = DenseLayer(6, 4, 8).eval()
    x, previous, m = torch.randn(1, 6, 6, 6), torch.randn(1, 4, 6, 6), torch.tensor([mask])
    with torch.no_grad():
        out, whole = DenseOutputMasked(layer, 4, 4)(x, previous, m), layer(x)
    for channel, value in enumerate(mask):
        source = whole if value >= 0.5 else previous
        assert torch.equal(out[:, channel], source[:, channel])


def test_groups_are_runs_of_channels() -> None:
    mask = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert spread(mask, 6)[:, :, 0, 0].tolist() == [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]
    assert whole_groups(6, 3, "here") == 2
    with pytest.raises(DynrtError, match="here: 6 channels are no whole groups of 4"):
        whole_groups(6, 4, "here")
    with pytest.raises(DynrtError, match="whole groups of 0"):
        whole_groups(6, 0, "here")
