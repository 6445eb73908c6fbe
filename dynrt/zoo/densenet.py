"""The CIFAR DenseNet (Huang et al., 2017): plain, and BC (bottlenecks and compression).

Depth ``3n + 4`` (plain) or ``6n + 4`` (BC): a 3x3 stem, three dense blocks of ``n`` dense layers with
a transition between them, batch norm, ReLU, global average pooling, one linear layer. DDI and the
d-gates use depth 100 with growth rate 12. The state dict has the keys of the widely used PyTorch
version (``block1.layer.0.conv1.weight``, ``trans1.bn1.weight``, ``fc.bias``).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynrt.errors import DynrtError
from dynrt.zoo.chain import Chain, Unit
from dynrt.zoo.masked import kept_channels

#: A bottleneck has this many times the growth rate's channels.
BOTTLENECK = 4


class DenseLayer(nn.Module):
    """One dense layer: all features before it to ``growth`` new ones.

    Args:
        c_in: channels of the features before it.
        growth: new channels.
        middle: channels of the bottleneck; 0 for none.
    """

    def __init__(self, c_in: int, growth: int, middle: int = 0) -> None:
        super().__init__()
        self.c_in, self.growth, self.middle = c_in, growth, middle
        self.bn1 = nn.BatchNorm2d(c_in)
        if middle:
            self.conv1 = nn.Conv2d(c_in, middle, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(middle)
            self.conv2 = nn.Conv2d(middle, growth, 3, 1, 1, bias=False)
        else:
            self.conv1 = nn.Conv2d(c_in, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, c_in, h, w)`` to the new features ``(n, growth, h, w)``."""
        y: Tensor = self.conv1(functional.relu(self.bn1(x)))
        if self.middle:
            y = self.conv2(functional.relu(self.bn2(y)))
        return y


class MaskedDenseLayer(DenseLayer):
    """A bottleneck dense layer with a mask on its middle channels; the same weights.

    Args:
        c_in, growth, middle: as of :class:`DenseLayer`.
        groups: of the middle channels; all alike.

    Raises:
        DynrtError: there is no bottleneck, or it is no whole number of groups.
    """

    def __init__(self, c_in: int, growth: int, middle: int, *, groups: int) -> None:
        super().__init__(c_in, growth, middle)
        if not middle or groups < 1 or middle % groups:
            raise DynrtError(f"a bottleneck of {middle} channels is no {groups} equal groups")
        self.groups = groups

    @classmethod
    def of(cls, layer: DenseLayer, *, groups: int) -> MaskedDenseLayer:
        """A masked layer with a copy of ``layer``'s weights."""
        made = cls(layer.c_in, layer.growth, layer.middle, groups=groups)
        made.load_state_dict(layer.state_dict())
        return made.train(layer.training)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]  # one more
        """Features and mask ``(n, groups)`` to the new features ``(n, growth, h, w)``."""
        y = functional.relu(self.bn2(self.conv1(functional.relu(self.bn1(x)))))
        new: Tensor = self.conv2(y * kept_channels(mask, self.groups, self.middle, self.training))
        return new


class Transition(nn.Module):
    """Between two dense blocks: batch norm, ReLU, 1x1 convolution, average pool of 2."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, c_in, h, w)`` to ``(n, c_out, h / 2, w / 2)``."""
        return functional.avg_pool2d(self.conv1(functional.relu(self.bn1(x))), 2)


class DenseBlock(nn.Module):
    """Dense layers of one resolution, in ``layer``."""

    def __init__(self, c_in: int, layers: int, growth: int, middle: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            DenseLayer(c_in + i * growth, growth, middle) for i in range(layers)
        )

    def layers(self) -> list[nn.Module]:
        """In order."""
        return list(self.layer)

    def forward(self, x: Tensor) -> Tensor:
        """Features to the same with all new features behind them."""
        for layer in self.layer:
            x = torch.cat([x, layer(x)], 1)
        return x


