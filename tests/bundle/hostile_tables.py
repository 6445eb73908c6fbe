"""Hostile kinds of version 3: layer and count tables, sources of energy, energies by kept groups."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from dynrt.errors import (
    BundleHashError,
    BundleMemberError,
    BundleSizeError,
    DynrtError,
    ManifestError,
)
from tests.bundle.hostile import (
    MANIFEST,
    Hostile,
    Json,
    Members,
    by_members,
    drop,
    dump,
    put,
    rehash,
)
from tests.bundle.samples import energy_bundle

LAYERS, COUNTS = "layers.json", "counts.json"
Change = Callable[[Json], object]
Entry = tuple[str, type[DynrtError], str, Change]

STEM, THIN = ("nodes", "stem"), ("nodes", "thin")
TYPED = (*STEM, "typed", 0, "counts")


def of_table(path: str, change: Change) -> Callable[[Members], None]:
    """A change of a table's value, hashes made right."""

    def edit(members: Members) -> None:
        value: Json = json.loads(members[path])
        change(value)
        members[path] = dump(value)
        rehash(members)

    return edit


def of_bytes(path: str, change: Callable[[bytes], bytes]) -> Callable[[Members], None]:
    """A change of a table's bytes, hashes made right."""

    def edit(members: Members) -> None:
        members[path] = change(members[path])
        rehash(members)

    return edit


def _swap(path: tuple[str | int, ...]) -> Change:
    def change(value: Json) -> None:
        rows: Any = value
        for step in path:
            rows = rows[step]
        rows.reverse()

    return change


def _nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


_RELU = (*STEM, 1)
_FC = ("nodes", "final", 0)
_TOP = ("nodes", "block", 0)
_LARGE = (1 << 29) + 1

