"""Hostile kinds of the graph: constants, invariants, certificates."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence

from dynrt.errors import (
    BundleSizeError,
    CertificateError,
    DynrtError,
    GraphError,
    ManifestError,
)
from tests.bundle.hostile import (
    MANIFEST,
    Hostile,
    Json,
    Members,
    at,
    by_manifest,
    by_members,
    drop,
    dump,
    put,
)

NODE = ("graph", "nodes")


def _edge(source: str, target: str) -> Json:
    out, into = source.split("."), target.split(".")
    return {"source": out, "target": into, "default": None}


def _constant(**changes: object) -> Callable[[Json], None]:
    """The default of values with changed fields."""

    def change(value: Json) -> None:
        edge = next(e for e in at(value, "graph", "data") if "base64" in (e["default"] or {}))
        for key, new in changes.items():
            if new is None:
                del edge["default"][key]
            else:
                edge["default"][key] = new

    return change


def _default(new: object) -> Callable[[Json], None]:
    def change(value: Json) -> None:
        edge = next(e for e in at(value, "graph", "data") if "base64" in (e["default"] or {}))
        edge["default"] = new

    return change


def _fill(
    value: object, *, dtype: str = "float32", shape: Sequence[int] = (2, 3)
) -> Callable[[Json], None]:
    return _default({"kind": "fill", "dtype": dtype, "shape": list(shape), "value": value})


def _fills(value: Json) -> None:
    """Three constants of 8 MiB each: none is large, together they are."""
    for name in ("c1", "c2", "c3"):
        of = {"dtype": "float32", "shape": [2048, 1024]}
        param = {"kind": "fill", **of, "value": 0.0}
        at(value, "graph", "nodes").append(
            {"kind": "input", "name": name, "type": of, "param": param}
        )


def _append(*path: str | int, item: object) -> Callable[[Json], None]:
    def change(value: Json) -> None:
        at(value, *path).append(item)

    return change


def _unswitch(members: Members) -> None:
    """Only the block leads to an answer, and the gate may skip it."""
    value = json.loads(members[MANIFEST])
    del members["nodes/exit1.onnx"]
    edges = at(value, "graph", "data")
    edges[:] = [e for e in edges if e["target"][0] != "exit1"]
    nodes = at(value, "graph", "nodes")
    nodes[:] = [n for n in nodes if n["name"] != "exit1"]
    for edge in edges:
        if edge["source"] == ["block", "y"]:
            edge["default"] = None
    value["graph"]["exits"] = ["final"]
    del value["members"]["nodes/exit1.onnx"]
    members[MANIFEST] = dump(value)


CONSTANTS: list[tuple[str, type[DynrtError], str, Callable[[Json], object]]] = [
    ("fill of gigabytes", BundleSizeError, "constants up to here", _fill(0.0, shape=(8192, 8192))),
    ("fills of gigabytes together", BundleSizeError, "constants up to here: 16777220", _fills),
    ("fill of another number", ManifestError, "0.1 is no float32", _fill(0.1)),
    ("fill too large", ManifestError, "1e+300 is no float32", _fill(1e300)),
    ("fill outside", ManifestError, "300 is not in -128..127", _fill(300, dtype="int8")),
    ("fill of a bool", ManifestError, "expected true or false", _fill(1, dtype="bool")),
    ("fill of nothing", ManifestError, "expected a number", _fill(None)),
    ("unknown default", ManifestError, "none of fill, values", _default({"kind": "code"})),
    ("default is a text", ManifestError, "expected an object", _default("zero")),
    (
        "values too short",
        ManifestError,
        "4 characters, and float32[2x3] needs 32",
        _constant(base64="AAAA"),
    ),
    ("values no base64", ManifestError, "not base64", _constant(base64="!" * 32)),
    ("values not ascii", ManifestError, "not base64", _constant(base64="é" * 32)),
    ("values no text", ManifestError, "expected a text", _constant(base64=3)),
    ("values left out", ManifestError, "'base64' is missing", _constant(base64=None)),
    (
        "loose base64",
        ManifestError,
        "not the base64 of 1 bytes",
        _default({"kind": "values", "dtype": "int8", "shape": [1], "base64": "AB=="}),
    ),
    (
        "bool of two",
        ManifestError,
        "a bool is 0 or 1",
        _default(
            {
                "kind": "values",
                "dtype": "bool",
                "shape": [3],
                "base64": base64.b64encode(b"\0\1\2").decode(),
            }
        ),
    ),
]

INVARIANTS: list[tuple[str, type[DynrtError], str, Callable[[Json], object]]] = [
    ("cycle", GraphError, "cycle", put("graph", "data", 0, "source", to=["block", "y"])),
    (
        "unknown node",
        GraphError,
        "unknown-node",
        put("graph", "data", 0, "source", to=["ghost", "y"]),
    ),
    (
        "unknown port",
        GraphError,
        "unknown-port",
        put("graph", "data", 0, "source", to=["image", "y"]),
    ),
    (
        "duplicate edge",
        GraphError,
        "duplicate-edge",
        _append("graph", "data", item=_edge("image.image", "stem.x")),
    ),
    (
        "duplicate node",
        GraphError,
        "duplicate-node",
        lambda m: at(m, *NODE).append(at(m, *NODE, "stem")),
    ),
    ("dangling port", GraphError, "dangling-port", lambda m: at(m, "graph", "data").pop(0)),
    (
        "shape across an edge",
        GraphError,
        "into float32",
        put(*NODE, "image", "type", "shape", to=[2, 4]),
    ),
    ("default of another shape", GraphError, "default-shape", _fill(0.0, shape=(3, 2))),
    (
        "action without edge",
        GraphError,
        "action-without-edge",
        lambda m: at(m, "graph", "control").pop(0),
    ),
    ("exits left out", GraphError, "exit-order", put("graph", "exits", to=["final"])),
    ("no exits", GraphError, "no-exit", put("graph", "exits", to=[])),
    (
        "unreachable exit",
        GraphError,
        "unreachable-exit",
        put("graph", "exits", to=["final", "exit1"]),
    ),
]

CERTIFICATES: list[tuple[str, type[DynrtError], str, Callable[[Json], object]]] = [
    (
        "certificate too cheap",
        CertificateError,
        "certificate.cheapest_macs: the bundle says 1, its graph gives 36",
        put("certificate", "cheapest_macs", to=1),
    ),
    (
        "cost changed behind the certificate",
        CertificateError,
        "certificate.",
        put(*NODE, "block", "cost", "macs", to=999),
    ),
    (
        "certificate without energy",
        CertificateError,
        "cheapest_femtojoules: the bundle says None",
        put("certificate", "cheapest_femtojoules", to=None),
    ),
    (
        "certificate says no answer",
        CertificateError,
        "answers: the bundle says False",
        put("certificate", "answers", to=False),
    ),
    (
        "certificate of other exits",
        CertificateError,
        "certificate.exits",
        lambda m: at(m, "certificate", "exits").pop(),
    ),
    (
        "certificate of an exit",
        CertificateError,
        "exits[final].full_macs",
        put("certificate", "exits", 1, "full_macs", to=5),
    ),
    (
        "certificate with text",
        ManifestError,
        "certificate.peak_tensor_bytes: expected",
        put("certificate", "peak_tensor_bytes", to="88"),
    ),
    (
        "certificate field missing",
        ManifestError,
        "'exact' is missing",
        drop("certificate", "exact"),
    ),
    (
        "costs beyond 64 bits together",
        CertificateError,
        "certificate.",
        lambda m: [n["cost"].update(macs=2**63 - 1) for n in at(m, *NODE) if "cost" in n],
    ),
]


GRAPHS: list[Hostile] = [
    *by_members("no answer on a path", GraphError, "no-answer", _unswitch),
    *(
        hostile
        for kind, error, text, change in (*CONSTANTS, *INVARIANTS, *CERTIFICATES)
        for hostile in by_manifest(kind, error, text, change)
    ),
]
