"""Makes bundles from parts, by the reader's own checks: what can be built can be read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

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
from dynrt.bundle.names import MANIFEST, check_member_paths, member_of, shown
from dynrt.bundle.onnx_check import ModelChecker
from dynrt.bundle.reader import checked_certificate
from dynrt.errors import BundleMemberError, BundleModelError, ManifestError
from dynrt.ir.graph import Graph, NodeId


def build_bundle(
    *,
    name: str,
    graph: Graph,
    models: Mapping[NodeId, bytes],
    labels: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    card: Mapping[str, object] | None = None,
    provenance: Mapping[str, str] | None = None,
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
    limits: Limits,
) -> tuple[Bundle, dict[str, bytes]]:
    """The bundle of these parts, and the bytes of all its members.

    Raises:
        BundleError: a reader would refuse it.
        GraphError: the graph breaks an invariant.
    """
    certificate = checked_certificate(graph, place=f"bundle {shown(name)}")
    members = _members(graph, models, limits)
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
