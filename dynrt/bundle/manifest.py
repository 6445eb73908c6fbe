"""The manifest: its value, and that value <-> the bytes of ``manifest.json``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from dynrt.bundle.certificate_json import certificate_to_json, decode_certificate
from dynrt.bundle.count_json import check_energy, decode_energy, encode_energy
from dynrt.bundle.fields import choice, integer, items, number, plain, table, text
from dynrt.bundle.graph_json import decode_graph, encode_graph
from dynrt.bundle.limits import Limits, bound
from dynrt.bundle.model import Preprocessing, nodes_with_models
from dynrt.bundle.names import (
    MANIFEST,
    TABLES,
    check_member_paths,
    member_of,
    shown,
)
from dynrt.bundle.strict_json import canonical_json, parse_json
from dynrt.bundle.versions import TABLES_SINCE, VERSION, version_of
from dynrt.errors import BundleMemberError, BundleVersionError, ManifestError
from dynrt.ir.certificate import Certificate
from dynrt.ir.counts import EnergySource
from dynrt.ir.graph import Exit, Graph

FORMAT = "dynrt-bundle"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_PIXELS = 16_384
_KEYS = (
    "format",
    "version",
    "name",
    "graph",
    "labels",
    "preprocessing",
    "card",
    "provenance",
    "certificate",
    "members",
)
_PREPROCESSING = ("height", "width", "channels", "mean", "std", "resize")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What the manifest says of one member: its SHA-256 in lower-case hex, and its size."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything of a bundle but the members' bytes; see :class:`dynrt.bundle.model.Bundle`."""

    name: str
    graph: Graph
    labels: tuple[str, ...]
    preprocessing: Preprocessing | None
    card: Mapping[str, object]
    provenance: Mapping[str, str]
    certificate: Certificate
    members: Mapping[str, Member]
    energy: EnergySource | None = None

    @property
    def version(self) -> int:
        """The oldest version of the format that can hold all of it."""
        tables = self.energy is not None or any(path in self.members for path in TABLES)
        return TABLES_SINCE if tables else version_of(self.graph)


