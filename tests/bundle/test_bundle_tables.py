"""Layer and count tables: to disk and back, decoded later, hashed at once."""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.bundle import Bundle, layer_json, read_bundle, replace_parts, strict_json, write_bundle
from dynrt.bundle.archive import encode_archive
from dynrt.bundle.count_json import decode_counts, encode_counts
from dynrt.bundle.layer_json import decode_layers, encode_layers
from dynrt.bundle.limits import DEFAULT_LIMITS
from dynrt.errors import BundleError, BundleHashError, ManifestError
from dynrt.ir.counts import (
    COUNT_NAMES,
    AccessCounts,
    CountTable,
    Gap,
    NodeCounts,
    TypedCounts,
)
from dynrt.ir.layers import (
    WORD_BITS,
    ConvLayer,
    GemmLayer,
    Layer,
    PassLayer,
    UnmodelledLayer,
)
from tests.bundle.hostile import dump, good_members, members_of, rehash
from tests.bundle.mutations import damaged, damaged_table
from tests.bundle.samples import (
    CONV,
    SOURCE,
    counts_of,
    energy_bundle,
    layers_of,
    masked,
    models_of,
    normalised_bundle,
    skip_graph,
)

BOTH = pytest.mark.parametrize(
    "bundle", [energy_bundle(), normalised_bundle()], ids=lambda b: b.name
)


# --- to disk and back


@BOTH
@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_goes_to_disk_and_back(tmp_path: Path, bundle: Bundle, folder: bool) -> None:
    assert write_bundle(bundle, tmp_path / "a", folder=folder) == bundle.sha256
    again = read_bundle(tmp_path / "a")
    assert again == bundle
    assert again.energy == bundle.energy
    assert again.layers == bundle.layers
    assert again.counts == bundle.counts
    assert again.certificate == bundle.certificate
    assert write_bundle(again, tmp_path / "a", folder=folder, force=True) == bundle.sha256
    assert write_bundle(again, tmp_path / "other") == bundle.sha256
    assert (tmp_path / "other").read_bytes() == b"".join(encode_archive(members_of(bundle)))


def test_what_comes_back_is_what_was_given() -> None:
    graph = energy_bundle().graph
    assert energy_bundle().layers == layers_of(graph)
    assert energy_bundle().counts == counts_of(graph)
    assert energy_bundle().energy == SOURCE
    assert list(energy_bundle().layers or ()) == list(models_of(graph))


def test_bundles_that_differ_in_a_table_differ() -> None:
    counts = energy_bundle().counts
    assert counts is not None
    other = replace_parts(energy_bundle(), counts=replace(counts, policy="scalesim"))
    assert other != energy_bundle()
    assert other.sha256 != energy_bundle().sha256
    assert replace_parts(other, counts=counts) == energy_bundle()


_SIZES = st.integers(1, 40)


