"""What a reader accepts at most. Every bound is checked before the bytes behind it are decoded."""

from __future__ import annotations

from dataclasses import dataclass

from dynrt.errors import BundleSizeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Upper bounds on one bundle; a device with little memory passes smaller ones.

    The defaults are part of the published format (``docs/format.md``): a bundle beyond them is no
    bundle that others need to read.

    Attributes:
        bundle_bytes: all members together, and the file.
        member_bytes: one member.
        manifest_bytes: ``manifest.json``.
        members: how many members, the manifest and the tables included.
        json_depth: nested arrays and objects in the manifest, and in a table.
        json_values: commas, colons and brackets in the manifest; bounds what decoding allocates.
        nodes: nodes of the graph.
        ports: inputs, and outputs, of one node.
        edges: data edges, and control edges.
        actions: actions of one control node.
        groups: groups of one channel mask.
        rank: axes of a tensor, the batch axis left out.
        tensor_bytes: one tensor of one sample.
        constant_bytes: all constants of the graph together, decoded.
        labels: names of classes.
        name_chars: one name or label.
        text_chars: one text of the card, the provenance or a table.
        card_depth: nested arrays and objects in the card, and in a table's hardware.
        card_bytes: the card, and a table's hardware, as canonical JSON.
        table_bytes: ``layers.json``, and ``counts.json``.
        table_values: commas, colons and brackets in one of them.
        layers: layers of all nodes together.
        onnx_fields: protobuf fields of all ONNX members together; bounds the time to check them.
        onnx_depth: ``If`` inside ``If`` in one ONNX member.
        onnx_text_bytes: one text in an ONNX member.
    """

    bundle_bytes: int = 1 << 30
    member_bytes: int = 1 << 29
    manifest_bytes: int = 1 << 22
    members: int = 4099
    json_depth: int = 32
    json_values: int = 500_000
    nodes: int = 4096
    ports: int = 64
    edges: int = 16_384
    actions: int = 256
    groups: int = 65_536
    rank: int = 8
    tensor_bytes: int = 1 << 28
    constant_bytes: int = 1 << 24
    labels: int = 65_536
    name_chars: int = 128
    text_chars: int = 65_536
    card_depth: int = 8
    card_bytes: int = 1 << 18
    table_bytes: int = 1 << 23
    table_values: int = 1_000_000
    layers: int = 16_384
    onnx_fields: int = 250_000
    onnx_depth: int = 4
    onnx_text_bytes: int = 65_536


DEFAULT_LIMITS = Limits()


def bound(what: str, got: int, limit: int, unit: str = "bytes") -> None:
    """Refuse ``got`` above ``limit``.

    Raises:
        BundleSizeError: it is.
    """
    if got > limit:
        raise BundleSizeError(what, got=got, limit=limit, unit=unit)
