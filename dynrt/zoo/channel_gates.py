"""DDI's channel gates (Wang et al., section III-A): which of a unit's channels are computed.

Two places can be gated. ``output`` is the paper's: a skipped output channel hands on its own input
channel (equation 2; in a DenseNet, that channel of the dense layer before). Only the filters of the
last convolution that give it are saved. ``inner`` drops groups of channels *between* two
convolutions (:mod:`dynrt.zoo.masked`): both convolutions save, and on a CPU in time.

The paper gives the gates' layers (a 3x3 convolution of stride 2, pooling, a linear layer, a sigmoid)
and not what stands between them; batch norm and ReLU behind the convolution are ours, since a
linear convolution before a mean would be no more than a linear layer on pooled features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynrt.errors import DynrtError
from dynrt.zoo.masked import KEPT_FROM

#: Channels are kept at first: the score of a gate that has learnt nothing is sigmoid(1) = 0.73.
_FIRST_BIAS = 1.0


class _MaskHead(nn.Linear):
    """From a pooled vector to one score per group; small weights and a positive bias at first."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.01)
        nn.init.constant_(self.bias, _FIRST_BIAS)


class ChannelGate(nn.Module):
    """The gate of a residual block: 3x3/2 convolution, average pool, linear layer, sigmoid.

    One eighth of the multiplications of a basic block of as many channels.

    Args:
        channels: that the block takes, and that the convolution gives.
        groups: of the block's output channels.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.linear = _MaskHead(channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channels, h, w)`` to ``(n, groups)``, in 0..1."""
        vector = functional.relu(self.bn(self.conv(x))).mean((2, 3))
        return torch.sigmoid(self.linear(vector))


class LightGate(nn.Module):
    """The gate of a dense layer: its two convolutions with stride 2 and half of the channels between.

    Residual blocks that begin with a 1x1 convolution have it too: before such a block, a
    :class:`ChannelGate` would take twice what the block does.

    Args:
        channels: that the unit takes.
        middle: channels after the 1x1 convolution: half of the unit's own.
        growth: channels after the 3x3 convolution.
        groups: of the unit's output channels.
    """

    def __init__(self, channels: int, middle: int, growth: int, groups: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, middle, 1, 2, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, growth, 3, 1, 1, bias=False)
        self.linear = _MaskHead(growth, groups)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channels, h, w)`` to ``(n, groups)``, in 0..1."""
        y = self.conv1(functional.relu(self.bn1(x)))
        y = functional.relu(self.conv2(functional.relu(self.bn2(y))))
        return torch.sigmoid(self.linear(y.mean((2, 3))))


def spread(mask: Tensor, channels: int) -> Tensor:
    """A value per group, ``(n, groups)``, to one per channel that broadcasts: ``(n, channels, 1, 1)``."""
    groups = mask.shape[1]
    if groups == channels:
        return mask[:, :, None, None]
    return mask[:, :, None].expand(-1, -1, channels // groups).reshape(-1, channels, 1, 1)


class OutputMasked(nn.Module):
    """A residual block of which some output channels hand on the input's: equation 2.

    Args:
        block: gives the shape that it takes; its weights are shared.
        channels: of its output.
        groups: of these.
    """

    def __init__(self, block: nn.Module, channels: int, groups: int) -> None:
        super().__init__()
        self.block = block
        self.channels = channels
        self.groups = groups

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Features ``(n, channels, h, w)`` and mask ``(n, groups)`` to features."""
        kept = spread((mask >= KEPT_FROM).to(x.dtype), self.channels)
        out: Tensor = kept * self.block(x) + (1 - kept) * x
        return out


class DenseOutputMasked(nn.Module):
    """A dense layer of which some new channels are those of the dense layer before it.

    Args:
        layer: its weights are shared.
        growth: its new channels.
        groups: of these.
    """

    def __init__(self, layer: nn.Module, growth: int, groups: int) -> None:
        super().__init__()
        self.layer = layer
        self.growth = growth
        self.groups = groups

    def forward(self, x: Tensor, previous: Tensor, mask: Tensor) -> Tensor:
        """Features, the layer's new features before and mask ``(n, groups)`` to new features."""
        kept = spread((mask >= KEPT_FROM).to(x.dtype), self.growth)
        out: Tensor = kept * self.layer(x) + (1 - kept) * previous
        return out


def whole_groups(channels: int, size: int, place: str) -> int:
    """How many groups of ``size`` channels there are.

    Raises:
        DynrtError: no whole number.
    """
    if size < 1 or channels % size:
        raise DynrtError(f"{place}: {channels} channels are no whole groups of {size}")
    return channels // size
