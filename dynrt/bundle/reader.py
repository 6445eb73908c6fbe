"""Reads bundles and trusts nothing: bound, decode, check, cover.

Each byte is read once, and what was hashed is what is used.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from dynrt.bundle.archive import ArchiveMembers
from dynrt.bundle.count_json import decode_counts
from dynrt.bundle.folder import FILE_FLAGS, FolderMembers
from dynrt.bundle.held import Held
from dynrt.bundle.layer_json import decode_layers
from dynrt.bundle.limits import DEFAULT_LIMITS, Limits, bound
from dynrt.bundle.manifest import Manifest, decode_manifest
from dynrt.bundle.model import Bundle, nodes_with_models
from dynrt.bundle.names import COUNTS, LAYERS, MANIFEST, member_of, shown, unseen
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
from dynrt.ir.counts import CountTable
from dynrt.ir.graph import Graph, NodeId
from dynrt.ir.layers import LayerTable

_Table = TypeVar("_Table")
_Table_co = TypeVar("_Table_co", covariant=True)


class Members(Protocol):
    """The members of a file or folder: names and sizes at once, bytes one by one."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size in bytes of each member; all names are safe."""
        ...

    def read(self, path: str) -> bytes:
        """The bytes of a member; exactly as many as ``sizes`` says."""
        ...


def read_bundle(
    path: str | os.PathLike[str],
    *,
    limits: Limits = DEFAULT_LIMITS,
    known: Callable[[str], bool] | None = None,
) -> Bundle:
    """Read and check the bundle at ``path``, a ``.dynrt`` file or a folder.

    Args:
        path: of the bundle.
        limits: what is accepted.
        known: says of a manifest's SHA-256 whether a bundle of just that manifest was read in full
            before, and what was made of its models is kept. Then its graph and certificate are
            taken as they were found then, and its models are read, and checked in full, when
            somebody asks for one.

    Raises:
        BundleError: it cannot be read; the subclass says in which way, the message where.
        GraphError: its graph breaks an invariant.
    """
    where = os.fspath(path)
    place = where if unseen(where) is None else ascii(where)
    try:
        with _opened(Path(where), limits) as members:
            return read_members(members, limits=limits, place=place, known=known, path=Path(where))
    except BundleError as exc:
        exc.args = (f"{place}: {exc}",)
        raise


def read_members(
    members: Members,
    *,
    limits: Limits = DEFAULT_LIMITS,
    place: str = "",
    known: Callable[[str], bool] | None = None,
    path: Path | None = None,
) -> Bundle:
    """Read and check a bundle from its members.

    Args:
        members: what is there.
        limits: what is accepted.
        place: what a graph error names as its place.
        known: see :func:`read_bundle`.
        path: where the members are, to read them again if they are ``known``.

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
    sha256 = hashlib.sha256(raw).hexdigest()
    models: Mapping[NodeId, bytes]
    layers: Held[LayerTable | None] | None
    counts: Held[CountTable | None] | None
    if known is not None and path is not None and known(sha256):
        certificate = manifest.certificate
        later = LaterBundle(path, sha256, limits)
        models = LaterModels(tuple(n.name for n in nodes_with_models(manifest.graph)), later)
        layers = Held(later.layers) if LAYERS in manifest.members else None
        counts = Held(later.counts) if COUNTS in manifest.members else None
    else:
        certificate = checked_certificate(manifest.graph, place=place)
        compare_certificates(manifest.certificate, certificate)
        models = _read_models(members, manifest, limits)
        layers = _held(decode_layers, LAYERS, members, manifest, limits, place)
        counts = _held(decode_counts, COUNTS, members, manifest, limits, place)
    return Bundle(
        name=manifest.name,
        graph=manifest.graph,
        models=models,
        labels=manifest.labels,
        preprocessing=manifest.preprocessing,
        card=manifest.card,
        provenance=manifest.provenance,
        certificate=certificate,
        sha256=sha256,
        energy=manifest.energy,
        held_layers=layers,
        held_counts=counts,
    )


def _read_models(members: Members, manifest: Manifest, limits: Limits) -> dict[NodeId, bytes]:
    models = {}
    checker = ModelChecker(limits)
    for node in nodes_with_models(manifest.graph):
        data = _read_member(members, manifest, member_of(node.name))
        checker.check(data, node)
        models[node.name] = data
    return models


def _read_member(members: Members, manifest: Manifest, path: str) -> bytes:
    """The bytes of a member that the manifest lists, hashed."""
    data = members.read(path)
    if hashlib.sha256(data).hexdigest() != manifest.members[path].sha256:
        raise BundleHashError(f"member {shown(path)}: its SHA-256 is not the manifest's")
    return data


class _Decoder(Protocol[_Table_co]):
    def __call__(self, raw: bytes, *, graph: Graph, limits: Limits) -> _Table_co: ...


def _held(
    decode: _Decoder[_Table],
    path: str,
    members: Members,
    manifest: Manifest,
    limits: Limits,
    place: str,
) -> Held[_Table | None] | None:
    """The table in the member ``path``, read and hashed now, decoded on first use."""
    if path not in manifest.members:
        return None
    raw = _read_member(members, manifest, path)
    return Held(partial(_decoded, decode, raw, manifest.graph, limits, place))


def _decoded(
    decode: _Decoder[_Table], raw: bytes, graph: Graph, limits: Limits, place: str
) -> _Table:
    try:
        return decode(raw, graph=graph, limits=limits)
    except BundleError as exc:
        if place:  # as the errors of reading have it
            exc.args = (f"{place}: {exc}",)
        raise


class LaterBundle:
    """A bundle that is known, read and checked in full when something of it is asked for.

    Args:
        path: of the bundle.
        sha256: of its manifest.
        limits: what is accepted.
    """

    def __init__(self, path: Path, sha256: str, limits: Limits) -> None:
        self._path, self._sha256, self._limits = path.absolute(), sha256, limits
        self._read: Bundle | None = None

    def bundle(self) -> Bundle:
        """All of it.

        Raises:
            BundleError: it cannot be read any more, or another stands there.
            GraphError: its graph breaks an invariant.
        """
        if self._read is None:
            bundle = read_bundle(self._path, limits=self._limits)
            if bundle.sha256 != self._sha256:
                raise BundleHashError(f"{self._path}: it was replaced since it was loaded")
            self._read = bundle
        return self._read

    def layers(self) -> LayerTable | None:
        """Its layer table."""
        return self.bundle().layers

    def counts(self) -> CountTable | None:
        """Its count table."""
        return self.bundle().counts


class LaterModels(Mapping[NodeId, bytes]):
    """Models of a bundle that is known, read and checked in full when one is asked for.

    Args:
        names: of the nodes.
        later: the bundle.
    """

    def __init__(self, names: tuple[NodeId, ...], later: LaterBundle) -> None:
        self._names, self._later = names, later

    def __iter__(self) -> Iterator[NodeId]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: NodeId) -> bytes:
        if name not in self._names:
            raise KeyError(name)
        return self._later.bundle().models[name]


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
