"""A catalogue of bundles that must be refused, each in its own way.

A kind is a change to a good bundle (``skip_bundle`` if nothing else is said; see ``samples``), the
error it must meet, and a text that the error's message must hold. Changes to members are tried as a file and as a folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx

from dynrt.bundle.archive import encode_archive
from dynrt.bundle.build import encode_bundle
from dynrt.bundle.limits import DEFAULT_LIMITS
from dynrt.bundle.model import Bundle
from dynrt.errors import BundleMemberError, BundleNotFoundError, DynrtError
from tests.bundle.samples import skip_bundle

Members = dict[str, bytes]
Json = dict[str, Any]
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """One kind: ``build(folder)`` makes it there and returns its path."""

    kind: str
    error: type[DynrtError]
    text: str
    build: Callable[[Path], Path]


def members_of(bundle: Bundle) -> Members:
    """The members that the writer writes for ``bundle``."""
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
        limits=DEFAULT_LIMITS,
    )[1]


Base = Callable[[], Bundle]


@cache
def _good(base: Base) -> Members:
    return members_of(base())


def good_members(base: Base = skip_bundle) -> Members:
    """The members of the good bundle, to be changed."""
    return dict(_good(base))


def good_file() -> bytes:
    """The good bundle as a file."""
    return b"".join(encode_archive(_good(skip_bundle)))


def dump(value: Json) -> bytes:
    """JSON as the writer writes it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def rehash(members: Members) -> None:
    """Make the manifest's hashes those of the members, so that deeper checks are reached."""
    value = json.loads(members[MANIFEST])
    for path, data in members.items():
        if path != MANIFEST:
            value["members"][path] = {
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
    members[MANIFEST] = dump(value)


def zip_of(
    entries: Iterable[tuple[str, bytes]],
    *,
    method: int = zipfile.ZIP_STORED,
    change: Callable[[zipfile.ZipInfo], None] | None = None,
) -> bytes:
    """A ZIP by Python's own writer, which knows what ours does not."""
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")  # of duplicate names
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            if change is not None:
                change(info)
            archive.writestr(info, data)
    return out.getvalue()


def write_folder(root: Path, members: Members) -> Path:
    """The members as files."""
    for path, data in members.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def by_file(kind: str, error: type[DynrtError], text: str, make: Callable[[], bytes]) -> Hostile:
    """A kind that exists as a file only."""

    def build(folder: Path) -> Path:
        path = folder / "hostile.dynrt"
        path.write_bytes(make())
        return path

    return Hostile(kind=f"{kind} (file)", error=error, text=text, build=build)


def by_folder(
    kind: str,
    error: type[DynrtError],
    text: str,
    change: Callable[[Path], None],
    base: Base = skip_bundle,
) -> Hostile:
    """A kind that exists as a folder only."""

    def build(folder: Path) -> Path:
        root = write_folder(folder / "hostile", good_members(base))
        change(root)
        return root

    return Hostile(kind=f"{kind} (folder)", error=error, text=text, build=build)


def by_members(
    kind: str,
    error: type[DynrtError],
    text: str,
    change: Callable[[Members], None],
    base: Base = skip_bundle,
) -> list[Hostile]:
    """A kind that exists in both forms."""

    def changed() -> Members:
        members = good_members(base)
        change(members)
        return members

    def as_folder(root: Path) -> None:
        for path in good_members(base):
            (root / path).unlink()
        write_folder(root, changed())

    return [
        by_file(kind, error, text, lambda: zip_of(sorted(changed().items()))),
        by_folder(kind, error, text, as_folder, base),
    ]


def by_raw(
    kind: str,
    error: type[DynrtError],
    text: str,
    change: Callable[[bytes], bytes],
    base: Base = skip_bundle,
) -> list[Hostile]:
    """A kind made by changing the manifest's bytes."""

    def edit(members: Members) -> None:
        members[MANIFEST] = change(members[MANIFEST])

    return by_members(kind, error, text, edit, base)


def by_manifest(
    kind: str,
    error: type[DynrtError],
    text: str,
    change: Callable[[Json], object],
    base: Base = skip_bundle,
) -> list[Hostile]:
    """A kind made by changing the manifest's value."""

    def edit(raw: bytes) -> bytes:
        value: Json = json.loads(raw)
        change(value)
        return dump(value)

    return by_raw(kind, error, text, edit, base)


def by_model(
    kind: str,
    error: type[DynrtError],
    text: str,
    change: Callable[[onnx.ModelProto], bytes | None],
    node: str = "stem",
) -> list[Hostile]:
    """A kind made by changing the ONNX of a node, with a hash that is right."""

    def edit(members: Members) -> None:
        model = onnx.load_model_from_string(members[f"nodes/{node}.onnx"])
        raw = change(model)
        members[f"nodes/{node}.onnx"] = raw if raw is not None else model.SerializeToString()
        rehash(members)

    return by_members(kind, error, text, edit)


def at(value: Any, *path: str | int) -> Any:
    """What is at ``path`` in a JSON value; in lists of nodes a text is a name."""
    for step in path:
        if isinstance(value, list) and isinstance(step, str):
            value = next(v for v in value if v["name"] == step)
        else:
            value = value[step]
    return value


def put(*path: str | int, to: object) -> Callable[[Json], None]:
    """A change of the manifest: ``to`` at ``path``."""

    def change(value: Json) -> None:
        at(value, *path[:-1])[path[-1]] = to

    return change


def drop(*path: str | int) -> Callable[[Json], None]:
    """A change of the manifest: nothing at ``path``."""

    def change(value: Json) -> None:
        del at(value, *path[:-1])[path[-1]]

    return change


def _link(root: Path) -> None:
    model = root / "nodes" / "stem.onnx"
    model.rename(root.parent / "stem.onnx")
    model.symlink_to(root.parent / "stem.onnx")


def _link_nodes(root: Path) -> None:
    (root / "nodes").rename(root.parent / "elsewhere")
    (root / "nodes").symlink_to(root.parent / "elsewhere")


def _link_manifest(root: Path) -> None:
    (root / MANIFEST).rename(root.parent / MANIFEST)
    (root / MANIFEST).symlink_to(root.parent / MANIFEST)


def _instead(path: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / path).unlink()
        make(root / path)

    return change


def _socket(path: Path) -> None:
    import socket

    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def _absent(folder: Path) -> Path:
    return folder / "absent.dynrt"


FOLDERS: list[Hostile] = [
    by_folder("a member is a link", BundleMemberError, "a symbolic link", _link),
    by_folder("nodes is a link", BundleMemberError, "nodes: is a symbolic link", _link_nodes),
    by_folder("the manifest is a link", BundleMemberError, "a symbolic link", _link_manifest),
    by_folder(
        "a dangling link",
        BundleMemberError,
        "a symbolic link",
        _instead("nodes/stem.onnx", lambda p: p.symlink_to("nowhere")),
    ),
    by_folder(
        "a pipe as a member", BundleMemberError, "a pipe", _instead("nodes/stem.onnx", os.mkfifo)
    ),
    by_folder("a pipe as the manifest", BundleMemberError, "a pipe", _instead(MANIFEST, os.mkfifo)),
    by_folder(
        "a socket as a member", BundleMemberError, "a socket", _instead("nodes/stem.onnx", _socket)
    ),
    by_folder(
        "a folder as a member",
        BundleMemberError,
        "a folder, not a file",
        _instead("nodes/stem.onnx", Path.mkdir),
    ),
    by_folder(
        "a folder among the nodes",
        BundleMemberError,
        "a folder, not a file",
        lambda root: (root / "nodes" / "deep").mkdir(),
    ),
    Hostile(kind="nothing there", error=BundleNotFoundError, text="no such file", build=_absent),
]


def hostile_bundles() -> list[Hostile]:
    """All kinds."""
    from tests.bundle.hostile_archives import ARCHIVES
    from tests.bundle.hostile_energy import ENERGY_KINDS
    from tests.bundle.hostile_graphs import GRAPHS
    from tests.bundle.hostile_json import TEXTS
    from tests.bundle.hostile_manifests import MANIFESTS
    from tests.bundle.hostile_models import MODELS
    from tests.bundle.hostile_tables import TABLE_KINDS

    v3 = [*TABLE_KINDS, *ENERGY_KINDS]
    return [*FOLDERS, *ARCHIVES, *TEXTS, *MANIFESTS, *GRAPHS, *MODELS, *v3]
