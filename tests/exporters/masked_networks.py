"""Networks with masked blocks, made from torch."""

from __future__ import annotations

import numpy as np
from torch import nn

from dynrt.exporters import NetworkBuilder, NetworkSpec
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
