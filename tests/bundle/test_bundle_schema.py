"""The published schema says what the reader does, field by field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.bundle.limits import DEFAULT_LIMITS
from dynrt.bundle.manifest import decode_manifest
from dynrt.errors import BundleError
from tests.bundle.hostile import MANIFEST, dump, good_members, members_of
from tests.bundle.hostile_graphs import CONSTANTS
from tests.bundle.hostile_manifests import FIELDS
from tests.bundle.samples import picture_bundle, skip_bundle
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


@pytest.mark.parametrize("bundle", [skip_bundle(), picture_bundle()], ids=["skip", "picture"])
def test_written_manifests_are_valid(bundle: Any) -> None:
    VALIDATOR.validate(json.loads(members_of(bundle)[MANIFEST]))


@given(seed=st.integers(0, 2**32 - 1))
def test_random_graphs_are_valid(seed: int) -> None:
    from dynrt.bundle.graph_json import encode_graph, version_of

    graph = random_case(seed).graph
    value = good() | {"graph": encode_graph(graph), "version": version_of(graph)}
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


def test_no_field_may_be_left_out_and_none_added() -> None:
    checked = 0
    alike = {}
    for path in _objects(good()):
        fields = tuple(_at(good(), path))
        alike[tuple(s for s in path if isinstance(s, str))[:4], fields] = path
    for path in alike.values():
        for key in [*_at(good(), path), None]:
            value = good()
            if key is None:
                _at(value, path)["layers"] = []
            else:
                del _at(value, path)[key]
            assert not VALIDATOR.is_valid(value), (path, key)
            assert not reads(value), (path, key)
            checked += 1
    assert checked > 80


@pytest.mark.parametrize("entry", [*FIELDS, *CONSTANTS], ids=lambda e: e[0].replace(" ", "-"))
def test_schema_refuses_what_the_reader_refuses(entry: Any) -> None:
    kind, _, _, change = entry
    value = good()
    change(value)
    assert not reads(value)
    assert VALIDATOR.is_valid(value) == (kind in BEYOND_THE_SCHEMA)
