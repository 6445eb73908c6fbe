"""A node's ONNX as the board's lowering reads it: one sample, constants folded, dead operators gone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from dynrt.errors import BoardFitError
from dynrt.exporters.draft import OnnxDraft, attribute_int
from dynrt.exporters.layers_facts import Facts, facts_of, standard
from dynrt.exporters.session import run_model
from dynrt.exporters.shapes import at_batch_1
from dynrt.ir.graph import Array, ComputeNode, Exit, TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A constant that is stored in integers: ``(value - zero) * scale``.

    Attributes:
        value: int8, uint8 or int32.
        scale, zero: one number, or one for each place along ``axis``.
        axis: which axis has a scale for each place.
    """

    value: Array
    scale: Array
    zero: Array
    axis: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGraph:
    """Operators that depend on the node's inputs, in order.

    Attributes:
        place: names the node in errors.
        ops: the operators.
        types: element type and shape at batch 1 of every tensor.
        constants: values of the tensors that nothing but constants and shapes determine.
        stored: of those constants that ``DequantizeLinear`` makes, the integers.
        readers: positions of the operators that read each tensor, once for each time.
        maker: position of the operator that makes each tensor.
        ends: the outputs.
        facts: of the whole model.
        model: the whole model.
        opset: of its operators.
    """

    place: str
    ops: tuple[onnx.NodeProto, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, Array]
    stored: Mapping[str, Stored]
    readers: Mapping[str, tuple[int, ...]]
    maker: Mapping[str, int]
    ends: frozenset[str]
    facts: Facts
    model: onnx.ModelProto
    opset: int

    def shape(self, tensor: str) -> tuple[int, ...]:
        """At batch 1."""
        return self.types[tensor].shape

    def count(self, tensor: str) -> int:
        """How many elements it has."""
        return math.prod(self.types[tensor].shape)

    def only_reader(self, tensor: str) -> int | None:
        """The one operator that reads ``tensor``, if it is one and the tensor is no output."""
        found = self.readers.get(tensor, ())
        return found[0] if len(found) == 1 and tensor not in self.ends else None

    def name(self, position: int) -> str:
        """How an operator is called in errors and reports."""
        op = self.ops[position]
        return f"{self.place}: {op.op_type} {op.name or op.output[0]!r}"


def node_graph(data: bytes, node: ComputeNode | Exit) -> NodeGraph:
    """Read the ONNX of ``node``.

    Raises:
        BoardFitError: a shape that depends on data, an operator that is not ONNX's own.
        ExportError: shapes do not fit, or onnxruntime cannot run it.
    """
    place = f"node {node.name!r}"
    model = onnx.load_model_from_string(data)
    facts = facts_of(model, place=place)
    ends = {p.name for p in node.outputs}
    if facts.data_shaped:
        raise BoardFitError(f"{place}: the shape of {min(facts.data_shaped)!r} depends on data")
    draft = OnnxDraft.of(model.graph, place)
    needed = set(ends)
    moving: list[onnx.NodeProto] = []
    for op in reversed(draft.nodes):
        if needed.isdisjoint(op.output) or facts.static.issuperset(n for n in op.output if n):
            continue
        if not standard(op):
            raise BoardFitError(f"{place}: operator {op.domain}::{op.op_type} is not on the board")
        moving.append(op)
        needed.update(n for n in op.input if n)
    moving.reverse()
    read = {n for n in needed if n in facts.static}
    made = {n for op in moving for n in op.output}
    unknown = sorted(n for n in made if n and n in needed and n not in facts.types)
    if unknown:
        raise BoardFitError(f"{place}: the shape of {unknown[0]!r} is not known")
    readers: dict[str, list[int]] = {}
    for i, op in enumerate(moving):
        for name in op.input:
            readers.setdefault(name, []).append(i)
    return NodeGraph(
        place=place,
        ops=tuple(moving),
        types=facts.types,
        constants=_folded(model, draft, read, place),
        stored=_stored(draft, read),
        readers={k: tuple(v) for k, v in readers.items()},
        maker={n: i for i, op in enumerate(moving) for n in op.output if n},
        ends=frozenset(ends),
        facts=facts,
        model=model,
        opset=max(int(o.version) for o in model.opset_import),
    )


def _folded(
    model: onnx.ModelProto, draft: OnnxDraft, read: set[str], place: str
) -> Mapping[str, Array]:
    """Values of the static tensors ``read``; those that are computed, by running the model once."""
    values = {n: np.asarray(draft.constants[n]) for n in read if n in draft.constants}
    missing = sorted(read - values.keys())
    if not missing:
        return values
    probe = at_batch_1(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in missing)
    initial = {t.name for t in probe.graph.initializer}
    feeds = {}
    for info in probe.graph.input:
        if info.name not in initial:
            kind = info.type.tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            feeds[info.name] = np.zeros([d.dim_value for d in kind.shape.dim], dtype)
    run = run_model(probe.SerializeToString(), feeds, place=place)
    return {**values, **{n: np.asarray(run[n]) for n in missing}}


def _stored(draft: OnnxDraft, read: set[str]) -> Mapping[str, Stored]:
    out = {}
    for op in draft.nodes:
        if op.op_type != "DequantizeLinear" or op.output[0] not in read:
            continue
        parts = [draft.constants.get(n) for n in op.input]
        if parts[0] is None or parts[1] is None:
            continue
        zero = parts[2] if len(parts) > 2 else None
        out[op.output[0]] = Stored(
            value=parts[0],
            scale=np.asarray(parts[1]),
            zero=np.zeros(1, parts[0].dtype) if zero is None else np.asarray(zero),
            axis=attribute_int(op, "axis", 1),
        )
    return out
