"""Shortcuts that pick every other pixel and add channels of zeros, written as convolutions.

That is ResNet's option A (He et al., section 3.3): two ``Slice`` and a ``Pad``. onnxruntime has no
blocked form of these, so the sum behind them, and each sum after that, would fall out of the blocked
layout. A 1x1 convolution whose weights are zeros and ones gives the same numbers and stays in it.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dynrt.errors import CompileError
from dynrt.ir.graph import Array
from dynrt.runtime.compile.runner import Loaded

_FAR = 1 << 30
_MAX_TENSORS = 64


def with_convolved_shortcuts(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model``, or a copy in which such shortcuts are convolutions.

    Args:
        model: plain ONNX of one node.
    """
    finder = _Finder(model)
    found = [op for op in model.graph.node if op.op_type == "Pad" and finder.is_shortcut(op)]
    if not found:
        return model
    out = onnx.ModelProto()
    out.CopyFrom(model)
    at = {op.output[0]: i for i, op in enumerate(out.graph.node)}
    taken = {t for op in model.graph.node for t in (*op.input, *op.output)}
    for pad in found:
        source, before, after = finder.parts(pad)
        name = _fresh(f"{pad.output[0]}.weight", taken)
        channels = finder.channels(source)
        weight = np.zeros((before + channels + after, channels, 1, 1), np.float32)
        weight[before : before + channels, :, 0, 0] = np.eye(channels, dtype=np.float32)
        out.graph.initializer.append(numpy_helper.from_array(weight, name))
        conv = helper.make_node(
            "Conv",
            [source, name],
            [pad.output[0]],
            name=pad.name,
            kernel_shape=[1, 1],
            strides=[2, 2],
        )
        out.graph.node[at[pad.output[0]]].CopyFrom(conv)
    return out  # the slices are left behind unread; onnxruntime drops them


class _Finder:
    """Looks through one model.

    Args:
        model: not changed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._makers = {t: op for op in model.graph.node for t in op.output}
        self._stored = {t.name: t for t in model.graph.initializer}
        self._shapes: dict[str, tuple[int, list[int]]] | None = None

    def is_shortcut(self, pad: onnx.NodeProto) -> bool:
        """Whether ``pad`` ends such a shortcut."""
        if self._source(pad) is None or self.channels(self._source(pad) or "") == 0:
            return False
        mode = next((a.s for a in pad.attribute if a.name == "mode"), b"constant")
        pads = self._constant(pad, 1)
        if mode != b"constant" or pads is None or len(pads) != 8 or len(pad.input) > 3:
            return False
        if self._given(pad, 2) and self._constant(pad, 2) != [0]:
            return False
        return not any(pads[i] for i in (0, 2, 3, 4, 6, 7)) and min(pads) >= 0

    def parts(self, pad: onnx.NodeProto) -> tuple[str, int, int]:
        """The tensor that the shortcut starts from, and the channels added before and after."""
        pads = self._constant(pad, 1) or [0] * 8
        return self._source(pad) or "", pads[1], pads[5]

    def channels(self, tensor: str) -> int:
        """Channels of a float32 picture ``(n, c, h, w)``; 0 if it is none, or if that is unknown."""
        if self._shapes is None:
            known = onnx.shape_inference.infer_shapes(self._model).graph
            self._shapes = {
                v.name: (
                    v.type.tensor_type.elem_type,
                    [d.dim_value for d in v.type.tensor_type.shape.dim],
                )
                for v in (*known.input, *known.value_info)
            }
        kind, shape = self._shapes.get(tensor, (0, []))
        return shape[1] if kind == onnx.TensorProto.FLOAT and len(shape) == 4 else 0

    def _source(self, pad: onnx.NodeProto) -> str | None:
        """What is sliced, if each axis of pixels is sliced once, by 2, from its beginning."""
        tensor, axes = str(pad.input[0]), set[int]()
        while axes != {2, 3}:
            op = self._makers.get(tensor)
            if op is None or op.op_type != "Slice" or len(op.input) != 5:
                return None
            starts, ends, own, steps = (self._constant(op, i) for i in (1, 2, 3, 4))
            if starts is None or ends is None or own is None or steps is None:
                return None
            own = [a % 4 for a in own]
            if not axes.isdisjoint(own) or not set(own) <= {2, 3} or len(set(own)) < len(own):
                return None
            if any(starts) or min(ends) < _FAR or any(s != 2 for s in steps):
                return None
            axes.update(own)
            tensor = str(op.input[0])
        return tensor

    @staticmethod
    def _given(op: onnx.NodeProto, at: int) -> bool:
        return len(op.input) > at and bool(op.input[at])

    def _constant(self, op: onnx.NodeProto, at: int) -> list[int] | None:
        """The numbers of an operand that depends on no input, at most eight of them."""
        if not self._given(op, at):
            return None
        name = op.input[at]
        value = numpy_helper.to_array(self._stored[name]) if name in self._stored else None
        if value is None:
            value = self._computed(name)
        return None if value is None or value.size > 8 else [int(v) for v in value.reshape(-1)]

    def _computed(self, tensor: str) -> Array | None:
        """A tensor that operators make from stored ones alone, by running them."""
        needed: set[str] = set()
        weights: dict[str, onnx.TensorProto] = {}
        todo = [tensor]
        while todo:
            name = todo.pop()
            if name in needed or not name:
                continue
            needed.add(name)
            if name in self._stored:
                weights[name] = self._stored[name]
            elif name not in self._makers or len(needed) > _MAX_TENSORS:
                return None
            else:
                todo.extend(self._makers[name].input)
        graph = helper.make_graph(
            [op for op in self._model.graph.node if not needed.isdisjoint(op.output)],
            "constant",
            [],
            [helper.make_tensor_value_info(tensor, onnx.TensorProto.INT64, None)],
            list(weights.values()),
        )
        model = helper.make_model(
            graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version
        )
        try:
            run = Loaded(model.SerializeToString(), optimise=False, place=f"constant {tensor!r}")
            return run({})[tensor]
        except CompileError:  # then it is none
            return None


def _fresh(stem: str, taken: Collection[str]) -> str:
    name, i = stem, 0
    while name in taken:
        i += 1
        name = f"{stem}_{i}"
    return name
