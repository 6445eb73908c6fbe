"""Residual blocks whose inner channels may be left out in groups.

Gao et al. and DDI gate single channels. On a CPU only whole SIMD blocks of channels *between* two
convolutions can be left out in time, so here a mask stands there, one value per group (16 channels
for AVX-512, 8 for AVX2). DDI's channel gates act on a block's output instead (equation 2: a
skipped channel hands on its own input); that is another network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynrt.errors import DynrtError
from dynrt.zoo.resnet import BasicBlock

#: A group is kept where its mask is at least this; as in ``dynrt.ir.masks``.
KEPT_FROM = 0.5


def kept_channels(mask: Tensor, groups: int, channels: int, training: bool) -> Tensor:
    """1 on the channels of kept groups, 0 on the others: ``(n, channels, 1, 1)``.

    Args:
        mask: ``(n, groups)``; a group is kept from :data:`KEPT_FROM` on.
        groups: of the channels; all alike.
        channels: how many there are.
        training: whether the mask gets the gradient of the 0 or 1 (straight through).
    """
    kept = (mask >= KEPT_FROM).to(mask.dtype)
    if training and mask.requires_grad:
        kept = kept + (mask - mask.detach())
    size = channels // groups
    # Sizes that do not come from x, so that the exported graph keeps them on the mask's side.
    return kept[:, :, None].expand(-1, -1, size).reshape(-1, groups * size, 1, 1)


class MaskedBlock(BasicBlock):
    """A basic block with a mask on the channels between its convolutions; the same weights.

    Args:
        c_in, c_out, stride: as of :class:`BasicBlock`.
        groups: of the ``c_out`` inner channels; all alike.

    Raises:
        DynrtError: the channels are no whole number of groups.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1, *, groups: int) -> None:
        super().__init__(c_in, c_out, stride)
        if groups < 1 or c_out % groups:
            raise DynrtError(f"{c_out} channels are no {groups} equal groups")
        self.groups = groups

    @classmethod
    def of(cls, block: BasicBlock, *, groups: int) -> MaskedBlock:
        """A masked block with a copy of ``block``'s weights.

        Raises:
            DynrtError: its channels are no whole number of ``groups``.
        """
        made = cls(block.conv1.in_channels, block.conv1.out_channels, block.stride, groups=groups)
        made.load_state_dict(block.state_dict())
        return made.train(block.training)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]  # one more
        """``(n, c_in, h, w)`` and ``(n, groups)`` to ``(n, c_out, h / stride, w / stride)``.

        The gradient of the mask is that of the 0 or 1 it stands for (straight through).
        """
        y = functional.relu(self.bn1(self.conv1(x)))
        kept = kept_channels(mask, self.groups, self.conv1.out_channels, self.training)
        y = self.bn2(self.conv2(y * kept))
        return functional.relu(y + self.shortcut(x))


class MaskGate(nn.Module):
    """A mask from a block's input: global average pooling, one linear layer, a sigmoid.

    Starts with every group kept, since its bias is positive and its weights are small.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, groups)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.constant_(self.linear.bias, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channels, h, w)`` to ``(n, groups)``, in 0..1."""
        return torch.sigmoid(self.linear(x.mean((2, 3))))
