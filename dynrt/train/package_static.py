"""A static ResNet's weights as a bundle of one block chain and one exit, to be compared with."""

from __future__ import annotations

from pathlib import Path

from dynrt.bundle import Bundle
from dynrt.errors import RecipeError
from dynrt.exporters import gated_blocks, lower
from dynrt.ir.graph import TensorType
from dynrt.train.package import CIFAR10_LABELS, CIFAR10_PREPROCESSING
from dynrt.train.weights import load_weight_file
from dynrt.zoo import FinalHead, ResNet, segments


def static_resnet(name: str, weights: Path) -> Bundle:
    """A CIFAR-10 ResNet without exits and gates.

    Args:
        name: ``resnet`` and its depth, ``6k + 2``; also of the bundle.
        weights: a safetensors file.

    Raises:
        RecipeError: the name is of no such network, or the weights are damaged or of another.
        ExportError: it cannot be lowered.
    """
    depth = name.removeprefix("resnet")
    if not name.startswith("resnet") or not depth.isdecimal() or int(depth) % 6 != 2:
        raise RecipeError(f"{name!r} is no CIFAR ResNet: resnet20, resnet38, ... (6k + 2)")
    net = ResNet(int(depth)).eval()
    load_weight_file(net, weights)
    parts = segments(net)
    rule = CIFAR10_PREPROCESSING
    kind = TensorType(dtype="float32", shape=(rule.channels, rule.height, rule.width))
    built = gated_blocks(name, kind, parts, {}, {parts[-1][0]: FinalHead(net.linear)})
    return lower(built.build(labels=CIFAR10_LABELS, preprocessing=rule))
