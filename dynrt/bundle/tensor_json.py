"""Tensor types, ports and constants <-> JSON."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dynrt.bundle.fields import boolean, choice, integer, items, kind_of, name, number, table
from dynrt.bundle.limits import Limits, bound
from dynrt.bundle.strict_json import INT_MAX, INT_MIN
from dynrt.errors import ManifestError
from dynrt.ir.graph import DTYPES, Constant, Port, TensorType

_TYPE_KEYS = ("dtype", "shape")


def encode_type(kind: TensorType) -> dict[str, object]:
    """``{"dtype": "float32", "shape": [3, 32, 32]}``."""
    return {"dtype": kind.dtype, "shape": list(kind.shape)}


def encode_port(port: Port) -> dict[str, object]:
    """A type with a name."""
    return {"name": port.name, **encode_type(port.type)}


def decode_type(entry: Mapping[str, object], place: str, limits: Limits) -> TensorType:
    """The type in the fields ``dtype`` and ``shape`` of ``entry``."""
    dtype = choice(entry["dtype"], f"{place}.dtype", DTYPES)
    axes = items(entry["shape"], f"{place}.shape", limit=limits.rank)
    shape = tuple(
        integer(n, f"{place}.shape[{i}]", low=1, high=limits.tensor_bytes)
        for i, n in enumerate(axes)
    )
    kind = TensorType(dtype=dtype, shape=shape)
    bound(f"{place}: tensor of one sample", kind.size_bytes, limits.tensor_bytes)
    return kind


def decode_tensor_type(value: object, place: str, limits: Limits) -> TensorType:
    """A type that stands alone."""
    return decode_type(table(value, place, _TYPE_KEYS), place, limits)


def decode_ports(value: object, place: str, limits: Limits) -> tuple[Port, ...]:
    """The ports of one side of a node."""
    out = []
    for i, item in enumerate(items(value, place, limit=limits.ports)):
        here = f"{place}[{i}]"
        entry = table(item, here, ("name", *_TYPE_KEYS))
        out.append(
            Port(
                name=name(entry["name"], f"{here}.name"),
                type=decode_type(entry, here, limits),
            )
        )
    return tuple(out)


def encode_constant(constant: Constant) -> dict[str, object]:
    """``fill`` where all elements are the same finite number, otherwise ``values``."""
    value = constant.value
    out: dict[str, object] = {"dtype": str(value.dtype), "shape": list(value.shape)}
    flat = np.ascontiguousarray(value).reshape(-1)
    little = flat.astype(flat.dtype.newbyteorder("<"), copy=False).tobytes()
    size = flat.dtype.itemsize
    if flat.size and little == little[:size] * flat.size:
        first = flat[0].item()
        if not isinstance(first, float) or math.isfinite(first):
            return {"kind": "fill", **out, "value": first}
    return {"kind": "values", **out, "base64": base64.b64encode(little).decode("ascii")}


class ConstantDecoder:
    """Decodes constants and bounds what all of one graph take together."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes = 0

    def decode(self, value: object, place: str) -> Constant:
        """One constant; nothing is allocated before its size is counted."""
        kind = kind_of(value, place)
        last = {"fill": "value", "values": "base64"}.get(kind)
        if last is None:
            raise ManifestError(f"{place}.kind: {kind[:20]!a} is none of fill, values")
        entry = table(value, place, ("kind", *_TYPE_KEYS, last))
        of = decode_type(entry, place, self._limits)
        self._bytes += of.size_bytes
        bound(f"{place}: constants up to here", self._bytes, self._limits.constant_bytes)
        if kind == "fill":
            return Constant(np.full(of.shape, _scalar(entry["value"], f"{place}.value", of.dtype)))
        return Constant(_values(entry["base64"], f"{place}.base64", of))


def _scalar(value: object, place: str, dtype: str) -> np.generic:
    """``value`` as one element of ``dtype``; refused if it would be another number there."""
    kind: np.dtype[Any] = np.dtype(dtype)
    if kind.kind == "b":
        return np.bool_(boolean(value, place))
    if kind.kind in "iu":
        info = np.iinfo(kind)
        high = min(int(info.max), INT_MAX)
        whole = integer(value, place, low=max(int(info.min), INT_MIN), high=high)
        element: np.generic = kind.type(whole)
        return element
    real = number(value, place)
    with np.errstate(over="ignore"):
        element = kind.type(real)
    if element.item() != real:
        raise ManifestError(f"{place}: {real!r} is no {dtype}; the nearest is {element.item()!r}")
    return element


def _values(value: object, place: str, of: TensorType) -> np.ndarray[Any, Any]:
    """Little-endian elements in base64."""
    if not isinstance(value, str):
        raise ManifestError(f"{place}: expected a text")
    if len(value) != (of.size_bytes + 2) // 3 * 4:
        raise ManifestError(
            f"{place}: {len(value)} characters, and {of} needs {(of.size_bytes + 2) // 3 * 4}"
        )
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ManifestError(f"{place}: not base64") from None
    if base64.b64encode(raw).decode("ascii") != value or len(raw) != of.size_bytes:
        raise ManifestError(f"{place}: not the base64 of {of.size_bytes} bytes ({of})")
    if of.dtype == "bool" and raw.translate(None, b"\x00\x01"):
        raise ManifestError(f"{place}: a bool is 0 or 1")
    little = np.frombuffer(raw, dtype=np.dtype(of.dtype).newbyteorder("<"))
    return little.astype(of.dtype).reshape(of.shape)
