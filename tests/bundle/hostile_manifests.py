"""Hostile kinds of the manifest's fields: versions, names, bounds, labels, the card."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dynrt.errors import (
    BundleMemberError,
    BundleSizeError,
    BundleVersionError,
    DynrtError,
    ManifestError,
)
from tests.bundle.hostile import Hostile, Json, at, by_manifest, drop, put

NODE = ("graph", "nodes")


def _card(value: object) -> Callable[[Json], None]:
    return put("card", to={"x": value})


def _nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def _pictures(**changes: object) -> Callable[[Json], None]:
    """Preprocessing for the good bundle's input, which is no picture, with changed fields."""
    good = {"height": 2, "width": 3, "channels": 1, "mean": [0], "std": [1], "resize": "bilinear"}
    return put("preprocessing", to=good | changes)


def _all(*changes: Callable[[Json], Any]) -> Callable[[Json], None]:
    def change(value: Json) -> None:
        for one in changes:
            one(value)

    return change


FIELDS: list[tuple[str, type[DynrtError], str, Callable[[Json], object]]] = [
    ("another format", BundleVersionError, "is not 'dynrt-bundle'", put("format", to="x")),
    ("newer version", BundleVersionError, "version: 4 is newer", put("version", to=4)),
    (
        "version 3 and its fields left out",
        ManifestError,
        "'energy' is missing",
        put("version", to=3),
    ),
    (
        "energy in version 1",
        ManifestError,
        "unknown field 'energy'",
        put("energy", to=None),
    ),
    (
        "MAC-equivalents in version 1",
        ManifestError,
        "cost: unknown field 'milli_mac_equivalents'",
        put(*NODE, "stem", "cost", "milli_mac_equivalents", to=None),
    ),
    (
        "certificate of version 3 in version 1",
        ManifestError,
        "certificate: unknown field 'full_milli_mac_equivalents'",
        put("certificate", "full_milli_mac_equivalents", to=None),
    ),
    (
        "layer table in version 1",
        BundleMemberError,
        "'layers.json' belongs to no",
        lambda m: m["members"].update({"layers.json": m["members"]["nodes/stem.onnx"]}),
    ),
    (
        "newer version with new fields",
        BundleVersionError,
        "version: 7 is newer",
        lambda m: m.update(version=7, layers=[], graph=None),
    ),
    ("version zero", ManifestError, "version: 0 is not in", put("version", to=0)),
    ("version as text", ManifestError, "version: expected a whole", put("version", to="1")),
    ("version true", ManifestError, "version: expected a whole", put("version", to=True)),
    ("no version", ManifestError, "'version' is missing", drop("version")),
    ("no format", ManifestError, "'format' is missing", drop("format")),
    ("unknown field", ManifestError, "unknown field 'extra'", put("extra", to=1)),
    ("missing field", ManifestError, "'labels' is missing", drop("labels")),
    (
        "unknown node field",
        ManifestError,
        "graph.nodes[2]: unknown field 'layers'",
        put(*NODE, "stem", "layers", to=[]),
    ),
    (
        "unknown node kind",
        ManifestError,
        "'magic' is none of",
        put(*NODE, "stem", "kind", to="magic"),
    ),
    ("kind is no text", ManifestError, "kind: expected a text", put(*NODE, "stem", "kind", to=3)),
    ("node is no object", ManifestError, "expected an object", put(*NODE, 0, to=3)),
    ("nodes are no array", ManifestError, "graph.nodes: expected an array", put(*NODE, to={})),
    ("empty name", ManifestError, "name: is empty", put("name", to=" ")),
    ("name with an escape code", ManifestError, "U+001B", put("name", to="\x1b[2J")),
    ("name turned around", ManifestError, "U+202E", put("name", to="\u202etac")),
    ("long name", BundleSizeError, "name: 129 characters", put("name", to="a" * 129)),
    (
        "node name escapes",
        ManifestError,
        "'../x' is no name",
        put(*NODE, "stem", "name", to="../x"),
    ),
    ("node name empty", ManifestError, "'' is no name", put(*NODE, "stem", "name", to="")),
    ("port name", ManifestError, "is no name", put(*NODE, "stem", "inputs", 0, "name", to="a b")),
    ("name is no text", ManifestError, "expected a name", put("graph", "exits", 0, to=1)),
    (
        "unknown dtype",
        ManifestError,
        "'float8' is none of",
        put(*NODE, "image", "type", "dtype", to="float8"),
    ),
    (
        "negative axis",
        ManifestError,
        "-1 is not in 1",
        put(*NODE, "image", "type", "shape", to=[-1]),
    ),
    ("zero axis", ManifestError, "0 is not in 1", put(*NODE, "image", "type", "shape", to=[0])),
    (
        "huge tensor",
        BundleSizeError,
        "tensor of one sample",
        put(*NODE, "image", "type", "shape", to=[1 << 20] * 8),
    ),
    (
        "many axes",
        BundleSizeError,
        "9 items; the limit is 8",
        put(*NODE, "image", "type", "shape", to=[1] * 9),
    ),
    (
        "many actions",
        BundleSizeError,
        "actions; the limit is 256",
        put(*NODE, "choose", "actions", to=10**9),
    ),
    ("no action", ManifestError, "actions: 0 is not in", put(*NODE, "choose", "actions", to=0)),
    (
        "many ports",
        BundleSizeError,
        "65 items",
        lambda m: at(m, *NODE, "stem", "inputs").extend(at(m, *NODE, "stem", "inputs") * 64),
    ),
    (
        "many nodes",
        BundleSizeError,
        "graph.nodes: 4107 items",
        lambda m: at(m, *NODE).extend([None] * 4096),
    ),
    (
        "many edges",
        BundleSizeError,
        "graph.data: 16385 items",
        put("graph", "data", to=[None] * 16385),
    ),
    ("many labels", BundleSizeError, "labels: 65537 items", put("labels", to=[""] * 65537)),
    (
        "negative cost",
        ManifestError,
        "macs: -1 is not in",
        put(*NODE, "stem", "cost", "macs", to=-1),
    ),
    (
        "fractional cost",
        ManifestError,
        "expected a whole number",
        put(*NODE, "stem", "cost", "macs", to=1.5),
    ),
    (
        "cost in time",
        ManifestError,
        "unknown field 'nanoseconds'",
        put(*NODE, "stem", "cost", "nanoseconds", to=1),
    ),
    (
        "unknown rule",
        ManifestError,
        "none of argmax, threshold",
        put(*NODE, "choose", "rule", to={"kind": "random"}),
    ),
    (
        "argmax with thresholds",
        ManifestError,
        "unknown field 'thresholds'",
        put(*NODE, "choose", "rule", "thresholds", to=[]),
    ),
    (
        "threshold is a text",
        ManifestError,
        "'nan' is none of inf",
        put(*NODE, "exit1", "accept", "threshold", to="nan"),
    ),
    (
        "unknown score",
        ManifestError,
        "'mood' is none of",
        put(*NODE, "exit1", "accept", "kind", to="mood"),
    ),
    (
        "unknown combine",
        ManifestError,
        "'vote' is none of",
        put("graph", "combine", "kind", to="vote"),
    ),
    (
        "edge of three",
        BundleSizeError,
        "3 items",
        put("graph", "data", 0, "source", to=["a", "b", "c"]),
    ),
    (
        "edge of one",
        ManifestError,
        "expected [NODE, PORT]",
        put("graph", "data", 0, "source", to=["a"]),
    ),
    (
        "action out of range",
        ManifestError,
        "action: 256 is not in",
        put("graph", "control", 0, "action", to=256),
    ),
    (
        "hash too short",
        ManifestError,
        "no SHA-256",
        put("members", "nodes/stem.onnx", "sha256", to="ab"),
    ),
    (
        "hash in capitals",
        ManifestError,
        "no SHA-256",
        put("members", "nodes/stem.onnx", "sha256", to="A" * 64),
    ),
    (
        "member size negative",
        ManifestError,
        "-1 is not in",
        put("members", "nodes/stem.onnx", "bytes", to=-1),
    ),
    (
        "member size huge",
        BundleSizeError,
        "nodes/stem.onnx: 1099511627776",
        put("members", "nodes/stem.onnx", "bytes", to=1 << 40),
    ),
    (
        "sizes huge together",
        BundleSizeError,
        "members up to here",
        lambda m: [v.update(bytes=1 << 29) for v in m["members"].values()],
    ),
    ("members are no object", ManifestError, "members: expected an object", put("members", to=[])),
    ("deep card", BundleSizeError, "nesting: 9 levels", _card(_nested(8))),
    ("large card", BundleSizeError, "card: ", _card(["a" * 60_000] * 5)),
    ("long text in a card", BundleSizeError, "card.x: 70000 characters", _card("a" * 70_000)),
    ("escape code in a card", ManifestError, "U+001B", _card("\x1b]0;x\x07")),
    ("escape code in a card's key", ManifestError, "U+001B", put("card", to={"\x1b": 1})),
    ("card is a list", ManifestError, "card: expected an object", put("card", to=[])),
    (
        "provenance of numbers",
        ManifestError,
        "provenance.a: expected a text",
        put("provenance", to={"a": 1}),
    ),
    ("provenance is a list", ManifestError, "provenance: expected", put("provenance", to=[])),
    (
        "labels too few",
        ManifestError,
        "3 labels, and exit 'exit1' answers with 4",
        put("labels", to=["a", "b", "c"]),
    ),
    ("label with a line", ManifestError, "U+000A", put("labels", 0, to="a\nb")),
    (
        "preprocessing without an input",
        ManifestError,
        "takes float32[2x3]",
        _pictures(),
    ),
    (
        "preprocessing divides by zero",
        ManifestError,
        "std[0]: 0.0 is not above zero",
        _pictures(std=[0]),
    ),
    (
        "preprocessing of two channels",
        ManifestError,
        "2 is neither 1 (gray) nor 3",
        _pictures(channels=2, std=[0]),
    ),
    (
        "preprocessing without means",
        ManifestError,
        "mean: 0 numbers for 1 channels",
        _pictures(mean=[]),
    ),
    (
        "two inputs and preprocessing",
        ManifestError,
        "has 2 inputs",
        _all(
            put(*NODE, "keep", "param", to=None),
            _pictures(),
        ),
    ),
]

MANIFESTS: list[Hostile] = [
    hostile
    for kind, error, text, change in FIELDS
    for hostile in by_manifest(kind, error, text, change)
]
