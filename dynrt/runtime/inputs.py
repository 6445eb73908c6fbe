"""Inputs as callers give them, checked and batched."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dynrt.errors import InputError
from dynrt.ir.graph import Array, Graph, InputNode
from dynrt.runtime.policy import Policy

#: What a caller gives: the one input's array, or arrays by name.
Inputs = Array | Mapping[str, Array]


def take_inputs(graph: Graph, policy: Policy, inputs: Inputs, *, batched: bool) -> dict[str, Array]:
    """Every input node's array ``(batch, ...)``, contiguous and of the declared dtype.

    A parameter that is not given has the policy's value, one row for all samples.

    Raises:
        InputError: wrong or missing name, shape, dtype, batch, or a value that is not finite.
    """
    nodes = graph.inputs()
    real = [n for n in nodes if n.param is None]
    if not isinstance(inputs, Mapping):
        if len(real) != 1:
            names = ", ".join(n.name for n in real)
            raise InputError(f"this network has {len(real)} inputs ({names}): give them by name")
        inputs = {real[0].name: inputs}
    unknown = inputs.keys() - {n.name for n in nodes}
    if unknown:
        known = ", ".join(n.name for n in nodes)
        raise InputError(f"no input {sorted(unknown)[0]!r}; this network has: {known}")
    out: dict[str, Array] = {}
    for node in nodes:
        if node.name in inputs:
            out[node.name] = _checked(node, inputs[node.name], batched=batched)
        elif node.param is not None:
            out[node.name] = policy.params[node.name]
        else:
            raise InputError(f"input {node.name!r} is missing; it takes {node.type}")
    return out


def _checked(node: InputNode, given: Array, *, batched: bool) -> Array:
    try:
        value = np.asarray(given)
    except ValueError as exc:
        raise InputError(f"input {node.name!r}: {exc}") from exc
    want = node.type
    shape = value.shape[1:] if batched else value.shape
    if shape != want.shape or (batched and value.ndim == 0):
        axes = ("batch", *want.shape) if batched else want.shape
        raise InputError(f"input {node.name!r} has shape {value.shape}; it takes {axes}")
    target = np.dtype(want.dtype)
    if value.dtype != target:
        if not (value.dtype.kind == target.kind == "f"):
            raise InputError(f"input {node.name!r} is {value.dtype}; it takes {want.dtype}")
        with np.errstate(over="ignore"):
            value = value.astype(target)
    if target.kind == "f" and not np.isfinite(value).all():
        raise InputError(f"input {node.name!r} holds NaN or infinity")
    return np.ascontiguousarray(value if batched else value[None])


def batch_of(arrays: Mapping[str, Array], policy: Policy) -> int:
    """The batch size that all given inputs share; 1 if all are parameters.

    Raises:
        InputError: they differ.
    """
    sizes = {name: len(v) for name, v in arrays.items() if v is not policy.params.get(name)}
    counts = set(sizes.values())
    if len(counts) > 1:
        told = ", ".join(f"{n}: {c}" for n, c in sizes.items())
        raise InputError(f"inputs differ in batch size ({told})")
    return counts.pop() if counts else 1
