"""Joins nodes' own ONNX into one flat graph, every edge from its source, as if nothing were skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from dynrt.errors import CompileError
from dynrt.ir.graph import ComputeNode, Exit, Graph, NodeId, PortRef

BATCH = "batch"


def parsed(models: Mapping[NodeId, bytes]) -> dict[NodeId, onnx.ModelProto]:
    """The models of a bundle.

    Raises:
        CompileError: one is no ONNX.
    """
    out = {}
    for name, data in models.items():
        try:
            out[name] = onnx.load_model_from_string(data)
        except Exception as exc:  # protobuf's errors share no public root
            raise CompileError(f"node {name!r}: its model is no ONNX") from exc
    return out


def common_opset(models: Mapping[NodeId, onnx.ModelProto]) -> int:
    """The operator set that most models use; the highest of several."""
    counts = Counter(_opset(m) for m in models.values())
    return max(counts, key=lambda v: (counts[v], v), default=17)


def joinable(model: onnx.ModelProto, node: ComputeNode | Exit, opset: int) -> bool:
    """Whether a node can be part of a flat graph: of that operator set, without branches inside."""
    if _opset(model) != opset or model.functions or not node.inputs:
        return False
    if len(model.graph.sparse_initializer):
        return False
    return not any(
        a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        for n in model.graph.node
        for a in n.attribute
    )


def _opset(model: onnx.ModelProto) -> int:
    return max((int(o.version) for o in model.opset_import), default=0)


class Joiner:
    """Makes flat graphs of one bundle.

    Args:
        graph: valid.
        models: of its compute nodes and exits; one may do without a port that it does not need.
        opset: of those that are joined.
    """

    def __init__(self, graph: Graph, models: Mapping[NodeId, onnx.ModelProto], opset: int) -> None:
        self._graph, self._models, self._opset = graph, models, opset
        self._number = {name: i for i, name in enumerate(graph.order)}
        self._ports = {PortRef(n.name, p.name): p for n in graph.nodes for p in (*n.outputs,)}

    def tensor(self, ref: PortRef) -> str:
        """Name of an output port's tensor in the flat graph."""
        return f"p{self._number[ref.node]}.{ref.port}"

    def inner(self, node: NodeId, tensor: str) -> str:
        """What a tensor inside ``node`` is called in the flat graph; not for its ports."""
        return f"{self._stem(node)}{tensor}"

    def _stem(self, node: NodeId) -> str:
        return f"n{self._number[node]}/"

    def channels_last(self, ref: PortRef) -> bool:
        """Whether a port leaves a flat graph channels last.

        8-bit convolutions compute so, and onnxruntime moves no change of layout across an output.
        """
        kind = self._ports[ref].type
        return len(kind.shape) == 3 and kind.dtype in ("uint8", "int8")

    def turned(self, ref: PortRef) -> str:
        """Name of such a port's tensor ``(n, h, w, c)``."""
        return f"{self.tensor(ref)}:nhwc"

    def flat(
        self, nodes: Sequence[NodeId], gives: Collection[PortRef]
    ) -> tuple[onnx.ModelProto, tuple[PortRef, ...]]:
        """One graph of ``nodes``, in order, and the ports that it takes from elsewhere.

        Args:
            nodes: in the order of the schedule; all joinable.
            gives: output ports of them that are outputs of the flat graph. Pictures of 8-bit
                numbers are given channels last (see :meth:`channels_last`).
        """
        inside = set(nodes)
        takes: dict[PortRef, None] = {}
        operators: list[onnx.NodeProto] = []
        initializers: list[onnx.TensorProto] = []
        for name in nodes:
            sources = {}
            read = {i.name for i in self._models[name].graph.input}
            for port in self._graph.by_name[name].inputs:
                if port.name not in read:  # a mask that keeps everything
                    continue
                source = self._graph.edge_into[PortRef(name, port.name)].source
                sources[port.name] = self.tensor(source)
                if source.node not in inside:
                    takes[source] = None
            self._inline(name, sources, operators, initializers)
        outputs = []
        for ref in gives:
            if not self.channels_last(ref):
                outputs.append(self._info(ref))
                continue
            (c, h, w), turned = self._ports[ref].type.shape, self.turned(ref)
            outputs.append(value_info(turned, self._ports[ref].type.dtype, (h, w, c)))
            operators.append(
                helper.make_node(
                    "Transpose", [self.tensor(ref)], [turned], name=turned, perm=[0, 2, 3, 1]
                )
            )
        graph = helper.make_graph(
            operators,
            "network",
            [self._info(r) for r in takes],
            outputs,
            initializers,
        )
        ir_version = max(self._models[n].ir_version for n in nodes)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self._opset)], ir_version=ir_version
        )
        return model, tuple(takes)

    def _info(self, ref: PortRef) -> onnx.ValueInfoProto:
        kind = self._ports[ref].type
        return value_info(self.tensor(ref), kind.dtype, kind.shape)

    def _inline(
        self,
        name: NodeId,
        sources: Mapping[str, str],
        operators: list[onnx.NodeProto],
        initializers: list[onnx.TensorProto],
    ) -> None:
        graph = self._models[name].graph
        stem = self._stem(name)
        names = {"": "", **sources}
        results = {o.name: self.tensor(PortRef(name, o.name)) for o in graph.output}
        computed = {t for op in graph.node for t in op.output}
        names.update({t: results[t] for t in results if t in computed})
        for tensor in graph.initializer:
            if tensor.name in sources:
                continue
            copy = onnx.TensorProto()
            copy.CopyFrom(tensor)
            copy.name = names[tensor.name] = stem + tensor.name
            initializers.append(copy)
        for at, op in enumerate(graph.node):
            copied = onnx.NodeProto()
            copied.CopyFrom(op)
            copied.name = f"{stem}{at}"
            copied.input[:] = [names.get(t, stem + t) for t in op.input]
            copied.output[:] = [names.get(t, stem + t) for t in op.output]
            operators.append(copied)
        for tensor_name, target in results.items():
            if tensor_name not in computed:  # passed on, or stored
                operators.append(
                    helper.make_node("Identity", [names[tensor_name]], [target], name=stem + target)
                )


def value_info(name: str, dtype: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
    """A tensor ``(batch, *shape)``."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, [BATCH, *shape])
