"""The published schema says what the reader does, field by field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.bundle.certificate_json import certificate_to_json
from dynrt.bundle.count_json import decode_counts, encode_energy
from dynrt.bundle.graph_json import encode_graph
from dynrt.bundle.layer_json import decode_layers
from dynrt.bundle.limits import DEFAULT_LIMITS
from dynrt.bundle.manifest import decode_manifest
from dynrt.bundle.versions import TABLES_SINCE, version_of
from dynrt.errors import BundleError
from dynrt.ir.certificate import certify
from dynrt.ir.counts import COUNT_NAMES
from tests.bundle.hostile import MANIFEST, dump, good_members, members_of
from tests.bundle.hostile_energy import ENERGY_ENTRIES, ENERGY_SENSE
from tests.bundle.hostile_graphs import CONSTANTS
from tests.bundle.hostile_manifests import FIELDS
from tests.bundle.hostile_tables import (
    COUNT_ENTRIES,
    COUNT_SENSE,
    COUNTS,
    LAYER_ENTRIES,
    LAYER_SENSE,
    LAYERS,
)
from tests.bundle.samples import (
    energy_bundle,
    in_one_unit,
    masked_bundle,
    normalised_bundle,
    picture_bundle,
    skip_bundle,
)
from tests.graphs import random_case

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "bundle.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

#: What only the reader can see: agreement of fields, sums, sizes of decoded values, invisible halves.
BEYOND_THE_SCHEMA = {
    "huge tensor",
    "fill of gigabytes",
    "fills of gigabytes together",
    "fill of another number",
    "fill too large",
    "fill outside",
    "fill of a bool",
    "values too short",
    "loose base64",
    "bool of two",
    "sizes huge together",
    "deep card",
    "large card",
    "labels too few",
    "preprocessing without an input",
    "two inputs and preprocessing",
}

#: Tables of other nodes than the graph has.
STRANGE_NODES = {
    "a node without layers",
    "layers of a stranger",
    "layers of an input",
    "layers of a gate",
    "a node without counts",
}


def good() -> Any:
    """The manifest of the good bundle, with preprocessing nowhere refused by the schema."""
    return json.loads(good_members()[MANIFEST])


def reads(value: Any) -> bool:
    """Whether the reader takes the manifest ``value``."""
    try:
        decode_manifest(dump(value), limits=DEFAULT_LIMITS)
    except BundleError:
        return False
    return True


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "bundle",
    [skip_bundle(), picture_bundle(), masked_bundle(), energy_bundle(), normalised_bundle()],
    ids=lambda b: b.name,
)
def test_written_manifests_are_valid(bundle: Any) -> None:
    VALIDATOR.validate(json.loads(members_of(bundle)[MANIFEST]))


@given(seed=st.integers(0, 2**32 - 1))
def test_random_graphs_are_valid(seed: int) -> None:
    graph, energy = in_one_unit(random_case(seed).graph, "J" if seed % 2 else "MACeq")
    version = version_of(graph)
    certificate = certificate_to_json(certify(graph), version)
    value = good() | {"graph": encode_graph(graph), "certificate": certificate, "version": version}
    if version >= TABLES_SINCE:
        value["energy"] = encode_energy(energy)
    VALIDATOR.validate(json.loads(dump(value)))


def _objects(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all objects with fixed fields."""
    if isinstance(value, dict) and path[:1] not in (("card",), ("provenance",)):
        if path != ("members",):
            yield path
        for key in value:
            yield from _objects(value[key], (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _objects(item, (*path, i))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


@pytest.mark.parametrize("bundle", [skip_bundle, energy_bundle], ids=["version 1", "version 3"])
def test_no_field_may_be_left_out_and_none_added(bundle: Any) -> None:
    checked = 0
    alike = {}
    first = json.loads(members_of(bundle())[MANIFEST])
    for path in _objects(first):
        fields = tuple(_at(first, path))
        alike[tuple(s for s in path if isinstance(s, str))[:4], fields] = path
    for path in alike.values():
        for key in [*_at(first, path), None]:
            value = deepcopy(first)
            if key is None:
                _at(value, path)["layers"] = []
            else:
                del _at(value, path)[key]
            assert not VALIDATOR.is_valid(value), (path, key)
            assert not reads(value), (path, key)
            checked += 1
    assert checked > 80


#: Schemas of the tables, what reads them, and their hostile kinds: those it can see, and the others.
TABLES = {
    LAYERS: ("layers_json", decode_layers, LAYER_ENTRIES, LAYER_SENSE),
    COUNTS: ("counts_json", decode_counts, COUNT_ENTRIES, COUNT_SENSE),
}


def table_validator(path: str) -> Any:
    """Of the schema of a table."""
    part = {"$ref": f"#/$defs/{TABLES[path][0]}", "$defs": SCHEMA["$defs"]}
    return jsonschema.Draft202012Validator(part)


def reads_table(path: str, value: Any) -> bool:
    """Whether the reader takes a table of the energy bundle."""
    try:
        TABLES[path][1](dump(value), graph=energy_bundle().graph, limits=DEFAULT_LIMITS)
    except BundleError:
        return False
    return True


@pytest.mark.parametrize("path", TABLES)
def test_written_tables_are_valid_and_have_all_fields(path: str) -> None:
    validator, first = table_validator(path), json.loads(members_of(energy_bundle())[path])
    validator.validate(first)
    checked = 0
    for where in _objects(first):
        if where[:1] == ("hardware",):
            continue
        for key in [*_at(first, where), None]:
            value = deepcopy(first)
            if key is None:
                _at(value, where)["more"] = 1
            else:
                del _at(value, where)[key]
            names = where == ("nodes",)  # which nodes there are no schema can say
            assert validator.is_valid(value) == (names and key is not None), (where, key)
            assert not reads_table(path, value), (where, key)
            checked += 1
    assert checked > 40


@pytest.mark.parametrize(
    ("path", "entry", "seen"),
    [
        (path, entry, seen)
        for path, (_, _, fields, sense) in TABLES.items()
        for seen, entries in ((True, fields), (False, sense))
        for entry in entries
    ],
    ids=lambda v: v[0].replace(" ", "-") if isinstance(v, tuple) else str(v),
)
def test_schema_of_tables_refuses_what_the_reader_refuses(
    path: str, entry: Any, seen: bool
) -> None:
    value = json.loads(members_of(energy_bundle())[path])
    entry[3](value)
    assert not reads_table(path, value)
    about_names = entry[0] in STRANGE_NODES
    assert table_validator(path).is_valid(value) == (about_names or not seen)


def test_columns_of_the_schema_are_the_counts() -> None:
    columns = SCHEMA["$defs"]["counts_json"]["properties"]["columns"]["const"]
    assert columns == list(COUNT_NAMES)


@pytest.mark.parametrize(
    ("entry", "seen"),
    [(e, True) for e in ENERGY_ENTRIES] + [(e, False) for e in ENERGY_SENSE],
    ids=lambda v: v[0].replace(" ", "-") if isinstance(v, tuple) else str(v),
)
def test_schema_of_energy_refuses_what_the_reader_refuses(entry: Any, seen: bool) -> None:
    value = json.loads(members_of(energy_bundle())[MANIFEST])
    entry[3](value)
    assert not reads(value)
    assert VALIDATOR.is_valid(value) == (not seen)


@pytest.mark.parametrize("entry", [*FIELDS, *CONSTANTS], ids=lambda e: e[0].replace(" ", "-"))
def test_schema_refuses_what_the_reader_refuses(entry: Any) -> None:
    kind, _, _, change = entry
    value = good()
    change(value)
    assert not reads(value)
    assert VALIDATOR.is_valid(value) == (kind in BEYOND_THE_SCHEMA)
