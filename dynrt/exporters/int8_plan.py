"""What of a node's ONNX is computed in integers, decided before any range is known.

*Anchors* are operators that onnxruntime has in integers (convolution, products, sums); *movers* only
move elements, so they work on the stored integers themselves. All else stays float.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dynrt.errors import ExportError
from dynrt.exporters.draft import OnnxDraft, attribute_float, attribute_int, attribute_text
from dynrt.exporters.session import run_model
from dynrt.exporters.shapes import shapes_at_batch_1
from dynrt.ir.graph import Array, ComputeNode, Port

#: The first operator set with per-channel ``DequantizeLinear``.
MIN_OPSET = 13

_JOINING = ("Add", "Mul", "Concat")
_POOLING = ("AveragePool", "GlobalAveragePool")
_ACTIVATIONS = ("Relu", "Clip")
_MOVERS = frozenset(
    (
        "Identity", "Slice", "Pad", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze",
        "MaxPool", "Gather", "Expand", "Tile", "DepthToSpace",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """One compute node whose operators are (partly) computed in integers.

    Attributes:
        draft: its operators, everything constant folded.
        anchors: positions of operators between ``DequantizeLinear`` and ``QuantizeLinear``.
        movers: positions of operators on stored integers.
        asked: tensors that are stored as integers, ports included.
        opset: of the model.
        ir_version: of the model.
    """

    draft: OnnxDraft
    anchors: frozenset[int]
    movers: frozenset[int]
    asked: frozenset[str]
    opset: int
    ir_version: int

    def tied(self) -> Iterable[tuple[str, str]]:
        """Tensors that share one scale, because a mover carries one to the other."""
        for i in sorted(self.movers):
            node = self.draft.nodes[i]
            yield node.input[0], node.output[0]


def folded(model: onnx.ModelProto, outputs: Sequence[Port], *, place: str) -> OnnxDraft:
    """``model`` without operators whose result is a constant (casts of weights, computed sizes).

    Raises:
        ExportError: onnxruntime cannot compute one of them.
    """
    draft = OnnxDraft.of(model.graph, place)
    constant = set(draft.constants)
    still: list[onnx.NodeProto] = []
    moving: list[onnx.NodeProto] = []
    for node in draft.nodes:
        inner = any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute)
        if node.input and not inner and all(not n or n in constant for n in node.input):
            still.append(node)
            constant.update(n for n in node.output if n)
        else:
            moving.append(node)
    if still:
        draft.constants.update(_computed(model, draft.constants, still, moving, outputs, place))
    draft.nodes = moving
    ends = {p.name for p in outputs}
    draft.drop_identities(protected=ends)
    draft.keep_only(ends, known={i.name for i in model.graph.input})
    return draft


def _computed(
    model: onnx.ModelProto,
    constants: Mapping[str, Array],
    still: Sequence[onnx.NodeProto],
    moving: Sequence[onnx.NodeProto],
    outputs: Sequence[Port],
    place: str,
) -> Mapping[str, Array]:
    """The results of ``still`` that others read."""
    wanted = {n for node in moving for n in node.input} | {p.name for p in outputs}
    made = [n for node in still for n in node.output if n in wanted]
    read = {n for node in still for n in node.input if n in constants}
    if not made:
        return {}
    graph = helper.make_graph(
        still,
        "constants",
        [],
        [onnx.ValueInfoProto(name=n) for n in made],
        [numpy_helper.from_array(np.asarray(constants[n], order="C"), n) for n in sorted(read)],
    )
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return run_model(part.SerializeToString(), {}, place=place)


def plan_node(model: onnx.ModelProto, node: ComputeNode) -> NodePlan | None:
    """What of ``node`` is computed in integers; ``None`` if nothing in it multiplies by weights.

    Raises:
        ExportError: its operator set is too old, or its shapes are unknown.
    """
    place = f"node {node.name!r}"
    if not node.inputs or _branches(model):
        return None
    draft = folded(model, node.outputs, place=place)
    types = shapes_at_batch_1(model, place=place)
    real = {n for n, kind in types.items() if kind.dtype == "float32"} - draft.constants.keys()
    masks = _only_of(draft, () if node.mask is None else (node.mask.port,))
    anchors = {
        i for i, op in enumerate(draft.nodes) if _is_anchor(op, draft.constants, real - masks)
    }
    if not any(draft.nodes[i].op_type in ("Conv", "Gemm", "MatMul") for i in anchors):
        return None
    opset = max(int(o.version) for o in model.opset_import)
    if opset < MIN_OPSET:
        raise ExportError(f"{place}: operator set {opset}; int8 needs {MIN_OPSET} or later")
    asked = {n for i in anchors for n in _activations(draft.nodes[i])}
    asked |= {_end(draft, i, {p.name for p in node.outputs}) for i in anchors}
    movers = _movers(draft, asked, real)
    return NodePlan(
        draft=draft,
        anchors=frozenset(anchors),
        movers=frozenset(movers),
        asked=frozenset(asked),
        opset=opset,
        ir_version=int(model.ir_version),
    )


def _branches(model: onnx.ModelProto) -> bool:
    return any(
        a.type == onnx.AttributeProto.GRAPH for node in model.graph.node for a in node.attribute
    )


def _only_of(draft: OnnxDraft, ports: Iterable[str]) -> set[str]:
    """Tensors made from ``ports`` and constants alone."""
    out = set(ports)
    for op in draft.nodes:
        moving = [n for n in op.input if n and n not in draft.constants]
        if moving and all(n in out for n in moving):
            out.update(op.output)
    return out


def _activations(op: onnx.NodeProto) -> Sequence[str]:
    """The inputs of an anchor that are no weights."""
    return list(op.input) if op.op_type in _JOINING else [op.input[0]]


def _is_anchor(op: onnx.NodeProto, constants: Mapping[str, Array], real: set[str]) -> bool:
    if not all(n in real for n in _activations(op)):
        return False
    if op.op_type in (*_JOINING, *_POOLING):
        return True
    if op.op_type not in ("Conv", "Gemm", "MatMul"):
        return False
    weight = constants.get(op.input[1])
    if weight is None or weight.dtype != np.float32 or not np.isfinite(weight).all():
        return False
    if op.op_type == "MatMul":
        return weight.ndim == 2
    bias = constants.get(op.input[2]) if len(op.input) > 2 and op.input[2] else None
    if len(op.input) > 2 and op.input[2] and (bias is None or not np.isfinite(bias).all()):
        return False
    if op.op_type == "Conv":
        return True
    rows = weight.shape[0 if attribute_int(op, "transB", 0) else 1]
    plain = not attribute_int(op, "transA", 0) and attribute_float(op, "alpha", 1.0) == 1.0
    fits = bias is None or (bias.shape == (rows,) and attribute_float(op, "beta", 1.0) == 1.0)
    return plain and fits


def _end(draft: OnnxDraft, i: int, ports: set[str]) -> str:
    """What an anchor gives, behind an activation function that integers clip anyway."""
    tensor = str(draft.nodes[i].output[0])
    readers = [op for op in draft.nodes if tensor in op.input]
    if len(readers) == 1 and readers[0].op_type in _ACTIVATIONS and tensor not in ports:
        return str(readers[0].output[0])
    return tensor


def _movers(draft: OnnxDraft, asked: set[str], real: set[str]) -> set[int]:
    """Operators that move what is asked for; ``asked`` grows by what they take and give."""
    out: set[int] = set()
    able = [i for i, op in enumerate(draft.nodes) if _is_mover(op, draft.constants, real)]
    grown = True
    while grown:
        grown = False
        for i in able:
            ends = {draft.nodes[i].input[0], draft.nodes[i].output[0]}
            if i not in out and ends & asked:
                asked |= ends
                out.add(i)
                grown = True
    return out


def _is_mover(op: onnx.NodeProto, constants: Mapping[str, Array], real: set[str]) -> bool:
    if op.op_type not in _MOVERS or op.input[0] not in real or len(op.output) != 1:
        return False
    if op.op_type != "Pad":
        return True
    filled = constants.get(op.input[2]) if len(op.input) > 2 and op.input[2] else np.zeros(1)
    zeros = filled is not None and not np.any(filled)
    return zeros or attribute_text(op, "mode", "constant") != "constant"
