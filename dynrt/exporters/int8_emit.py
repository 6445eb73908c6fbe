"""Writes a node's ONNX with ``QuantizeLinear`` and ``DequantizeLinear`` (QDQ) around its operators.

Activations are uint8 with one scale, weights int8 with one scale per output channel, biases int32.
A tensor that is stored as integers is read as such by everybody, so that what two operators see is
one and the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dynrt.exporters.draft import attribute_int
from dynrt.exporters.int8_plan import NodePlan
from dynrt.exporters.int8_ranges import Affine
from dynrt.exporters.plain import BATCH
from dynrt.ir.graph import Array, ComputeNode, Exit, Port

_INT32_MAX = 2**31 - 1
#: 7 for CPUs whose 8-bit products saturate: x86 with AVX2 or AVX-512 but no VNNI.
WeightBits = Literal[7, 8]


def emit_planned(
    plan: NodePlan,
    node: ComputeNode,
    affine: Mapping[str, Affine],
    *,
    weight_bits: WeightBits = 8,
) -> bytes:
    """The ONNX of a planned node.

    Args:
        plan: of the node.
        node: with the ports that it is to have; uint8 ones are stored integers.
        affine: of every tensor that is stored.
        weight_bits: how many of the 8 bits weights use.
    """
    return _Emitter(plan, node, affine, weight_bits).model()


class _Emitter:
    """One graph under construction.

    ``real`` and ``stored`` map tensors of the plan to their float and integer forms.
    """

    def __init__(
        self,
        plan: NodePlan,
        node: ComputeNode,
        affine: Mapping[str, Affine],
        weight_bits: WeightBits,
    ) -> None:
        self.plan, self.node, self.affine, self.weight_bits = plan, node, affine, weight_bits
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        ops = plan.draft.nodes
        self.taken = {n for op in ops for n in (*op.input, *op.output)}
        self.taken |= plan.draft.constants.keys() | {p.name for p in (*node.inputs, *node.outputs)}
        self.whole = {p.name for p in (*node.inputs, *node.outputs) if p.type.dtype == "uint8"}
        self.ends = {p.name for p in node.outputs}
        self.numbers: dict[tuple[str, float], str] = {}
        self.constants: dict[str, str] = {}
        self.real: dict[str, str] = {}
        self.stored: dict[str, str] = {}
        for port in node.inputs:
            (self.stored if port.name in self.whole else self.real)[port.name] = port.name

    def model(self) -> bytes:
        """All of it."""
        for port in self.node.inputs:
            if port.name in self.plan.asked:
                self._as_stored(port.name)
        for i, op in enumerate(self.plan.draft.nodes):
            if i in self.plan.movers:
                self._moved(op)
            elif i in self.plan.anchors and op.op_type in ("Conv", "Gemm", "MatMul"):
                self._weighted(op)
            else:
                self._plain(op)
        for port in self.node.outputs:
            self._finish(port)
        return model_bytes(
            self.nodes,
            self.initializers.values(),
            self.node,
            opset=self.plan.opset,
            ir_version=self.plan.ir_version,
        )

    # --- forms of a tensor

    def _fresh(self, stem: str) -> str:
        name, i = stem, 1
        while name in self.taken:
            i += 1
            name = f"{stem}{i}"
        self.taken.add(name)
        return name

    def _constant(self, stem: str, value: Array) -> str:
        name = self._fresh(stem)
        self.initializers[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def _affine(self, tensor: str) -> list[str]:
        """Scale and zero point, once per value."""
        affine = self.affine[tensor]
        for stem, value in (("s", affine.scale), ("z", affine.zero)):
            if (stem, value) not in self.numbers:
                kind = np.float32 if stem == "s" else np.uint8
                name = self._constant(f"{stem}{len(self.numbers) // 2}", np.array(value, kind))
                self.numbers[stem, value] = name
        return [self.numbers["s", affine.scale], self.numbers["z", affine.zero]]

    def _add(self, op: str, inputs: Sequence[str], output: str, **attributes: int) -> str:
        given: dict[str, Any] = {**attributes}
        self.nodes.append(helper.make_node(op, inputs, [output], **given))
        return output

    def _as_real(self, tensor: str) -> str:
        """The float form; one ``DequantizeLinear`` for each reader, as integer kernels ask for."""
        if not tensor:
            return ""
        if tensor in self.plan.draft.constants:
            if tensor not in self.constants:
                value = self.plan.draft.constants[tensor]
                self.constants[tensor] = self._constant(f"{tensor}.c", value)
            return self.constants[tensor]
        if tensor in self.stored:
            inputs = [self.stored[tensor], *self._affine(tensor)]
            return self._add("DequantizeLinear", inputs, self._fresh(f"{tensor}.r"))
        return self.real[tensor]

    def _as_stored(self, tensor: str) -> str:
        """The integer form, made when it is first asked for."""
        if tensor not in self.stored:
            name = tensor if tensor in self.whole else self._fresh(f"{tensor}.q")
            inputs = [self.real[tensor], *self._affine(tensor)]
            self.stored[tensor] = self._add("QuantizeLinear", inputs, name)
        return self.stored[tensor]

    def _made(self, tensor: str, *, stored: bool) -> str:
        """The name under which an operator gives ``tensor``; its other forms can then be made."""
        form = self.stored if stored else self.real
        keeps = stored == (tensor in self.whole) and (stored or tensor not in self.plan.asked)
        inner = tensor not in self.ends and not stored
        form[tensor] = (
            tensor if keeps or inner else self._fresh(f"{tensor}.{'q' if stored else 'f'}")
        )
        return form[tensor]

    # --- operators

    def _copy(self, op: onnx.NodeProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        clone = onnx.NodeProto()
        clone.CopyFrom(op)
        clone.input[:] = inputs
        clone.output[:] = outputs
        self.nodes.append(clone)

    def _plain(self, op: onnx.NodeProto) -> None:
        """In float on its readings of what is stored; stored again if that is asked for."""
        inputs = [self._as_real(n) for n in op.input]
        self._copy(op, inputs, [n and self._made(n, stored=False) for n in op.output])
        for name in op.output:
            if name in self.plan.asked or name in self.whole:
                self._as_stored(name)

    def _moved(self, op: onnx.NodeProto) -> None:
        source, target = op.input[0], op.output[0]
        inputs = [self._as_stored(source), *(self._as_real(n) for n in op.input[1:])]
        if op.op_type == "Pad":
            filler = self._affine(source)[1]
            inputs = [*inputs[:2], filler, *inputs[3:]]
        self._copy(op, inputs, [self._made(target, stored=True)])

    def _weighted(self, op: onnx.NodeProto) -> None:
        constants = self.plan.draft.constants
        weight = constants[op.input[1]]
        axis = 0 if op.op_type == "Conv" or attribute_int(op, "transB", 0) else 1
        bias = constants[op.input[2]] if len(op.input) > 2 and op.input[2] else None
        input_scale = self.affine[op.input[0]].scale
        whole, scales = quantised_weight(
            weight, axis, bias, input_scale, weight_bits=self.weight_bits
        )
        inputs = [self._as_real(op.input[0]), self._weight(op.input[1], whole, scales, axis)]
        if bias is not None:
            steps = scales * np.float32(input_scale)
            counts = np.rint(bias.astype(np.float64) / steps.astype(np.float64))
            kept = np.clip(counts, -_INT32_MAX, _INT32_MAX).astype(np.int32)
            inputs.append(self._weight(op.input[2], kept, steps, 0))
        self._copy(op, inputs, [self._made(op.output[0], stored=False)])
        if op.output[0] in self.plan.asked:
            self._as_stored(op.output[0])

    def _weight(self, name: str, whole: Array, scales: Array, axis: int) -> str:
        zeros = np.zeros(len(scales), whole.dtype)
        parts = [
            self._constant(f"{name}.{part}", value)
            for part, value in (("w", whole), ("s", scales), ("z", zeros))
        ]
        return self._add("DequantizeLinear", parts, self._fresh(f"{name}.r"), axis=axis)

    def _finish(self, port: Port) -> None:
        """Give ``port`` under its own name, in the form that it is to have."""
        name = port.name
        if name in self.plan.draft.constants:
            self.real[name] = self._as_real(name)
        if name in self.whole:
            given = self._as_stored(name)
            if given != name:
                self._add("Identity", [given], name)
        elif name in self.stored:
            inputs = [self.stored[name], *self._affine(name)]
            self._add("DequantizeLinear", inputs, name)
        elif self.real[name] != name:
            self._add("Identity", [self.real[name]], name)


def quantised_weight(
    weight: Array,
    axis: int,
    bias: Array | None,
    input_scale: float,
    *,
    weight_bits: WeightBits = 8,
) -> tuple[Array, Array]:
    """A weight as int8, and the scale of each output channel.

    The scale of a channel grows where its bias would not fit into 32 bits.

    Returns:
        int8 of the shape of ``weight``; float32 ``(channels,)``.
    """
    most = 2 ** (weight_bits - 1) - 1
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scales = np.abs(weight).max(axis=others).astype(np.float64) / most
    if bias is not None:
        least = np.abs(bias.astype(np.float64)) / (float(np.float32(input_scale)) * _INT32_MAX)
        scales = np.maximum(scales, 1.01 * least)
    scales = np.where(scales < np.finfo(np.float32).tiny, 1.0, scales).astype(np.float32)
    along = [-1 if i == axis else 1 for i in range(weight.ndim)]
    steps = np.rint(weight.astype(np.float64) / scales.astype(np.float64).reshape(along))
    return np.clip(steps, -most, most).astype(np.int8), scales


def emit_float(
    model: onnx.ModelProto, node: ComputeNode | Exit, affine: Mapping[str, Affine]
) -> bytes:
    """The ONNX of a node that stays float, with its uint8 ports converted at its borders.

    Args:
        model: its ONNX with float ports; stays as it is.
        node: with the ports that it is to have.
        affine: of each uint8 port.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    taken = _all_names(graph)
    before: list[onnx.NodeProto] = []
    after: list[onnx.NodeProto] = []
    for port in (*node.inputs, *node.outputs):
        if port.type.dtype != "uint8":
            continue
        inner, i = f"{port.name}.r", 1
        while inner in taken:
            i += 1
            inner = f"{port.name}.r{i}"
        scale, zero = f"{inner}.s", f"{inner}.z"
        taken |= {inner, scale, zero}
        _rename(graph, port.name, inner)
        rule = affine[port.name]
        graph.initializer.append(numpy_helper.from_array(np.array(rule.scale, np.float32), scale))
        graph.initializer.append(numpy_helper.from_array(np.array(rule.zero, np.uint8), zero))
        if port in node.inputs:
            before.append(helper.make_node("DequantizeLinear", [port.name, scale, zero], [inner]))
        else:
            after.append(helper.make_node("QuantizeLinear", [inner, scale, zero], [port.name]))
    return model_bytes(
        [*before, *graph.node, *after],
        graph.initializer,
        node,
        opset=max(int(o.version) for o in copy.opset_import),
        ir_version=int(copy.ir_version),
    )


