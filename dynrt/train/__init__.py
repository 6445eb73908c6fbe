"""Trains the zoo's networks by recipe: seeded, resumable at any step, without pickles.

Raises:
    MissingExtraError: torch or safetensors is not installed.
"""

from __future__ import annotations

from importlib.util import find_spec

from dynrt.errors import MissingExtraError

if find_spec("torch") is None:
    raise MissingExtraError("torch", "train")
if find_spec("safetensors") is None:
    raise MissingExtraError("safetensors", "train")

from dynrt.train.progress import Progress
from dynrt.train.recipe import Recipe
from dynrt.train.recipe_file import load_recipe, recipe_names
from dynrt.train.run import TrainResult, train
from dynrt.train.sweep import train_sweep

__all__ = [
    "Progress",
    "Recipe",
    "TrainResult",
    "load_recipe",
    "recipe_names",
    "train",
    "train_sweep",
]
