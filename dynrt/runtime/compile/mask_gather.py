"""Channel masks paid out in time: blocks of reordered weights gathered into blocked convolutions.

onnxruntime's blocked (NCHWc) convolution takes weights that were reordered when the model was
optimised, a SIMD block of filters after another. Gathering whole blocks of them costs a copy of
what is kept; gathering before reordering would cost the reordering too and is slower than running
everything. So only groups of whole blocks (8 or 16 channels) can be left out in time.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dynrt.ir.graph import Array
from dynrt.runtime.compile.mask_sessions import optimised
from dynrt.runtime.compiled import KEPT

#: The domain of onnxruntime's blocked operators.
NCHWC = "com.microsoft.nchwc"


@cache
def simd_block() -> int | None:
    """Channels per block of onnxruntime's convolutions on this CPU; ``None`` if it does not block.

    Raises:
        CompileError: onnxruntime does not run at all.
    """
    size = 64
    weight = np.arange(size * size, dtype=np.float32).reshape(size, size, 1, 1)
    info = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, size, 4, 4]) for n in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])],
        "block",
        info[:1],
        info[1:],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    rewritten = optimised(bytes(model.SerializeToString())).graph
    convs = [n for n in rewritten.node if n.op_type == "Conv" and n.domain == NCHWC]
    stored = {t.name: numpy_helper.to_array(t) for t in rewritten.initializer}
    for block in (4, 8, 16, 32):
        if convs and np.array_equal(
            stored[convs[0].input[1]].ravel(),
            weight.reshape(size // block, block, -1, block).transpose(0, 2, 3, 1).ravel(),
        ):
            return block
    return None


def gathered(segment: onnx.ModelProto, *, between: str, groups: int) -> onnx.ModelProto | None:
    """A model that runs only the kept groups of the channels between two blocked convolutions.

    It takes :data:`~dynrt.runtime.compiled.KEPT` besides what ``segment`` takes: rising indices of
    the kept groups, or the one index ``groups``, a block of zeros, where none is kept.

    Args:
        segment: optimised by onnxruntime, all channels kept, to be loaded without optimisation.
        between: name that the tensor of the channels had before optimisation.
        groups: of how many the channels are.

    Returns:
        ``None`` if the two are not blocked convolutions in a row, or a group is no whole block.
    """
    block = simd_block()
    made = onnx.ModelProto()
    made.CopyFrom(segment)
    first = blocked_conv(made.graph, between)
    if block is None or first is None:
        return None
    readers = [n for n in made.graph.node if first.output[0] in n.input]
    second = readers[0] if len(readers) == 1 and _is_blocked(readers[0]) else None
    if second is None or second.input[0] != first.output[0]:
        return None
    if first.output[0] in second.input[1:] or any(
        o.name == first.output[0] for o in made.graph.output
    ):
        return None
    stored = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    wide, deep = stored.get(first.input[1]), stored.get(second.input[1])
    bias = stored.get(first.input[2]) if len(first.input) > 2 else None
    if (
        wide is None
        or deep is None
        or len(first.input) > 3
        or (len(first.input) > 2) != (bias is not None)
    ):
        return None
    channels = len(wide)
    if channels != deep.shape[1] or channels % (groups * block) or len(deep) % block:
        return None
    draft = _Gathers(made.graph, groups=groups)
    # Blocks of filters come first; in the second convolution blocks of inputs come next.
    first.input[1] = draft.add("wide", wide.reshape(groups, -1), 0, (-1, *wide.shape[1:]))
    if bias is not None:
        first.input[2] = draft.add("bias", bias.reshape(groups, -1), 0, (-1,))
    rows = deep.reshape(len(deep) // block, groups, -1)
    second.input[1] = draft.add("deep", rows, 1, (len(deep), -1, *deep.shape[2:]))
    draft.finish()
    return made


class _Gathers:
    """Adds gathers of weights to a graph, each with a row of zeros behind the last group."""

    def __init__(self, graph: onnx.GraphProto, *, groups: int) -> None:
        self._graph, self._groups = graph, groups
        self._nodes: list[onnx.NodeProto] = []
        kept = helper.make_tensor_value_info(KEPT, onnx.TensorProto.INT64, ["kept"])
        graph.input.append(kept)

    def add(self, name: str, rows: Array, axis: int, shape: tuple[int, ...]) -> str:
        """Name of the kept ``rows`` along ``axis``, in ``shape``."""
        zeros = np.zeros_like(rows.take([0], axis))
        stem = f"dynrt/{name}"
        for part, value in (
            ("rows", np.concatenate([rows, zeros], axis)),
            ("shape", np.array(shape, np.int64)),
        ):
            self._graph.initializer.append(
                numpy_helper.from_array(np.ascontiguousarray(value), f"{stem}/{part}")
            )
        gather = helper.make_node("Gather", [f"{stem}/rows", KEPT], [f"{stem}/kept"], axis=axis)
        shaped = helper.make_node("Reshape", [f"{stem}/kept", f"{stem}/shape"], [stem])
        self._nodes += [gather, shaped]
        return stem

    def finish(self) -> None:
        """Put the gathers before everything, and drop weights that nothing reads any more."""
        nodes = [*self._nodes, *self._graph.node]
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        used = {i for n in nodes for i in n.input}
        stored = [t for t in self._graph.initializer if t.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(stored)


def blocked_conv(graph: onnx.GraphProto, tensor: str) -> onnx.NodeProto | None:
    """The blocked convolution in ``graph`` that gives what was called ``tensor`` before.

    onnxruntime names its blocked operators after what the operators that it fused gave.
    """
    found = [n for n in graph.node if n.name == f"{tensor}_nchwc"]
    return found[0] if len(found) == 1 and _is_blocked(found[0]) else None


def _is_blocked(node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" and node.domain == NCHWC
