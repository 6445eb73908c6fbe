"""What is written is what is read, and the same bundle is always the same bytes."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from dynrt.bundle import Bundle, build_bundle, read_bundle, write_bundle
from dynrt.bundle.archive import encode_archive
from dynrt.bundle.limits import DEFAULT_LIMITS
from dynrt.bundle.tensor_json import ConstantDecoder, encode_constant
from dynrt.errors import (
    BundleMemberError,
    BundleModelError,
    BundlePathError,
    CertificateError,
    ManifestError,
)
from dynrt.ir.cost import Cost
from dynrt.ir.graph import (
    DTYPES,
    Accept,
    Combine,
    Constant,
    DataEdge,
    Exit,
    Graph,
    InputNode,
    PortRef,
    ScoreKind,
)
from tests.bundle.hostile import good_file, good_members, zip_of
from tests.bundle.samples import (
    in_one_unit,
    models_of,
    picture_bundle,
    port,
    skip_bundle,
    skip_graph,
)
from tests.graphs import random_case

VISIBLE = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=40).filter(
    lambda t: not set(t) & set("\u200e\u200f")
)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
CARDS = st.dictionaries(
    VISIBLE,
    st.recursive(
        st.none() | st.booleans() | NUMBERS | VISIBLE,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(VISIBLE, inner, max_size=4),
        max_leaves=12,
    ),
    max_size=4,
)


@st.composite
def bundles(draw: st.DrawFn) -> Bundle:
    """A random valid graph with models, a random card, name and provenance."""
    case = random_case(draw(st.integers(0, 2**32 - 1)), size=draw(st.integers(1, 8))).graph
    graph, energy = in_one_unit(case, draw(st.sampled_from(["J", "MACeq"])))
    return build_bundle(
        name=draw(VISIBLE.filter(lambda t: t.strip() != "")),
        graph=graph,
        models=models_of(graph),
        card=draw(CARDS),
        provenance=draw(st.dictionaries(VISIBLE, VISIBLE, max_size=3)),
        energy=energy,
    )


@settings(max_examples=40)
@given(bundle=bundles())
def test_random_bundles_round_trip(bundle: Bundle) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        written = write_bundle(bundle, root / "a.dynrt")
        assert write_bundle(bundle, root / "folder", folder=True) == written == bundle.sha256
        from_file, from_folder = read_bundle(root / "a.dynrt"), read_bundle(root / "folder")
        assert from_file == from_folder == bundle
        write_bundle(from_folder, root / "b.dynrt")
        assert (root / "a.dynrt").read_bytes() == (root / "b.dynrt").read_bytes()
        with zipfile.ZipFile(root / "a.dynrt") as archive:
            assert archive.testzip() is None
            for path in archive.namelist():
                assert archive.read(path) == (root / "folder" / path).read_bytes()
        files = [p for p in (root / "folder").rglob("*") if p.is_file()]
        assert len(files) == len(bundle.models) + 1


@given(
    array=st.sampled_from(DTYPES).flatmap(
        lambda d: npst.arrays(np.dtype(d), npst.array_shapes(min_dims=0, max_dims=3, max_side=4))
    ),
    same=st.booleans(),
)
def test_constants_round_trip_bit_for_bit(array: Any, same: bool) -> None:
    constant = Constant(np.full_like(array, array.flat[0]) if same else array)
    entry = encode_constant(constant)
    decoded = ConstantDecoder(DEFAULT_LIMITS).decode(json.loads(json.dumps(entry)), "c")
    assert decoded == constant  # compares dtype, shape and bytes: NaN and -0.0 too
    first = constant.value.flat[0].item()
    finite = not isinstance(first, float) or math.isfinite(first)
    assert not (same and finite) or entry["kind"] == "fill"


def test_written_twice_in_two_processes_is_the_same(tmp_path: Path) -> None:
    code = (
        "import sys; from dynrt.bundle import write_bundle;"
        "from tests.bundle.samples import skip_bundle; write_bundle(skip_bundle(), sys.argv[1])"
    )
    for seed in ("1", "2"):
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / seed)], env=env, check=True)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes() == good_file()


def test_archive_is_what_zipfile_writes() -> None:
    # zipfile is a second implementation: stored, 1980, Unix, rw-r--r--, sorted names.
    members = {"nodes/b.onnx": b"bb", "manifest.json": b"{}", "nodes/a.onnx": b""}

    def plain(info: zipfile.ZipInfo) -> None:
        info.create_system, info.external_attr = 3, 0o100644 << 16

    assert b"".join(encode_archive(members)) == zip_of(sorted(members.items()), change=plain)


def test_archives_of_other_tools_are_read(tmp_path: Path) -> None:
    path = tmp_path / "other.dynrt"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in sorted(good_members().items(), reverse=True):
            archive.writestr(name, data)  # today's date, other permissions, another order
    path.write_bytes(out.getvalue())
    assert read_bundle(path) == skip_bundle()


def test_onnxruntime_runs_what_was_read(tmp_path: Path) -> None:
    write_bundle(skip_bundle(), tmp_path / "a.dynrt")
    bundle = read_bundle(tmp_path / "a.dynrt")
    session = onnxruntime.InferenceSession(bundle.models["exit1"])
    (logits, distances) = session.run(None, {"x": np.zeros((5, 2, 3), np.float32)})
    assert logits.shape == distances.shape == (5, 4)


def test_fields_survive(tmp_path: Path) -> None:
    write_bundle(picture_bundle(), tmp_path / "a.dynrt")
    bundle = read_bundle(str(tmp_path / "a.dynrt"))
    assert bundle.preprocessing is not None
    assert bundle.preprocessing.mean == (0.5,)
    assert bundle.certificate.cheapest_femtojoules is None
    assert skip_bundle().labels == ("cat", "dog", "müde", "a b")
    assert skip_bundle().certificate.cheapest_macs == 12 + 24  # stem and the head of exit1


def test_a_link_to_a_bundle_is_followed(tmp_path: Path) -> None:
    write_bundle(picture_bundle(), tmp_path / "a", folder=True)
    (tmp_path / "link").symlink_to("a")
    assert read_bundle(tmp_path / "link") == picture_bundle()


def _with(graph: Graph, node: str, /, **changes: Any) -> Graph:
    nodes = tuple(dataclasses.replace(n, **changes) if n.name == node else n for n in graph.nodes)
    return dataclasses.replace(graph, nodes=nodes)


def _build(graph: Graph, **parts: Any) -> Bundle:
    return build_bundle(**{"name": "n", "graph": graph, "models": models_of(graph), **parts})


def test_infinite_thresholds_survive(tmp_path: Path) -> None:
    graph = skip_graph()
    node = graph.by_name["exit1"]
    assert isinstance(node, Exit)
    for value in (math.inf, -math.inf):
        accept = dataclasses.replace(node.accept, threshold=value)
        bundle = _build(_with(graph, "exit1", accept=accept))
        write_bundle(bundle, tmp_path / "a.dynrt", force=True)
        assert read_bundle(tmp_path / "a.dynrt").graph == bundle.graph


def test_numbers_take_one_form() -> None:
    graph = skip_graph()
    node = graph.by_name["exit1"]
    assert isinstance(node, Exit)
    whole, real, numpy = (
        _build(
            _with(graph, "exit1", accept=dataclasses.replace(node.accept, threshold=value)),
            card={"a": value},
        )
        for value in (1, 1.0, np.float64(1.0))
    )
    assert whole.graph == real.graph == numpy.graph
    assert real.sha256 == numpy.sha256
    assert type(whole.graph.by_name["exit1"].accept.threshold) is float  # type: ignore[union-attr]
    assert type(numpy.card["a"]) is float


@pytest.mark.parametrize(
    ("parts", "error", "text"),
    [
        ({"models": {}}, BundleMemberError, "node 'block' has no model"),
        ({"models": {**models_of(skip_graph()), "x": b""}}, BundleMemberError, "'x' belongs to no"),
        ({"models": models_of(skip_graph()) | {"stem": b"x"}}, BundleModelError, "the model"),
        ({"models": models_of(skip_graph()) | {"stem": "x"}}, BundleModelError, "expected bytes"),
        ({"labels": ["a"]}, ManifestError, "1 labels"),
        ({"labels": [1, 2, 3, 4]}, ManifestError, "labels[0]: expected a text"),
        ({"card": {"a": np.float32(1)}}, ManifestError, "card.a: a float32 is no JSON value"),
        ({"card": {1: 2}}, ManifestError, "expected a text"),
        ({"card": {"a": math.nan}}, ManifestError, "card.a: nan is not finite"),
        ({"card": {"a": 2**64}}, ManifestError, "card.a: 18446744073709551616 is not in"),
        ({"card": {"a": "\ud800"}}, ManifestError, "U+D800"),
        ({"card": []}, ManifestError, "expected an object"),
        ({"provenance": {"a": 1}}, ManifestError, "expected a text"),
        ({"name": ""}, ManifestError, "name: is empty"),
        ({"name": "a\nb"}, ManifestError, "U+000A"),
    ],
)
def test_build_refuses_what_readers_refuse(
    parts: dict[str, Any], error: type[Exception], text: str
) -> None:
    if "card" in parts and parts["card"] == []:
        parts["card"] = [1]
    with pytest.raises(error) as caught:
        _build(skip_graph(), **parts)
    assert text in str(caught.value)


def test_build_refuses_costs_in_time_and_in_halves() -> None:
    for cost, text in (
        (Cost(macs=1, nanoseconds=5), "cost.nanoseconds is 5"),
        (Cost(macs=1.5), "expected a whole number"),  # type: ignore[arg-type]
        (Cost(macs=2**63), "is no 64-bit integer"),
        (Cost(macs=np.int64(1)), "cannot be written as JSON"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ManifestError) as caught:
            _build(_with(skip_graph(), "stem", cost=cost))
        assert text in str(caught.value)


def test_build_refuses_a_cycle_in_the_card() -> None:
    card: dict[str, Any] = {}
    card["self"] = card
    with pytest.raises(Exception, match="nesting: 9 levels") as caught:
        _build(skip_graph(), card=card)
    assert type(caught.value).__name__ == "BundleSizeError"


def test_names_that_are_no_files_are_refused() -> None:
    graph = skip_graph()
    for name, message in (("Con", "device's name"), ("Stem", "only in case")):
        changed = _rename(graph, "dummy", name)
        with pytest.raises(BundlePathError, match=message):
            _build(changed)


def _rename(graph: Graph, old: str, new: str) -> Graph:
    def ref(value: Any) -> Any:
        return dataclasses.replace(value, node=new) if value.node == old else value

    return dataclasses.replace(
        _with(graph, old, name=new),
        data=tuple(
            dataclasses.replace(e, source=ref(e.source), target=ref(e.target)) for e in graph.data
        ),
        control=tuple(
            dataclasses.replace(e, target=new) if e.target == old else e for e in graph.control
        ),
    )


def test_a_stale_certificate_is_not_written(tmp_path: Path) -> None:
    bundle = skip_bundle()
    stale = dataclasses.replace(bundle.certificate, cheapest_macs=1)
    with pytest.raises(CertificateError, match="cheapest_macs: the bundle says 1"):
        write_bundle(dataclasses.replace(bundle, certificate=stale), tmp_path / "a.dynrt")
    assert list(tmp_path.iterdir()) == []


def test_build_refuses_lists_where_tuples_belong() -> None:
    graph = dataclasses.replace(skip_graph(), exits=["exit1", "final"])  # type: ignore[arg-type]
    with pytest.raises(ManifestError, match="not the same after it was written"):
        _build(graph)


def test_labels_of_joined_answers() -> None:
    """A hierarchy: two leaves of 3 classes each answer together; an early exit alone cannot."""
    x, answer = port("x", 2), port("logits", 3)

    def leaf(name: str, kind: ScoreKind) -> Exit:
        accept = Accept(kind=kind, port="logits" if kind == "margin" else "")
        cost = Cost(macs=6)
        return Exit(
            name=name, inputs=(x,), outputs=(answer,), answer="logits", accept=accept, cost=cost
        )

    def graph(*exits: Exit) -> Graph:
        return Graph(
            nodes=(InputNode(name="image", type=x.type), *exits),
            data=tuple(
                DataEdge(source=PortRef("image", "image"), target=PortRef(e.name, "x"))
                for e in exits
            ),
            exits=tuple(e.name for e in exits),
            combine=Combine(kind="concat"),
        )

    leaves = (leaf("animals", "always"), leaf("machines", "always"))
    assert len(_build(graph(*leaves), labels=list("abcdef")).labels) == 6
    with pytest.raises(ManifestError, match="3 labels, and exit 'animals' answers with 6 scores"):
        _build(graph(*leaves), labels=list("abc"))
    with pytest.raises(ManifestError, match="6 labels, and exit 'early' answers with 3 scores"):
        _build(graph(leaf("early", "margin"), *leaves), labels=list("abcdef"))
