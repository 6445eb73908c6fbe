"""Turns an ONNX graph into a plain one: ports by name, dynamic batch, no constants as nodes, stable bytes.

The same module exported twice gives the same bytes: names are derived from operators and positions,
document strings, paths and the producer's version are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dynrt.errors import ExportError
from dynrt.exporters.batch_norm import fold_batch_norms
from dynrt.exporters.draft import OnnxDraft
from dynrt.ir.graph import Array, Port

#: The operator set of every node that dynrt writes.
OPSET = 17
_IR_VERSION = 8
#: Name of the first axis of every input and output.
BATCH = "batch"

Weights = Literal["float32", "float16"]
#: Initialisers below this many elements stay as they are: a ``Cast`` would cost more than it saves.
_HALF_MIN_ELEMENTS = 64
_STANDARD_DOMAINS = ("", "ai.onnx")


def plain_model(
    model: onnx.ModelProto,
    *,
    sources: Mapping[str, str],
    results: Mapping[str, str],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    weights: Weights = "float32",
    place: str,
) -> bytes:
    """The part of ``model`` that makes ``outputs`` from ``inputs``, as plain ONNX.

    Args:
        model: any ONNX model of standard operators, its operators in topological order.
        sources: for each input port, the tensor of ``model`` that it stands for.
        results: for each output port, the tensor of ``model`` that it carries.
        inputs: input ports; shapes without the batch axis.
        outputs: output ports; shapes without the batch axis.
        weights: how initialisers are stored; ``float16`` ones are followed by a ``Cast``.
        place: names the node in errors.

    Raises:
        ExportError: custom domains, subgraphs, functions, external or sparse data, or a tensor that
            is neither computed nor given.
    """
    require_plain(model, place)
    draft = OnnxDraft.of(model.graph, place)
    draft.keep_only(set(results.values()), known=set(sources.values()))
    draft.drop_identities(protected=set(results.values()))
    fold_batch_norms(draft, results=set(results.values()), rank=_ranks(model))
    draft.keep_only(set(results.values()), known=set(sources.values()))
    graph = _named(draft, sources, results, inputs, outputs)
    if weights == "float16":
        _halve(graph)
    opsets = [helper.make_opsetid("", _opset(model))]
    ir_version = max(_IR_VERSION, helper.find_min_ir_version_for(opsets))
    plain = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    plain.producer_name = "dynrt"
    _require_sound(plain, place)
    return bytes(plain.SerializeToString(deterministic=True))


def constant_model(values: Mapping[str, Array], outputs: Sequence[Port]) -> bytes:
    """A dummy node: no inputs, each output a constant with a leading axis of 1."""
    nodes, initializers = [], []
    for i, port in enumerate(outputs):
        name = f"constant_{i}"
        initializers.append(numpy_helper.from_array(np.asarray(values[port.name], order="C"), name))
        nodes.append(helper.make_node("Identity", [name], [port.name], name=f"Identity_{i}"))
    info = [_value_info(port) for port in outputs]
    graph = helper.make_graph(nodes, "node", [], info, initializers)
    opsets = [helper.make_opsetid("", OPSET)]
    plain = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    plain.producer_name = "dynrt"
    return bytes(plain.SerializeToString(deterministic=True))


def _opset(model: onnx.ModelProto) -> int:
    return max(int(o.version) for o in model.opset_import if o.domain in _STANDARD_DOMAINS)


def require_plain(model: onnx.ModelProto, place: str) -> None:
    """Check that ``model`` is made of standard operators and holds all its data.

    Raises:
        ExportError: custom domains, subgraphs, functions, external or sparse data.
    """
    if model.functions:
        raise ExportError(f"{place}: the ONNX model has {len(model.functions)} local functions")
    if model.graph.sparse_initializer:
        raise ExportError(f"{place}: the ONNX model has sparse initialisers")
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ExportError(f"{place}: {tensor.name!r} is external data; save it in one file")
    if not any(o.domain in _STANDARD_DOMAINS for o in model.opset_import):
        raise ExportError(f"{place}: the ONNX model imports no standard operator set")
    for node in model.graph.node:
        if node.domain not in _STANDARD_DOMAINS:
            raise ExportError(
                f"{place}: operator {node.domain}::{node.op_type} is not standard ONNX"
            )
        for attribute in node.attribute:
            if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
                raise ExportError(
                    f"{place}: operator {node.op_type} {node.name!r} has a subgraph; "
                    "make the decision a gate instead"
                )


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Rank of every tensor that ONNX's shape inference knows."""
    known = onnx.shape_inference.infer_shapes(model).graph
    infos = [*known.input, *known.value_info, *known.output]
    return {
        v.name: len(v.type.tensor_type.shape.dim)
        for v in infos
        if v.type.tensor_type.HasField("shape")
    }


