"""Random damage to bundles: blind, and knowing what a ZIP, a manifest and protobuf look like.

A mutation that knows the format mends what would refuse it at once (checksums, hashes, lengths, the
certificate), so that the code behind those checks is reached too.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from dynrt.bundle.archive import encode_archive
from dynrt.bundle.certificate_json import certificate_to_json
from dynrt.bundle.graph_json import decode_graph
from dynrt.bundle.limits import DEFAULT_LIMITS
from dynrt.bundle.reader import checked_certificate
from dynrt.errors import DynrtError
from tests.bundle.hostile import MANIFEST, Members, dump, members_of, rehash, zip_of
from tests.bundle.samples import energy_bundle, masked_bundle, picture_bundle, skip_bundle

Mutation = Callable[[random.Random], bytes]

_NUMBERS = (
    0,
    1,
    2,
    7,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)
_JSON: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        255,
        2**31,
        2**53,
        2**63 - 1,
        -(2**63),
        2**64,
        0.5,
        -0.0,
        1e308,
    ),
    *(
        "",
        "a",
        "inf",
        "-inf",
        "image",
        "stem",
        "x",
        "y",
        "../a",
        "\ud800",
        "\x1b[2J",
        "é",
        "a" * 200,
    ),
    *(
        [],
        {},
        [[]],
        {"kind": "fill"},
        {"kind": "port"},
        [1, 2, 3],
        [1 << 20] * 8,
        [0],
        [[[[[[[[[]]]]]]]]],
    ),
)
_TABLES = ("layers.json", "counts.json")
_NAMES = (
    *_TABLES,
    "nodes/a.onnx",
    "nodes/stem.onnx",
    "nodes/STEM.onnx",
    "nodes/../a",
    "a",
    MANIFEST,
    "nodes/",
)


def bases() -> list[Members]:
    """The members of the bundles that are damaged; the small one more often."""
    large = [members_of(skip_bundle()), members_of(masked_bundle()), members_of(energy_bundle())]
    return [members_of(picture_bundle())] * 4 + large


class Mutator:
    """Makes the damaged file of any case number, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._bases = bases()
        self._files = [b"".join(encode_archive(m)) for m in self._bases]
        self._kinds: tuple[Mutation, ...] = (
            self._blind_file,
            self._zip_numbers,
            self._members,
            self._member_bytes,
            self._manifest_bytes,
            self._manifest_value,
            self._graph_value,
            self._model_fields,
            self._table_value,
        )

    def case(self, number: int) -> tuple[str, bytes]:
        """The kind of damage and the file of case ``number``."""
        rng = random.Random(f"{self._seed}/{number}")  # noqa: S311 - damage, not secrets
        kind = rng.choice(self._kinds)
        return kind.__name__.strip("_"), kind(rng)

    def _blind_file(self, rng: random.Random) -> bytes:
        return damaged(rng, rng.choice(self._files), rng.choice(self._files))

    def _zip_numbers(self, rng: random.Random) -> bytes:
        """Numbers in the directory, the headers and the end record, now and then in agreement."""
        data = bytearray(rng.choice(self._files))
        start = struct.unpack_from("<L", data, len(data) - 6)[0]
        length = len(data) - 22 - start
        for _ in range(rng.randint(1, 3)):
            form, value = rng.choice(("<B", "<H", "<L")), rng.choice(_NUMBERS)
            value &= (1 << 8 * struct.calcsize(form)) - 1
            where = rng.randrange(4)
            if where == 0:
                struct.pack_into(form, data, len(data) - 22 + rng.randrange(19), value)
            elif where == 1:
                struct.pack_into(form, data, rng.randrange(27), value)
            elif where == 2 and length > 50:
                struct.pack_into(form, data, start + rng.randrange(length - 4), value)
            else:  # the same field of the first entry and its header
                field = rng.randrange(4, 24)
                struct.pack_into(form, data, field, value)
                struct.pack_into(form, data, start + field + 2, value)
        return bytes(data)

    def _members(self, rng: random.Random) -> bytes:
        """Members more, fewer, renamed, twice."""
        members = dict(rng.choice(self._bases))
        entries = sorted(members.items())
        for _ in range(rng.randint(1, 2)):
            i = rng.randrange(len(entries))
            action = rng.randrange(4)
            if action == 0 and len(entries) > 1:
                del entries[i]
            elif action == 1:
                entries.insert(i, (rng.choice(_NAMES), entries[i][1]))
            elif action == 2:
                entries[i] = (rng.choice(_NAMES), entries[i][1])
            else:
                rng.shuffle(entries)
        return zip_of(entries)

    def _member_bytes(self, rng: random.Random) -> bytes:
        """A damaged model with a hash that is right."""
        members = dict(rng.choice(self._bases))
        path = rng.choice([p for p in members if p != MANIFEST])
        members[path] = damaged(rng, members[path], rng.choice(self._files))
        return _packed(members)

    def _manifest_bytes(self, rng: random.Random) -> bytes:
        members = dict(rng.choice(self._bases))
        members[MANIFEST] = damaged(rng, members[MANIFEST], rng.choice(self._bases)[MANIFEST])
        return b"".join(encode_archive(members))

    def _manifest_value(self, rng: random.Random) -> bytes:
        members = dict(rng.choice(self._bases))
        value = json.loads(members[MANIFEST])
        for _ in range(rng.randint(1, 3)):
            change_json(rng, value)
        members[MANIFEST] = _dump(value)
        return b"".join(encode_archive(members))

    def _graph_value(self, rng: random.Random) -> bytes:
        """A changed graph; if it is valid, with the certificate and the members that it asks for."""
        members = dict(rng.choice(self._bases))
        value = json.loads(members[MANIFEST])
        for _ in range(rng.randint(1, 2)):
            change_json(rng, value["graph"])
        try:
            version = value["version"]
            graph = decode_graph(value["graph"], "graph", DEFAULT_LIMITS, version)
            value["certificate"] = certificate_to_json(
                checked_certificate(graph, place=""), version
            )
        except DynrtError:
            pass
        members[MANIFEST] = _dump(value)
        return b"".join(encode_archive(members))

    def _model_fields(self, rng: random.Random) -> bytes:
        """One protobuf field changed, with lengths and hashes that are right."""
        members = dict(rng.choice(self._bases))
        path = rng.choice([p for p in members if p.endswith(".onnx")])
        members[path] = change_protobuf(rng, members[path])
        return _packed(members)

    def _table_value(self, rng: random.Random) -> bytes:
        """A changed layer or count table, with a hash that is right."""
        members = dict(self._bases[-1])
        path = rng.choice(_TABLES)
        members[path] = damaged_table(rng, members[path])
        return _packed(members)


