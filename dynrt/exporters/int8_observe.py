"""Runs the float network on calibration data and counts the values of what will be stored.

Each batch runs with every node on and no exit taken, so that every tensor is seen; where there are
decisions, the first samples also run as they decide, because skipped blocks change what comes after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime

from dynrt.bundle import Bundle
from dynrt.errors import ExportError
from dynrt.exporters.foreign import brief
from dynrt.exporters.int8_borders import Borders
from dynrt.exporters.int8_ranges import Affine, ValueHistogram
from dynrt.ir.graph import (
    Array,
    ComputeNode,
    Constant,
    ControlNode,
    Exit,
    Graph,
    InputNode,
    NodeId,
    PortRef,
)
from dynrt.ir.reference import interpret
from dynrt.runtime.ort import OrtBackend, session_options

Batch = Array | Mapping[str, Array]
Call = Callable[[NodeId, Mapping[str, Array]], Mapping[str, Array]]

#: How many samples also run under the network's own decisions.
DECIDED_SAMPLES = 256


def observed(
    bundle: Bundle,
    models: Mapping[NodeId, onnx.ModelProto],
    borders: Borders,
    batches: Iterable[Batch],
) -> Mapping[PortRef, Affine]:
    """How each class of tensors is stored, by the class's representative.

    Raises:
        ExportError: no data, inputs of another shape or type, a node fails, or a value is not
            finite.
    """
    observer = _Observer(bundle.graph, models, borders)
    decides = any(isinstance(n, ControlNode) for n in bundle.graph.nodes)
    count = 0
    backend = OrtBackend(bundle.models, lazy=True)
    try:
        for batch in batches:
            inputs, size = as_batch(bundle.graph, batch)
            run_everything(bundle.graph, observer.call, inputs, exits=())
            for i in range(min(size, DECIDED_SAMPLES - count) if decides else 0):
                row = {k: v[i : i + 1] for k, v in inputs.items()}
                _run_as_decided(bundle.graph, observer.call, backend.call, row)
            count += size
    finally:
        backend.close()
    if not count:
        raise ExportError(f"bundle {bundle.name!r}: no calibration data; ranges come from samples")
    for edge in bundle.graph.data:
        if edge.target in borders.whole and isinstance(edge.default, Constant):
            observer.note(edge.target, edge.default.value)
    return {group: histogram.affine() for group, histogram in observer.histograms.items()}


class _Observer:
    """Sessions of the compute nodes that also give the tensors that are counted."""

    def __init__(
        self, graph: Graph, models: Mapping[NodeId, onnx.ModelProto], borders: Borders
    ) -> None:
        self.scales = borders.scales
        self.histograms: dict[PortRef, ValueHistogram] = {}
        self._sessions: dict[NodeId, Any] = {}
        self._outputs: dict[NodeId, list[str]] = {}
        self._noted: dict[NodeId, set[str]] = {}
        for name in graph.order:
            node = graph.by_name[name]
            if not isinstance(node, ComputeNode):
                continue
            plan = borders.plans.get(name)
            ports = {p.name for p in node.outputs}
            given = {p for p in ports if PortRef(name, p) in borders.whole}
            moved = {b for _, b in plan.tied()} if plan is not None else set()
            noted = given if plan is None else (plan.asked | given) - moved
            taken = {p.name for p in node.inputs}
            model = onnx.ModelProto()
            model.CopyFrom(models[name])
            extra = sorted(noted - taken - ports)
            model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in extra)
            self._sessions[name] = _session(name, model)
            self._outputs[name] = [*(p.name for p in node.outputs), *extra]
            self._noted[name] = set(noted)

    def note(self, tensor: PortRef, values: Array) -> None:
        """Count values of a tensor."""
        group = self.scales.of(tensor)
        histogram = self.histograms.setdefault(group, ValueHistogram())
        histogram.add(values, place=f"tensor {tensor}")

    def call(self, node: NodeId, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run a compute node."""
        names = self._outputs[node]
        try:
            values = self._sessions[node].run(names, dict(inputs))
        except Exception as exc:  # onnxruntime's errors share no public root
            raise ExportError(f"node {node!r} fails on the calibration data: {brief(exc)}") from exc
        given = dict(zip(names, values, strict=True))
        for name in self._noted[node]:
            self.note(PortRef(node, name), inputs[name] if name in inputs else given[name])
        return given


