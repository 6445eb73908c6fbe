"""One node by itself as onnxruntime would run it inside a network: with blocked borders.

A node optimised alone takes and gives plain tensors, and reorders them at each call. Here it is
optimised between two convolutions that stand for its neighbours, and cut out again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dynrt.ir.graph import Port
from dynrt.runtime.compile.mask_gather import blocked_conv, simd_block
from dynrt.runtime.compile.mask_sessions import optimised
from dynrt.runtime.compiled import PLAIN, Layout

_FLOAT = onnx.TensorProto.FLOAT


@dataclass(frozen=True, slots=True, kw_only=True)
class LoneSegment:
    """An optimised node.

    Attributes:
        model: to be loaded without further optimisation.
        tensors: what each port is called in it.
        layouts: how each port's tensor is stored.
    """

    model: onnx.ModelProto
    tensors: Mapping[str, str]
    layouts: Mapping[str, Layout]


def plain_segment(model: bytes, ports: Sequence[Port]) -> LoneSegment:
    """``model`` optimised, with ports as declared.

    Raises:
        CompileError: onnxruntime refuses it.
    """
    return LoneSegment(
        model=optimised(model),
        tensors={p.name: p.name for p in ports},
        layouts={p.name: PLAIN for p in ports},
    )


def blocked_segment(
    model: bytes, takes: Sequence[Port], gives: Sequence[Port]
) -> LoneSegment | None:
    """``model`` with every port blocked, or ``None`` where a port cannot be.

    What it computes is to be compared with ``model``: a neighbour may have swallowed an operator.

    Raises:
        CompileError: onnxruntime refuses it.
    """
    block = simd_block()
    ports = (*takes, *gives)
    fits = all(
        p.type.dtype == "float32" and len(p.type.shape) == 3 and p.type.shape[0] % (block or 1) == 0
        for p in ports
    )
    if block is None or not fits:
        return None
    whole = onnx.load_model_from_string(model)
    _surround(whole.graph, takes, gives)
    done = optimised(bytes(whole.SerializeToString()))
    neighbours = {
        p.name: blocked_conv(done.graph, p.name if p in takes else _far(p)) for p in ports
    }
    tensors: dict[str, str] = {}
    for port in ports:
        conv = neighbours[port.name]
        if conv is None:
            return None
        tensors[port.name] = conv.output[0] if port in takes else conv.input[0]
    if len(set(tensors.values())) != len(ports):
        return None
    _cut(done.graph, takes, gives, tensors)
    layout = Layout(kind="nchwc", block=block)
    return LoneSegment(model=done, tensors=tensors, layouts={p.name: layout for p in ports})


def _far(port: Port) -> str:
    """What the neighbour of ``port`` takes or gives on its other side."""
    return f"dynrt/far/{port.name}"


def _surround(graph: onnx.GraphProto, takes: Sequence[Port], gives: Sequence[Port]) -> None:
    """Put a 1x1 convolution before each input and behind each output."""
    before: list[onnx.NodeProto] = []
    behind: list[onnx.NodeProto] = []
    for port in (*takes, *gives):
        channels, far, taken = port.type.shape[0], _far(port), port in takes
        weight = np.full((channels, channels, 1, 1), 1 / channels, np.float32)
        name = f"dynrt/weight/{port.name}"
        graph.initializer.append(numpy_helper.from_array(weight, name))
        source, target = (far, port.name) if taken else (port.name, far)
        conv = helper.make_node("Conv", [source, name], [target], kernel_shape=[1, 1])
        (before if taken else behind).append(conv)
        for info in graph.input if taken else graph.output:
            if info.name == port.name:
                info.name = far
    nodes = [*before, *graph.node, *behind]
    del graph.node[:]
    graph.node.extend(nodes)


def _cut(
    graph: onnx.GraphProto,
    takes: Sequence[Port],
    gives: Sequence[Port],
    tensors: Mapping[str, str],
) -> None:
    """Keep what lies between the borders."""
    borders = {tensors[p.name] for p in takes}
    needed = {tensors[p.name] for p in gives}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if any(o in needed and o not in borders for o in node.output):
            kept.append(node)
            needed.update(i for i in node.input if i)
    stored = [t for t in graph.initializer if t.name in needed]
    for field, values in (
        (graph.node, kept[::-1]),
        (graph.initializer, stored),
        (graph.input, [_info(p, tensors) for p in takes]),
        (graph.output, [_info(p, tensors) for p in gives]),
        (graph.value_info, []),
    ):
        del field[:]
        field.extend(values)


def _info(port: Port, tensors: Mapping[str, str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensors[port.name], _FLOAT, ["batch", *port.type.shape])
