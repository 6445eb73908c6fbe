"""Makes bundles from parts, by the reader's own checks: what can be built can be read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Literal

from dynrt.bundle.count_json import decode_counts, decode_hardware, encode_counts
from dynrt.bundle.held import Held
from dynrt.bundle.layer_json import decode_layers, encode_layers
from dynrt.bundle.limits import DEFAULT_LIMITS, Limits, bound
from dynrt.bundle.manifest import (
    Manifest,
    Member,
    decode_card,
    decode_manifest,
    decode_provenance,
    encode_manifest,
)
from dynrt.bundle.model import Bundle, Preprocessing, nodes_with_models
from dynrt.bundle.names import COUNTS, LAYERS, MANIFEST, check_member_paths, member_of, shown
from dynrt.bundle.onnx_check import ModelChecker
from dynrt.bundle.reader import checked_certificate
from dynrt.errors import BundleMemberError, BundleModelError, ManifestError
from dynrt.ir.counts import CountTable, EnergySource
from dynrt.ir.graph import Graph, NodeId
from dynrt.ir.layers import LayerTable


def build_bundle(
    *,
    name: str,
    graph: Graph,
    models: Mapping[NodeId, bytes],
    labels: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    card: Mapping[str, object] | None = None,
    provenance: Mapping[str, str] | None = None,
    layers: LayerTable | None = None,
    counts: CountTable | None = None,
    energy: EnergySource | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Bundle:
    """A bundle of these parts, checked as a reader checks it; see :class:`Bundle` for what they are.

    Raises:
        BundleError: a reader would refuse it, in the way that the subclass says.
        GraphError: the graph breaks an invariant.
    """
    bundle, _ = encode_bundle(
        name=name,
        graph=graph,
        models=models,
        labels=labels,
        preprocessing=preprocessing,
        card=card or {},
        provenance=provenance or {},
        layers=layers,
        counts=counts,
        energy=energy,
        limits=limits,
    )
    return bundle


def encode_bundle(
    *,
    name: str,
    graph: Graph,
    models: Mapping[NodeId, bytes],
    labels: Sequence[str],
    preprocessing: Preprocessing | None,
    card: Mapping[str, object],
    provenance: Mapping[str, str],
    layers: LayerTable | None = None,
    counts: CountTable | None = None,
    energy: EnergySource | None = None,
    limits: Limits,
) -> tuple[Bundle, dict[str, bytes]]:
    """The bundle of these parts, and the bytes of all its members.

    Raises:
        BundleError: a reader would refuse it.
        GraphError: the graph breaks an invariant.
    """
    certificate = checked_certificate(graph, place=f"bundle {shown(name)}")
    members = _members(graph, models, limits)
    held_layers: Held[LayerTable | None] | None = None
    held_counts: Held[CountTable | None] | None = None
    if layers is not None:
        members[LAYERS], table = _layers(layers, graph, limits)
        held_layers = Held.of(table)
    if counts is not None:
        members[COUNTS], counted = _counts(counts, graph, limits)
        held_counts = Held.of(counted)
    draft = Manifest(
        name=name,
        graph=graph,
        labels=tuple(labels),
        preprocessing=preprocessing,
        card=decode_card(card, limits),
        provenance=decode_provenance(provenance, limits),
        certificate=certificate,
        members={
            path: Member(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
            for path, data in members.items()
        },
        energy=energy,
    )
    # Once around: numbers of other types that equal ours (numpy's, 1 for 1.0) take the one form.
    manifest = decode_manifest(encode_manifest(draft), limits=limits)
    if manifest != draft:
        raise ManifestError(f"bundle {shown(name)} is not the same after it was written as JSON")
    raw = encode_manifest(manifest)
    bundle = Bundle(
        name=manifest.name,
        graph=manifest.graph,
        models={n.name: members[member_of(n.name)] for n in nodes_with_models(graph)},
        labels=manifest.labels,
        preprocessing=manifest.preprocessing,
        card=manifest.card,
        provenance=manifest.provenance,
        certificate=manifest.certificate,
        sha256=hashlib.sha256(raw).hexdigest(),
        energy=manifest.energy,
        held_layers=held_layers,
        held_counts=held_counts,
    )
    return bundle, {MANIFEST: raw, **members}


def _members(graph: Graph, models: Mapping[NodeId, bytes], limits: Limits) -> dict[str, bytes]:
    """The ONNX members, checked."""
    nodes = nodes_with_models(graph)
    check_member_paths(member_of(n.name) for n in nodes)
    names = {n.name for n in nodes}
    if missing := sorted(names - models.keys()):
        raise BundleMemberError(f"node {shown(missing[0])} has no model")
    if extra := sorted(models.keys() - names):
        raise BundleMemberError(f"model {shown(extra[0])} belongs to no compute node or exit")
    out = {}
    checker = ModelChecker(limits)
    for node in nodes:
        data = models[node.name]
        if not isinstance(data, bytes):
            raise BundleModelError(f"model {shown(node.name)}: expected bytes, got {shown(data)}")
        bound(member_of(node.name), len(data), limits.member_bytes)
        checker.check(data, node)
        out[member_of(node.name)] = data
    return out


def _layers(layers: LayerTable, graph: Graph, limits: Limits) -> tuple[bytes, LayerTable]:
    """The layer table as a member, and as a reader has it."""
    raw = encode_layers(layers)
    table = decode_layers(raw, graph=graph, limits=limits)
    if table != layers:
        raise ManifestError(f"{LAYERS} is not the same after it was written as JSON")
    return raw, table


def _counts(counts: CountTable, graph: Graph, limits: Limits) -> tuple[bytes, CountTable]:
    """The count table as a member, and as a reader has it."""
    if not isinstance(counts, CountTable):
        raise ManifestError(f"{COUNTS}: expected a count table, got {shown(counts)}")
    draft = replace(counts, hardware=decode_hardware(counts.hardware, limits))
    raw = encode_counts(draft)
    table = decode_counts(raw, graph=graph, limits=limits)
    if table != draft:
        raise ManifestError(f"{COUNTS} is not the same after it was written as JSON")
    return raw, table


class Keep(Enum):
    """Says that a part stays as it is."""

    KEEP = "keep"


def encode_again(bundle: Bundle, *, limits: Limits) -> tuple[Bundle, dict[str, bytes]]:
    """``bundle`` from its parts, checked anew, and the bytes of all its members.

    Raises:
        BundleError: a reader would refuse it.
        GraphError: the graph breaks an invariant.
    """
    return encode_bundle(
        name=bundle.name,
        graph=bundle.graph,
        models=bundle.models,
        labels=bundle.labels,
        preprocessing=bundle.preprocessing,
        card=bundle.card,
        provenance=bundle.provenance,
        layers=bundle.layers,
        counts=bundle.counts,
        energy=bundle.energy,
        limits=limits,
    )


def replace_parts(
    bundle: Bundle,
    *,
    graph: Graph | Literal[Keep.KEEP] = Keep.KEEP,
    layers: LayerTable | Literal[Keep.KEEP] | None = Keep.KEEP,
    counts: CountTable | Literal[Keep.KEEP] | None = Keep.KEEP,
    energy: EnergySource | Literal[Keep.KEEP] | None = Keep.KEEP,
    card: Mapping[str, object] | Literal[Keep.KEEP] = Keep.KEEP,
    provenance: Mapping[str, str] | Literal[Keep.KEEP] = Keep.KEEP,
    limits: Limits = DEFAULT_LIMITS,
) -> Bundle:
    """``bundle`` with other parts, built and checked anew; its models stay.

    Args:
        bundle: whose parts are kept where nothing else is given.
        graph: of the same nodes with the same ports; its certificate is computed.
        layers: another layer table, or ``None`` for none.
        counts: another count table, or ``None`` for none.
        energy: another source of the graph's energies, or ``None`` for none.
        card: another model card.
        provenance: another provenance.
        limits: what readers accept.

    Raises:
        BundleError: a reader would refuse it.
        GraphError: the graph breaks an invariant.
    """
    return build_bundle(
        name=bundle.name,
        graph=bundle.graph if graph is Keep.KEEP else graph,
        models=bundle.models,
        labels=bundle.labels,
        preprocessing=bundle.preprocessing,
        card=bundle.card if card is Keep.KEEP else card,
        provenance=bundle.provenance if provenance is Keep.KEEP else provenance,
        layers=bundle.layers if layers is Keep.KEEP else layers,
        counts=bundle.counts if counts is Keep.KEEP else counts,
        energy=bundle.energy if energy is Keep.KEEP else energy,
        limits=limits,
    )
