"""ImageNet's ResNet-101 and DenseNet-201, layer by layer as torchvision's (weights load by name).

They are built, cut, gated, exported and counted here; trained weights are not part of dynrt.
ResNet-101 has 44,549,160 parameters and 7.8 G multiply-accumulates at 224x224, DenseNet-201
20,013,928 and 4.3 G.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynrt.errors import DynrtError
from dynrt.zoo.chain import Chain, Unit
from dynrt.zoo.densenet import NormPool
from dynrt.zoo.parts import MeanPool

#: A bottleneck block gives this many times its width, and a dense layer's bottleneck the growth rate.
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution and a shortcut; the stride is the 3x3 convolution's."""

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        c_out = EXPANSION * width
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.downsample = (
            nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
            if stride != 1 or c_in != c_out
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(n, c_in, h, w)`` to ``(n, 4 width, h / stride, w / stride)``."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class _Stem(nn.Module):
    """7x7/2 convolution, batch norm, ReLU, 3x3/2 max pool; shares its weights."""

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = conv
        self.bn = bn

    def forward(self, x: Tensor) -> Tensor:
        """Pictures ``(n, 3, h, w)`` to features ``(n, 64, h / 4, w / 4)``."""
        return functional.max_pool2d(functional.relu(self.bn(self.conv(x))), 3, 2, 1)


class ImageNetResNet(nn.Module):
    """A ResNet of bottleneck blocks: 3, 4, 23, 3 of them for ResNet-101.

    Args:
        blocks: per stage.
        width: of the first stage; 64.
        classes: of the linear layer.

    Raises:
        DynrtError: a stage without a block.
    """

    def __init__(
        self, blocks: Sequence[int] = (3, 4, 23, 3), *, width: int = 64, classes: int = 1000
    ) -> None:
        super().__init__()
        if not blocks or min(blocks) < 1:
            raise DynrtError(f"each stage has at least one block, not {tuple(blocks)}")
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = len(blocks)
        channels = width
        for stage, count in enumerate(blocks):
            wide = width * 2**stage
            layers = []
            for at in range(count):
                layers.append(Bottleneck(channels, wide, 2 if stage and not at else 1))
                channels = EXPANSION * wide
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(channels, classes)

    def chain(self) -> Chain:
        """Stem, ``block1``, ``block2``, ..., and the linear layer behind a global average pool."""
        units: list[Unit] = []
        for stage in range(self.stages):
            layer = cast("nn.Sequential", self.get_submodule(f"layer{stage + 1}"))
            for at, module in enumerate(layer):
                block = cast("Bottleneck", module)
                unit = Unit(
                    name=f"block{len(units) + 1}",
                    path=f"layer{stage + 1}.{at}",
                    module=block,
                    stage=stage,
                    c_in=block.conv1.in_channels,
                    c_out=block.conv3.out_channels,
                    skippable=block.downsample is None,
                )
                units.append(unit)
        return Chain(
            stem=_Stem(self.conv1, self.bn1),
            units=tuple(units),
            pool=MeanPool(),
            classifier=self.fc,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures ``(n, 3, h, w)`` to logits ``(n, classes)``."""
        chain = self.chain()
        x = chain.stem(x)
        for unit in chain.units:
            x = unit.module(x)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class ImageNetDenseLayer(nn.Module):
    """Batch norm, ReLU, 1x1 convolution, and the same with a 3x3: all features to new ones."""

    def __init__(self, c_in: int, growth: int) -> None:
        super().__init__()
        middle = EXPANSION * growth
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, middle, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, c_in, h, w)`` to the new features ``(n, growth, h, w)``."""
        y = self.conv1(functional.relu(self.norm1(x)))
        new: Tensor = self.conv2(functional.relu(self.norm2(y)))
        return new


class _Transition(nn.Module):
    """Batch norm, ReLU, 1x1 convolution to half of the channels, average pool of 2."""

    def __init__(self, c_in: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(c_in)
        self.conv = nn.Conv2d(c_in, c_in // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, c, h, w)`` to ``(n, c / 2, h / 2, w / 2)``."""
        return functional.avg_pool2d(self.conv(functional.relu(self.norm(x))), 2)


class ImageNetDenseNet(nn.Module):
    """A DenseNet-BC: 6, 12, 48, 32 dense layers for DenseNet-201.

    Args:
        layers: per dense block.
        growth: new channels of a dense layer.
        classes: of the linear layer.

    Raises:
        DynrtError: a dense block without a layer.
    """

    def __init__(
        self, layers: Sequence[int] = (6, 12, 48, 32), *, growth: int = 32, classes: int = 1000
    ) -> None:
        super().__init__()
        if not layers or min(layers) < 1:
            raise DynrtError(f"each dense block has at least one layer, not {tuple(layers)}")
        self.layers, self.growth = tuple(layers), growth
        channels = 2 * growth
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(3, channels, 7, 2, 3, bias=False), norm0=nn.BatchNorm2d(channels)
        )
        for number, count in enumerate(layers, 1):
            block: OrderedDict[str, nn.Module] = OrderedDict()
            for at in range(1, count + 1):
                block[f"denselayer{at}"] = ImageNetDenseLayer(channels, growth)
                channels += growth
            parts[f"denseblock{number}"] = nn.Sequential(block)
            if number < len(layers):
                parts[f"transition{number}"] = _Transition(channels)
                channels //= 2
        parts[f"norm{len(layers) + 1}"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(parts)
        self.classifier = nn.Linear(channels, classes)

    def chain(self) -> Chain:
        """Stem, ``dense1``, ..., ``transition1``, ..., and the classifier behind norm and pool."""
        units: list[Unit] = []
        channels, count, blocks = 2 * self.growth, 0, len(self.layers)
        for stage, layers in enumerate(self.layers):
            for at in range(layers):
                path = f"features.denseblock{stage + 1}.denselayer{at + 1}"
                count += 1
                units.append(
                    Unit(
                        name=f"dense{count}",
                        path=path,
                        module=self.get_submodule(path),
                        stage=stage,
                        c_in=channels,
                        c_out=self.growth,
                        skippable=at > 0,
                        dense=True,
                    )
                )
                channels += self.growth
            if stage < blocks - 1:
                path = f"features.transition{stage + 1}"
                units.append(
                    Unit(
                        name=f"transition{stage + 1}",
                        path=path,
                        module=self.get_submodule(path),
                        stage=stage,
                        c_in=channels,
                        c_out=channels // 2,
                        skippable=False,
                    )
                )
                channels //= 2
        conv = cast("nn.Conv2d", self.get_submodule("features.conv0"))
        norm = cast("nn.BatchNorm2d", self.get_submodule("features.norm0"))
        last = cast("nn.BatchNorm2d", self.get_submodule(f"features.norm{blocks + 1}"))
        return Chain(
            stem=_Stem(conv, norm),
            units=tuple(units),
            pool=NormPool(last),
            classifier=self.classifier,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures ``(n, 3, h, w)`` to logits ``(n, classes)``."""
        chain = self.chain()
        x = chain.stem(x)
        for unit in chain.units:
            x = torch.cat([x, unit.module(x)], 1) if unit.dense else unit.module(x)
        logits: Tensor = self.classifier(chain.pool(x))
        return logits


def resnet101(*, classes: int = 1000) -> ImageNetResNet:
    """ResNet-101."""
    return ImageNetResNet((3, 4, 23, 3), classes=classes)


def densenet201(*, classes: int = 1000) -> ImageNetDenseNet:
    """DenseNet-201, growth rate 32."""
    return ImageNetDenseNet((6, 12, 48, 32), classes=classes)
