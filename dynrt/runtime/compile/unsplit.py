"""The whole network as one static graph: what a runtime without dynamics would run."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from dynrt.bundle import Bundle
from dynrt.errors import CompileError
from dynrt.ir.flow import gates_of
from dynrt.ir.graph import ComputeNode, Exit, NodeId, PortRef
from dynrt.runtime.compile.joined import Joiner, common_opset, joinable, parsed


def unsplit_model(bundle: Bundle, *, last: NodeId | None = None) -> bytes:
    """Every block and every head, run once, without any gate; plain ONNX.

    Its inputs are named like the network's, its outputs ``exit.port``.

    Args:
        bundle: whose edges all carry what their source gives, as if nothing were skipped.
        last: the exit up to which the schedule is taken; by default all of it.

    Raises:
        CompileError: its nodes cannot be joined, or there is no such exit.
    """
    graph = bundle.graph
    if last is not None and last not in graph.exits:
        raise CompileError(f"no exit {last!r}; this network has: {', '.join(graph.exits)}")
    gates = gates_of(graph)
    names: list[NodeId] = []
    for name in graph.order:
        if isinstance(graph.by_name[name], ComputeNode | Exit) and name not in gates:
            names.append(name)
        if name == last:
            break
    models = parsed({n: bundle.models[n] for n in names})
    opset = common_opset(models)
    answers = []
    for name in names:
        node = graph.by_name[name]
        if not isinstance(node, ComputeNode | Exit) or not joinable(models[name], node, opset):
            raise CompileError(f"node {name!r} cannot be joined with the others")
        if isinstance(node, Exit):
            answers += [PortRef(name, p.name) for p in node.outputs]
    joiner = Joiner(graph, models, opset)
    model, takes = joiner.flat(names, answers)
    renamed = {joiner.tensor(ref): ref.node for ref in takes}
    renamed.update({joiner.tensor(ref): str(ref) for ref in answers})
    _rename(model.graph, renamed)
    return bytes(model.SerializeToString())


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for op in graph.node:
        op.input[:] = [names.get(t, t) for t in op.input]
        op.output[:] = [names.get(t, t) for t in op.output]
    for port in (*graph.input, *graph.output):
        port.name = names.get(port.name, port.name)
