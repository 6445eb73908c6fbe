"""One compiled network as a file: header, JSON text, blobs (``docs/cache.md`` has the layout).

Nothing is believed before its hash is checked: the header's digest covers header and text, and the
text holds the digest of each blob. What is in the text is then checked against the bundle's graph.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, cast

from dynrt.errors import CacheError
from dynrt.ir.graph import ComputeNode, Exit, Graph, NodeId, PortRef, TensorType
from dynrt.runtime.compiled import Compiled, Gathered, Layout, Segment, SegmentPort, SmallGate
from dynrt.runtime.kernels.program import Program

MAGIC = b"dynrtC01"
#: Magic, key, size of the whole file, size of the text, digest of all before it and of the text.
HEADER = struct.Struct("<8s32sQQ32s")
_SIGNED = HEADER.size - 32
ALIGNMENT = 64
MAX_TEXT_BYTES = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What the JSON text of an entry says.

    Attributes:
        network: name of the bundle.
        facts: what the key was made of, for people.
        content: everything of the compiled network but its blobs.
        blobs: size and digest of each blob, in order.
    """

    network: str
    facts: Mapping[str, str]
    content: Mapping[str, Any]
    blobs: tuple[tuple[int, bytes], ...]


def write_entry(
    compiled: Compiled, *, key: bytes, network: str, facts: Mapping[str, str]
) -> tuple[bytes, ...]:
    """``compiled`` as the pieces of a file; the same values give the same bytes.

    Raises:
        CacheError: it holds a number that is not finite.
    """
    blobs = [s.model for s in compiled.segments]
    blobs += [s.gathered.model for s in compiled.segments if s.gathered is not None]
    blobs += [gate.program.to_bytes() for gate in compiled.gates]
    try:
        text = json.dumps(
            {
                "network": network,
                "facts": dict(facts),
                "content": _content(compiled),
                "blobs": [[len(blob), hashlib.sha256(blob).hexdigest()] for blob in blobs],
            },
            separators=(",", ":"),
            allow_nan=False,
        ).encode()
    except ValueError as exc:
        raise CacheError(f"no entry of the cache: {exc}") from None
    pieces = [text]
    end = HEADER.size + len(text)
    for blob in blobs:
        gap = -end % ALIGNMENT
        pieces += [bytes(gap), blob]
        end += gap + len(blob)
    signed = struct.pack("<8s32sQQ", MAGIC, key, end, len(text))
    return (signed + hashlib.sha256(signed + text).digest(), *pieces)


def _content(compiled: Compiled) -> dict[str, Any]:
    return {
        "layouts": [[r.node, r.port, at.kind, at.block] for r, at in compiled.layouts.items()],
        "segments": [
            [
                list(s.nodes),
                [[p.name, p.port.node, p.port.port] for p in s.takes],
                [[p.name, p.port.node, p.port.port] for p in s.gives],
                [list(pair) for pair in s.overwrites],
                s.raw,
                s.gathered and [s.gathered.mask.node, s.gathered.mask.port, s.gathered.groups],
            ]
            for s in compiled.segments
        ],
        "gates": [[gate.node, gate.tie_distance] for gate in compiled.gates],
    }


def read_text(file: BinaryIO, *, key: bytes, size: int) -> Text:
    """Header and text of an entry, with their digest checked.

    Args:
        file: at its beginning; afterwards behind the text.
        key: that the entry must have.
        size: bytes of the file.

    Raises:
        CacheError: damaged, or an entry of something else.
    """
    header = file.read(HEADER.size)
    _require(len(header) == HEADER.size, f"{len(header)} bytes are no header")
    magic, stored_key, stored_size, text_size, digest = HEADER.unpack(header)
    _require(magic == MAGIC, "of another format")
    _require(stored_key == key, "of another key")
    _require(stored_size == size, f"has {size} bytes of {stored_size}")
    _require(text_size <= min(size - HEADER.size, MAX_TEXT_BYTES), f"a text of {text_size} bytes")
    raw = file.read(text_size)
    _require(hashlib.sha256(header[:_SIGNED] + raw).digest() == digest, "damaged in its text")
    try:
        return _text(json.loads(raw))
    except _ODD as exc:
        raise _odd(exc) from None


def read_entry(file: BinaryIO, *, key: bytes, size: int, graph: Graph) -> Compiled:
    """The compiled network that :func:`write_entry` wrote; each byte is read once, then checked.

    Args:
        file: at its beginning.
        key: that the entry must have.
        size: bytes of the file.
        graph: of the bundle.

    Raises:
        CacheError: damaged, an entry of something else, or nothing that fits ``graph``.
    """
    text = read_text(file, key=key, size=size)
    end = file.tell()
    _require(end + sum(n for n, _ in text.blobs) <= size, "blobs beyond its end")
    blobs = []
    for index, (length, digest) in enumerate(text.blobs):
        gap = -end % ALIGNMENT
        _require(file.read(gap) == bytes(gap), f"damaged before blob {index}")
        blob = file.read(length)
        _require(hashlib.sha256(blob).digest() == digest, f"damaged in blob {index}")
        blobs.append(blob)
        end += gap + length
    _require(end == size, f"{size - end} bytes too many")
    try:
        return _Reader(graph).compiled(text.content, blobs)
    except _ODD as exc:
        raise _odd(exc) from None


_ODD = (ValueError, TypeError, KeyError, RecursionError, OverflowError)


