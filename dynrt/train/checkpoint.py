"""Files of tensors that survive a kill and are never trusted: safetensors, one file, replaced whole.

Scalars are JSON in the file's metadata, which also holds a SHA-256 over them and over all tensors,
so a file is either complete and consistent or refused. There is no pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dynrt.errors import RecipeError

_HEADER = "dynrt"
_SHA256 = "dynrt_sha256"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFile:
    """What a file of dynrt's training holds.

    Attributes:
        kind: ``checkpoint`` (within a stage) or ``weights`` (of a finished one).
        identity: what it belongs to: hashes of recipe, data, and weights it came from.
        state: JSON scalars: where the stage stands, and its records.
        tensors: by name.
    """

    kind: str
    identity: Mapping[str, str]
    state: Mapping[str, object]
    tensors: Mapping[str, Tensor] = field(repr=False)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash over names, dtypes, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` whole: whoever reads it, whenever we die, finds the old or the new file.

    Raises:
        RecipeError: the folder cannot be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise RecipeError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_tensor_file(path: Path, content: TensorFile) -> None:
    """Write ``content`` to ``path`` atomically.

    Raises:
        RecipeError: the folder cannot be written.
    """
    tensors = {name: t.detach().contiguous() for name, t in content.tensors.items()}
    header = {
        "format": FORMAT,
        "kind": content.kind,
        "identity": dict(content.identity),
        "state": dict(content.state),
        "tensors_sha256": tensors_sha256(tensors),
        "torch": torch.__version__,
    }
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    write_atomically(path, save(tensors, metadata={_HEADER: text, _SHA256: sha256}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of any safetensors file, and its metadata.

    Raises:
        RecipeError: it is not there, or not a whole safetensors file.
    """
    if not path.is_file():
        raise RecipeError(f"{path}: there is no such file of weights")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, AttributeError) as error:
        raise RecipeError(f"{path}: damaged, or no safetensors file: {error}") from error


def read_tensor_file(path: Path, *, kind: str) -> TensorFile:
    """Read a file that :func:`write_tensor_file` wrote.

    Raises:
        RecipeError: it is not there, damaged, of another kind, or not ours.
    """
    tensors, metadata = read_tensors(path)
    text = metadata.get(_HEADER)
    if text is None:
        raise RecipeError(f"{path}: not written by dynrt train; remove it to go on")
    damaged = RecipeError(f"{path}: damaged: its content does not match its SHA-256")
    if hashlib.sha256(text.encode()).hexdigest() != metadata.get(_SHA256):
        raise damaged
    header = json.loads(text)
    if header["format"] != FORMAT or header["kind"] != kind:
        raise RecipeError(
            f"{path}: holds {header['kind']!r} in format {header['format']!r}, "
            f"not {kind!r} in format {FORMAT}"
        )
    if tensors_sha256(tensors) != header["tensors_sha256"]:
        raise damaged
    return TensorFile(
        kind=kind, identity=header["identity"], state=header["state"], tensors=tensors
    )


def require_same(path: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Refuse a file that belongs to something else.

    Raises:
        RecipeError: names what differs.
    """
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise RecipeError(
                f"{path}: made with another {key} ({_short(found.get(key))}, now "
                f"{_short(wanted.get(key))}); train into another folder or remove it"
            )


def _short(value: object) -> str:
    return "none" if value is None else str(value)[:12]
