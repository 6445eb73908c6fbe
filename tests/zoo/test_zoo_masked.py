"""Masked blocks and their gates in torch."""

from __future__ import annotations

import pytest
import torch

from dynrt.errors import DynrtError
from dynrt.zoo import BasicBlock, MaskedBlock, MaskGate


def test_all_kept_is_the_basic_block() -> None:
    torch.manual_seed(0)
    block = BasicBlock(8, 16, 2).eval()
    masked = MaskedBlock.of(block, groups=4)
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(masked(x, torch.ones(2, 4)), block(x))
    assert not masked.training
    assert masked.state_dict().keys() == block.state_dict().keys()


def test_a_dropped_group_is_as_if_its_weights_were_zero() -> None:
    torch.manual_seed(0)
    block = BasicBlock(8, 8, 1).eval()
    masked = MaskedBlock.of(block, groups=2)
    x = torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        got = masked(x, torch.tensor([[0.7, 0.3]]))
        block.conv2.weight[:, 4:] = 0
        torch.testing.assert_close(got, block(x))


def test_gradients_go_straight_through_to_the_mask() -> None:
    torch.manual_seed(0)
    block = MaskedBlock(8, 8, groups=2).train()
    mask = torch.tensor([[0.7, 0.3], [0.2, 0.1]], requires_grad=True)
    x = torch.randn(2, 8, 6, 6)
    got = block(x, mask)
    got.square().sum().backward()
    assert mask.grad is not None
    assert (mask.grad != 0).all()
    torch.testing.assert_close(block(x, (mask >= 0.5).float()), got)


def test_a_new_gate_keeps_everything() -> None:
    torch.manual_seed(0)
    mask = MaskGate(8, 4)(torch.randn(16, 8, 6, 6))
    assert mask.shape == (16, 4)
    assert bool(((mask >= 0.5) & (mask <= 1)).all())


@pytest.mark.parametrize("groups", [0, 3, -2])
def test_groups_must_divide_the_channels(groups: int) -> None:
    with pytest.raises(DynrtError, match=f"8 channels are no {groups} equal groups"):
        MaskedBlock(8, 8, groups=groups)
