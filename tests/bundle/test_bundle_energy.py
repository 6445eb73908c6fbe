"""Version 3: which bundles need it, and where energies come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from dynrt.bundle import Bundle, build_bundle, read_bundle, replace_parts, write_bundle
from dynrt.errors import BundleError, BundleSizeError, DynrtError, ManifestError
from dynrt.ir.cost import Cost
from dynrt.ir.counts import (
    CountTable,
    EnergySource,
)
from dynrt.ir.graph import Exit, Graph
from dynrt.ir.layers import (
    ConvLayer,
    LayerTable,
)
from tests.bundle.hostile import MANIFEST, dump, members_of
from tests.bundle.samples import (
    CONV,
    SOURCE,
    counts_of,
    energy_bundle,
    in_one_unit,
    layers_of,
    masked,
    masked_bundle,
    models_of,
    normalised,
    normalised_bundle,
    picture_bundle,
    picture_graph,
    skip_bundle,
    skip_graph,
    with_kept,
)

BOTH = pytest.mark.parametrize(
    "bundle", [energy_bundle(), normalised_bundle()], ids=lambda b: b.name
)


def version(bundle: Bundle) -> int:
    return int(json.loads(members_of(bundle)[MANIFEST])["version"])


def build(graph: Graph, **parts: Any) -> Bundle:
    return build_bundle(name="n", graph=graph, models=models_of(graph), **parts)


# --- versions


def test_the_oldest_version_that_can_hold_it() -> None:
    graph, layers = picture_graph(), layers_of(picture_graph())
    fj, milli = Cost(macs=40, femtojoules=5), Cost(macs=40, milli_mac_equivalents=5)

    def costing(cost: Cost) -> Graph:
        final = graph.by_name["final"]
        assert isinstance(final, Exit)
        return replace(graph, nodes=(graph.nodes[0], replace(final, cost=cost)))

    assert version(picture_bundle()) == version(skip_bundle()) == 1
    assert version(masked_bundle()) == 2
    assert version(build(costing(fj))) == 1  # joules without a source, as in version 1
    assert version(build(graph, layers=layers)) == 3
    assert version(build(graph, counts=counts_of(graph))) == 3
    assert version(build(costing(fj), energy=SOURCE)) == 3
    assert version(build(costing(milli), energy=replace(SOURCE, unit="MACeq"))) == 3
    kept = with_kept(masked(skip_graph()), kept_femtojoules=(1, 2, 3))
    assert version(build(kept, energy=SOURCE)) == 3
    assert version(replace_parts(energy_bundle(), layers=None)) == 3
    bare = replace_parts(energy_bundle(), graph=masked(skip_graph()), layers=None, counts=None)
    assert version(bare) == 3
    assert version(replace_parts(bare, energy=None)) == 2


def _source(**changes: Any) -> EnergySource:
    return replace(SOURCE, **changes)


#: SHA-256 of the manifest without ``members``, as the last dynrt before version 3 wrote it (with
#: the hashes of the models it would depend on how onnx writes them).
BEFORE = {
    "tiny picture net": "f6d4c898a69e4182257b761e1d9f09a02b2e320e65e2495c725a54ff6df97c82",
    "skip": "9ee2135365371578b4e52340593ab2cafc6d2df6cb4cc521b0b91fd706f81a38",
    "masked": "fad6b61c4a28036d228e4936a7aee05518809cdb9c98666ce9c4273d3b0b8346",
}


@pytest.mark.parametrize(
    "bundle", [picture_bundle(), skip_bundle(), masked_bundle()], ids=lambda b: b.name
)
def test_versions_1_and_2_are_written_as_before(tmp_path: Path, bundle: Bundle) -> None:
    value = json.loads(members_of(bundle)[MANIFEST])
    del value["members"]
    assert hashlib.sha256(dump(value)).hexdigest() == BEFORE[bundle.name]
    write_bundle(bundle, tmp_path / "a.dynrt")
    read = read_bundle(tmp_path / "a.dynrt")
    assert (read.layers, read.counts, read.energy) == (None, None, None)
    assert write_bundle(read, tmp_path / "b.dynrt") == bundle.sha256
    assert (tmp_path / "a.dynrt").read_bytes() == (tmp_path / "b.dynrt").read_bytes()


@pytest.mark.parametrize(
    ("graph", "energy", "text"),
    [
        (normalised(skip_graph()), None, "has milli_mac_equivalents, and there is no source"),
        (normalised(skip_graph()), SOURCE, "the source is in J"),
        (skip_graph(), replace(SOURCE, unit="MACeq"), "the source is in MACeq"),
        (picture_graph(), SOURCE, "a source in J, and no node has femtojoules"),
        (
            with_kept(normalised(masked(skip_graph())), kept_milli_mac_equivalents=(0, 1, 2)),
            None,
            "and there is no source",
        ),
        (skip_graph(), replace(SOURCE, table=""), "energy.table: is empty"),
        (skip_graph(), replace(SOURCE, backend="\n"), "energy.backend: holds the invisible"),
        (skip_graph(), replace(SOURCE, unit="kcal"), "'kcal' is none of J, MACeq"),
        (skip_graph(), _source(policy=3), "energy.policy: expected a text"),
    ],
)
def test_energies_and_their_source_must_fit(
    graph: Graph, energy: EnergySource | None, text: str
) -> None:
    with pytest.raises(ManifestError) as caught:
        build(graph, energy=energy)
    assert text in str(caught.value)


def test_joules_beside_tables_need_a_source() -> None:
    with pytest.raises(ManifestError, match="has femtojoules, and there is no source"):
        build(skip_graph(), layers=layers_of(skip_graph()))
    graph, _ = in_one_unit(skip_graph(), "MACeq")  # no energies left
    assert build(graph, layers=layers_of(graph)).energy is None


# --- building


def _rows(change: Callable[[dict[str, Any]], object]) -> LayerTable:
    rows: dict[str, Any] = dict(layers_of(masked(skip_graph())))
    change(rows)
    return rows


def _conv(**changes: Any) -> ConvLayer:
    return replace(CONV, **changes)


def _keyed(key: Any) -> dict[Any, Any]:
    return {key: ()}


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        (_rows(lambda r: r.pop("stem")), "nodes: field 'stem' is missing"),
        (_rows(lambda r: r.update(image=())), "unknown field 'image'"),
        (_rows(lambda r: r.update(stem=[CONV])), "not the same after it was written"),
        (_rows(lambda r: r.update(stem=("conv",))), "nodes.stem: 'conv' is no layer"),
        (_rows(lambda r: r.update(stem=(_conv(in_h=np.int64(7)),))), "cannot be written"),
        (_rows(lambda r: r.update(stem=(_conv(in_h=7.0),))), "expected a whole number"),
        (_rows(lambda r: r.update(stem=(replace(CONV, dtype="int4"),))), "'int4' is none of"),
        (_rows(lambda r: r.update(_keyed(1))), "cannot be written as JSON"),
        ([], "expected layers by node"),
    ],
)
def test_layers_that_no_reader_takes(layers: Any, text: str) -> None:
    with pytest.raises(ManifestError) as caught:
        replace_parts(energy_bundle(), layers=layers)
    assert text in str(caught.value)


def _counted(**changes: Any) -> CountTable:
    return replace(counts_of(masked(skip_graph())), **changes)


@pytest.mark.parametrize(
    ("counts", "error", "text"),
    [
        (_counted(nodes={}), ManifestError, "is missing"),
        (_counted(hardware=None), ManifestError, "hardware: expected an object"),
        (_counted(hardware={1: 2}), ManifestError, "hardware: a key: expected a text"),
        (_counted(hardware={"a": np.float32(1)}), ManifestError, "is no JSON value"),
        (_counted(hardware={"a": "a" * 70_000}), BundleSizeError, "70000 characters"),
        (_counted(policy=""), ManifestError, "policy: is empty"),
        ({}, ManifestError, "expected a count table"),
    ],
)
def test_counts_that_no_reader_takes(counts: Any, error: type[DynrtError], text: str) -> None:
    with pytest.raises(error) as caught:
        replace_parts(energy_bundle(), counts=counts)
    assert text in str(caught.value)


def test_mappings_and_tuples_of_hardware_take_one_form() -> None:
    table = counts_of(energy_bundle().graph)
    hardware = MappingProxyType({**table.hardware, "notes": ("a", {"b": None})})
    other = replace_parts(energy_bundle(), counts=replace(table, hardware=hardware))
    assert other == energy_bundle()
    rows = MappingProxyType(layers_of(energy_bundle().graph))
    assert replace_parts(energy_bundle(), layers=rows) == energy_bundle()


# --- other parts


def test_parts_are_replaced_and_all_others_kept() -> None:
    old = skip_bundle()
    new = replace_parts(old, energy=SOURCE, layers=layers_of(old.graph), card={"a": 1})
    assert (new.name, new.labels, new.provenance) == (old.name, old.labels, old.provenance)
    assert (new.graph, new.models, new.certificate) == (old.graph, old.models, old.certificate)
    assert new.card == {"a": 1}
    assert new.counts is None
    back = replace_parts(new, energy=None, layers=None, card=old.card)
    assert back == old
    graph = normalised(old.graph)
    priced = replace_parts(new, graph=graph, energy=replace(SOURCE, unit="MACeq"))
    assert priced.layers == new.layers
    assert priced.certificate.cheapest_femtojoules is None
    assert priced.certificate.cheapest_milli_mac_equivalents == 1200 + 3000  # stem and exit1's head
    assert replace_parts(old, provenance={"b": "c"}).provenance == {"b": "c"}
    pictures = picture_bundle()
    assert replace_parts(pictures) == pictures


def test_a_graph_of_other_nodes_is_refused() -> None:
    with pytest.raises(BundleError, match="belongs to no compute node or exit"):
        replace_parts(energy_bundle(), graph=skip_graph())


def test_folders_of_tables_are_replaced_with_force(tmp_path: Path) -> None:
    write_bundle(energy_bundle(), tmp_path / "a", folder=True)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "counts.json",
        "layers.json",
        "manifest.json",
        "nodes",
    ]
    write_bundle(skip_bundle(), tmp_path / "a", folder=True, force=True)
    assert read_bundle(tmp_path / "a") == skip_bundle()
