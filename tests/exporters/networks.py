"""Small torch networks, and ways to look at what was exported."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from dynrt.ir.graph import Port, TensorType

M = TypeVar("M", bound=nn.Module)
Floats = npt.NDArray[np.float32]


def port(name: str, *shape: int, dtype: str = "float32") -> Port:
    return Port(name=name, type=TensorType(dtype=dtype, shape=shape))


def images(count: int, *shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def operators(model: bytes) -> list[str]:
    return [n.op_type for n in onnx.load_model_from_string(model).graph.node]


def seeded(module: M, seed: int = 0) -> M:
    """Random weights, and norms with statistics that matter."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(generator=generator)
            part.running_var.uniform_(0.5, 2.0, generator=generator)
            if part.affine:
                part.weight.data.uniform_(0.5, 1.5, generator=generator)
                part.bias.data.normal_(generator=generator)
        elif isinstance(part, nn.Conv2d | nn.Linear):
            spread = part.weight[0].numel() ** -0.5
            part.weight.data.normal_(0, spread, generator=generator)
    return module


class Block(nn.Module):
    """A residual block with in-place operations, as backbones in the wild have them."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        plain = stride == 1 and c_in == c_out
        self.short = nn.Identity() if plain else nn.Conv2d(c_in, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.short(x)
        out: Tensor = self.relu(y)
        return out


class SmallResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(Block(8, 8), Block(8, 8))
        self.layer2 = nn.Sequential(Block(8, 16, 2), Block(16, 16))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        x = functional.adaptive_avg_pool2d(x, 1)
        out: Tensor = self.fc(x.view(x.size(0), -1))
        return out


class SmallDenseNet(nn.Module):
    """Each layer reads all before it; norm and activation come first, so no norm can be folded."""

    def __init__(self, growth: int = 4, layers: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.dense = nn.ModuleDict()
        for i in range(layers):
            c = 8 + i * growth
            self.dense[f"layer{i}"] = nn.Sequential(
                nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, growth, 3, 1, 1)
            )
        self.fc = nn.Linear(8 + layers * growth, 5)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.dense.values():
            features.append(layer(torch.cat(features, 1)))
        joined = torch.cat(features, 1)
        out: Tensor = self.fc(joined.mean((2, 3)))
        return out


class SmallUNet(nn.Module):
    """At any cut below the first level two tensors are alive: the skip connection is one."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(3, 4, 3, 1, 1)
        self.down2 = nn.Conv2d(4, 8, 3, 2, 1)
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU())
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.last = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = functional.relu(self.down1(x))
        deep = self.middle(functional.relu(self.down2(first)))
        deep = functional.interpolate(self.up(deep), size=first.shape[2:])
        out: Tensor = self.last(torch.cat([first, deep], 1)).mean((2, 3))
        return out


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.query(x) @ self.key(x).transpose(1, 2), -1)
        out: Tensor = weights @ self.value(x)
        return out


class CellGate(nn.Module):
    """DDI's gate: pooled features, a projection, one LSTM cell shared by all gates, one score."""

    def __init__(self, cell: nn.LSTMCell, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(channels, cell.input_size)
        self.cell = cell
        self.score = nn.Linear(cell.hidden_size, 1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, c = self.cell(self.project(x.mean((2, 3))), (h, c))
        return torch.sigmoid(50 * self.score(h)), h, c


class TwoHeads(nn.Module):
    """Logits and d-gate distances of pooled features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(channels, 5)
        self.gate = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = x.mean((2, 3))
        return self.classifier(pooled), self.gate(pooled)


def pooled_head(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


def recurrent_modules() -> tuple[nn.Module, list[nn.Module], list[nn.Module], nn.Module]:
    """Stem, four blocks, their gates with one LSTM cell, and a head; scores on both sides of 0.5."""
    torch.manual_seed(1)
    cell = nn.LSTMCell(6, 5)
    stem = nn.Conv2d(3, 8, 3, 1, 1)
    blocks: list[nn.Module] = [seeded(Block(8, 8), i) for i in range(4)]
    gates: list[nn.Module] = [CellGate(cell, 8) for _ in blocks]
    for gate in gates:
        nn.init.zeros_(gate.get_parameter("score.bias"))
    return stem, blocks, gates, pooled_head(8)


def bright_images(count: int) -> Floats:
    """Noise from dark to bright, so that means of features differ."""
    brightness = np.linspace(-3, 3, count, dtype=np.float32)[:, None, None, None]
    return images(count, 3, 8, 8) + brightness
