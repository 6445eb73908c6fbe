"""Small networks before and after they are quantised."""

from __future__ import annotations

from functools import cache

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from dynrt.bundle import Bundle
from dynrt.exporters.chains import Head, gated_blocks, sequential_exits
from dynrt.exporters.int8 import quantise
from dynrt.exporters.lower import lower
from dynrt.ir.graph import (
    Accept,
    PortRef,
    TensorType,
)
from tests.exporters.networks import (
    Block,
    TwoHeads,
    bright_images,
    images,
    recurrent_modules,
    seeded,
)

IMAGE = TensorType(dtype="float32", shape=(3, 8, 8))


STATE = {name: TensorType(dtype="float32", shape=(5,)) for name in ("h", "c")}


class Shrink(nn.Module):
    """A first block of a stage with DDI's shortcut: every other pixel, channels filled with zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = seeded(nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(2 * channels, 2 * channels, 3, 1, 1),
        ))  # fmt: skip
        self.side = channels // 2

    def forward(self, x: Tensor) -> Tensor:
        short = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.side, self.side))
        return functional.relu(self.body(x) + short)


@cache
def chain() -> Bundle:
    torch.manual_seed(0)
    outputs = ("logits", "distances")
    rule = Accept(kind="hinge", port="distances", threshold=0.4)
    heads = {
        "block": Head(module=TwoHeads(32), outputs=outputs, accept=rule),
        "shrink": Head(module=TwoHeads(64), outputs=outputs),
    }
    stem = seeded(nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1), nn.ReLU()))
    segments = [("stem", stem), ("block", seeded(Block(32, 32))), ("shrink", Shrink(32))]
    return lower(sequential_exits("chain", IMAGE, segments, heads).build())


@cache
def gated() -> Bundle:
    stem, blocks, gates, head = recurrent_modules()
    named = [("stem", stem), *((f"b{i}", b) for i, b in enumerate(blocks))]
    gate_of = {f"b{i}": g for i, g in enumerate(gates)}
    net = gated_blocks("gated", IMAGE, named, gate_of, {"b3": head}, state=STATE)
    return lower(net.build())


@cache
def chain_int8() -> Bundle:
    return quantise(chain(), [images(32, 3, 8, 8, seed=k) for k in range(2)])


@cache
def gated_int8() -> Bundle:
    return quantise(gated(), [bright_images(32)])


def types_of(bundle: Bundle) -> dict[str, str]:
    return {
        f"{n.name}.{p.name}": p.type.dtype
        for n in bundle.graph.nodes
        for p in (*n.inputs, *n.outputs)
    }


def border_scale(bundle: Bundle, ref: PortRef) -> tuple[float, int]:
    """Scale and zero point by which a node reads or gives a port."""
    model = onnx.load_model_from_string(bundle.models[ref.node])
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for op in model.graph.node:
        reads = op.op_type == "DequantizeLinear" and op.input[0] == ref.port
        if reads or (op.op_type == "QuantizeLinear" and op.output[0] == ref.port):
            return float(values[op.input[1]]), int(values[op.input[2]])
    raise AssertionError(f"{ref} has no border")


def pooled_head_of_one(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1))


ONE = images(2, 3, 8, 8)