def _session(node: NodeId, model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), session_options(1), providers=["CPUExecutionProvider"]
        )
    except Exception as exc:  # onnxruntime's errors share no public root
        raise ExportError(f"node {node!r}: onnxruntime refuses it: {brief(exc)}") from exc


def as_batch(graph: Graph, batch: Batch) -> tuple[dict[str, Array], int]:
    """Inputs by name, parameters filled in, and how many samples they are.

    Raises:
        ExportError: a name, shape or type is wrong, or the batch is empty.
    """
    real = [n for n in graph.inputs() if n.param is None]
    if isinstance(batch, np.ndarray):
        if len(real) != 1:
            names = ", ".join(n.name for n in real)
            raise ExportError(f"the network has the inputs {names}; give batches by name")
        batch = {real[0].name: batch}
    unknown = sorted(batch.keys() - {n.name for n in graph.inputs()})
    if unknown:
        raise ExportError(f"the network has no input {unknown[0]!r}")
    out: dict[str, Array] = {}
    sizes: set[int] = set()
    for node in graph.inputs():
        value = batch.get(node.name)
        if value is None:
            continue
        if value.dtype.name != node.type.dtype or value.shape[1:] != node.type.shape:
            raise ExportError(
                f"input {node.name!r} is {value.dtype.name} {value.shape}; {node.type} with a "
                "batch axis in front is needed"
            )
        out[node.name] = np.ascontiguousarray(value)
        sizes.add(len(value))
    if missing := [n.name for n in real if n.name not in out]:
        raise ExportError(f"the batch has no input {missing[0]!r}")
    if len(sizes) != 1 or 0 in sizes:
        raise ExportError(f"the inputs of a batch hold {sorted(sizes)} samples")
    size = sizes.pop()
    for node in graph.inputs():
        if node.param is not None and node.name not in out:
            out[node.name] = _repeated(node.param.value, size)
    return out, size


def run_everything(
    graph: Graph, call: Call, inputs: Mapping[str, Array], *, exits: Sequence[NodeId]
) -> dict[PortRef, Array]:
    """Every port's value with all nodes switched on and no exit taken.

    Args:
        graph: valid.
        call: runs a node on a batch.
        inputs: of :func:`as_batch`.
        exits: the exits that run.
    """
    values: dict[PortRef, Array] = {}
    for name in graph.order:
        node = graph.by_name[name]
        if isinstance(node, InputNode):
            values[PortRef(name, name)] = inputs[name]
        elif isinstance(node, ComputeNode) or name in exits:
            taken = {
                p.name: values[graph.edge_into[PortRef(name, p.name)].source] for p in node.inputs
            }
            given = call(name, taken)
            values.update({PortRef(name, p.name): given[p.name] for p in node.outputs})
    return values


def _run_as_decided(graph: Graph, call: Call, call_exit: Call, row: Mapping[str, Array]) -> None:
    """Run one sample by the network's decisions up to its last exit."""
    functions = {
        n.name: partial(call if isinstance(n, ComputeNode) else call_exit, n.name)
        for n in graph.nodes
        if isinstance(n, ComputeNode | Exit)
    }
    scored = [graph.by_name[n] for n in graph.exits[:-1]]
    never: dict[NodeId, float | tuple[float, ...]] = {
        n.name: float("inf") for n in scored if isinstance(n, Exit) and n.accept.scored
    }
    interpret(graph, functions, row, thresholds=never)


def _repeated(value: Array, count: int) -> Array:
    return np.ascontiguousarray(np.broadcast_to(value, (count, *value.shape)))
