"""Small ONNX models, written operator by operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dynrt.exporters.layers import layers_of
from dynrt.exporters.macs import count_macs
from dynrt.ir.layers import Layer

Shape = Sequence[int | str]


def op(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """An operator; names of tensors are separated by blanks, ``_`` leaves one out."""
    reads = ["" if n == "_" else n for n in inputs.split()]
    gives = outputs.split()
    name = attributes.pop("name", f"{kind}:{gives[0]}")
    return helper.make_node(kind, reads, gives, name=name, **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape],
    outputs: str = "y",
    constants: Mapping[str, Any] | None = None,
    *,
    dtypes: Mapping[str, int] | None = None,
    opset: int = 17,
    declared: Mapping[str, Shape] | None = None,
) -> onnx.ModelProto:
    """A model; float inputs where ``dtypes`` does not say other; arrays or shapes as constants."""
    kinds = dtypes or {}
    stored = {
        k: v if isinstance(v, np.ndarray) else np.zeros(v, np.float32)
        for k, v in (constants or {}).items()
    }
    known = dict(declared or {})
    gives = [
        helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), known[n])
        if n in known
        else onnx.ValueInfoProto(name=n)
        for n in outputs.split()
    ]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [
            helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), list(shape))
            for n, shape in inputs.items()
        ],
        gives,
        [numpy_helper.from_array(v, k) for k, v in stored.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def layers(proto: onnx.ModelProto) -> tuple[Layer, ...]:
    """Its layers; their multiplications must be those that ``count_macs`` counts."""
    made = layers_of(proto.SerializeToString(), place="n")
    assert sum(layer.macs for layer in made) == count_macs(proto, place="n").macs
    return made


def only(proto: onnx.ModelProto) -> Layer:
    """Its one layer."""
    (layer,) = layers(proto)
    return layer


def int64(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)