LAYER_ENTRIES: list[Entry] = [
    (
        "a node without layers",
        ManifestError,
        "nodes: field 'gate' is missing",
        drop("nodes", "gate"),
    ),
    ("layers of a stranger", ManifestError, "unknown field 'who'", put("nodes", "who", to=[])),
    ("layers of an input", ManifestError, "unknown field 'image'", put("nodes", "image", to=[])),
    ("layers of a gate", ManifestError, "unknown field 'choose'", put("nodes", "choose", to=[])),
    ("nodes are a list", ManifestError, "nodes: expected an object", put("nodes", to=[])),
    ("another field of the table", ManifestError, "unknown field 'unit'", put("unit", to=1)),
    ("layers are no array", ManifestError, "nodes.stem: expected an array", put(*STEM, to={})),
    ("a layer is a text", ManifestError, "stem[0]: expected an object", put(*STEM, 0, to="c")),
    ("layer of no kind", ManifestError, "stem[0].kind: expected a text", drop(*STEM, 0, "kind")),
    ("layer of a new kind", ManifestError, "'dense' is none of", put(*STEM, 0, "kind", to="dense")),
    ("layer of another kind", ManifestError, "'m' is missing", put(*STEM, 0, "kind", to="gemm")),
    ("a size left out", ManifestError, "'stride_w' is missing", drop(*STEM, 0, "stride_w")),
    ("a field too many", ManifestError, "unknown field 'bias'", put(*STEM, 0, "bias", to=1)),
    ("no channels", ManifestError, "channels: 0 is not in 1..", put(*STEM, 0, "channels", to=0)),
    ("no repeat", ManifestError, "repeat: 0 is not in 1..", put(*_FC, "repeat", to=0)),
    ("padding below zero", ManifestError, "pad_top: -1 is not", put(*STEM, 0, "pad_top", to=-1)),
    ("half a stride", ManifestError, "expected a whole", put(*STEM, 0, "stride_h", to=1.5)),
    (
        "true for one",
        ManifestError,
        "stride_h: expected a whole",
        put(*STEM, 0, "stride_h", to=True),
    ),
    ("a huge kernel", ManifestError, "is not in 1..", put(*STEM, 0, "kernel_h", to=_LARGE)),
    ("unknown words", ManifestError, "'float8' is none of", put(*STEM, 0, "dtype", to="float8")),
    ("an operator of no name", ManifestError, "op: is empty", put(*STEM, 0, "op", to=" ")),
    ("an escape code", ManifestError, "name: holds the invis", put(*STEM, 0, "name", to="\x1b[2J")),
    ("a reason of two lines", ManifestError, "U+000A", put(*_TOP, "reason", to="a\nb")),
    ("a long reason", BundleSizeError, "70000 characters", put(*_TOP, "reason", to="a" * 70_000)),
    ("a long operator", BundleSizeError, "129 characters", put(*STEM, 0, "op", to="a" * 129)),
    ("gap below zero", ManifestError, "macs: -1 is not in", put(*_TOP, "macs", to=-1)),
    ("bytes of a gap", ManifestError, "bytes_moved: -1 is", put(*_TOP, "bytes_moved", to=-1)),
    ("fused is a number", ManifestError, "fused: expected true", put(*_RELU, "fused", to=1)),
    ("reads below zero", ManifestError, "reads_words: -1", put(*_RELU, "reads_words", to=-1)),
    ("a mask of words", ManifestError, "none of filters", put(*THIN, 0, "masked", to="words")),
    ("a mask of filters", ManifestError, "none of words", put(*THIN, 1, "masked", to="filters")),
]
#: What no schema can say.
LAYER_SENSE: list[Entry] = [
    ("odd groups of channels", ManifestError, "4 channels are no 3", put(*STEM, 0, "groups", to=3)),
    ("odd groups of filters", ManifestError, "6 filters are no 4", put(*STEM, 0, "groups", to=4)),
    (
        "a row too many",
        ManifestError,
        "out_h: 4, and the other fields give 3",
        put(*STEM, 0, "out_h", to=4),
    ),
    ("a column too few", ManifestError, "out_w: 8, and the other", put(*STEM, 0, "out_w", to=8)),
    (
        "a kernel too wide",
        ManifestError,
        "kernel_w: reaches over 13",
        put(*STEM, 0, "kernel_w", to=7),
    ),
    (
        "a mask where none is",
        ManifestError,
        "has no channel mask",
        put(*STEM, 0, "masked", to="filters"),
    ),
    ("masked halves", ManifestError, "7 channels are no 2 equal", put(*THIN, 2, "k", to=7)),
    (
        "MACs beyond 64 bits",
        ManifestError,
        "MACs are not in",
        put(*_FC, "repeat", to=2**63 - 1),
    ),
    (
        "a huge matrix",
        BundleSizeError,
        "words of its weights",
        lambda v: v["nodes"]["final"][0].update(k=1 << 20, n=1 << 20),
    ),
    (
        "a huge picture",
        BundleSizeError,
        "words of its input",
        lambda v: v["nodes"]["stem"][0].update(in_h=1 << 29, out_h=1 << 28),
    ),
    (
        "very many layers",
        BundleSizeError,
        "the limit is 16384 layers",
        lambda v: [v["nodes"].update({n: v["nodes"]["block"] * 8193}) for n in ("exit1", "final")],
    ),
]
COUNT_ENTRIES: list[Entry] = [
    ("counts of a stranger", ManifestError, "unknown field 'who'", put("nodes", "who", to={})),
    ("a node without counts", ManifestError, "'gate' is missing", drop("nodes", "gate")),
    ("no policy", ManifestError, "field 'policy' is missing", drop("policy")),
    ("a blank policy", ManifestError, "policy: is empty", put("policy", to="  ")),
    ("a backend of lines", ManifestError, "backend: holds the", put("backend", to="a\nb")),
    ("columns in another order", ManifestError, "columns: expected macs", _swap(("columns",))),
    ("hardware is a list", ManifestError, "hardware: expected an object", put("hardware", to=[])),
    ("hardware turned around", ManifestError, "U+202E", put("hardware", to={"a": "\u202e"})),
    ("a count below zero", ManifestError, "counts.macs: -1 is not in", put(*TYPED, 0, to=-1)),
    ("half a count", ManifestError, "counts.macs: expected a whole", put(*TYPED, 0, to=0.5)),
    ("a count too few", ManifestError, "15 numbers for 16", drop(*TYPED, 0)),
    (
        "a count too many",
        BundleSizeError,
        "17 items",
        lambda v: v["nodes"]["stem"]["typed"][0]["counts"].append(0),
    ),
    (
        "unknown format of words",
        ManifestError,
        "none of",
        put(*STEM, "typed", 0, "dtype", to="int4"),
    ),
    (
        "gaps of none",
        ManifestError,
        "count: 0 is not in 1..",
        put("nodes", "extra", "gaps", 0, "count", to=0),
    ),
    (
        "a gap of no operator",
        ManifestError,
        "op: is empty",
        put("nodes", "extra", "gaps", 0, "op", to=""),
    ),
    (
        "a field of a gap",
        ManifestError,
        "'reason' is missing",
        drop("nodes", "extra", "gaps", 0, "reason"),
    ),
]
COUNT_SENSE: list[Entry] = [
    ("deep hardware", BundleSizeError, "nesting: 9 levels", put("hardware", to={"a": _nested(8)})),
    (
        "large hardware",
        BundleSizeError,
        "counts.json: hardware: ",
        put("hardware", to={str(i): "a" * 60_000 for i in range(5)}),
    ),
    ("formats out of order", ManifestError, "is not behind", _swap((*STEM, "typed"))),
    (
        "a format twice",
        ManifestError,
        "float32 is not behind float32",
        lambda v: v["nodes"]["stem"].update(typed=v["nodes"]["stem"]["typed"][:1] * 2),
    ),
    ("kept without a mask", ManifestError, "has no channel mask", put(*STEM, "kept", to=[[]])),
    ("too few kept", ManifestError, "2 rows for 0 to 2 kept", drop(*THIN, "kept", 0)),
    ("all kept is less", ManifestError, "it is not typed", put(*THIN, "kept", 2, to=[])),
]


