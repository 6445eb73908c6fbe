"""Where a node's ONNX applies its channel mask, and the same node with every channel kept.

What is recognised: one convolution, elementwise operators, a product with the mask spelt out over
the channels in groups, one more convolution. How the mask is spelt out is not matched but tried.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from dynrt.ir.graph import ChannelMask, ComputeNode
from dynrt.ir.masks import KEPT_FROM
from dynrt.runtime.compile.mask_sessions import run_once

#: Operators that may stand between the first convolution and the product.
_ELEMENTWISE = frozenset(
    [
        "BatchNormalization",
        "Clip",
        "Elu",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Mish",
        "PRelu",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Tanh",
    ]
)
_TRIED_MASKS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskForm:
    """A node whose mask was found.

    Attributes:
        model: the node's ONNX with every channel kept; it no longer takes the mask.
        source: name, unique in ``model``, of the convolution whose outputs may be left out.
        reader: name, unique in ``model``, of the only convolution that reads them.
        between: the tensor of ``model`` that the reader takes: those channels.
        channels: how many there are.
    """

    model: bytes
    source: str
    reader: str
    between: str
    channels: int


def mask_form(model: bytes, node: ComputeNode) -> MaskForm | None:
    """How ``node`` applies its mask, or ``None`` where that is not one of the known ways.

    Args:
        model: its plain ONNX.
        node: with a mask that the invariants of ``dynrt.ir.check`` hold for.

    Raises:
        CompileError: the part of the model that the mask alone determines cannot be run.
    """
    if node.mask is None:
        return None
    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    side, constant = _mask_side(graph, node.mask.port)
    joins = [
        n
        for n in graph.node
        if any(i in side for i in n.input)
        and any(i not in side and i not in constant for i in n.input if i)
    ]
    if len(joins) != 1 or joins[0].op_type != "Mul":
        return None
    join = joins[0]
    spelt = next(i for i in join.input if i in side)
    features = next(i for i in join.input if i not in side)
    readers = Counter(i for n in graph.node for i in n.input)
    readers.update(o.name for o in graph.output)
    producers = {name: n for n in graph.node for name in n.output}
    source = _source(features, producers, readers)
    reader = next((n for n in graph.node if join.output[0] in n.input), None)
    if source is None or reader is None or readers[join.output[0]] != 1:
        return None
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for n in graph.node:  # weights that are stored in half the bytes
        if n.op_type == "Cast" and n.input[0] in shapes:
            shapes[n.output[0]] = shapes[n.input[0]]
    channels = _joined_channels(source, reader, join.output[0], shapes)
    if channels is None or channels % node.mask.groups:
        return None
    if not spells_groups(proto, node.mask, spelt, channels):
        return None
    source.name, reader.name = f"{node.name}/mask_source", f"{node.name}/mask_reader"
    reader.input[0] = features
    kept = [n for n in graph.node if n is not join and not any(o in side for o in n.output)]
    del graph.node[:]
    graph.node.extend(kept)
    used = {i for n in kept for i in n.input} | {o.name for o in graph.output}
    stored = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(stored)
    inputs = [i for i in graph.input if i.name != node.mask.port]
    del graph.input[:]
    graph.input.extend(inputs)
    return MaskForm(
        model=bytes(proto.SerializeToString(deterministic=True)),
        source=source.name,
        reader=reader.name,
        between=features,
        channels=channels,
    )


def _mask_side(graph: onnx.GraphProto, port: str) -> tuple[set[str], set[str]]:
    """Tensors that the mask and constants alone determine, and those that constants alone do."""
    constant = {t.name for t in graph.initializer}
    side = {port}
    for n in graph.node:
        names = [i for i in n.input if i]
        if all(i in constant for i in names):
            constant.update(n.output)
        elif all(i in side or i in constant for i in names):
            side.update(n.output)
    return side, constant


def _source(
    name: str, producers: dict[str, onnx.NodeProto], readers: Counter[str]
) -> onnx.NodeProto | None:
    """The convolution behind ``name``, elementwise operators between; nothing else reads any."""
    while readers[name] == 1 and (node := producers.get(name)) is not None:
        if node.op_type == "Conv":
            return node
        if node.op_type not in _ELEMENTWISE or len([o for o in node.output if o]) != 1:
            return None
        name = node.input[0]
    return None


def _joined_channels(
    source: onnx.NodeProto, reader: onnx.NodeProto, between: str, shapes: dict[str, tuple[int, ...]]
) -> int | None:
    """How many channels the two convolutions share, if both are dense over them."""
    if reader.op_type != "Conv" or reader.input[0] != between:
        return None
    if any(a.name == "group" and a.i != 1 for n in (source, reader) for a in n.attribute):
        return None
    first, second = shapes.get(source.input[1]), shapes.get(reader.input[1])
    if first is None or second is None or len(first) != 4 or first[0] != second[1]:
        return None
    return first[0]


def spells_groups(proto: onnx.ModelProto, mask: ChannelMask, spelt: str, channels: int) -> bool:
    """Whether the tensor ``spelt`` is 1 (or true) on the channels of kept groups and 0 on the others.

    Args:
        proto: a node's ONNX.
        mask: the node's.
        spelt: a tensor that the mask and constants alone determine.
        channels: how many; a whole number of groups.

    Raises:
        CompileError: the operators that make ``spelt`` cannot be run.
    """
    rng = np.random.default_rng(0)
    masks = rng.random((_TRIED_MASKS, mask.groups)).astype(np.float32)
    masks[0], masks[1], masks[2] = 1, 0, KEPT_FROM
    masks[3] = np.nextafter(np.float32(KEPT_FROM), np.float32(0))
    masks[4, 0] = np.nan
    part = _part_before(proto, mask, spelt)
    got = run_once(part, {mask.port: masks})[spelt]
    want = np.repeat(masks >= KEPT_FROM, channels // mask.groups, axis=1)[:, :, None, None]
    return got.dtype in (np.float32, np.bool_) and np.array_equal(got, want.astype(got.dtype))


def _part_before(proto: onnx.ModelProto, mask: ChannelMask, result: str) -> bytes:
    """The operators that make ``result`` from the mask, as a model of their own."""
    needed, nodes = {result}, []
    for n in reversed(proto.graph.node):
        if any(o in needed for o in n.output):
            nodes.append(n)
            needed.update(n.input)
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes[::-1],
        "mask",
        [helper.make_tensor_value_info(mask.port, kind, ["batch", mask.groups])],
        [onnx.ValueInfoProto(name=result)],
        [t for t in proto.graph.initializer if t.name in needed],
    )
    model = helper.make_model(
        graph, opset_imports=list(proto.opset_import), ir_version=proto.ir_version
    )
    return bytes(model.SerializeToString())