@st.composite
def convolutions(draw: st.DrawFn) -> ConvLayer:
    groups = draw(st.integers(1, 5))
    kernel, stride, dilation = (draw(st.tuples(*[st.integers(1, 4)] * 2)) for _ in range(3))
    pads = draw(st.tuples(*[st.integers(0, 3)] * 4))
    size = [
        draw(st.integers(max(1, (kernel[i] - 1) * dilation[i] + 1 - pads[i] - pads[i + 2]), 30))
        for i in range(2)
    ]
    # floor, as ONNX has it (Conv: output_shape)
    out = [
        (size[i] + pads[i] + pads[i + 2] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i in range(2)
    ]
    return ConvLayer(
        name=draw(st.sampled_from(["", "a/b", "müde"])),
        op="Conv",
        dtype=draw(st.sampled_from(sorted(WORD_BITS))),
        in_h=size[0],
        in_w=size[1],
        out_h=out[0],
        out_w=out[1],
        channels=groups * draw(_SIZES),
        filters=groups * draw(_SIZES),
        groups=groups,
        kernel_h=kernel[0],
        kernel_w=kernel[1],
        stride_h=stride[0],
        stride_w=stride[1],
        dilation_h=dilation[0],
        dilation_w=dilation[1],
        pad_top=pads[0],
        pad_left=pads[1],
        pad_bottom=pads[2],
        pad_right=pads[3],
    )


_WORDS = st.integers(0, 2**63 - 1)
_DTYPES = st.sampled_from(sorted(WORD_BITS))
LAYERS: st.SearchStrategy[Layer] = st.one_of(
    convolutions(),
    st.builds(
        GemmLayer,
        name=st.just("g"),
        op=st.just("MatMul"),
        dtype=_DTYPES,
        m=_SIZES,
        k=_SIZES,
        n=_SIZES,
        repeat=_SIZES,
    ),
    st.builds(
        PassLayer,
        name=st.just("p"),
        op=st.just("Add"),
        dtype=_DTYPES,
        reads_words=_WORDS,
        writes_words=_WORDS,
        operations=_WORDS,
        fused=st.booleans(),
        view=st.booleans(),
    ),
    st.builds(
        UnmodelledLayer,
        name=st.just("u"),
        op=st.just("NonZero"),
        macs=_WORDS,
        bytes_moved=st.none() | _WORDS,
        reason=st.sampled_from(["", "its shape depends on data"]),
    ),
)


@given(rows=st.lists(st.lists(LAYERS, max_size=4), min_size=8, max_size=8))
def test_random_layer_tables_round_trip(rows: list[list[Layer]]) -> None:
    graph = skip_graph()
    table = dict(zip(models_of(graph), map(tuple, rows), strict=False))
    raw = encode_layers(table)
    assert decode_layers(raw, graph=graph, limits=DEFAULT_LIMITS) == table
    assert encode_layers(decode_layers(raw, graph=graph, limits=DEFAULT_LIMITS)) == raw


@st.composite
def typed(draw: st.DrawFn) -> tuple[TypedCounts, ...]:
    return tuple(
        TypedCounts(
            dtype=dtype,
            counts=AccessCounts(**{name: draw(_WORDS) for name in COUNT_NAMES}),
        )
        for dtype in sorted(draw(st.sets(_DTYPES, max_size=2)))
    )


@given(data=st.data())
def test_random_count_tables_round_trip(data: st.DataObject) -> None:
    graph = masked(skip_graph())
    gap = Gap(op="Loop", count=1, macs=data.draw(_WORDS), bytes_moved=None, reason="r")
    nodes = {}
    for name in models_of(graph):
        row = data.draw(typed())
        kept = (data.draw(typed()), data.draw(typed()), row) if name == "thin" else ()
        nodes[name] = NodeCounts(typed=row, kept=kept, gaps=(gap,) * data.draw(st.integers(0, 2)))
    table = CountTable(hardware={"a": [1, 2.5]}, policy="p", backend="analytic 1", nodes=nodes)
    raw = encode_counts(table)
    assert decode_counts(raw, graph=graph, limits=DEFAULT_LIMITS) == table


@given(
    field=st.sampled_from(
        [f for f in CONV.__slots__ if f not in ("name", "op", "dtype", "masked")]
    ),
    value=st.sampled_from([-1, 0, 2**29 + 1, 2**63, 1.0, 1.5, True, "1", None, [], {}]),
)
def test_every_number_of_a_convolution_is_checked(field: str, value: object) -> None:
    entry = json.loads(good_members(energy_bundle)["layers.json"])
    entry["nodes"]["stem"][0][field] = value
    if value == 0 and field.startswith("pad_"):
        value = None  # the one that is no size; then the output is another
        entry["nodes"]["stem"][0][field] = value
    with pytest.raises(ManifestError) as caught:
        decode_layers(dump(entry), graph=energy_bundle().graph, limits=DEFAULT_LIMITS)
    assert f"layers.json: nodes.stem[0].{field}: " in str(caught.value) or value == 2**63


# --- decoded later


def _count_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    real = strict_json.parse_json

    def parse(raw: bytes, *, place: str, limits: Any) -> object:
        calls.append(place)
        return real(raw, place=place, limits=limits)

    monkeypatch.setattr(layer_json, "parse_json", parse)
    return calls


def test_tables_are_decoded_once_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(energy_bundle(), tmp_path / "a.dynrt")
    calls = _count_calls(monkeypatch)
    bundle = read_bundle(tmp_path / "a.dynrt")
    assert calls == []
    assert bundle.layers is bundle.layers
    assert calls == ["layers.json"]
    assert bundle.counts is bundle.counts
    assert calls == ["layers.json", "counts.json"]


def test_a_bad_table_is_refused_when_asked_for_and_every_time(tmp_path: Path) -> None:
    members = good_members(energy_bundle)
    members["counts.json"] = members["counts.json"].replace(b'"Conv"', b'"Co\\nv"')
    rehash(members)
    path = tmp_path / "a.dynrt"
    path.write_bytes(b"".join(encode_archive(members)))
    bundle = read_bundle(path)
    assert bundle.layers == energy_bundle().layers
    for _ in range(2):
        with pytest.raises(ManifestError) as caught:
            _ = bundle.counts
        assert str(caught.value).startswith(f"{path}: counts.json: nodes.extra.gaps[1].op: holds")
        assert str(caught.value).count(str(path)) == 1
    with pytest.raises(ManifestError):
        write_bundle(bundle, tmp_path / "b.dynrt")
    assert not (tmp_path / "b.dynrt").exists()


def test_a_known_bundle_reads_its_tables_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_bundle(energy_bundle(), path, folder=True)
    bundle = read_bundle(path, known=lambda sha: sha == energy_bundle().sha256)
    assert bundle.energy == SOURCE
    assert bundle.layers == energy_bundle().layers
    assert bundle.counts == energy_bundle().counts
    assert bundle == energy_bundle()
    again = read_bundle(path, known=lambda _: True)
    (path / "layers.json").write_bytes(bytes((path / "layers.json").stat().st_size))
    with pytest.raises(BundleHashError, match=r"'layers\.json': its SHA-256"):
        _ = again.layers
    (path / "counts.json").unlink()
    with pytest.raises(BundleError, match=r"'counts\.json' is in the manifest, but not there"):
        _ = again.counts


def test_a_known_bundle_that_was_replaced(tmp_path: Path) -> None:
    write_bundle(energy_bundle(), tmp_path / "a.dynrt")
    bundle = read_bundle(tmp_path / "a.dynrt", known=lambda _: True)
    plain = read_bundle(tmp_path / "a.dynrt")
    write_bundle(normalised_bundle(), tmp_path / "a.dynrt", force=True)
    with pytest.raises(BundleHashError, match="was replaced since it was loaded"):
        _ = bundle.layers
    assert plain.layers == energy_bundle().layers


def test_bundles_can_be_copied(tmp_path: Path) -> None:
    write_bundle(energy_bundle(), tmp_path / "a.dynrt")
    read = read_bundle(tmp_path / "a.dynrt")
    known = read_bundle(tmp_path / "a.dynrt", known=lambda _: True)
    for bundle in (read, known, energy_bundle()):
        copied = deepcopy(bundle)
        assert copied.held_layers is not bundle.held_layers
        assert copied == energy_bundle()


@given(words=st.binary(max_size=40), path=st.sampled_from(["layers.json", "counts.json"]))
def test_any_bytes_are_a_typed_error(words: bytes, path: str) -> None:
    decode = decode_layers if path == "layers.json" else decode_counts
    with pytest.raises(BundleError) as caught:
        decode(words, graph=skip_graph(), limits=DEFAULT_LIMITS)
    assert str(caught.value).startswith(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("path", ["layers.json", "counts.json"])
def test_damaged_tables_are_refused_or_read(path: str) -> None:
    decode = decode_layers if path == "layers.json" else decode_counts
    good, graph = good_members(energy_bundle)[path], energy_bundle().graph
    outcomes = Counter[str]()
    for number in range(1500):
        rng = random.Random(f"{path}/{number}")  # noqa: S311 - damage, not secrets
        raw = damaged(rng, good, good) if number % 3 == 0 else damaged_table(rng, good)
        try:
            decode(raw, graph=graph, limits=DEFAULT_LIMITS)
            outcomes["read"] += 1
        except BundleError as exc:
            outcomes[type(exc).__name__] += 1
            message = str(exc)
            assert message.isprintable()
            assert path in message
            assert len(message) < 500
    assert outcomes["read"] > 20
    assert outcomes["ManifestError"] > 500


def test_tables_are_hashed_when_the_bundle_is_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a"
        write_bundle(energy_bundle(), path, folder=True)
        raw = (path / "counts.json").read_bytes()
        (path / "counts.json").write_bytes(raw.replace(b"34", b"35"))
        with pytest.raises(BundleHashError, match=r"'counts\.json': its SHA-256"):
            read_bundle(path)
