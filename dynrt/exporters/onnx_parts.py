"""Which operators of an ONNX model belong to which segment, when it is cut at named tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from dynrt.errors import ExportError
from dynrt.ir.graph import NodeId

#: Operators whose result is a size; it is computed again where it is needed, not carried.
_SIZES = ("Shape", "Size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One segment.

    Attributes:
        name: of its node.
        reads: tensors of the model that it takes.
        gives: tensors of the model that later segments, or the caller, read.
    """

    name: NodeId
    reads: tuple[str, ...]
    gives: tuple[str, ...]


def parts_of(
    model: onnx.ModelProto, cuts: Sequence[str], constant: set[str], *, final: NodeId, place: str
) -> tuple[Part, ...]:
    """Segments in the order in which the cuts are computed, then the rest, called ``final``.

    Raises:
        ExportError: an output of the model does not need all that was cut.
    """
    nodes = list(model.graph.node)
    maker = {n: i for i, node in enumerate(nodes) for n in node.output if n}
    order = sorted(cuts, key=maker.__getitem__)
    ends = [o.name for o in model.graph.output]
    owner: dict[int, int] = {}
    for k, targets in enumerate([*([cut] for cut in order), ends]):
        stack = [maker[t] for t in targets if t in maker]
        while stack:
            i = stack.pop()
            if i not in owner:
                owner[i] = k
                stack.extend(maker[n] for n in nodes[i].input if n in maker)
    for end in ends:
        if end in maker and owner[maker[end]] != len(order):
            raise ExportError(f"{place}: output {end!r} is computed before the last cut")
    reads = _reads(nodes, maker, owner, _carried(model, constant), len(order) + 1)
    taken = {i.name for i in model.graph.input} | {final}
    later = {t for read in reads for t in read}
    parts = []
    for k, read in enumerate(reads):
        own = [n for i, node in enumerate(nodes) if owner.get(i) == k for n in node.output if n]
        last = k == len(order)
        parts.append(
            Part(
                name=final if last else fresh_name(f"to_{order[k].strip('/')}", taken),
                reads=tuple(read),
                gives=tuple(ends if last else [n for n in own if n in later or n == order[k]]),
            )
        )
    return tuple(parts)


def _reads(
    nodes: Sequence[onnx.NodeProto],
    maker: Mapping[str, int],
    owner: Mapping[int, int],
    carried: set[str],
    count: int,
) -> list[dict[str, None]]:
    """What each segment takes from outside; sizes are traced back to the tensors they are of."""
    reads: list[dict[str, None]] = [{} for _ in range(count)]
    for k, read in enumerate(reads):
        own = {i for i, at in owner.items() if at == k}
        stack = [n for i in sorted(own) for n in nodes[i].input][::-1]
        seen: set[str] = set()
        while stack:
            tensor = stack.pop()
            if not tensor or tensor in seen or (tensor in maker and maker[tensor] in own):
                continue
            seen.add(tensor)
            if tensor in carried:
                read[tensor] = None
            elif tensor in maker:
                stack.extend(nodes[maker[tensor]].input)
    return reads


def _carried(model: onnx.ModelProto, constant: set[str]) -> set[str]:
    """Tensors that depend on the values of an input; constants and sizes do not."""
    carried = {i.name for i in model.graph.input} - constant
    for node in model.graph.node:
        if node.op_type not in _SIZES and any(n in carried for n in node.input):
            carried.update(n for n in node.output if n)
    return carried


def fresh_name(stem: str, taken: set[str]) -> str:
    """``stem`` as the name of a node or port that is not in ``taken``, which it joins."""
    base = re.sub(r"[^A-Za-z0-9_]+", "_", stem)[:90].strip("_") or "t"
    base = base if re.match(r"[A-Za-z_]", base) else f"t_{base}"
    name, i = base, 1
    while name in taken:
        i += 1
        name = f"{base}_{i}"
    taken.add(name)
    return name


def port_names(parts: Sequence[Part]) -> Mapping[str, str]:
    """A port name for every tensor between segments."""
    taken: set[str] = set()
    out: dict[str, str] = {}
    for tensor in (t for part in parts for t in (*part.reads, *part.gives)):
        if tensor not in out:
            out[tensor] = fresh_name(tensor, taken)
    return out
