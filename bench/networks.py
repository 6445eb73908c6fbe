"""The networks that the suites measure, with random weights.

``python -m bench.networks NAME OUT`` writes one bundle; ``bench.files`` keeps them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dynrt.bundle import Bundle, write_bundle
from dynrt.exporters import (
    Gate,
    Head,
    NetworkBuilder,
    NetworkSpec,
    export_network,
    gated_blocks,
    lower,
)
from dynrt.exporters.chains import Segments
from dynrt.exporters.spec import wire_of
from dynrt.ir.graph import Accept, TensorType
from dynrt.zoo import BranchedResNet, ExitGates, FinalHead, ResNet, exit_heads, segments
from dynrt.zoo.layer_gates import GATE_WIDTH, LayerGates
from dynrt.zoo.masked import MaskedBlock

PICTURE = TensorType(dtype="float32", shape=(3, 32, 32))
STATE = {key: TensorType(dtype="float32", shape=(GATE_WIDTH,)) for key in ("h", "c")}


def resnet74() -> ResNet:
    """The static network below the gates; random weights, always the same."""
    torch.manual_seed(74)
    return ResNet(74).eval()


def resnet74_lstm(*, gate_first: bool = False) -> Bundle:
    """ResNet-74 with LSTM gates on 33 blocks; the first block of each stage always runs.

    With ``gate_first``, also the very first block has a gate, which keeps its shape as well: 34.
    """
    net = resnet74()
    gates = LayerGates(net, gate_first=gate_first).eval()
    built = gated_blocks(
        "resnet74-lstm34" if gate_first else "resnet74-lstm",
        PICTURE,
        segments(net),
        {name: Gate(module=gate) for name, gate in gates.by_segment().items()},
        {"block36": FinalHead(net.linear)},
        state=STATE,
    )
    return _exported(built.build(), PICTURE)


def resnet74_exits() -> Bundle:
    """ResNet-74 with DDI's six branch exits, each with a d-gate, and the last exit."""
    torch.manual_seed(6)
    net = BranchedResNet(74).eval()
    widths = [net.branch(i).feature_size for i in range(len(net.branches))]
    gates = ExitGates(widths, 10, baseline=False).eval()
    heads: dict[str, Head | nn.Module] = {}
    for name, after, module in exit_heads(net, gates):
        rule = Accept(kind="hinge", port="distances", threshold=0.0)
        heads[after] = (
            Head(module=module, name=name)
            if name == "final"
            else Head(module=module, outputs=("logits", "distances"), accept=rule, name=name)
        )
    built = gated_blocks("resnet74-exits", PICTURE, segments(net.backbone), {}, heads)
    return _exported(built.build(), PICTURE)


#: Channels of each of the cascade's nets.
_CASCADE_WIDTHS = (3, 4, 5, 6)


def cascade() -> Bundle:
    """Four small nets on one 112x112 picture, each run only if the one before it was not sure."""
    torch.manual_seed(4)
    kind = TensorType(dtype="float32", shape=(3, 112, 112))
    net = NetworkBuilder("cascade")
    picture = wire_of(net.input("image", kind.shape, kind.dtype))
    for number, width in enumerate(_CASCADE_WIDTHS, 1):
        last = number == len(_CASCADE_WIDTHS)
        net.exit(
            f"net{number}",
            _small_net(width).eval(),
            {"x": picture},
            outputs=("logits",),
            answer="logits",
            accept=Accept(kind="always")
            if last
            else Accept(kind="max_softmax", port="logits", threshold=0.5),
        )
    return _exported(net.build(), kind)


def _small_net(width: int) -> nn.Sequential:
    """Two strided convolutions and a linear layer: tens of microseconds on 112x112."""
    return nn.Sequential(
        nn.Conv2d(3, 4 * width, 5, 4, 2),
        nn.ReLU(),
        nn.Conv2d(4 * width, 4 * width, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, 2),
    )


def gated_chain(nodes: int) -> Bundle:
    """A chain of about ``nodes`` nodes: ever the same tiny block behind a gate of its own.

    A gated block counts as three nodes: the gate, its decision, and the block.
    """
    torch.manual_seed(2000)
    kind = TensorType(dtype="float32", shape=(8,))
    blocks: Segments = [(f"block{i}", nn.Linear(8, 8).eval()) for i in range(1, nodes // 3 + 1)]
    gates = {name: Gate(module=nn.Linear(8, 1).eval(), threshold=0.0) for name, _ in blocks}
    exits = {blocks[-1][0]: nn.Linear(8, 4).eval()}
    spec = gated_blocks(f"chain{nodes}", kind, blocks, gates, exits).build()
    return lower(spec)


def masked_block(channels: int, side: int) -> Bundle:
    """One basic block with a mask on groups of 16 inner channels, and a head."""
    torch.manual_seed(channels)
    groups = channels // 16
    net = NetworkBuilder(f"mask{channels}")
    x = net.input("x", (channels, side, side))
    mask = net.param("keep", np.ones(groups, np.float32))
    block = MaskedBlock(channels, channels, groups=groups).eval()
    y = net.compute("block", block, {"x": x, "mask": mask}, mask="mask")
    net.exit("final", FinalHead(nn.Linear(channels, 10)).eval(), {"x": y})
    return lower(net.build())


def resnet74_int8() -> Bundle:
    """``resnet74-lstm`` in int8, its ranges from noise as the runs have it."""
    from dynrt.exporters.int8 import quantise

    rng = np.random.default_rng(8)
    pictures = [rng.standard_normal((8, *PICTURE.shape)).astype(np.float32) for _ in range(4)]
    return quantise(resnet74_lstm(), pictures)


def _exported(spec: NetworkSpec, kind: TensorType) -> Bundle:
    """Lower and prove on two seeded pictures."""
    noise = np.random.default_rng(0).standard_normal((2, *kind.shape)).astype(np.float32)
    return export_network(spec, noise, forced_inputs=1)[0]


MAKERS: dict[str, Callable[[], Bundle]] = {
    "resnet74-lstm": resnet74_lstm,
    "resnet74-lstm34": lambda: resnet74_lstm(gate_first=True),
    "resnet74-exits": resnet74_exits,
    "resnet74-lstm-int8": resnet74_int8,
    "mask64": lambda: masked_block(64, 8),
    "mask256": lambda: masked_block(256, 14),
    "cascade": cascade,
    "chain3": lambda: gated_chain(3),
    "chain100": lambda: gated_chain(100),
    "chain2000": lambda: gated_chain(2000),
}


def main() -> int:
    """Write one network."""
    parser = argparse.ArgumentParser(prog="python -m bench.networks", description=__doc__)
    parser.add_argument("name", choices=sorted(MAKERS))
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    write_bundle(MAKERS[args.name](), args.out, force=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
