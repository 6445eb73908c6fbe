"""Every limit bites, exactly where it says, and bounds what reading allocates."""

from __future__ import annotations

import dataclasses
import io
import re
import tracemalloc
from functools import cache, partial
from pathlib import Path

import pytest
from onnx import TensorProto, helper, load_model_from_string

from dynrt.bundle import Bundle, Limits, build_bundle, read_bundle, write_bundle
from dynrt.bundle.archive import ArchiveMembers, encode_archive
from dynrt.bundle.layer_json import decode_layers
from dynrt.bundle.manifest import decode_manifest
from dynrt.bundle.names import TABLES
from dynrt.bundle.reader import read_members
from dynrt.errors import BundleError, BundleSizeError, ManifestError
from tests.bundle.hostile import MANIFEST, Members, hostile_bundles, members_of
from tests.bundle.samples import (
    SOURCE,
    counts_of,
    layers_of,
    masked,
    models_of,
    skip_bundle,
    skip_graph,
)
from tests.bundle.test_hostile_bundles import read_all

FIELDS = [f.name for f in dataclasses.fields(Limits)]
DEFAULTS = Limits()


@cache
def busy_bundle() -> Bundle:
    """The good bundle with an ``If`` in a model, notes on it and tables: all limits are in use."""
    graph = masked(skip_graph())
    models = models_of(graph)
    model = load_model_from_string(models["stem"])
    out = [helper.make_tensor_value_info("b", TensorProto.FLOAT, [1])]
    inner = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["b"])],
        "branch",
        [],
        out,
        [helper.make_tensor("c", TensorProto.FLOAT, [1], [1.0])],
    )
    model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [1]))
    model.graph.node.append(
        helper.make_node("If", ["yes"], ["unused"], then_branch=inner, else_branch=inner)
    )
    model.producer_name = "somebody"
    helper.set_model_props(model, {"key": "value"})
    good = skip_bundle()
    return build_bundle(
        name=good.name,
        graph=graph,
        models=models | {"stem": model.SerializeToString()},
        labels=good.labels,
        card=good.card,
        provenance=good.provenance,
        layers=layers_of(graph),
        counts=counts_of(graph),
        energy=SOURCE,
    )


@cache
def _file() -> tuple[bytes, Members]:
    members = members_of(busy_bundle())
    return b"".join(encode_archive(members)), members


def _reads(field: str, value: int) -> bool:
    data, _ = _file()
    limits = dataclasses.replace(DEFAULTS, **{field: value})
    try:
        read = read_members(
            ArchiveMembers(io.BytesIO(data), len(data), limits=limits), limits=limits
        )
        assert read.layers == busy_bundle().layers
        assert read.counts == busy_bundle().counts
    except BundleSizeError as exc:
        assert f"the limit is {value} " in str(exc)  # noqa: PT017 - the search goes on
        return False
    return True


def _least(field: str) -> int:
    """The least value of a limit with which the busy bundle is read."""
    low, high = -1, int(getattr(DEFAULTS, field))
    while high - low > 1:
        middle = (low + high) // 2
        if _reads(field, middle):
            high = middle
        else:
            low = middle
    return high


@pytest.mark.parametrize("field", FIELDS)
def test_each_limit_bites(field: str) -> None:
    data, members = _file()
    least = _least(field)
    assert 0 < least < getattr(DEFAULTS, field)
    known = {
        "bundle_bytes": len(data),
        "member_bytes": max(map(len, members.values())),
        "manifest_bytes": len(members[MANIFEST]),
        "members": len(members),
        "json_depth": 7,  # manifest, graph, nodes, node, inputs, port, shape
        "nodes": 13,
        "ports": 2,
        "edges": 12,
        "actions": 2,
        "groups": 2,
        "rank": 2,
        "tensor_bytes": 2 * 3 * 4,
        "constant_bytes": 2 * 3 * 4 + 4 + 8,  # the default of an edge, and the parameters
        "labels": 4,
        "name_chars": len("analytic 1"),
        "text_chars": len("/stem/Conv"),
        "card_depth": 3,
        "card_bytes": len('{"clock_hz":1500000.0,"name":"tiny","notes":["a",{"b":null}],"rows":2}'),
        "table_bytes": max(len(members[p]) for p in TABLES),
        "layers": 2 + 1 + 1 + 0 + 1 + 3 + 1 + 1,
        "onnx_depth": 1,
        "onnx_text_bytes": len("distances_value"),
    }
    assert field in known or field in ("json_values", "table_values", "onnx_fields")
    assert least == known.get(field, least)


