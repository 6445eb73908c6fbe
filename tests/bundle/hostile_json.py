"""Hostile kinds of the manifest's bytes: JSON's traps."""

from __future__ import annotations

import json
from collections.abc import Callable

from dynrt.errors import BundleError, BundleSizeError, ManifestError
from tests.bundle.hostile import Hostile, by_raw, dump


def _first(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """The first ``old`` in the manifest becomes ``new``."""

    def change(raw: bytes) -> bytes:
        assert old in raw
        return raw.replace(old, new, 1)

    return change


def _number(text: str) -> Callable[[bytes], bytes]:
    """A card that holds the number ``text``, as it stands."""

    def change(raw: bytes) -> bytes:
        value = json.loads(raw)
        value["card"] = {"x": "HERE"}
        return dump(value).replace(b'"HERE"', text.encode())

    return change


RAW: list[tuple[str, type[BundleError], str, Callable[[bytes], bytes]]] = [
    ("not utf-8", ManifestError, "not UTF-8 at byte", _first(b"random", b"rand\xff\xfem")),
    ("utf-16", ManifestError, "not UTF-8", lambda r: r.decode().encode("utf-16")),
    ("byte order mark", ManifestError, "not JSON", lambda r: b"\xef\xbb\xbf" + r),
    ("cut json", ManifestError, "not JSON", lambda r: r[:-1]),
    ("text that never ends", ManifestError, "never ends", lambda r: r + b'"' + b'\\"' * 999_999),
    ("json and more", ManifestError, "not JSON", lambda r: r + b"{}"),
    ("empty json", ManifestError, "not JSON", lambda _: b""),
    ("json list", ManifestError, "expected an object", lambda _: b"[]"),
    ("comment in json", ManifestError, "not JSON", lambda r: b"/* */" + r),
    (
        "duplicate key",
        ManifestError,
        "'name' is there twice",
        lambda r: b'{"name":"other",' + r[1:],
    ),
    (
        "duplicate inner key",
        ManifestError,
        "'kind' is there twice",
        _first(b'"kind":"input"', b'"kind":"input","kind":"exit"'),
    ),
    (
        "duplicate key by escape",
        ManifestError,
        "'name' is there twice",
        lambda r: b'{"n\\u0061me":"other",' + r[1:],
    ),
    ("NaN", ManifestError, "NaN is no JSON", _number("NaN")),
    ("infinity", ManifestError, "-Infinity is no JSON", _number("-Infinity")),
    ("infinity by exponent", ManifestError, "1e999 is no 64-bit float", _number("1e999")),
    ("huge integer", ManifestError, "(100000 characters)", _number("9" * 100_000)),
    ("65-bit integer", ManifestError, "no 64-bit integer", _number(str(2**64))),
    ("long float", ManifestError, "no 64-bit float", _number("0." + "1" * 100)),
    (
        "deep json",
        BundleSizeError,
        "nesting: 33 levels",
        lambda _: b"[" * 1_000_000 + b"]" * 1_000_000,
    ),
    ("deep objects", BundleSizeError, "nesting: 33 levels", lambda _: b'{"a":' * 100_000),
    ("many values", BundleSizeError, "values: 500001", lambda _: b"[" + b"0," * 600_000 + b"0]"),
    ("many objects", BundleSizeError, "values: 500001", lambda _: b"[" + b"{}," * 600_000 + b"0]"),
    ("half a character", ManifestError, "U+D800", _first(b'"cat"', b'"\\ud800"')),
]


TEXTS: list[Hostile] = [
    hostile for kind, error, text, change in RAW for hostile in by_raw(kind, error, text, change)
]
