"""Entries of the cache: a round trip, and every way in which bytes can be wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.errors import CacheError
from dynrt.ir.cost import Cost
from dynrt.ir.graph import ComputeNode, Graph, Port, PortRef, TensorType
from dynrt.runtime.cache_file import (
    ALIGNMENT,
    HEADER,
    MAGIC,
    read_entry,
    read_text,
    write_entry,
)
from dynrt.runtime.compiled import Compiled, Gathered, Layout, Segment, SegmentPort, SmallGate
from tests.bundle.samples import picture_bundle
from tests.cli.colours import gated_bundle
from tests.runtime.cache_samples import made_up, small_program

BUNDLE = gated_bundle()
KEY = bytes(range(32))
FACTS = {"onnxruntime": "1.2.3", "threads": "1"}


def _written(compiled: Compiled, key: bytes = KEY) -> bytes:
    return b"".join(write_entry(compiled, key=key, network="net", facts=FACTS))


def _read(raw: bytes, *, key: bytes = KEY, graph: Graph = BUNDLE.graph) -> Compiled:
    return read_entry(io.BytesIO(raw), key=key, size=len(raw), graph=graph)


GOOD = _written(made_up(BUNDLE))


@pytest.mark.parametrize("seed", range(3))
def test_round_trip(seed: int) -> None:
    for bundle in (BUNDLE, picture_bundle()):
        compiled = made_up(bundle, seed=seed)
        raw = _written(compiled)
        assert _read(raw, graph=bundle.graph) == compiled
        assert _written(compiled) == raw


def test_text_can_be_read_alone() -> None:
    text = read_text(io.BytesIO(GOOD), key=KEY, size=len(GOOD))
    assert (text.network, text.facts) == ("net", FACTS)
    segments = made_up(BUNDLE).segments
    masked = sum(s.gathered is not None for s in segments)
    assert masked > 0
    assert len(text.blobs) == len(segments) + masked + 1


def test_blobs_are_aligned() -> None:
    compiled = made_up(BUNDLE)
    for segment in compiled.segments:
        assert GOOD.index(segment.model) % ALIGNMENT == 0


def test_every_field_of_the_contract_is_stored() -> None:
    """Whoever adds a field must add it here and to the format."""
    fields = {kind: [f.name for f in dataclasses.fields(kind)] for kind in
              (Compiled, Segment, Gathered, SegmentPort, SmallGate, Layout)}  # fmt: skip
    assert fields == {
        Compiled: ["layouts", "segments", "gates"],
        Segment: ["nodes", "takes", "gives", "overwrites", "model", "raw", "gathered"],
        Gathered: ["mask", "groups", "model"],
        SegmentPort: ["name", "port"],
        SmallGate: ["node", "program", "tie_distance"],
        Layout: ["kind", "block"],
    }


def test_every_single_byte_counts() -> None:
    """One flipped bit in each byte of header and text, and in every 7th byte behind them."""
    behind = HEADER.size + len(write_entry(made_up(BUNDLE), key=KEY, network="net", facts=FACTS)[1])
    for at in [*range(behind + ALIGNMENT), *range(behind + ALIGNMENT, len(GOOD), 7), len(GOOD) - 1]:
        raw = bytearray(GOOD)
        raw[at] ^= 1 << at % 8
        with pytest.raises(CacheError):
            _read(bytes(raw))


@given(st.data())
def test_any_damage_is_found(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOOD)))
    drop = data.draw(st.integers(0, 200))
    raw = GOOD[:at] + data.draw(st.binary(max_size=200)) + GOOD[at + drop :]
    if raw != GOOD:
        with pytest.raises(CacheError):
            _read(raw)


@pytest.mark.parametrize("size", [0, 1, HEADER.size - 1, HEADER.size, 300, len(GOOD) // 2, -400])
def test_cut_off(size: int) -> None:
    with pytest.raises(CacheError):
        _read(GOOD[:size])
    with pytest.raises(CacheError):  # the same, filled up with zeros as file systems do
        _read(GOOD[:size].ljust(len(GOOD), b"\0"))


def test_something_appended() -> None:
    with pytest.raises(CacheError, match="bytes of"):
        _read(GOOD + b"\0")


def test_an_entry_of_another_key() -> None:
    with pytest.raises(CacheError, match="of another key"):
        _read(GOOD, key=bytes(32))


def test_an_entry_of_another_network() -> None:
    with pytest.raises(CacheError, match=r"no node|no port"):
        _read(GOOD, graph=picture_bundle().graph)


Change = Callable[[dict[str, Any]], object]


def _forged(change: Change) -> bytes:
    """An entry with another text and the right digests: what only checks of values can find."""
    _, key, _, text_size, _ = HEADER.unpack_from(GOOD)
    text = json.loads(GOOD[HEADER.size : HEADER.size + text_size])
    change(text)
    raw = json.dumps(text).encode()
    blobs, at = [], HEADER.size + text_size
    for size, _ in json.loads(GOOD[HEADER.size : at])["blobs"]:
        at += -at % ALIGNMENT
        blobs.append(GOOD[at : at + size])
        at += size
    body, end = b"", HEADER.size + len(raw)
    for blob in blobs:
        gap = -(end + len(body)) % ALIGNMENT
        body += bytes(gap) + blob
    signed = struct.pack("<8s32sQQ", MAGIC, key, end + len(body), len(raw))
    return signed + hashlib.sha256(signed + raw).digest() + raw + body


def _set(*path: Any, to: Any) -> Change:
    def change(text: dict[str, Any]) -> None:
        at: Any = text
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = to

    return change


def test_forging_is_forging() -> None:
    assert _read(_forged(lambda _: None)) == made_up(BUNDLE)


SEGMENT = ("content", "segments", 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("network"), "other fields"),
        (_set("more", to=1), "other fields"),
        (_set("network", to=3), "no text"),
        (_set("facts", to=[]), "other facts"),
        (_set("facts", "threads", to=1), "no text"),
        (_set("blobs", 0, 0, to=-1), "no size"),
        (_set("blobs", 0, 0, to=1 << 40), "beyond"),
        (_set("blobs", 0, 0, to=True), "no size"),
        (_set("blobs", 0, 1, to="xy"), "odd"),
        (lambda t: t["blobs"].pop(), "too many"),
        (lambda t: t["content"]["gates"].pop(), "blobs"),
        (_set("content", to=None), "other fields"),
        (_set("content", "segments", to={}), "blobs"),
        (_set(*SEGMENT, 0, to=[]), "segment of nothing"),
        (_set(*SEGMENT, 0, to=["nobody"]), "no node"),
        (_set(*SEGMENT, 0, to=["image"]), "no node"),
        (_set(*SEGMENT, 0, to=[["stem"]]), "no text"),
        (lambda t: t["content"]["segments"][0][0].append(t["content"]["segments"][0][0][0]), "twice"),
        (_set(*SEGMENT, 1, 0, 1, to="nobody"), "no port"),
        (_set(*SEGMENT, 2, 0, 2, to="nothing"), "no port"),
        (_set(*SEGMENT, 1, 0, to=["x"]), "odd"),
        (_set(*SEGMENT, 3, to=[[0, 1]]), "overwrites"),
        (_set(*SEGMENT, 3, to=[[-1, 0]]), "overwrites"),
        (_set(*SEGMENT, 3, to=[[0.0, 0]]), "overwrites"),
        (_set(*SEGMENT, 3, to=[[0]]), "odd"),
        (_set(*SEGMENT, 4, to=0), "segment of nothing"),
        (_set(*SEGMENT, 5, to=None), "blobs"),
        (_set(*SEGMENT, 5, 1, to="nothing"), "no port"),
        (_set(*SEGMENT, 5, 2, to=0), "0 groups"),
        (_set(*SEGMENT, 5, to=7), "odd"),
        (_set("content", "gates", 0, 0, to="nobody"), "no node"),
        (_set("content", "gates", 0, 1, to=-0.5), "tie distance"),
        (_set("content", "gates", 0, 1, to=float("nan")), "tie distance"),
        (_set("content", "gates", 0, 1, to=float("inf")), "tie distance"),
        (_set("content", "gates", 0, 1, to="1"), "tie distance"),
        (_set("content", "layouts", 0, 0, to="nobody"), "no port"),
        (_set("content", "layouts", 0, 2, to="chwn"), "a layout"),
        (_set("content", "layouts", 0, 3, to=0), "blocks of"),
        (_set("content", "layouts", 0, 3, to=2.5), "blocks of"),
        (lambda t: t["content"]["layouts"].append(t["content"]["layouts"][0]), "two layouts"),
        (lambda t: [row.__setitem__(slice(2, 4), ["nhwc", 1]) for row in t["content"]["layouts"]],
         "no picture"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit(change: Change, words: str) -> None:
    with pytest.raises(CacheError, match=words) as caught:
        _read(_forged(change))
    assert "\n" not in str(caught.value)


def test_a_text_that_nests_too_deeply() -> None:
    raw = b"[" * 200_000
    signed = struct.pack("<8s32sQQ", MAGIC, KEY, HEADER.size + len(raw), len(raw))
    with pytest.raises(CacheError, match="odd"):
        _read(signed + hashlib.sha256(signed + raw).digest() + raw)


def test_a_damaged_program_with_the_right_digest() -> None:
    raw = small_program(1).to_bytes()
    at = GOOD.index(raw)
    broken = bytearray(GOOD)
    broken[at] ^= 1
    damaged = bytes(broken[at : at + len(raw)])
    forged = bytearray(_forged(_set("blobs", -1, 1,
                                    to=hashlib.sha256(damaged).hexdigest())))  # fmt: skip
    at = bytes(forged).index(raw)
    forged[at : at + len(raw)] = damaged
    with pytest.raises(CacheError, match="program"):
        _read(bytes(forged))


def test_a_number_that_is_not_finite_is_not_written() -> None:
    compiled = made_up(BUNDLE)
    gate = dataclasses.replace(compiled.gates[0], tie_distance=float("inf"))
    with pytest.raises(CacheError, match="no entry"):
        _written(dataclasses.replace(compiled, gates=(gate,)))


def test_reading_74_segments_takes_little_beyond_hashing() -> None:
    """The goal is 3 ms; a shared machine gets twice that."""
    kind = TensorType(dtype="float32", shape=(64, 8, 8))
    nodes = tuple(
        ComputeNode(
            name=f"block{i}",
            inputs=(Port(name="x", type=kind),),
            outputs=(Port(name="y", type=kind),),
            cost=Cost(macs=1),
        )
        for i in range(74)
    )
    graph = Graph(nodes=nodes, data=(), control=(), exits=())
    rng = np.random.default_rng(0)
    layout = Layout(kind="nchwc", block=16)
    raw = _written(
        Compiled(
            layouts={PortRef(n.name, "y"): layout for n in nodes},
            segments=tuple(
                Segment(
                    nodes=(n.name,),
                    takes=(SegmentPort(name="a", port=PortRef(n.name, "x")),),
                    gives=(SegmentPort(name="b", port=PortRef(n.name, "y")),),
                    model=rng.bytes(60_000),
                )
                for n in nodes
            ),
            gates=(),
        )
    )
    beyond = []
    for _ in range(15):
        began = time.perf_counter()
        hashlib.sha256(raw).digest()
        hashed = time.perf_counter()
        assert len(_read(raw, graph=graph).segments) == 74
        beyond.append(time.perf_counter() - hashed - (hashed - began))
    assert min(beyond) < 6e-3