# --- encoding


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of ``manifest.json``: canonical JSON.

    Raises:
        ManifestError: a value has no JSON form.
    """
    p, version = manifest.preprocessing, manifest.version
    since = {"energy": encode_energy(manifest.energy)} if version >= TABLES_SINCE else {}
    value = {
        "format": FORMAT,
        "version": version,
        "name": manifest.name,
        "graph": encode_graph(manifest.graph, version),
        "labels": list(manifest.labels),
        "preprocessing": None
        if p is None
        else {
            "height": p.height,
            "width": p.width,
            "channels": p.channels,
            "mean": list(p.mean),
            "std": list(p.std),
            "resize": p.resize,
        },
        "card": dict(manifest.card),
        "provenance": dict(manifest.provenance),
        "certificate": certificate_to_json(manifest.certificate, version),
        "members": {
            path: {"sha256": m.sha256, "bytes": m.size_bytes}
            for path, m in manifest.members.items()
        },
    }
    return canonical_json(value | since, place=MANIFEST)


# --- decoding


def decode_manifest(raw: bytes, *, limits: Limits) -> Manifest:
    """The manifest in ``raw``, field by field; the graph is not yet checked for sense.

    Raises:
        BundleSizeError: larger, deeper or more than ``limits`` allow.
        BundleVersionError: another format or version.
        BundlePathError: a member's name escapes or is not portable.
        BundleMemberError: the members listed are not those of the graph's nodes.
        ManifestError: anything else.
    """
    bound(MANIFEST, len(raw), limits.manifest_bytes)
    value = parse_json(raw, place=MANIFEST, limits=limits)
    version = check_version(value)
    since = ("energy",) if version >= TABLES_SINCE else ()
    entry = table(value, MANIFEST, (*_KEYS, *since))
    title = text(entry["name"], "name", limit=limits.name_chars)
    if not title.strip():
        raise ManifestError("name: is empty")
    graph = decode_graph(entry["graph"], "graph", limits, version)
    labels = tuple(
        text(v, f"labels[{i}]", limit=limits.name_chars)
        for i, v in enumerate(items(entry["labels"], "labels", limit=limits.labels))
    )
    _check_labels(labels, graph)
    preprocessing = _decode_preprocessing(entry["preprocessing"])
    if preprocessing is not None:
        _check_preprocessing(preprocessing, graph)
    members = _decode_members(entry["members"], limits)
    _check_members(members, graph, version)
    energy = decode_energy(entry.get("energy"), limits)
    if version >= TABLES_SINCE:
        check_energy(energy, graph)
    manifest = Manifest(
        name=title,
        graph=graph,
        labels=labels,
        preprocessing=preprocessing,
        card=decode_card(entry["card"], limits),
        provenance=decode_provenance(entry["provenance"], limits),
        certificate=decode_certificate(entry["certificate"], limits, version),
        members=members,
        energy=energy,
    )
    if manifest.version != version:
        raise ManifestError(
            f"version: nothing here needs version {version}; it is written as {manifest.version}"
        )
    return manifest


def check_version(value: object) -> int:
    """The version; refuses another format or a newer one before any other field is looked at.

    Raises:
        BundleVersionError: with both versions.
        ManifestError: not an object with ``format`` and ``version``.
    """
    if not isinstance(value, dict):
        raise ManifestError(f"{MANIFEST}: expected an object, got {shown(value)}")
    for key in ("format", "version"):
        if key not in value:
            raise ManifestError(f"{MANIFEST}: field {key!r} is missing")
    if value["format"] != FORMAT:
        raise BundleVersionError(f"format: {shown(value['format'])} is not {FORMAT!r}")
    version = integer(value["version"], "version", low=1)
    if version > VERSION:
        raise BundleVersionError(
            f"version: {version} is newer than {VERSION}, the last that this dynrt reads"
        )
    return version


def decode_card(value: object, limits: Limits) -> Mapping[str, object]:
    """The model card: free JSON, bounded in depth and size."""
    if not isinstance(value, Mapping):
        raise ManifestError(f"card: expected an object, got {shown(value)}")
    card = plain(value, "card", limits=limits, depth=limits.card_depth)
    bound("card", len(canonical_json(card, place="card")), limits.card_bytes)
    return cast("Mapping[str, object]", card)  # plain() of a mapping is one


def decode_provenance(value: object, limits: Limits) -> Mapping[str, str]:
    """Texts by name."""
    if not isinstance(value, Mapping):
        raise ManifestError(f"provenance: expected an object, got {shown(value)}")
    return {
        text(k, "provenance: a key", limit=limits.name_chars): text(
            v, f"provenance.{shown(k)[1:-1]}", limit=limits.text_chars, lines=True
        )
        for k, v in value.items()
    }


def _decode_preprocessing(value: object) -> Preprocessing | None:
    if value is None:
        return None
    place = "preprocessing"
    entry = table(value, place, _PREPROCESSING)
    channels = integer(entry["channels"], f"{place}.channels")
    if channels not in (1, 3):
        raise ManifestError(f"{place}.channels: {channels} is neither 1 (gray) nor 3 (RGB)")
    per_channel: dict[str, tuple[float, ...]] = {}
    for key in ("mean", "std"):
        values = items(entry[key], f"{place}.{key}", limit=channels)
        if len(values) != channels:
            raise ManifestError(f"{place}.{key}: {len(values)} numbers for {channels} channels")
        per_channel[key] = tuple(number(v, f"{place}.{key}[{i}]") for i, v in enumerate(values))
    for i, std in enumerate(per_channel["std"]):
        if std <= 0:
            raise ManifestError(f"{place}.std[{i}]: {std} is not above zero")
    return Preprocessing(
        height=integer(entry["height"], f"{place}.height", low=1, high=_MAX_PIXELS),
        width=integer(entry["width"], f"{place}.width", low=1, high=_MAX_PIXELS),
        channels=channels,
        mean=per_channel["mean"],
        std=per_channel["std"],
        resize=choice(entry["resize"], f"{place}.resize", ("bilinear",)),
    )


def _decode_members(value: object, limits: Limits) -> dict[str, Member]:
    if not isinstance(value, dict):
        raise ManifestError(f"members: expected an object, got {shown(value)}")
    bound("members", len(value) + 1, limits.members, "members")
    check_member_paths(value)
    out = {}
    total = 0
    for path, item in value.items():
        place = f"members.{path}"
        entry = table(item, place, ("bytes", "sha256"))
        digest = entry["sha256"]
        if not isinstance(digest, str) or _SHA256.fullmatch(digest) is None:
            raise ManifestError(
                f"{place}.sha256: {shown(digest)} is no SHA-256 (64 digits of 0-9 a-f)"
            )
        size = integer(entry["bytes"], f"{place}.bytes")
        bound(path, size, limits.table_bytes if path in TABLES else limits.member_bytes)
        total += size
        bound(f"{path}: members up to here", total, limits.bundle_bytes)
        out[path] = Member(sha256=digest, size_bytes=size)
    return out


# --- what must agree within one manifest


def _check_members(members: Mapping[str, Member], graph: Graph, version: int) -> None:
    needed = {member_of(n.name) for n in nodes_with_models(graph)}
    if missing := sorted(needed - members.keys()):
        raise BundleMemberError(f"members: {shown(missing[0])} of a node is not listed")
    allowed = TABLES if version >= TABLES_SINCE else ()
    if extra := sorted(members.keys() - needed - {*allowed}):
        raise BundleMemberError(f"members: {shown(extra[0])} belongs to no compute node or exit")


def _check_labels(labels: tuple[str, ...], graph: Graph) -> None:
    """Each answer must have one score per label."""
    if not labels:
        return
    by_name = {n.name: n for n in graph.nodes if isinstance(n, Exit)}
    ordered = [by_name[e] for e in graph.exits if e in by_name]
    joined: list[Exit] = []
    if graph.combine.kind == "concat":
        while ordered and ordered[-1].accept.kind == "always":
            joined.append(ordered.pop())
    answers = [(e.name, _answer_size(e)) for e in ordered]
    if joined:
        answers.append((joined[-1].name, sum(map(_answer_size, joined))))
    for exit_name, size in answers:
        if size != len(labels):
            raise ManifestError(
                f"labels: {len(labels)} labels, and exit {shown(exit_name)} answers with {size} scores"
            )


def _answer_size(node: Exit) -> int:
    return sum(math.prod(p.type.shape) for p in node.outputs if p.name == node.answer)


def _check_preprocessing(preprocessing: Preprocessing, graph: Graph) -> None:
    """Pictures must fit the one input that is no parameter."""
    inputs = [n for n in graph.inputs() if n.param is None]
    if len(inputs) != 1:
        raise ManifestError(f"preprocessing: the graph has {len(inputs)} inputs, pictures need one")
    shape = (preprocessing.channels, preprocessing.height, preprocessing.width)
    kind = inputs[0].type
    if kind.dtype != "float32" or kind.shape != shape:
        made = "x".join(map(str, shape))
        raise ManifestError(
            f"preprocessing: makes float32[{made}], and input {shown(inputs[0].name)} takes {kind}"
        )
