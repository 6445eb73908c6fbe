"""DDI's branch exits (Wang et al., section III-B): two classifiers on every stage of a ResNet.

The paper puts branches at about 1/4 and 3/4 of each stage and, because early maps are large and
fine, adds max pooling at the start of the early branches; it leaves the exact layers to its code.
These heads follow the two rules and are sized so that on ResNet-38 a budget of 41 MFLOPs still
reaches the second exit and 170 MFLOPs cover the whole network with every head:

========  ===========================================================  ========
exit      layers before the average pool (width 16)                    MACs
========  ===========================================================  ========
1         max pool 4, 3x3 16 -> 32                                     294,912
2         max pool 2, 3x3/2 16 -> 48, 3x3/2 48 -> 64                   884,736
3 and 4   max pool 2, 3x3/2 32 -> 64                                   294,912
5 and 6   max pool 2, 1x1 64 -> 64                                     65,536
========  ===========================================================  ========
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from dynrt.errors import DynrtError
from dynrt.zoo.resnet import ResNet


def branch_positions(blocks_per_stage: int) -> tuple[int, ...]:
    """After which blocks (counted from 1) branches stand: 1/4 and 3/4 of each of three stages.

    For 6 blocks a stage 1, 4, 7, 10, 13, 16; for 12 blocks 3, 9, 15, 21, 27, 33; where both fall
    on one block (fewer than 3 blocks a stage) there is one branch.

    Raises:
        DynrtError: fewer than one block a stage.
    """
    if blocks_per_stage < 1:
        raise DynrtError(f"a stage has at least one block, not {blocks_per_stage}")
    inside = sorted({max(1, blocks_per_stage // 4), max(1, 3 * blocks_per_stage // 4)})
    return tuple(stage * blocks_per_stage + at for stage in range(3) for at in inside)


class _ConvBnRelu(nn.Sequential):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
        )


def _features(stage: int, *, early: bool, width: int) -> tuple[nn.Sequential, int]:
    """The layers before a branch's average pool, and how many channels they give."""
    wide = 4 * width
    if stage == 0 and early:
        return nn.Sequential(nn.MaxPool2d(4), _ConvBnRelu(width, 2 * width, 3, 1)), 2 * width
    if stage == 0:
        first = _ConvBnRelu(width, 3 * width, 3, 2)
        return nn.Sequential(nn.MaxPool2d(2), first, _ConvBnRelu(3 * width, wide, 3, 2)), wide
    if stage == 1:
        return nn.Sequential(nn.MaxPool2d(2), _ConvBnRelu(2 * width, wide, 3, 2)), wide
    return nn.Sequential(nn.MaxPool2d(2), _ConvBnRelu(wide, wide, 1, 1)), wide


class BranchHead(nn.Module):
    """A branch classifier: a few layers, global average pooling, a linear layer.

    Args:
        features: the layers.
        feature_size: channels that they give.
        classes: of the linear layer.
    """

    def __init__(self, features: nn.Sequential, feature_size: int, classes: int) -> None:
        super().__init__()
        self.features = features
        self.feature_size = feature_size
        self.classifier = nn.Linear(feature_size, classes)

    def pooled(self, x: Tensor) -> Tensor:
        """A block's output to the feature vector ``(n, feature_size)`` that is classified."""
        vector: Tensor = self.features(x).mean((2, 3))
        return vector

    def forward(self, x: Tensor) -> Tensor:
        """A block's output to logits ``(n, classes)``."""
        logits: Tensor = self.classifier(self.pooled(x))
        return logits


class Branch(BranchHead):
    """The branch of a CIFAR ResNet.

    Args:
        stage: 0, 1 or 2.
        early: whether it stands in the first half of its stage.
        width: channels of the first stage.
        classes: of the linear layer.
    """

    def __init__(self, stage: int, *, early: bool, width: int = 16, classes: int = 10) -> None:
        super().__init__(*_features(stage, early=early, width=width), classes)


class DenseBranch(BranchHead):
    """The branch of a CIFAR DenseNet, whose features come before batch norm and ReLU.

    Batch norm, ReLU, max pool 2, 1x1 to 64 channels; where the map is still large, then 3x3/2 to
    128. About 2, 1 and 0.1 % of DenseNet-BC-100's multiplications in the three stages.

    Args:
        channels: of the features.
        stage: 0, 1 or 2.
        classes: of the linear layer.
    """

    def __init__(self, channels: int, stage: int, *, classes: int = 10) -> None:
        layers = [nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2)]
        if stage < 2:
            layers += [_ConvBnRelu(channels, 64, 1, 1), _ConvBnRelu(64, 128, 3, 2)]
        else:
            layers += [_ConvBnRelu(channels, 128, 1, 1)]
        super().__init__(nn.Sequential(*layers), 128, classes)


class BranchedResNet(nn.Module):
    """A :class:`~dynrt.zoo.resnet.ResNet` with DDI's branches: ``backbone`` and ``branches``.

    Attributes:
        positions: the block, counted from 1, that each branch stands behind.
        exit_names: ``exit1``, ``exit2``, ... and ``final``, in the order of the outputs.
    """

    def __init__(self, depth: int, *, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.backbone = ResNet(depth, classes=classes, width=width)
        per_stage = self.backbone.blocks_per_stage
        self.positions = branch_positions(per_stage)
        starts = {stage * per_stage + max(1, per_stage // 4) for stage in range(3)}
        self.branches = nn.ModuleList(
            Branch((at - 1) // per_stage, early=at in starts, width=width, classes=classes)
            for at in self.positions
        )
        self.exit_names = (*(f"exit{i}" for i in range(1, len(self.positions) + 1)), "final")

    def branch(self, index: int) -> Branch:
        """The branch of exit ``index + 1``."""
        return cast("Branch", self.branches[index])

    def at_branches(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Normalised pictures to the maps that the branches see, and the last block's output."""
        x = self.backbone.stem(x)
        maps = []
        for number, block in enumerate(self.backbone.blocks(), 1):
            x = block(x)
            if number in self.positions:
                maps.append(x)
        return maps, x

    def pooled(self, x: Tensor) -> list[Tensor]:
        """Normalised pictures ``(n, 3, h, w)`` to each branch's vector ``(n, feature_size)``."""
        maps, _ = self.at_branches(x)
        return [self.branch(i).pooled(seen) for i, seen in enumerate(maps)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Normalised pictures to logits ``(n, classes)`` of every branch, then of the last exit."""
        x = self.backbone.stem(x)
        logits: list[Tensor] = []
        # Each branch right behind its block: the order in which gradients are summed hangs on it.
        for number, block in enumerate(self.backbone.blocks(), 1):
            x = block(x)
            if number in self.positions:
                logits.append(self.branches[len(logits)](x))
        return (*logits, self.backbone.head(x))