class NormPool(nn.Module):
    """Batch norm, ReLU and global average pooling; shares the batch norm."""

    def __init__(self, bn: nn.BatchNorm2d) -> None:
        super().__init__()
        self.bn = bn

    def forward(self, x: Tensor) -> Tensor:
        """``(n, c, h, w)`` to ``(n, c)``."""
        return functional.relu(self.bn(x)).mean((2, 3))


class DenseNet(nn.Module):
    """A CIFAR DenseNet.

    Args:
        depth: ``3n + 4``, or ``6n + 4`` with bottlenecks; 100 in the papers.
        growth: new channels of a dense layer.
        bottleneck: whether a 1x1 convolution to ``4 * growth`` channels stands before the 3x3.
        compression: share of the channels that a transition keeps; 0.5 for BC, 1 for plain.
        classes: of the linear layer.

    Raises:
        DynrtError: no such network.
    """

    def __init__(
        self,
        depth: int,
        *,
        growth: int = 12,
        bottleneck: bool = True,
        compression: float = 0.5,
        classes: int = 10,
    ) -> None:
        super().__init__()
        step = 6 if bottleneck else 3
        if depth < 4 + step or (depth - 4) % step:
            kind = "with bottlenecks " if bottleneck else ""
            raise DynrtError(f"a CIFAR DenseNet {kind}has depth {step}n + 4, not {depth}")
        if growth < 1 or classes < 2 or not 0 < compression <= 1:
            raise DynrtError(
                f"growth {growth} must be at least 1, classes {classes} at least 2, and "
                f"compression {compression} in (0, 1]"
            )
        self.depth, self.growth, self.classes = depth, growth, classes
        self.bottleneck, self.compression = bottleneck, compression
        layers, middle = (depth - 4) // step, BOTTLENECK * growth if bottleneck else 0
        channels = 2 * growth if bottleneck else 16
        self.conv1 = nn.Conv2d(3, channels, 3, 1, 1, bias=False)
        for number in (1, 2, 3):
            self.add_module(f"block{number}", DenseBlock(channels, layers, growth, middle))
            channels += layers * growth
            if number < 3:
                fewer = int(channels * compression)
                self.add_module(f"trans{number}", Transition(channels, fewer))
                channels = fewer
        self.bn1 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def chain(self) -> Chain:
        """Stem, ``dense1``, ..., ``transition1``, ..., and the linear layer behind norm and pool."""
        units: list[Unit] = []
        channels = self.conv1.out_channels
        count = 0
        for stage in range(3):
            block = cast("DenseBlock", self.get_submodule(f"block{stage + 1}"))
            for at, layer in enumerate(block.layers()):
                count += 1
                units.append(
                    Unit(
                        name=f"dense{count}",
                        path=f"block{stage + 1}.layer.{at}",
                        module=layer,
                        stage=stage,
                        c_in=channels,
                        c_out=self.growth,
                        skippable=at > 0,
                        dense=True,
                    )
                )
                channels += self.growth
            if stage < 2:
                path = f"trans{stage + 1}"
                transition = cast("Transition", self.get_submodule(path))
                after = transition.conv1.out_channels
                units.append(
                    Unit(
                        name=f"transition{stage + 1}",
                        path=path,
                        module=transition,
                        stage=stage,
                        c_in=channels,
                        c_out=after,
                        skippable=False,
                    )
                )
                channels = after
        return Chain(
            stem=self.conv1, units=tuple(units), pool=NormPool(self.bn1), classifier=self.fc
        )

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures ``(n, 3, h, w)`` to logits ``(n, classes)``."""
        x = self.conv1(x)
        for name in ("block1", "trans1", "block2", "trans2", "block3"):
            x = self.get_submodule(name)(x)
        logits: Tensor = self.fc(functional.relu(self.bn1(x)).mean((2, 3)))
        return logits
