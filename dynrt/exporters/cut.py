"""A plain ONNX model cut at named tensors into a chain of nodes; the last one is the exit.

Gates and exits can be added to such a chain later; as it is, it always runs whole. Segment *k* holds
what the *k*-th cut needs and no earlier one did; every tensor that a later segment reads is a port.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import onnx
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from dynrt.bundle import Bundle, build_bundle
from dynrt.errors import ExportError
from dynrt.exporters.compare import TOLERANCES, largest_error
from dynrt.exporters.layers import layer_table
from dynrt.exporters.macs import count_macs
from dynrt.exporters.onnx_node import probe_inputs, require_per_sample
from dynrt.exporters.onnx_parts import Part, fresh_name, parts_of, port_names
from dynrt.exporters.plain import Weights, plain_model, require_plain
from dynrt.exporters.session import run_model
from dynrt.exporters.shapes import shapes_at_batch_1
from dynrt.ir.check import require_valid
from dynrt.ir.cost import Cost
from dynrt.ir.graph import (
    DTYPES,
    Accept,
    ComputeNode,
    DataEdge,
    Exit,
    Graph,
    InputNode,
    NodeId,
    Port,
    PortRef,
    TensorType,
)

#: Name of the exit.
FINAL = "final"


def read_onnx(path: Path) -> onnx.ModelProto:
    """An ONNX file.

    Raises:
        ExportError: it cannot be read, or is no ONNX model, or keeps data elsewhere.
    """
    try:
        raw = path.read_bytes()
    except OSError as exc:
        raise ExportError(f"{path}: {exc.strerror or type(exc).__name__}") from exc
    try:
        model = onnx.load_model_from_string(raw)
    except DecodeError as exc:
        raise ExportError(f"{path} is no ONNX model") from exc
    if not model.graph.node or not model.opset_import:
        raise ExportError(f"{path} is no ONNX model, or an empty one")
    return model


def cut_onnx(
    model: onnx.ModelProto,
    cuts: Sequence[str],
    *,
    name: str,
    labels: Sequence[str] = (),
    weights: Weights = "float32",
) -> Bundle:
    """``model`` as a bundle: a segment up to each cut, and an exit that always answers.

    The chain is compared with the uncut model before the bundle is made.

    Args:
        model: standard operators, all data inside, the batch as first axis of every input.
        cuts: names of tensors that operators compute, in any order; none gives one exit alone.
        name: of the network.
        labels: names of the classes.
        weights: how weights are stored.

    Raises:
        ExportError: an unknown tensor (with near matches), a model that is not of that kind, or
            one whose parts do not compute what it computes.
    """
    place = f"model {name!r}"
    require_plain(model, place)
    constant = {t.name for t in model.graph.initializer}
    _require_cuts(model, cuts, constant, place)
    model = _with_batch(model, constant, place)
    types = shapes_at_batch_1(model, place=place)
    parts = parts_of(model, cuts, constant, final=FINAL, place=place)
    port_of = port_names(parts)
    graph, models = _assemble(model, parts, port_of, types, constant, weights, place)
    require_valid(graph, place=place)
    _require_same(model, graph, models, weights, place)
    return build_bundle(
        name=name,
        graph=graph,
        models=models,
        labels=labels,
        provenance={
            "made_by": "dynrt.exporters.cut",
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "weights": weights,
            "cuts": ", ".join(cuts),
            "producer": f"{model.producer_name} {model.producer_version}".strip(),
        },
        layers=layer_table(models, graph),
    )


def _require_cuts(
    model: onnx.ModelProto, cuts: Sequence[str], constant: set[str], place: str
) -> None:
    made = [n for node in model.graph.node for n in node.output if n]
    for cut in cuts:
        if cut in made:
            continue
        if cut in constant or any(i.name == cut for i in model.graph.input):
            raise ExportError(
                f"{place}: {cut!r} is an input or a constant; cut at what is computed"
            )
        near = get_close_matches(cut, made, n=3, cutoff=0.4)
        hint = f"; near: {', '.join(near)}" if near else f"; it has {len(made)} tensors"
        raise ExportError(f"{place}: there is no tensor {cut!r}{hint}")
    if len(set(cuts)) < len(cuts):
        raise ExportError(f"{place}: a tensor is named twice: {', '.join(cuts)}")
    ends = {o.name for o in model.graph.output}
    for cut in cuts:
        if cut in ends:
            raise ExportError(f"{place}: {cut!r} is an output; nothing would be left after the cut")


def _with_batch(model: onnx.ModelProto, constant: set[str], place: str) -> onnx.ModelProto:
    """A copy whose inputs have a free first axis; a fixed 1 is set free and tried out later."""
    free = onnx.ModelProto()
    free.CopyFrom(model)
    for info in free.graph.input:
        if info.name in constant:
            continue
        dims = info.type.tensor_type.shape.dim
        sizes = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dims]
        if not dims or (dims[0].HasField("dim_value") and dims[0].dim_value != 1):
            raise ExportError(
                f"{place}: input {info.name!r} has shape {sizes}; its first axis must be the batch"
            )
        for i, dim in enumerate(dims):
            if i and not dim.HasField("dim_value"):
                raise ExportError(
                    f"{place}: axis {i} of input {info.name!r}, {sizes}, has no fixed size"
                )
        dims[0].Clear()
        dims[0].dim_param = "batch"
    return free


def _assemble(
    model: onnx.ModelProto,
    parts: Sequence[Part],
    port_of: Mapping[str, str],
    types: Mapping[str, TensorType],
    constant: set[str],
    weights: Weights,
    place: str,
) -> tuple[Graph, dict[NodeId, bytes]]:
    taken = {part.name for part in parts}
    nodes: list[InputNode | ComputeNode | Exit] = []
    where: dict[str, PortRef] = {}
    for info in model.graph.input:
        if info.name not in constant:
            kind = _sample_type(info.name, types, place)
            name = fresh_name(info.name, taken)
            nodes.append(InputNode(name=name, type=kind))
            where[info.name] = PortRef(name, name)
    edges: list[DataEdge] = []
    models: dict[NodeId, bytes] = {}
    for part in parts:
        at = f"{place}, node {part.name!r}"
        inputs, outputs = (
            tuple(Port(name=port_of[t], type=_sample_type(t, types, place)) for t in tensors)
            for tensors in (part.reads, part.gives)
        )
        data = plain_model(
            model,
            sources={port_of[t]: t for t in part.reads},
            results={port_of[t]: t for t in part.gives},
            inputs=inputs,
            outputs=outputs,
            weights=weights,
            place=at,
        )
        require_per_sample(data, inputs, outputs, place=at)
        cost = Cost(macs=count_macs(data, place=at).macs)
        models[part.name] = data
        for tensor in part.reads:
            edges.append(DataEdge(source=where[tensor], target=PortRef(part.name, port_of[tensor])))
        where.update({t: PortRef(part.name, port_of[t]) for t in part.gives})
        node = ComputeNode(name=part.name, inputs=inputs, outputs=outputs, cost=cost)
        nodes.append(
            Exit(
                name=FINAL,
                inputs=inputs,
                outputs=outputs,
                answer=outputs[0].name,
                accept=Accept(kind="always"),
                cost=cost,
            )
            if part.name == FINAL
            else node
        )
    return Graph(nodes=tuple(nodes), data=tuple(edges), exits=(FINAL,)), models


def _sample_type(tensor: str, types: Mapping[str, TensorType], place: str) -> TensorType:
    full = types[tensor]
    if not full.shape or full.shape[0] != 1:
        raise ExportError(
            f"{place}: tensor {tensor!r} has shape {full.shape} for one sample; "
            "its first axis must be the batch"
        )
    if full.dtype not in DTYPES:
        raise ExportError(f"{place}: tensor {tensor!r} is {full.dtype}; use {', '.join(DTYPES)}")
    return replace(full, shape=full.shape[1:])


def _require_same(
    model: onnx.ModelProto,
    graph: Graph,
    models: Mapping[NodeId, bytes],
    weights: Weights,
    place: str,
) -> None:
    """Run chain and model on the same numbers."""
    ports = [Port(name=n.name, type=n.type) for n in graph.inputs()]
    values = probe_inputs(ports, batch=2, seed=3)
    initial = {t.name for t in model.graph.initializer}
    originals = [i.name for i in model.graph.input if i.name not in initial]
    feeds = dict(zip(originals, values.values(), strict=True))
    want = run_model(model.SerializeToString(), feeds, place=place)
    have = {PortRef(name, name): value for name, value in values.items()}
    for name in graph.order:
        if name in models:
            node = graph.by_name[name]
            taken = {
                p.name: have[graph.edge_into[PortRef(name, p.name)].source] for p in node.inputs
            }
            given = run_model(models[name], taken, place=f"{place}, node {name!r}")
            have.update({PortRef(name, port): value for port, value in given.items()})
    for output, port in zip(model.graph.output, graph.by_name[FINAL].outputs, strict=True):
        reference, got = want[output.name], have[PortRef(FINAL, port.name)]
        limit = TOLERANCES[weights]
        error, allowed = largest_error(reference, got), limit.allowed(reference)
        if not error <= allowed:
            raise ExportError(
                f"{place}: cut, output {output.name!r} differs by {error:.3g}; "
                f"at most {allowed:.3g} is allowed ({limit})"
            )
