"""The same network without dynamics: one static ONNX graph in one onnxruntime session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnxruntime

from dynrt.bundle import Bundle
from dynrt.exporters.macs import count_macs
from dynrt.ir.graph import Array, Exit, NodeId
from dynrt.runtime.compile.unsplit import unsplit_model


def static_model(
    bundle: Bundle, *, batch: int = 1, last: NodeId | None = None, only_answer: bool = False
) -> bytes:
    """Every block kept, no gate; the batch size is fixed, which only helps a static runtime.

    Args:
        bundle: of the dynamic network.
        batch: samples.
        last: the exit up to which it goes; by default the last.
        only_answer: leave out the heads of all exits but the last one.
    """
    model = onnx.load_model_from_string(unsplit_model(bundle, last=last))
    if only_answer:
        keep_answer(model.graph, bundle, last or bundle.graph.exits[-1])
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())


def keep_answer(graph: onnx.GraphProto, bundle: Bundle, exit_name: NodeId) -> None:
    """Keep only what the answer of one exit hangs on."""
    node = bundle.graph.by_name[exit_name]
    if not isinstance(node, Exit):
        raise TypeError(f"{exit_name!r} is no exit")
    answer = f"{exit_name}.{node.answer}"
    outputs = [port for port in graph.output if port.name == answer]
    needed, nodes = {answer}, []
    for op in reversed(graph.node):
        if needed.intersection(op.output):
            needed.update(op.input)
            nodes.append(op)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    for field, kept in (
        (graph.node, nodes[::-1]),
        (graph.initializer, weights),
        (graph.output, outputs),
    ):
        del field[:]
        field.extend(kept)


def static_macs(bundle: Bundle, *, last: NodeId | None = None, only_answer: bool = False) -> int:
    """Multiplications of :func:`static_model` at batch 1, counted from its own operators."""
    model = static_model(bundle, last=last, only_answer=only_answer)
    return count_macs(model, place="static graph").macs


def session_of(
    model: bytes, *, threads: int = 1, global_pool: bool = False
) -> onnxruntime.InferenceSession:
    """A session with onnxruntime's own defaults (full optimisation, arena) and ``threads``."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if global_pool:
        options.use_per_session_threads = False
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def caller(session: onnxruntime.InferenceSession, inputs: Array) -> Callable[[], Any]:
    """A call of the whole ``session.run`` on its one input, ``(n, ...)``."""
    feeds = {session.get_inputs()[0].name: inputs}
    return lambda: session.run(None, feeds)
