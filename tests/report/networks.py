"""Small networks of pictures with exits, gates and masks, and noise to run them on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dynrt.bundle import Bundle, Preprocessing
from dynrt.calibrate.datasets import Dataset
from dynrt.exporters import lower
from tests.exporters.masked_networks import dynamic, given_masks

SIDE = 8


def gated() -> Bundle:
    """Masks from gates, an exit on the way, a block that may be skipped."""
    return _of_pictures(lower(dynamic()))


def masked() -> Bundle:
    """Two masked blocks whose mask is another input."""
    return lower(given_masks())


def _of_pictures(bundle: Bundle) -> Bundle:
    rule = Preprocessing(height=SIDE, width=SIDE, channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)
    return replace(bundle, preprocessing=rule)


def noise(count: int) -> Dataset:
    """Pictures of nothing, of five classes."""
    rng = np.random.default_rng(0)
    return Dataset(
        pictures=rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8),
        labels=rng.integers(0, 5, count),
        names=("a", "b", "c", "d", "e"),
        source="noise test",
    )