def _all_names(graph: onnx.GraphProto) -> set[str]:
    out = {t.name for t in graph.initializer} | {i.name for i in graph.input}
    for op in graph.node:
        out.update((*op.input, *op.output))
        for attribute in op.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                out |= _all_names(attribute.g)
    return out


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Call a tensor ``new``, also where branches read it."""
    for tensor in graph.initializer:
        if tensor.name == old:
            tensor.name = new
    for op in graph.node:
        op.input[:] = [new if n == old else n for n in op.input]
        op.output[:] = [new if n == old else n for n in op.output]
        for attribute in op.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, old, new)


def model_bytes(
    nodes: Sequence[onnx.NodeProto],
    initializers: Collection[onnx.TensorProto],
    node: ComputeNode | Exit,
    *,
    opset: int,
    ir_version: int,
) -> bytes:
    """A whole model with the ports of ``node``; the same bytes for the same parts."""
    graph = helper.make_graph(
        nodes,
        "node",
        [_info(p) for p in node.inputs],
        [_info(p) if node.inputs else _info(p, 1) for p in node.outputs],
        list(initializers),
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )
    model.producer_name = "dynrt"
    return bytes(model.SerializeToString(deterministic=True))


def _info(port: Port, batch: int | str = BATCH) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(port.type.dtype))
    return helper.make_tensor_value_info(port.name, kind, [batch, *port.type.shape])
