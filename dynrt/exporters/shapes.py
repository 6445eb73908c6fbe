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
    try:
        inferred = onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as exc:
        reason = str(exc).strip().splitlines()[0]
        raise ExportError(f"{place}: shapes do not fit: {reason}") from exc
    known: dict[str, TensorType] = {}
    for tensor in fixed.graph.initializer:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        known[tensor.name] = TensorType(dtype=dtype.name, shape=tuple(tensor.dims))
    graph = inferred.graph
    for info in (*graph.input, *graph.value_info, *graph.output):
        kind = _complete(info)
        if kind is not None:
            known[info.name] = kind
    made = [n for node in fixed.graph.node for n in node.output if n]
    missing = [n for n in made if n not in known]
    if missing:
        known.update(_measured(fixed, known, missing, place))
    return known


def _complete(info: onnx.ValueInfoProto) -> TensorType | None:
    kind = info.type.tensor_type
    if not kind.HasField("shape") or not kind.elem_type:
        return None
    if not all(d.HasField("dim_value") for d in kind.shape.dim):
        return None
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return TensorType(dtype=dtype.name, shape=tuple(d.dim_value for d in kind.shape.dim))


def _measured(
    fixed: onnx.ModelProto, known: Mapping[str, TensorType], missing: list[str], place: str
) -> dict[str, TensorType]:
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
    values = run_model(probe.SerializeToString(), feeds, place=place)
    return {k: TensorType(dtype=v.dtype.name, shape=v.shape) for k, v in values.items()}
