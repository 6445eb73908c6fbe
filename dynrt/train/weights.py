"""Weights from files: found by name, checked against their hash, loaded into a network whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from dynrt.errors import RecipeError
from dynrt.train.checkpoint import read_tensors
from dynrt.train.recipe import WeightFile

#: Counts batches while training; published weights often leave it out, and nothing here uses it.
_COUNTER = "num_batches_tracked"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_weights(wanted: WeightFile, folders: Sequence[Path]) -> Path:
    """The first file of that name in ``folders``.

    Raises:
        RecipeError: there is none, or its SHA-256 is not the one that the recipe pins.
    """
    for folder in folders:
        path = folder / wanted.file
        if not path.is_file():
            continue
        sha256 = file_sha256(path)
        if wanted.sha256 is not None and sha256 != wanted.sha256:
            raise RecipeError(
                f"{path}: SHA-256 {sha256[:12]}... is not the recipe's {wanted.sha256[:12]}..."
            )
        return path
    looked = ", ".join(str(folder) for folder in folders)
    raise RecipeError(f"the recipe needs the weights {wanted.file!r}; looked in {looked}")


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], *, place: str) -> None:
    """Copy ``tensors`` into ``module``; only batch norm's counters may be left out.

    Raises:
        RecipeError: a tensor is missing, unknown or of another shape.
    """
    own = module.state_dict()
    missing = [k for k in own if k not in tensors and not k.endswith(_COUNTER)]
    unknown = [k for k in tensors if k not in own]
    if missing or unknown:
        what = f"lacks {missing[0]!r}" if missing else f"holds the unknown {unknown[0]!r}"
        more = len(missing) + len(unknown) - 1
        raise RecipeError(f"{place}: {what}" + (f" (+{more} more)" if more else ""))
    for name, tensor in tensors.items():
        if own[name].shape != tensor.shape:
            raise RecipeError(
                f"{place}: {name} has the shape {tuple(tensor.shape)}; "
                f"the network's is {tuple(own[name].shape)}"
            )
    module.load_state_dict(dict(tensors), strict=False)


def load_weight_file(module: nn.Module, path: Path) -> None:
    """Read a safetensors file into ``module``; see :func:`load_weights`.

    Raises:
        RecipeError: the file is damaged or of another network.
    """
    tensors, _ = read_tensors(path)
    load_weights(module, tensors, place=str(path))