def damaged(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """``data`` with one to four blind changes; ``other`` is what is spliced in."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        size = len(out)
        if not size:
            return bytes(out)
        i = rng.randrange(size)
        j = min(size, i + rng.choice((1, 2, 4, 16, 64, 256)))
        action = rng.randrange(8)
        if action == 0:
            out[i] ^= 1 << rng.randrange(8)
        elif action == 1:
            out[i] = rng.choice((0, 1, 0x22, 0x2D, 0x39, 0x5B, 0x7F, 0x80, 0xFF))
        elif action == 2:
            del out[i:]
        elif action == 3:
            del out[i:j]
        elif action == 4:
            out[i:i] = out[i:j] * rng.choice((1, 2, 30))
        elif action == 5:
            k = rng.randrange(len(other))
            out[i:j] = other[k : k + rng.choice((1, 8, 64, 512))]
        elif action == 6:
            out[i:i] = rng.randbytes(rng.choice((1, 2, 8)))
        else:
            out[i:j] = bytes(j - i)
    return bytes(out)


def damaged_table(rng: random.Random, raw: bytes) -> bytes:
    """A layer or count table with one or two changes of its value."""
    value = json.loads(raw)
    for _ in range(rng.choice((1, 1, 2))):
        change_json(rng, value)
    return _dump(value)


def change_json(rng: random.Random, value: Any) -> None:
    """One change somewhere in a JSON value that is an object or array."""
    spots: list[tuple[Any, Any]] = []

    def walk(here: Any) -> None:
        keys = list(here) if isinstance(here, dict) else range(len(here))
        for key in keys:
            spots.append((here, key))
            if isinstance(here[key], dict | list):
                walk(here[key])

    walk(value)
    if not spots:
        return
    holder, key = rng.choice(spots)
    action = rng.choice((0, 1, 2, 2, 2, 3, 4, 5))
    if action == 0:
        holder[key] = deepcopy(rng.choice(_JSON))
    elif action == 1:
        del holder[key]
    elif action == 2:
        alike = [a[b] for a, b in spots if type(a[b]) is type(holder[key])]
        holder[key] = deepcopy(rng.choice(alike))
    elif action == 3 and isinstance(holder, list):
        holder.insert(key, deepcopy(holder[key]))
    elif action == 4 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] += rng.choice((-1, 1, 0.5, 2**40))
    elif isinstance(holder, dict):
        holder[rng.choice(("layers", "kind", "name", "value", "\x00"))] = deepcopy(
            rng.choice(_JSON)
        )
    else:
        rng.shuffle(holder)


def _dump(value: Any) -> bytes:
    """JSON, halves of surrogate pairs as escapes."""
    return json.dumps(value).encode() if "\\ud" in json.dumps(value) else dump(value)


def _packed(members: Members) -> bytes:
    rehash(members)
    return b"".join(encode_archive(members))


# --- protobuf


def change_protobuf(rng: random.Random, data: bytes, depth: int = 0) -> bytes:
    """One field of a message changed, dropped, doubled, moved or made anew, at any depth."""
    fields = _fields(data)
    if not fields:
        return damaged(rng, data or b"\0", data or b"\0")
    i = rng.randrange(len(fields))
    number, wire, payload = fields[i]
    action = rng.randrange(10)
    if action < 6 and wire == 2 and payload and depth < 8:
        fields[i] = (number, wire, change_protobuf(rng, payload, depth + 1))
    elif action == 6:
        del fields[i]
    elif action == 7:
        fields.insert(i, fields[i])
    elif action == 8:
        fields[i] = (rng.choice((number, 1, 5, 6, 7, 13, 14, 20, 25)), wire, payload)
    elif wire == 0:
        fields[i] = (number, wire, _varint(rng.choice((0, 1, 2, 9, 99, 2**31, 2**63, 2**64 - 1))))
    else:
        fields[i] = (number, wire, damaged(rng, payload or b"\0", data))
    return b"".join(_field(*f) for f in fields)


def _field(number: int, wire: int, payload: bytes) -> bytes:
    head = _varint(number << 3 | wire)
    return head + (_varint(len(payload)) + payload if wire == 2 else payload)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _fields(data: bytes) -> list[tuple[int, int, bytes]]:
    """The fields of a message, or nothing if it is none."""
    out = []
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        wire = tag & 7
        if wire == 0:
            start = at
            _, at = _read_varint(data, at)
            payload = data[start:at]
        elif wire in (1, 5):
            payload = data[at : at + (8 if wire == 1 else 4)]
            at += len(payload)
        elif wire == 2:
            size, at = _read_varint(data, at)
            payload = data[at : at + size]
            at += size
        else:
            return []
        if at > len(data):
            return []
        out.append((tag >> 3, wire, payload))
    return out


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    return value, len(data) + 1
