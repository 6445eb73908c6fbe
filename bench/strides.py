"""A graph's strided slices as pooling over one pixel: the same numbers, for runtimes without them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from dynrt.ir.graph import Array

_WHOLE = np.iinfo(np.int64).max
_RANK = 4


def folded(model: bytes) -> onnx.ModelProto:
    """``model`` with what is constant computed; standard operators only."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return onnx.load_model_from_string(path.read_bytes())


def without_strided_slices(model: bytes) -> bytes:
    """``model`` with each ``x[:, :, ::s]`` or ``x[:, :, :, ::s]`` as a max pool of one pixel."""
    proto = folded(model)
    values = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    nodes = []
    for op in proto.graph.node:
        strides = _strides(op, values)
        if strides is None:
            nodes.append(op)
            continue
        nodes.append(
            helper.make_node(
                "MaxPool",
                op.input[:1],
                op.output,
                name=op.name,
                kernel_shape=[1, 1],
                strides=strides,
            )
        )
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    used = {name for op in nodes for name in op.input}
    kept = [t for t in proto.graph.initializer if t.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def _strides(op: onnx.NodeProto, values: Mapping[str, Array]) -> list[int] | None:
    """Strides over height and width of a slice that does nothing else, or ``None``."""
    if op.op_type != "Slice" or any(name not in values for name in op.input[1:]):
        return None
    starts, ends, axes, steps = (values[name].tolist() for name in op.input[1:])
    if any(starts) or any(end < _WHOLE for end in ends) or min(steps) < 1:
        return None
    if not set(axes) <= set(range(_RANK - 2, _RANK)):
        return None
    by_axis = dict(zip(axes, steps, strict=True))
    return [by_axis.get(axis, 1) for axis in range(_RANK - 2, _RANK)]
