"""Whole networks for the board, with samples that take different ways through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np

from dynrt.bundle import Bundle, read_bundle, resolve
from dynrt.exporters import lower
from dynrt.ir.graph import Array
from tests.exporters import int8_networks, masked_networks
from tests.exporters.networks import bright_images
from tests.exporters.test_gated_chain import dense
from tests.train.test_train_package_gated import exported, network, pictures

Samples = list[Mapping[str, Array]]
PACKAGED = "resnet38-ddi"
#: Gated networks of the zoo: layer gates (an LSTM), channel gates, exits that never accept.
ZOO = ("resnet output", "resnet inner", "densenet output", "densenet inner")


def waves(count: int) -> Samples:
    """Smooth colourful pictures of the packaged network's size, normalised."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:32, 0:32] / 32
    out: Samples = []
    for _ in range(count):
        picture = np.zeros((3, 32, 32))
        for _ in range(4):
            fy, fx, phase = rng.uniform(-3, 3), rng.uniform(-3, 3), rng.uniform(0, 6)
            picture += rng.normal(size=(3, 1, 1)) * np.sin(2 * np.pi * (fy * y + fx * x) + phase)
        out.append({"image": picture.astype(np.float32)})
    return out


def bright(name: str, count: int = 12) -> Callable[[], Samples]:
    return lambda: [{name: x} for x in bright_images(count)]


def _masks() -> Samples:
    rng = np.random.default_rng(1)
    return [{"x": x, "keep": (rng.random(4) > 0.5).astype(np.float32)} for x in bright_images(8)]


@cache
def packaged() -> Bundle:
    return read_bundle(resolve(PACKAGED))


def _gated(kind: str) -> Callable[[], Bundle]:
    return lambda: exported(network(kind))


def _pictures() -> Samples:
    return [{"image": x.numpy()} for x in pictures(10)]


#: Bundle, samples, and how many ways through the network they take at least.
CASES: Mapping[str, tuple[Callable[[], Bundle], Callable[[], Samples], int]] = {
    "chain": (int8_networks.chain, bright("image"), 2),
    "recurrent gates": (int8_networks.gated, bright("image"), 3),
    "dense": (lambda: lower(dense(masked=False)), bright("image", 16), 3),
    "dense masked": (lambda: lower(dense(masked=True)), bright("image", 16), 3),
    "masked by a gate": (lambda: lower(masked_networks.gated()), bright("x", 8), 1),
    "masked by an input": (lambda: lower(masked_networks.given_masks()), _masks, 1),
    "masks, a gate, an exit": (lambda: lower(masked_networks.dynamic()), bright("x"), 3),
    "chain int8": (int8_networks.chain_int8, bright("image"), 2),
    "recurrent gates int8": (int8_networks.gated_int8, bright("image"), 3),
    **{kind: (_gated(kind), _pictures, 1) for kind in ZOO},
    PACKAGED: (packaged, lambda: waves(8), 2),
}