def _odd(exc: Exception) -> CacheError:
    return CacheError(f"the entry is odd: {type(exc).__name__}: {exc}")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise CacheError(f"the entry is not to be used: {what}")


def _text(value: Any) -> Text:
    network, facts, content, blobs = _fields(value, "network", "facts", "content", "blobs")
    _require(isinstance(facts, dict), "other facts")
    _require(all(_natural(n) for n, _ in blobs), "a blob of no size")
    return Text(
        network=_word(network),
        facts={_word(k): _word(v) for k, v in facts.items()},
        content=content,
        blobs=tuple((n, bytes.fromhex(digest)) for n, digest in blobs),
    )


def _fields(value: Any, *names: str) -> list[Any]:
    _require(isinstance(value, dict) and set(value) == set(names), "other fields")
    return [value[name] for name in names]


def _word(value: Any) -> str:
    _require(isinstance(value, str), f"{value!r:.40} is no text")
    return cast("str", value)


def _natural(value: Any) -> bool:
    return type(value) is int and value >= 0


class _Reader:
    """Makes values of a text, and holds each to the graph that it is for."""

    def __init__(self, graph: Graph) -> None:
        nodes = graph.nodes
        self._takes = {PortRef(n.name, p.name) for n in nodes for p in n.inputs}
        self._gives = {PortRef(n.name, p.name): p.type for n in nodes for p in n.outputs}
        self._gathered_models: Iterator[bytes] = iter(())
        self._free = {n.name for n in nodes if isinstance(n, ComputeNode | Exit)}

    def compiled(self, content: Any, blobs: list[bytes]) -> Compiled:
        """All of it.

        Raises:
            CacheError, ValueError, TypeError, KeyError: it does not fit.
        """
        layouts, segments, gates = _fields(content, "layouts", "segments", "gates")
        masked = sum(row[-1] is not None for row in segments)
        _require(len(blobs) == len(segments) + masked + len(gates), f"{len(blobs)} blobs")
        models, programs = blobs[: len(segments)], blobs[len(segments) + masked :]
        self._gathered_models = iter(blobs[len(segments) :])
        compiled = Compiled(
            layouts=dict(self._layout(*row) for row in layouts),
            segments=tuple(self._segment(m, *s) for m, s in zip(models, segments, strict=True)),
            gates=tuple(self._gate(p, *g) for p, g in zip(programs, gates, strict=True)),
        )
        _require(len(compiled.layouts) == len(layouts), "a port has two layouts")
        return compiled

    def _layout(self, node: Any, port: Any, kind: Any, block: Any) -> tuple[PortRef, Layout]:
        ref = PortRef(_word(node), _word(port))
        _require(ref in self._gives, f"no port {str(ref)!r:.80}")
        _require(kind in ("plain", "nchwc", "nhwc"), f"a layout {kind!r:.40}")
        _require(
            _natural(block) and (block > 1 if kind == "nchwc" else block == 1),
            f"blocks of {block!r:.40}",
        )
        _require(kind == "plain" or _rank(self._gives[ref]) == 3, f"{str(ref)!r:.80} is no picture")
        return ref, Layout(kind=cast("Literal['plain', 'nchwc', 'nhwc']", kind), block=block)

    def _segment(
        self,
        model: bytes,
        nodes: Any,
        takes: Any,
        gives: Any,
        overwrites: Any,
        raw: Any,
        gathered: Any,
    ) -> Segment:
        segment = Segment(
            nodes=tuple(self._node(name) for name in nodes),
            takes=tuple(self._port(self._takes, *row) for row in takes),
            gives=tuple(self._port(self._gives, *row) for row in gives),
            overwrites=tuple((take, give) for take, give in overwrites),
            model=model,
            raw=raw,
            gathered=None if gathered is None else self._gathered(*gathered),
        )
        _require(bool(segment.nodes) and isinstance(raw, bool), "a segment of nothing")
        for take, give in segment.overwrites:
            inside = _natural(take) and take < len(takes) and _natural(give) and give < len(gives)
            _require(inside, f"overwrites {take!r:.40}, {give!r:.40}")
        return segment

    def _gathered(self, node: Any, port: Any, groups: Any) -> Gathered:
        mask = PortRef(_word(node), _word(port))
        _require(mask in self._takes, f"no port {str(mask)!r:.80}")
        _require(_natural(groups) and groups > 0, f"{groups!r:.40} groups")
        return Gathered(mask=mask, groups=groups, model=next(self._gathered_models))

    def _gate(self, program: bytes, node: Any, tie_distance: Any) -> SmallGate:
        fine = type(tie_distance) in (float, int) and 0 <= tie_distance < math.inf
        _require(fine, f"a tie distance of {tie_distance!r:.40}")
        return SmallGate(
            node=self._node(node),
            program=Program.from_bytes(program, checked=True),  # as the entry's hash says
            tie_distance=float(tie_distance),
        )

    def _node(self, name: Any) -> NodeId:
        """Each compute node and exit is in one part at most."""
        _require(_word(name) in self._free, f"no node {name!r:.80}, or it is there twice")
        self._free.remove(name)
        return cast("NodeId", name)

    @staticmethod
    def _port(known: Any, name: Any, node: Any, port: Any) -> SegmentPort:
        ref = PortRef(_word(node), _word(port))
        _require(ref in known, f"no port {str(ref)!r:.80}")
        return SegmentPort(name=_word(name), port=ref)


def _rank(kind: TensorType) -> int:
    return len(kind.shape)
