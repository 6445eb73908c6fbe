"""Layer tables <-> the bytes of ``layers.json``.

Decoding checks every field, and that the fields of a layer agree; whether the layers are those of
the node's ONNX is the exporter's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from dynrt.bundle.fields import boolean, choice, integer, items, kind_of, table, text
from dynrt.bundle.limits import Limits, bound
from dynrt.bundle.model import nodes_with_models
from dynrt.bundle.names import LAYERS, shown
from dynrt.bundle.strict_json import INT_MAX, canonical_json, parse_json
from dynrt.errors import ManifestError
from dynrt.ir.graph import ChannelMask, ComputeNode, Graph, NodeId
from dynrt.ir.layers import (
    WORD_BITS,
    ConvLayer,
    GemmLayer,
    Layer,
    LayerTable,
    MaskedPart,
    PassLayer,
    UnmodelledLayer,
)

_KINDS: Mapping[str, type[Layer]] = {
    "conv": ConvLayer,
    "gemm": GemmLayer,
    "pass": PassLayer,
    "unmodelled": UnmodelledLayer,
}
_NAMES = {of: kind for kind, of in _KINDS.items()}
_FIELDS = {kind: tuple(f.name for f in fields(of)) for kind, of in _KINDS.items()}
_DTYPES = tuple(WORD_BITS)
_OF_PRODUCTS: tuple[MaskedPart, ...] = ("filters", "channels")
_OF_PASSES: tuple[MaskedPart, ...] = ("words",)


def encode_layers(layers: LayerTable) -> bytes:
    """The bytes of ``layers.json``: canonical JSON.

    Raises:
        ManifestError: a value has no JSON form.
    """
    if not isinstance(layers, Mapping):
        raise ManifestError(f"{LAYERS}: expected layers by node, got {shown(layers)}")
    nodes = {node: [_encode(layer, node) for layer in row] for node, row in layers.items()}
    return canonical_json({"nodes": nodes}, place=LAYERS)


def decode_layers(raw: bytes, *, graph: Graph, limits: Limits) -> LayerTable:
    """The layer table in ``raw``, in the order of the graph's nodes.

    Args:
        raw: the member.
        graph: whose nodes it is of.
        limits: what is accepted.

    Raises:
        BundleSizeError: more than ``limits`` allow.
        ManifestError: not what the format says; names the node, the layer and the field.
    """
    value = read_table(raw, LAYERS, ("nodes",), limits)
    of_nodes = node_fields(value["nodes"], LAYERS, graph)
    out: dict[NodeId, tuple[Layer, ...]] = {}
    total = 0
    for node in nodes_with_models(graph):
        place = f"{LAYERS}: nodes.{node.name}"
        rows = items(of_nodes[node.name], place, limit=limits.layers)
        total += len(rows)
        bound(f"{place}: layers up to here", total, limits.layers, "layers")
        mask = node.mask if isinstance(node, ComputeNode) else None
        out[node.name] = tuple(
            _decode(row, f"{place}[{i}]", limits, mask) for i, row in enumerate(rows)
        )
    return out


def read_table(
    raw: bytes, member: str, keys: tuple[str, ...], limits: Limits
) -> Mapping[str, object]:
    """The JSON object with ``keys`` that ``member`` holds.

    Raises:
        BundleSizeError: larger, deeper or with more values than ``limits`` allow.
        ManifestError: no such object.
    """
    bound(member, len(raw), limits.table_bytes)
    value = parse_json(raw, place=member, limits=replace(limits, json_values=limits.table_values))
    return table(value, member, keys)


def node_fields(value: object, member: str, graph: Graph) -> Mapping[str, object]:
    """A JSON object whose keys are exactly the compute nodes and exits of ``graph``."""
    return table(value, f"{member}: nodes", tuple(n.name for n in nodes_with_models(graph)))


def _encode(layer: Layer, node: str) -> dict[str, object]:
    kind = _NAMES.get(type(layer))
    if kind is None:
        raise ManifestError(f"{LAYERS}: nodes.{shown(node)[1:-1]}: {shown(layer)} is no layer")
    return {"kind": kind} | {name: getattr(layer, name) for name in _FIELDS[kind]}


def _decode(value: object, place: str, limits: Limits, mask: ChannelMask | None) -> Layer:
    kind = kind_of(value, place)
    if kind not in _KINDS:
        raise ManifestError(f"{place}.kind: {shown(kind)} is none of {', '.join(_KINDS)}")
    entry = table(value, place, ("kind", *_FIELDS[kind]))
    title = text(entry["name"], f"{place}.name", limit=limits.text_chars)
    op = label(entry["op"], f"{place}.op", limits)
    if kind == "unmodelled":
        moved = entry["bytes_moved"]
        return UnmodelledLayer(
            name=title,
            op=op,
            macs=integer(entry["macs"], f"{place}.macs"),
            bytes_moved=None if moved is None else integer(moved, f"{place}.bytes_moved"),
            reason=text(entry["reason"], f"{place}.reason", limit=limits.text_chars),
        )
    dtype = choice(entry["dtype"], f"{place}.dtype", _DTYPES)
    if kind == "pass":
        return PassLayer(
            name=title,
            op=op,
            dtype=dtype,
            reads_words=integer(entry["reads_words"], f"{place}.reads_words"),
            writes_words=integer(entry["writes_words"], f"{place}.writes_words"),
            operations=integer(entry["operations"], f"{place}.operations"),
            fused=boolean(entry["fused"], f"{place}.fused"),
            view=boolean(entry["view"], f"{place}.view"),
            masked=_masked(entry["masked"], f"{place}.masked", mask, _OF_PASSES),
        )
    masked = _masked(entry["masked"], f"{place}.masked", mask, _OF_PRODUCTS)
    numbers = {
        name: _size(entry[name], f"{place}.{name}", limits, low=0 if name in _PADS else 1)
        for name in (_CONV_SIZES if kind == "conv" else _GEMM_SIZES)
    }
    layer: ConvLayer | GemmLayer
    if kind == "conv":
        layer = ConvLayer(name=title, op=op, dtype=dtype, masked=masked, **numbers)
        _check_conv(layer, place, limits)
        parts = {"filters": layer.filters, "channels": layer.channels}
    else:
        repeat = integer(entry["repeat"], f"{place}.repeat", low=1)
        layer = GemmLayer(name=title, op=op, dtype=dtype, masked=masked, repeat=repeat, **numbers)
        _check_gemm(layer, place, limits)
        parts = {"filters": layer.n, "channels": layer.k}
    if layer.macs > INT_MAX:
        raise ManifestError(f"{place}: {layer.macs} MACs are not in 0..{INT_MAX}")
    if masked is not None and mask is not None and parts[masked] % mask.groups:
        raise ManifestError(
            f"{place}.masked: {parts[masked]} {masked} are no {mask.groups} equal groups"
        )
    return layer


_PADS = ("pad_top", "pad_left", "pad_bottom", "pad_right")
_CONV_SIZES = tuple(
    name for name in _FIELDS["conv"] if name not in ("name", "op", "dtype", "masked")
)
_GEMM_SIZES = ("m", "k", "n")


def label(value: object, place: str, limits: Limits) -> str:
    """A short text of one line that is not blank."""
    out = text(value, place, limit=limits.name_chars)
    if not out.strip():
        raise ManifestError(f"{place}: is empty")
    return out


def _size(value: object, place: str, limits: Limits, *, low: int) -> int:
    return integer(value, place, low=low, high=max(limits.tensor_bytes, limits.member_bytes))


def _masked(
    value: object, place: str, mask: ChannelMask | None, parts: tuple[MaskedPart, ...]
) -> MaskedPart | None:
    if value is None:
        return None
    part = choice(value, place, parts)
    if mask is None:
        raise ManifestError(f"{place}: {part!r}, and the node has no channel mask")
    return part


def _check_conv(layer: ConvLayer, place: str, limits: Limits) -> None:
    """What must agree within one convolution."""
    for what in ("channels", "filters"):
        count = getattr(layer, what)
        if count % layer.groups:
            raise ManifestError(
                f"{place}.groups: {count} {what} are no {layer.groups} equal groups"
            )
    pads = {"h": layer.pad_top + layer.pad_bottom, "w": layer.pad_left + layer.pad_right}
    for axis, pad in pads.items():
        size, kernel, dilation, stride, out = (
            getattr(layer, f"{what}_{axis}")
            for what in ("in", "kernel", "dilation", "stride", "out")
        )
        reach = dilation * (kernel - 1) + 1
        if reach > size + pad:
            raise ManifestError(
                f"{place}.kernel_{axis}: reaches over {reach}, and the padded input has {size + pad}"
            )
        want = (size + pad - reach) // stride + 1
        if out != want:
            raise ManifestError(f"{place}.out_{axis}: {out}, and the other fields give {want}")
    _check_words(place, "input", layer.in_h * layer.in_w * layer.channels, limits)
    _check_words(place, "output", layer.out_h * layer.out_w * layer.filters, limits)


def _check_gemm(layer: GemmLayer, place: str, limits: Limits) -> None:
    """Each of the three matrices of one product could be in a bundle."""
    _check_words(place, "input", layer.m * layer.k, limits)
    _check_words(place, "weights", layer.k * layer.n, limits)
    _check_words(place, "output", layer.m * layer.n, limits)


def _check_words(place: str, what: str, words: int, limits: Limits) -> None:
    most = max(limits.tensor_bytes, limits.member_bytes)
    bound(f"{place}: words of its {what}", words, most, "words")
