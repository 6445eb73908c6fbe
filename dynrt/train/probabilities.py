"""Probabilities as callers give them, side by side in one tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dynrt.errors import EnergyError
from dynrt.ir.graph import NodeId

#: ``(batch, ...)`` tensors of probabilities, or one number for every sample.
Probability = Tensor | float

#: How far a probability may leave 0..1 by rounding.
_SLACK = 1e-3


def columns(value: Probability, width: int, place: str) -> Tensor:
    """``value`` as probabilities ``(batch, width)``; ``(1, width)`` for one number.

    Raises:
        EnergyError: another shape, or a value outside 0..1.
    """
    given = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
    if not given.is_floating_point():
        raise EnergyError(f"{place}: probabilities are {given.dtype}, not floating point")
    shaped = given
    if given.ndim == 0:
        shaped = given.expand(1, width)
    elif given.ndim == 1 and width == 1:
        shaped = given[:, None]
    if shaped.ndim != 2 or shaped.shape[1] != width or not len(shaped):
        raise EnergyError(f"{place}: probabilities {tuple(given.shape)}, not (batch, {width})")
    if not bool(((shaped >= -_SLACK) & (shaped <= 1 + _SLACK)).all()):
        raise EnergyError(f"{place}: a probability is outside 0..1")
    # half precision loses a block's energy among a hundred others
    return shaped.float() if shaped.dtype in (torch.float16, torch.bfloat16) else shaped


def parts(
    given: Tensor | Mapping[NodeId, Probability] | None, widths: Mapping[NodeId, int], what: str
) -> list[tuple[Tensor, bool]]:
    """Columns in the order of ``widths``, and whether they are a tensor of the caller."""
    if isinstance(given, Tensor):
        return [(columns(given, sum(widths.values()), f"{what}s"), True)]
    named = given or {}
    for name in named:
        if name not in widths:
            known = ", ".join(widths) or "none"
            raise EnergyError(f"no {what} {name!r} takes a probability here; these do: {known}")
    out: list[tuple[Tensor, bool]] = []
    for name, width in widths.items():
        if name not in named:
            raise EnergyError(f"{what} {name!r} has no probability")
        value = named[name]
        out.append((columns(value, width, f"{what} {name!r}"), isinstance(value, Tensor)))
    return out


def alike(found: Sequence[tuple[Tensor, bool]]) -> list[Tensor]:
    """The same batch, dtype and device for all; numbers follow the tensors."""
    tensors = [part for part, is_tensor in found if is_tensor]
    like = tensors[0] if tensors else torch.zeros((), dtype=torch.float64)
    dtype = like.dtype
    for part in tensors:
        dtype = torch.promote_types(dtype, part.dtype)
    sizes = {len(part) for part, _ in found} - {1}
    if len(sizes) > 1:
        raise EnergyError(f"probabilities of {' and '.join(map(str, sorted(sizes)))} samples")
    batch = sizes.pop() if sizes else 1
    out = [part.to(like.device, dtype).expand(batch, -1) for part, _ in found]
    return out or [torch.zeros(1, 0, dtype=dtype)]
