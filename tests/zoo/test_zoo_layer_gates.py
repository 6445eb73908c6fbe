"""DDI's layer gates: which blocks have one, what one computes, and that they share their LSTM."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynrt.errors import DynrtError
from dynrt.zoo import ResNet, segments
from dynrt.zoo.layer_gates import GATE_WIDTH, LayerGates, mean_pool, skippable


def test_one_block_of_every_stage_of_resnet74_always_runs() -> None:
    found = skippable(ResNet(74))
    assert len(found) == 33
    assert sorted({*range(1, 37)} - {*found}) == [1, 13, 25]
    assert [found[2], found[14], found[36]] == [16, 32, 64]


def test_the_very_first_block_keeps_its_shape_too() -> None:
    assert set(skippable(ResNet(74), first=True)) - set(skippable(ResNet(74))) == {1}


@pytest.mark.parametrize("first", [False, True])
def test_gated_blocks_give_the_shape_that_they_take(first: bool) -> None:
    net = ResNet(14, width=4).eval()
    blocks = dict(enumerate(net.blocks(), 1))
    for number, channels in skippable(net, first=first).items():
        x = torch.zeros(1, channels, 8, 8)
        assert blocks[number](x).shape == x.shape


def test_a_network_without_a_block_to_skip_is_refused() -> None:
    with pytest.raises(DynrtError, match="ResNet-8 has no block to skip"):
        LayerGates(ResNet(8))
    assert list(LayerGates(ResNet(8), gate_first=True).by_segment()) == ["block1"]


def test_gates_carry_the_names_of_segments() -> None:
    net = ResNet(20)
    assert set(LayerGates(net).by_segment()) < {name for name, _ in segments(net)}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def test_a_gate_is_pool_projection_lstm_step_and_score() -> None:
    torch.manual_seed(0)
    gate = LayerGates(ResNet(14)).by_segment()["block4"]
    rng = np.random.default_rng(0)
    x, h, c = (rng.standard_normal(s).astype(np.float32) for s in ((2, 32, 4, 4), (2, 10), (2, 10)))
    with torch.no_grad():
        got = [t.numpy() for t in gate(*map(torch.from_numpy, (x, h, c)))]
    weight = {name: value.detach().numpy() for name, value in gate.named_parameters()}
    u = x.mean((2, 3)) @ weight["project.weight"].T + weight["project.bias"]
    z = u @ weight["cell.weight_ih"].T + weight["cell.bias_ih"]
    z += h @ weight["cell.weight_hh"].T + weight["cell.bias_hh"]
    i, f, g, o = np.split(z, 4, axis=1)
    c_next = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h_next = sigmoid(o) * np.tanh(c_next)
    score = sigmoid(h_next @ weight["score.weight"].T + weight["score.bias"])
    for mine, expected in zip(got, (score, h_next, c_next), strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-5)
    assert got[0].shape == (2, 1)


def test_the_lstm_and_the_score_are_shared_and_the_projections_are_not() -> None:
    gates = list(LayerGates(ResNet(20)).gates)
    shared = {"cell", "score"}
    for name in ("cell", "score", "project"):
        owners = {id(getattr(gate, name)) for gate in gates}
        assert len(owners) == (1 if name in shared else len(gates))
    assert gates[0].get_submodule("cell").hidden_size == GATE_WIDTH


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_pool_of_a_gate_is_the_mean_and_its_gradient_has_the_maps_layout(
    layout: torch.memory_format,
) -> None:
    x = torch.randn(3, 5, 4, 6, dtype=torch.float64).contiguous(memory_format=layout)
    x.requires_grad_()
    torch.testing.assert_close(mean_pool(x), x.mean((2, 3)))
    weights = torch.randn(3, 5, dtype=torch.float64)
    (grad,) = torch.autograd.grad((mean_pool(x) * weights).sum(), x)
    torch.testing.assert_close(grad, (weights / 24)[:, :, None, None].expand_as(x))
    if layout == torch.channels_last:
        assert grad.is_contiguous(memory_format=layout)
