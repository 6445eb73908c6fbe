"""Small networks of the kinds that the suites measure."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from dynrt.bundle import Bundle
from dynrt.exporters import Gate, Head, gated_blocks, lower, sequential_exits
from dynrt.ir.graph import Accept, TensorType
from dynrt.zoo import FinalHead, ResNet, segments
from dynrt.zoo.layer_gates import GATE_WIDTH, LayerGates

PICTURE = TensorType(dtype="float32", shape=(3, 32, 32))


@cache
def skipper() -> Bundle:
    """ResNet-14 of width 4 with LSTM gates on three blocks, one of a kind that is often closed."""
    torch.manual_seed(14)
    net = ResNet(14, width=4).eval()
    gates = LayerGates(net).eval().by_segment()
    state = {key: TensorType(dtype="float32", shape=(GATE_WIDTH,)) for key in ("h", "c")}
    return lower(
        gated_blocks(
            "skipper",
            PICTURE,
            segments(net),
            {name: Gate(module=gate) for name, gate in gates.items()},
            {"block6": FinalHead(net.linear)},
            state=state,
        ).build()
    )


@cache
def leaver() -> Bundle:
    """Three exits: one by softmax, one by hinge, and the last."""
    torch.manual_seed(3)
    blocks = [(f"b{i}", nn.Sequential(nn.Linear(6, 6), nn.ReLU()).eval()) for i in (1, 2, 3)]
    hinge = Accept(kind="hinge", port="logits", threshold=0.0)
    heads: dict[str, Head | nn.Module] = {
        "b1": nn.Linear(6, 4).eval(),
        "b2": Head(module=nn.Linear(6, 4).eval(), accept=hinge),
        "b3": nn.Linear(6, 4).eval(),
    }
    kind = TensorType(dtype="float32", shape=(6,))
    return lower(sequential_exits("leaver", kind, blocks, heads).build())