def _without(path: str) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        del members[path]

    return change


def _flipped(members: Members) -> None:
    members[LAYERS] = members[LAYERS].replace(b'"Relu"', b'"Tanh"')


def _unlisted(members: Members) -> None:
    value = json.loads(members[MANIFEST])
    del value["members"][LAYERS]
    members[MANIFEST] = dump(value)


MEMBERS: list[tuple[str, type[DynrtError], str, Callable[[Members], None]]] = [
    ("a listed table is not there", BundleMemberError, "but not there", _without(COUNTS)),
    ("a table that is not listed", BundleMemberError, "not in the manifest", _unlisted),
    ("a damaged table", BundleHashError, "'layers.json': its SHA-256 is not", _flipped),
    (
        "a cut table",
        BundleHashError,
        "bytes, the manifest says",
        lambda m: m.update({COUNTS: b"{}"}),
    ),
]
BYTES: list[tuple[str, type[DynrtError], str, Callable[[bytes], bytes]]] = [
    ("not utf-8", ManifestError, ".json: not UTF-8 at byte 2", lambda r: r[:2] + b"\xff" + r[2:]),
    ("not json", ManifestError, ".json: not JSON", lambda r: r[:-1]),
    ("nothing", ManifestError, ".json: not JSON", lambda _: b""),
    ("a list", ManifestError, ".json: expected an object", lambda _: b"[]"),
    ("a key twice", ManifestError, "'nodes' is there twice", lambda r: b'{"nodes":{},' + r[1:]),
    ("NaN", ManifestError, "NaN is no JSON", lambda _: b'{"nodes":NaN}'),
    ("65 bits", ManifestError, "no 64-bit integer", lambda _: b'{"nodes":18446744073709551616}'),
    ("depth", BundleSizeError, "nesting: 33 levels", lambda _: b"[" * 100_000),
    ("values", BundleSizeError, "values: 1000001", lambda _: b"[" + b"0," * 1_000_001 + b"0]"),
]


TABLE_KINDS: list[Hostile] = [
    *(
        hostile
        for path, entries in (
            (LAYERS, LAYER_ENTRIES + LAYER_SENSE),
            (COUNTS, COUNT_ENTRIES + COUNT_SENSE),
        )
        for kind, error, text, change in entries
        for hostile in by_members(
            f"table: {kind}", error, text, of_table(path, change), energy_bundle
        )
    ),
    *(
        hostile
        for path in (LAYERS, COUNTS)
        for kind, error, text, edit in BYTES
        for hostile in by_members(
            f"{path}: {kind}", error, text, of_bytes(path, edit), energy_bundle
        )
    ),
    *(
        hostile
        for kind, error, text, change in MEMBERS
        for hostile in by_members(f"table: {kind}", error, text, change, energy_bundle)
    ),
]
