"""Layer tables of published networks, by their papers' shapes; no weights are needed for counting."""

from __future__ import annotations

from collections.abc import Callable

from dynrt.energy.published_networks import resnet50_blocks
from dynrt.ir.graph import NodeId
from dynrt.ir.layers import ConvLayer, GemmLayer, Layer

Table = dict[NodeId, tuple[Layer, ...]]
_FLOAT = "float32"


def conv(
    name: str, side: int, channels: int, filters: int, kernel: int, stride: int = 1
) -> ConvLayer:
    """A square convolution, padded so that stride 1 keeps the size; ``side`` is of the input."""
    pad = kernel // 2
    out = (side + 2 * pad - kernel) // stride + 1
    return ConvLayer(
        name=name,
        op="Conv",
        dtype=_FLOAT,
        in_h=side,
        in_w=side,
        out_h=out,
        out_w=out,
        channels=channels,
        filters=filters,
        kernel_h=kernel,
        kernel_w=kernel,
        stride_h=stride,
        stride_w=stride,
        pad_top=pad,
        pad_left=pad,
        pad_bottom=pad,
        pad_right=pad,
    )


def fully(name: str, inputs: int, outputs: int) -> GemmLayer:
    """A fully connected layer of one picture."""
    return GemmLayer(name=name, op="Gemm", dtype=_FLOAT, m=1, k=inputs, n=outputs)


def resnet_cifar(blocks_per_stage: int) -> Table:
    """He et al.'s ResNet of ``6 n + 2`` layers on 32 x 32 pictures; 12 blocks a stage: ResNet-74.

    Shortcuts have no weights (option A). One node per block of two convolutions.
    """
    table: Table = {NodeId("stem"): (conv("stem", 32, 3, 16, 3),)}
    side, channels = 32, 16
    for stage in range(3):
        for block in range(blocks_per_stage):
            stride = 2 if stage and not block else 1
            filters = 16 << stage
            name = f"block{stage * blocks_per_stage + block + 1}"
            first = conv(f"{name}.conv1", side, channels, filters, 3, stride)
            second = conv(f"{name}.conv2", first.out_h, filters, filters, 3)
            table[NodeId(name)] = (first, second)
            side, channels = first.out_h, filters
    table[NodeId("head")] = (fully("head", 64, 10),)
    return table


def resnet50() -> Table:
    """ResNet-50 on 224 x 224 pictures, the stride in the 3 x 3 convolutions; one node per block."""
    stem = (conv("stem", 224, 3, 64, 7, 2),)
    return {"stem": stem, **resnet50_blocks(_FLOAT), "head": (fully("head", 2048, 1000),)}


def resnet74() -> Table:
    """The network of DDI's table II without its gates."""
    return resnet_cifar(12)


NETWORKS: dict[str, Callable[[], Table]] = {"resnet74": resnet74, "resnet50": resnet50}
