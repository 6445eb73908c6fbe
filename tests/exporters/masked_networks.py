"""Networks with masked blocks, made from torch."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from torch import Tensor, nn

from dynrt.exporters import NetworkBuilder, NetworkSpec, wire
from dynrt.ir.graph import Accept, Threshold
from dynrt.zoo import MaskedBlock, MaskGate
from tests.exporters.networks import pooled_head, seeded


def one_block(block: nn.Module, groups: int, shape: tuple[int, int, int], out: int) -> NetworkSpec:
    """``block`` with a mask that is a parameter, and a head on its ``out`` channels."""
    net = NetworkBuilder("masked")
    x = net.input("x", shape)
    mask = net.param("keep", np.ones(groups, np.float32))
    y = net.compute("block", block, {"x": x, "mask": mask}, mask="mask")
    net.exit("final", pooled_head(out), {"x": y})
    return net.build()


def gated(groups: int = 4) -> NetworkSpec:
    """A stem, a gate that makes the mask, a masked block, a head."""
    net = NetworkBuilder("gated")
    x = net.input("x", (3, 8, 8))
    stem = net.compute("stem", seeded(nn.Conv2d(3, 64, 3, 1, 1)), {"x": x})
    gate = MaskGate(64, groups)
    nn.init.normal_(gate.linear.weight, std=2.0)
    nn.init.zeros_(gate.linear.bias)
    mask = net.compute("gate", gate, {"x": stem})
    block = seeded(MaskedBlock(64, 64, groups=groups), 1)
    y = net.compute("block", block, {"x": stem, "mask": mask}, mask="mask")
    net.exit("final", pooled_head(64), {"x": y})
    return net.build()


M = TypeVar("M", bound=nn.Module)


def unbiased(module: M, seed: int, scale: float = 1) -> M:
    """Seeded weights times ``scale``, and no bias: what is left is the same on every run."""
    for part in seeded(module, seed).modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.weight.data *= scale
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module


class Score(nn.Module):
    """One score of pooled features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        score: Tensor = self.linear(x.mean((2, 3)))
        return score


def given_masks(groups: int = 4) -> NetworkSpec:
    """A stem, two masked blocks in a row with one mask that is an input, a head."""
    net = NetworkBuilder("given")
    x = net.input("x", (3, 8, 8))
    keep = net.input("keep", (groups,))
    stem = net.compute("stem", unbiased(nn.Conv2d(3, 64, 3, 1, 1), 0), {"x": x})
    one = unbiased(MaskedBlock(64, 64, groups=groups), 1)
    two = unbiased(MaskedBlock(64, 128, 2, groups=groups), 2)
    y = net.compute("one", one, {"x": stem, "mask": keep}, mask="mask")
    y = net.compute("two", two, {"x": y, "mask": keep}, mask="mask")
    net.exit("final", unbiased(pooled_head(128), 3), {"x": y})
    return net.build()


def dynamic() -> NetworkSpec:
    """Masks from gates, a block that may be skipped, an exit on the way, one more masked block."""
    net = NetworkBuilder("dynamic")
    x = net.input("x", (3, 8, 8))
    stem = net.compute("stem", unbiased(nn.Conv2d(3, 64, 3, 1, 1), 0), {"x": x})
    mask = net.compute("m0", unbiased(MaskGate(64, 4), 1, 4), {"x": stem})
    b0 = unbiased(MaskedBlock(64, 64, groups=4), 1)
    y = net.compute("b0", b0, {"x": stem, "mask": mask}, mask="mask")
    accept = Accept(kind="max_softmax", port="logits", threshold=0.45)
    net.exit("early", unbiased(pooled_head(64), 2), {"x": y}, accept=accept)
    mask = net.compute("m1", unbiased(MaskGate(64, 4), 3, 4), {"x": y})
    rule = Threshold(thresholds=(0.75,))
    net.gate("g1", unbiased(Score(64), 11), {"x": y}, actions=[["b1"]], rule=rule)
    b1 = unbiased(MaskedBlock(64, 64, groups=4), 5)
    after = net.compute("b1", b1, {"x": y, "mask": mask}, mask="mask")
    z = wire(after, default="b1.x")
    mask = net.compute("m2", unbiased(MaskGate(64, 2), 27, 4), {"x": z})
    b2 = unbiased(MaskedBlock(64, 64, groups=2), 7)
    last = net.compute("b2", b2, {"x": z, "mask": mask}, mask="mask")
    net.exit("final", unbiased(pooled_head(64), 8), {"x": last})
    return net.build()