@pytest.mark.parametrize("field", ["members", "member_bytes", "bundle_bytes", "manifest_bytes"])
def test_folders_have_the_same_limits(field: str, tmp_path: Path) -> None:
    write_bundle(busy_bundle(), tmp_path / "a", folder=True)
    _, members = _file()
    least = _least(field) if field != "bundle_bytes" else sum(map(len, members.values()))
    for value in (least, least - 1):
        limits = dataclasses.replace(DEFAULTS, **{field: value})
        if value == least:
            assert read_bundle(tmp_path / "a", limits=limits) == busy_bundle()
        else:
            with pytest.raises(BundleSizeError, match=f"the limit is {value} "):
                read_bundle(tmp_path / "a", limits=limits)


#: In one form each; those that take long to make are left to the other tests.
LARGE = [
    h
    for h in hostile_bundles()
    if h.error is BundleSizeError
    and (h.kind.endswith("(file)") or h.kind.startswith("member"))
    and not h.kind.startswith(("many fields", "many nodes", "if inside"))
]


@pytest.mark.parametrize("hostile", LARGE, ids=[h.kind.replace(" ", "-") for h in LARGE])
def test_bombs_are_refused_before_they_take_memory(hostile: object, tmp_path: Path) -> None:
    path = hostile.build(tmp_path)  # type: ignore[attr-defined]
    tracemalloc.start()
    try:
        with pytest.raises(BundleError):
            read_all(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # the manifest as bytes, as text (up to 4 bytes a character) and as values, and the constants
    # (a table: twice the manifest)
    assert peak < 6 * DEFAULTS.manifest_bytes + 3 * DEFAULTS.constant_bytes


def test_the_published_table_is_the_defaults() -> None:
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text("utf-8")
    units = {"": 1, " KiB": 1 << 10, " MiB": 1 << 20, " GiB": 1 << 30}
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+)( [KMG]iB|) \|", page, re.MULTILINE)
    table = {name: int(number.replace(",", "")) * units[unit] for name, number, unit in rows}
    assert table == dataclasses.asdict(DEFAULTS)


@pytest.mark.parametrize("table", [False, True], ids=["manifest", "table"])
@pytest.mark.parametrize("piece", ["[],", "{},", '{"a":0},', '"é",', '{"":[0]},', "1.5,"])
def test_values_at_the_limit_take_little_memory(piece: str, table: bool) -> None:
    """The dearest manifest by kind of value, at a tenth of the limits on bytes and values."""
    values, size = DEFAULTS.json_values // 10, DEFAULTS.manifest_bytes // 10
    limits = Limits(json_values=values, manifest_bytes=size)
    if table:
        values, size = DEFAULTS.table_values // 10, DEFAULTS.table_bytes // 10
        limits = Limits(table_values=values, table_bytes=size)
    each = sum(piece.count(c) for c in ",:[]{}")
    by_values = (values - 2) // each if each else values
    count = min(by_values, (size - 8) // len(piece.encode()))
    raw = ("[" + piece * count + "0]").encode()
    decode = partial(decode_layers, graph=skip_graph()) if table else decode_manifest
    tracemalloc.start()
    try:
        with pytest.raises(ManifestError, match="expected an object"):
            decode(raw, limits=limits)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (48 << 20) // 10 * (2 if table else 1)
