"""Reads bundles and trusts nothing: bound, decode, check, cover.

Each byte is read once, and what was hashed is what is used.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from dynrt.bundle.archive import ArchiveMembers
from dynrt.bundle.folder import FILE_FLAGS, FolderMembers
from dynrt.bundle.limits import DEFAULT_LIMITS, Limits, bound
from dynrt.bundle.manifest import Manifest, decode_manifest
from dynrt.bundle.model import Bundle, nodes_with_models
from dynrt.bundle.names import MANIFEST, member_of, shown, unseen
from dynrt.bundle.onnx_check import ModelChecker
from dynrt.errors import (
    BundleArchiveError,
    BundleError,
    BundleHashError,
    BundleMemberError,
    BundleNotFoundError,
    CertificateError,
)
from dynrt.ir.certificate import Certificate, certify
from dynrt.ir.check import require_valid
from dynrt.ir.graph import Graph


class Members(Protocol):
    """The members of a file or folder: names and sizes at once, bytes one by one."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size in bytes of each member; all names are safe."""
        ...

    def read(self, path: str) -> bytes:
        """The bytes of a member; exactly as many as ``sizes`` says."""
        ...


def read_bundle(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> Bundle:
    """Read and check the bundle at ``path``, a ``.dynrt`` file or a folder.

    Raises:
        BundleError: it cannot be read; the subclass says in which way, the message where.
        GraphError: its graph breaks an invariant.
    """
    where = os.fspath(path)
    place = where if unseen(where) is None else ascii(where)
    try:
        with _opened(Path(where), limits) as members:
            return read_members(members, limits=limits, place=place)
    except BundleError as exc:
        exc.args = (f"{place}: {exc}",)
        raise


def read_members(members: Members, *, limits: Limits = DEFAULT_LIMITS, place: str = "") -> Bundle:
    """Read and check a bundle from its members.

    Args:
        members: what is there.
        limits: what is accepted.
        place: what a graph error names as its place.

    Raises:
        BundleError: it cannot be read.
        GraphError: its graph breaks an invariant.
    """
    sizes = members.sizes
    if MANIFEST not in sizes:
        raise BundleMemberError(f"{MANIFEST} is missing: this is no bundle")
    bound(MANIFEST, sizes[MANIFEST], limits.manifest_bytes)
    raw = members.read(MANIFEST)
    manifest = decode_manifest(raw, limits=limits)
    _check_presence(sizes, manifest)
    certificate = checked_certificate(manifest.graph, place=place)
    compare_certificates(manifest.certificate, certificate)
    models = {}
    checker = ModelChecker(limits)
    for node in nodes_with_models(manifest.graph):
        path = member_of(node.name)
        data = members.read(path)
        if hashlib.sha256(data).hexdigest() != manifest.members[path].sha256:
            raise BundleHashError(f"member {shown(path)}: its SHA-256 is not the manifest's")
        checker.check(data, node)
        models[node.name] = data
    return Bundle(
        name=manifest.name,
        graph=manifest.graph,
        models=models,
        labels=manifest.labels,
        preprocessing=manifest.preprocessing,
        card=manifest.card,
        provenance=manifest.provenance,
        certificate=certificate,
        sha256=hashlib.sha256(raw).hexdigest(),
    )


def checked_certificate(graph: Graph, *, place: str) -> Certificate:
    """The certificate of ``graph`` after all its invariants were checked.

    Raises:
        GraphError: it breaks one.
    """
    require_valid(graph, place)
    return certify(graph)


def compare_certificates(stored: Certificate, computed: Certificate) -> None:
    """Refuse a stored certificate that is not the recomputed one.

    Raises:
        CertificateError: names the first field that differs, and both values.
    """
    for field in Certificate.__slots__:
        if field != "exits":
            _compare(field, getattr(stored, field), getattr(computed, field))
    _compare("exits", [e.name for e in stored.exits], [e.name for e in computed.exits])
    for old, new in zip(stored.exits, computed.exits, strict=True):
        for field in ("cheapest_macs", "full_macs"):
            _compare(f"exits[{old.name}].{field}", getattr(old, field), getattr(new, field))


def _compare(field: str, stored: object, computed: object) -> None:
    if stored != computed:
        values = [v if isinstance(v, int | None) else str(v)[:80] for v in (stored, computed)]
        raise CertificateError(
            f"certificate.{field}: the bundle says {values[0]}, its graph gives {values[1]}"
        )


def _check_presence(sizes: Mapping[str, int], manifest: Manifest) -> None:
    listed = manifest.members
    if missing := sorted(listed.keys() - sizes.keys()):
        raise BundleMemberError(f"member {shown(missing[0])} is in the manifest, but not there")
    if extra := sorted(sizes.keys() - listed.keys() - {MANIFEST}):
        raise BundleMemberError(f"member {shown(extra[0])} is there, but not in the manifest")
    for path, member in listed.items():
        if sizes[path] != member.size_bytes:
            raise BundleHashError(
                f"member {shown(path)} has {sizes[path]} bytes, the manifest says {member.size_bytes}"
            )


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[Members]:
    """The members of the file or folder at ``path``."""
    try:
        mode = _mode(path)
        if stat.S_ISDIR(mode):
            yield FolderMembers(path, limits=limits)
            return
        _require_file(mode)
        handle = os.open(path, FILE_FLAGS)
        with os.fdopen(handle, "rb") as file:
            info = os.fstat(handle)
            _require_file(info.st_mode)
            yield ArchiveMembers(file, info.st_size, limits=limits)
    except FileNotFoundError:
        raise BundleNotFoundError("no such file or folder") from None
    except OSError as exc:
        raise BundleNotFoundError(f"cannot be read: {exc.strerror or exc}") from None


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except ValueError as exc:  # a NUL in the path
        raise BundleNotFoundError(f"no such file or folder: {exc}") from None


def _require_file(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise BundleArchiveError("is neither a file nor a folder")
