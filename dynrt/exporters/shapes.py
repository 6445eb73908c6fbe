"""Shape and element type of every tensor of an ONNX model at batch 1."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from dynrt.errors import ExportError
from dynrt.exporters.session import run_model
from dynrt.ir.graph import TensorType


def shapes_at_batch_1(model: onnx.ModelProto, *, place: str) -> Mapping[str, TensorType]:
    """Element type and full shape (batch axis included, 1) of every tensor.

    ONNX's shape inference first; what it leaves open (shapes computed from data) is measured by
    running the model once on zeros.

    Raises:
        ExportError: a shape stays unknown.
    """
    fixed = at_batch_1(model)
    known = inferred(fixed, place=place)
    missing = unknown_tensors(fixed, known)
    return {**known, **measured(fixed, known, missing, place=place)} if missing else known


def at_batch_1(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose inputs have a first axis of 1, where it is free, and which declares no more."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    initial = {t.name for t in fixed.graph.initializer}
    for info in fixed.graph.input:
        dims = info.type.tensor_type.shape.dim
        if info.name not in initial and dims and not dims[0].HasField("dim_value"):
            dims[0].Clear()
            dims[0].dim_value = 1
    for info in fixed.graph.output:
        info.type.tensor_type.ClearField("shape")
    del fixed.graph.value_info[:]
    return fixed


def inferred(fixed: onnx.ModelProto, *, place: str) -> dict[str, TensorType]:
    """What ONNX's inference says of the tensors of a model without free axes.

    Raises:
        ExportError: shapes do not fit.
    """
    try:
        model = onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as exc:
        reason = str(exc).strip().splitlines()[0]
        raise ExportError(f"{place}: shapes do not fit: {reason}") from exc
    known: dict[str, TensorType] = {}
    for tensor in fixed.graph.initializer:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        known[tensor.name] = TensorType(dtype=dtype.name, shape=tuple(tensor.dims))
    graph = model.graph
    for info in (*graph.input, *graph.value_info, *graph.output):
        kind = _complete(info)
        if kind is not None:
            known[info.name] = kind
    return known


def unknown_tensors(fixed: onnx.ModelProto, known: Mapping[str, TensorType]) -> list[str]:
    """What operators give and ``known`` lacks."""
    return [n for node in fixed.graph.node for n in node.output if n and n not in known]


def _complete(info: onnx.ValueInfoProto) -> TensorType | None:
    kind = info.type.tensor_type
    if not kind.HasField("shape") or not kind.elem_type:
        return None
    if not all(d.HasField("dim_value") for d in kind.shape.dim):
        return None
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return TensorType(dtype=dtype.name, shape=tuple(d.dim_value for d in kind.shape.dim))


def measured(
    fixed: onnx.ModelProto, known: Mapping[str, TensorType], missing: list[str], *, place: str
) -> dict[str, TensorType]:
    """The tensors ``missing`` as they come out when the model runs on zeros; no sequences.

    Raises:
        ExportError: onnxruntime cannot run it, or the type of an input is not known.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(fixed)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in missing)
    initial = {t.name for t in probe.graph.initializer}
    feeds = {}
    for info in probe.graph.input:
        if info.name in initial:
            continue
        if info.name not in known:
            raise ExportError(f"{place}: input {info.name!r} has an axis of unknown size")
        feeds[info.name] = np.zeros(known[info.name].shape, known[info.name].dtype)
    values: Mapping[str, object] = run_model(probe.SerializeToString(), feeds, place=place)
    return {
        k: TensorType(dtype=v.dtype.name, shape=v.shape)
        for k, v in values.items()
        if isinstance(v, np.ndarray)
    }