def _value_info(port: Port) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(port.type.dtype))
    return helper.make_tensor_value_info(port.name, kind, [BATCH, *port.type.shape])


def _named(
    draft: OnnxDraft,
    sources: Mapping[str, str],
    results: Mapping[str, str],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
) -> onnx.GraphProto:
    """The graph with ports as its inputs and outputs and derived names inside."""
    names: dict[str, str] = {"": ""}
    taken = {port.name for port in (*inputs, *outputs)}
    for port in inputs:
        names.setdefault(sources[port.name], port.name)
    produced = {name for node in draft.nodes for name in node.output}
    copies: list[Port] = []
    for port in outputs:
        tensor = results[port.name]
        if tensor in produced and tensor not in names:
            names[tensor] = port.name
        else:
            copies.append(port)

    def fresh(stem: str) -> str:
        name, i = stem, 0
        while name in taken:
            i += 1
            name = f"{stem}_{i}"
        taken.add(name)
        return name

    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    for i, node in enumerate(draft.nodes):
        stem = f"{node.op_type}_{i}"
        for j, name in enumerate(node.input):
            if name in names:
                continue
            value = draft.constants[name]
            names[name] = fresh(f"{stem}.{j}")
            initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), names[name]))
        for j, name in enumerate(node.output):
            if name and name not in names:
                names[name] = fresh(stem if j == 0 else f"{stem}:{j}")
        clean = onnx.NodeProto()
        clean.CopyFrom(node)
        clean.name = stem
        clean.doc_string = ""
        del clean.metadata_props[:]
        clean.input[:] = [names[name] for name in node.input]
        clean.output[:] = [names[name] for name in node.output]
        for attribute in clean.attribute:
            attribute.doc_string = ""
        nodes.append(clean)
    for k, port in enumerate(copies):
        tensor = results[port.name]
        if tensor not in names:
            names[tensor] = fresh(f"constant_{k}")
            value = draft.constants[tensor]
            initializers.append(
                numpy_helper.from_array(np.asarray(value, order="C"), names[tensor])
            )
        nodes.append(helper.make_node("Identity", [names[tensor]], [port.name], name=f"copy_{k}"))
    return helper.make_graph(
        nodes,
        "node",
        [_value_info(p) for p in inputs],
        [_value_info(p) for p in outputs],
        initializers,
    )


def _halve(graph: onnx.GraphProto) -> None:
    """Store large float32 initialisers as float16, each followed by a ``Cast`` back."""
    casts: list[onnx.NodeProto] = []
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype != np.float32 or value.size < _HALF_MIN_ELEMENTS:
            continue
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if not np.isfinite(half).all():
            continue  # beyond 65504: stays whole
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(
            helper.make_node(
                "Cast", [tensor.name], [name], name=f"{name}.cast", to=onnx.TensorProto.FLOAT
            )
        )
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *rest])


def _require_sound(model: onnx.ModelProto, place: str) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        reason = str(exc).strip().splitlines()[0]
        raise ExportError(f"{place}: the ONNX graph is not sound: {reason}") from exc
