"""From a small node's ONNX to a kernel program.

The graph is followed once with a batch of one, so that every shape is known; a kernel runs one sample
at a time. Whatever has no kernel makes the whole node one for onnxruntime.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # onnx raises it
from onnx import numpy_helper

from dynrt.errors import CacheError
from dynrt.ir.graph import Array, Port
from dynrt.runtime.compile.assembling import Assembler, Feature, UnfitError, Value, Vector
from dynrt.runtime.compile.moving import MOVING
from dynrt.runtime.compile.operators import ARITHMETIC, Context
from dynrt.runtime.kernels.program import MAX_PIXELS, Program

#: Nodes above which nobody would call it small, and elements of a constant.
_MAX_NODES = 512
_MAX_CONSTANT = 1 << 20
_PICTURE_RANK = 3
_OPERATORS = ARITHMETIC | MOVING


def recognise(
    model: bytes | onnx.ModelProto, inputs: Sequence[Port], outputs: Sequence[Port]
) -> Program | None:
    """The kernel program that computes what ``model`` does.

    Args:
        model: the node's own ONNX; its inputs and outputs are named like the ports.
        inputs: the node's input ports; a port ``(c, h, w)`` must be read through a global average
            pool only.
        outputs: its output ports, each a float32 vector (of any shape).

    Returns:
        The program, or ``None`` if an operator, shape, dtype or size does not fit. Inputs that are
        not read are not among the ports that it takes.
    """
    try:
        proto = model if isinstance(model, onnx.ModelProto) else onnx.load_from_string(model)
        with np.errstate(all="ignore"):  # odd constants give odd constants
            return _program(proto, inputs, outputs)
    except (
        UnfitError, CacheError, DecodeError, ArithmeticError, LookupError, TypeError, ValueError,
    ):  # fmt: skip
        return None  # a graph that is no valid ONNX is no kernel either


def _program(
    model: onnx.ModelProto, inputs: Sequence[Port], outputs: Sequence[Port]
) -> Program | None:
    graph = model.graph
    if graph.sparse_initializer or model.functions or len(graph.node) > _MAX_NODES:
        return None
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    needed = _needed_nodes(graph, [p.name for p in outputs])
    used = {name for node in needed for name in node.input} | {p.name for p in outputs}

    assembler = Assembler()
    values: dict[str, Value] = {}
    for initial in graph.initializer:
        if initial.name in used:
            values[initial.name] = _constant(initial)
    for port in inputs:
        if port.name in used:
            values[port.name] = _input(assembler, port)
    readers: dict[str, int] = {p.name: 1 for p in outputs}
    for node in needed:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for node in needed:
        made = _apply(assembler, node, opset, values, readers)
        for name, value in zip(node.output, made, strict=False):
            if name:
                values[name] = value
    stores = {port.name: _output(values[port.name], port) for port in outputs}
    return assembler.program([port.name for port in inputs], stores)


def _needed_nodes(graph: onnx.GraphProto, wanted: list[str]) -> list[onnx.NodeProto]:
    """Nodes that the outputs depend on, in order."""
    names = set(wanted)
    found = []
    for node in reversed(graph.node):
        if names.intersection(node.output):
            names.update(node.input)
            found.append(node)
    return found[::-1]


def _constant(tensor: onnx.TensorProto) -> Array:
    if math.prod(tensor.dims) > _MAX_CONSTANT or tensor.data_location:
        raise UnfitError(f"constant {tensor.name!r}")
    return np.asarray(numpy_helper.to_array(tensor))


def _input(assembler: Assembler, port: Port) -> Value:
    """A port's value: a feature, or a vector to be loaded."""
    shape = port.type.shape
    if len(shape) == _PICTURE_RANK:
        if port.type.dtype not in ("float32", "uint8", "int8"):
            raise UnfitError(f"port {port.name!r} of {port.type}")
        c, h, w = shape
        if min(shape) < 1 or h * w > MAX_PIXELS:
            raise UnfitError(f"port {port.name!r} of {port.type}")
        return Feature(port.name, (1, *shape), (c, h, w), port.type.dtype)
    if port.type.dtype != "float32":
        raise UnfitError(f"port {port.name!r} of {port.type}")
    return assembler.load(port.name, (1, *shape))


def _output(value: Value, port: Port) -> Vector | Array:
    """Where an output port's vector is."""
    if port.type.dtype != "float32" or isinstance(value, Feature):
        raise UnfitError(f"port {port.name!r} of {port.type}")
    if value.size != math.prod(port.type.shape):
        raise UnfitError(f"port {port.name!r} holds {value.shape}")
    if isinstance(value, np.ndarray) and value.dtype != np.float32:
        raise UnfitError(f"port {port.name!r} holds {value.dtype}")
    return value


def _apply(
    assembler: Assembler,
    node: onnx.NodeProto,
    opset: int,
    values: dict[str, Value],
    readers: dict[str, int],
) -> list[Value]:
    """What a node gives."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in _OPERATORS:
        raise UnfitError(f"operator {node.domain}.{node.op_type}")
    attributes: dict[str, object] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            value = _constant(value)
        attributes[attribute.name] = value
    takes = [values[name] if name else None for name in node.input]
    once = [readers.get(name, 0) == 1 for name in node.input]
    context = Context(assembler, attributes, opset, len(node.output), once)
    return _OPERATORS[node.op_type](context, takes)
