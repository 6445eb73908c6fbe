"""Masks in bundles: version 2 where there is one, the old bytes where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynrt.bundle import Bundle, packaged_models, read_bundle, write_bundle
from dynrt.bundle.limits import DEFAULT_LIMITS
from dynrt.bundle.manifest import decode_manifest
from dynrt.errors import (
    BundleSizeError,
    BundleVersionError,
    DynrtError,
    GraphError,
    ManifestError,
)
from dynrt.ir.graph import ChannelMask, ComputeNode
from tests.bundle.hostile import MANIFEST, dump, members_of
from tests.bundle.samples import masked_bundle, skip_bundle
from tests.bundle.test_bundle_schema import VALIDATOR


def manifest(bundle: Bundle) -> Any:
    return json.loads(members_of(bundle)[MANIFEST])


def thin(value: Any) -> Any:
    return next(n for n in value["graph"]["nodes"] if n["name"] == "thin")


def put(key: str, to: object) -> Callable[[Any], None]:
    return lambda value: thin(value)["mask"].update({key: to})


def without_masks(value: Any) -> None:
    for node in value["graph"]["nodes"]:
        node.pop("mask", None)


def nulls(value: Any) -> None:
    thin(value)["mask"] = None


def test_a_mask_goes_to_a_file_and_back(tmp_path: Path) -> None:
    path = tmp_path / "masked.dynrt"
    assert write_bundle(masked_bundle(), path) == masked_bundle().sha256
    again = read_bundle(path)
    assert again == masked_bundle()
    node = again.graph.by_name["thin"]
    assert isinstance(node, ComputeNode)
    assert node.mask == ChannelMask(port="mask", groups=2, group_macs=5)
    assert manifest(again)["version"] == 2
    VALIDATOR.validate(manifest(again))


def test_every_compute_node_of_version_2_has_the_field() -> None:
    fields = {n["name"]: n.get("mask", "none") for n in manifest(masked_bundle())["graph"]["nodes"]}
    assert fields["stem"] is None
    assert fields["final"] == fields["image"] == fields["choose"] == "none"


def test_without_masks_bundles_keep_their_version() -> None:
    assert manifest(skip_bundle())["version"] == 1
    assert "mask" not in json.dumps(manifest(skip_bundle()))


@pytest.mark.parametrize("model", packaged_models(), ids=lambda m: m.name)
def test_bundles_written_before_masks_are_written_alike(tmp_path: Path, model: Any) -> None:
    bundle = read_bundle(model.path)
    path = tmp_path / "again.dynrt"
    assert write_bundle(bundle, path) == bundle.sha256
    assert path.read_bytes() == model.path.read_bytes()


HOSTILE: list[tuple[str, type[DynrtError], str, Callable[[Any], None]]] = [
    (
        "mask in version 1",
        ManifestError,
        "unknown field 'mask'",
        lambda v: v.update(version=1),
    ),
    ("kept energies in version 2", ManifestError, "unknown field", put("kept_femtojoules", [])),
    ("mask left out", ManifestError, "field 'mask' is missing", without_masks),
    ("version 2 for nothing", ManifestError, "nothing here needs version 2", nulls),
    (
        "version 4",
        BundleVersionError,
        "version: 4 is newer than 3",
        lambda v: v.update(version=4),
    ),
    (
        "mask of an exit",
        ManifestError,
        "unknown field 'mask'",
        lambda v: next(n for n in v["graph"]["nodes"] if n["name"] == "final").update(mask=None),
    ),
    ("mask is a text", ManifestError, "expected an object", lambda v: thin(v).update(mask="m")),
    ("mask is a list", ManifestError, "expected an object", lambda v: thin(v).update(mask=[])),
    ("unknown field of a mask", ManifestError, "unknown field 'kind'", put("kind", "inner")),
    (
        "field of a mask left out",
        ManifestError,
        "'groups' is missing",
        lambda v: thin(v)["mask"].pop("groups"),
    ),
    ("no groups", ManifestError, "mask.groups: 0 is not in 1..", put("groups", 0)),
    ("groups below zero", ManifestError, "mask.groups: -1 is not in", put("groups", -1)),
    ("groups in halves", ManifestError, "expected a whole number", put("groups", 2.5)),
    ("groups true", ManifestError, "expected a whole number", put("groups", True)),
    ("very many groups", BundleSizeError, "the limit is 65536 groups", put("groups", 65_537)),
    ("saves below zero", ManifestError, "mask.group_macs: -5 is not in", put("group_macs", -5)),
    ("saves too many bits", ManifestError, "no 64-bit integer", put("group_macs", 2**63)),
    ("port is no name", ManifestError, "is no name", put("port", "../mask")),
    ("port is a number", ManifestError, "expected a name", put("port", 1)),
]
INVARIANTS = [
    ("saves more than there is", "bad-mask", put("group_macs", 7)),
    ("saves beyond 64 bits together", "bad-mask", put("group_macs", 2**63 - 1)),
    ("port of nothing", "unknown-mask", put("port", "y")),
    ("port of features", "mask-type", put("port", "x")),
    ("groups of another mask", "mask-type", put("groups", 1)),
]


@pytest.mark.parametrize(
    ("error", "text", "change"), [h[1:] for h in HOSTILE], ids=[h[0] for h in HOSTILE]
)
def test_hostile_masks_are_refused(
    error: type[DynrtError], text: str, change: Callable[[Any], None]
) -> None:
    value = manifest(masked_bundle())
    change(value)
    with pytest.raises(error) as caught:
        decode_manifest(dump(value), limits=DEFAULT_LIMITS)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not VALIDATOR.is_valid(value)


@pytest.mark.parametrize(
    ("code", "change"), [i[1:] for i in INVARIANTS], ids=[i[0] for i in INVARIANTS]
)
def test_masks_that_break_an_invariant_are_refused(
    tmp_path: Path, code: str, change: Callable[[Any], None]
) -> None:
    folder = tmp_path / "folder"
    write_bundle(masked_bundle(), folder, folder=True)
    value = manifest(masked_bundle())
    change(value)
    (folder / MANIFEST).write_bytes(dump(value))
    with pytest.raises(GraphError, match=code):
        read_bundle(folder)
