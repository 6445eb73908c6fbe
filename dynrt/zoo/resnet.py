"""The CIFAR ResNet (He et al., 2016, section 4.2) with parameter-free shortcuts (option A).

Depth ``6k + 2``: a 3x3 stem, three stages of ``k`` basic blocks with 1, 2 and 4 times ``width``
channels, global average pooling, one linear layer. DDI's ResNet-38 and ResNet-74 have k = 6 and 12.
The state dict has the plain keys that CIFAR ResNet weights are published with
(``conv1.weight``, ``layer1.0.bn1.running_mean``, ``linear.bias``).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from dynrt.errors import DynrtError
from dynrt.zoo.chain import Chain, Unit
from dynrt.zoo.parts import MeanPool


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; where the shape changes, the shortcut is option A.

    Option A takes every ``stride``-th pixel and pads the new channels with zeros, half of them
    before and half behind, so that it has no parameters and no multiplications.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.stride = stride
        self.new_channels = c_out - c_in

    def forward(self, x: Tensor) -> Tensor:
        """``(n, c_in, h, w)`` to ``(n, c_out, h / stride, w / stride)``, float."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """``x`` in the shape of the block's output."""
        if self.stride != 1 or self.new_channels:
            before = self.new_channels // 2
            behind = self.new_channels - before
            x = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(x, (0, 0, 0, 0, before, behind))
        return x


class Stem(nn.Module):
    """The first convolution of a :class:`ResNet` as a module of its own; shares its weights."""

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = conv
        self.bn = bn

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3, h, w)`` to ``(n, width, h, w)``, float."""
        return functional.relu(self.bn(self.conv(x)))


class ResNet(nn.Module):
    """A CIFAR ResNet of any depth ``6k + 2``.

    Args:
        depth: 8, 14, 20, ... layers with weights.
        classes: of the linear layer.
        width: channels of the first stage; 16 in the papers.

    Raises:
        DynrtError: no such depth or width.
    """

    def __init__(self, depth: int, *, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise DynrtError(f"a CIFAR ResNet has depth 6k + 2 (8, 14, 20, ...), not {depth}")
        if width < 1 or classes < 2:
            raise DynrtError(f"width {width} must be at least 1 and classes {classes} at least 2")
        self.depth = depth
        self.width = width
        self.classes = classes
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, stride=1)
        self.layer2 = self._stage(width, 2 * width, stride=2)
        self.layer3 = self._stage(2 * width, 4 * width, stride=2)
        self.linear = nn.Linear(4 * width, classes)

    @property
    def blocks_per_stage(self) -> int:
        """The ``k`` of depth ``6k + 2``."""
        return (self.depth - 2) // 6

    def _stage(self, c_in: int, c_out: int, *, stride: int) -> nn.Sequential:
        first = BasicBlock(c_in, c_out, stride)
        rest = (BasicBlock(c_out, c_out, 1) for _ in range(self.blocks_per_stage - 1))
        return nn.Sequential(first, *rest)

    def blocks(self) -> list[nn.Module]:
        """All ``3k`` blocks in order."""
        return [*self.layer1, *self.layer2, *self.layer3]

    def chain(self) -> Chain:
        """Stem, ``block1``, ``block2``, ..., and the linear layer behind a global average pool."""
        units: list[Unit] = []
        for stage, layer in enumerate((self.layer1, self.layer2, self.layer3)):
            for at, block in enumerate(layer):
                if not isinstance(block, BasicBlock):
                    raise DynrtError(f"layer{stage + 1}.{at} is no basic block")
                c_in, c_out = block.conv1.in_channels, block.conv1.out_channels
                unit = Unit(
                    name=f"block{len(units) + 1}",
                    path=f"layer{stage + 1}.{at}",
                    module=block,
                    stage=stage,
                    c_in=c_in,
                    c_out=c_out,
                    skippable=at > 0 and block.stride == 1 and c_in == c_out,
                )
                units.append(unit)
        return Chain(
            stem=Stem(self.conv1, self.bn1),
            units=tuple(units),
            pool=MeanPool(),
            classifier=self.linear,
        )

    def stem(self, x: Tensor) -> Tensor:
        """``(n, 3, h, w)`` to the input of the first block, ``(n, width, h, w)``."""
        return functional.relu(self.bn1(self.conv1(x)))

    def head(self, x: Tensor) -> Tensor:
        """Output of the last block, ``(n, 4 width, h / 4, w / 4)``, to logits ``(n, classes)``."""
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures ``(n, 3, h, w)`` to logits ``(n, classes)``."""
        x = self.stem(x)
        for block in self.blocks():
            x = block(x)
        return self.head(x)
