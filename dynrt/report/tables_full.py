"""The full network below a dynamic one: every block kept, no gate, no early head; its cost and graph.

It is what FLOPs saved, energy saved and time saved are shares of.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dynrt.bundle import Bundle
from dynrt.errors import CompileError
from dynrt.ir.cost import ZERO_COST, Cost
from dynrt.ir.graph import Array, ComputeNode, Exit, Graph, NodeId, PortRef

if TYPE_CHECKING:
    import onnx

#: Runs the full network on one sample without its batch axis.
FullCall = Callable[[Array], Any]


def plain_nodes(graph: Graph) -> frozenset[NodeId]:
    """Nodes that the last exit's answer is made of: what hands features on, and that head.

    Gates are left out, those that make channel masks too, and so are the heads of other exits.
    """
    found: set[NodeId] = set()
    todo = [graph.exits[-1]]
    while todo:
        name = todo.pop()
        node = graph.by_name[name]
        if name in found or not isinstance(node, ComputeNode | Exit):
            continue
        found.add(name)
        mask = node.mask.port if isinstance(node, ComputeNode) and node.mask is not None else None
        for port in node.inputs:
            if port.name != mask:
                todo.append(graph.edge_into[PortRef(name, port.name)].source.node)
    return frozenset(found)


def full_cost(graph: Graph) -> Cost:
    """What the full network costs: all of :func:`plain_nodes`, all groups of their channels."""
    total = ZERO_COST
    for name in plain_nodes(graph):
        node = graph.by_name[name]
        if isinstance(node, ComputeNode | Exit):
            total += node.cost
    return total


def energy_in(cost: Cost) -> int | None:
    """The modelled energy of a cost in whichever unit it is modelled; ``None`` in neither."""
    return cost.femtojoules if cost.femtojoules is not None else cost.milli_mac_equivalents


@dataclass(frozen=True, slots=True, kw_only=True)
class FullModel:
    """The full network as one static graph.

    Attributes:
        model: plain ONNX, one picture at a time.
        masks_left: masked nodes that still multiply by a mask of ones, since how they apply it was
            not recognised: the full network then takes a little longer than it should.
    """

    model: bytes
    masks_left: tuple[NodeId, ...]


def full_model(bundle: Bundle) -> FullModel:
    """The full network as one static graph of batch 1.

    Raises:
        CompileError: its nodes cannot be joined.
    """
    import onnx

    from dynrt.runtime.compile.mask_form import mask_form
    from dynrt.runtime.compile.unsplit import unsplit_model

    models = dict(bundle.models)
    left = []
    for node in bundle.graph.nodes:
        if isinstance(node, ComputeNode) and node.mask is not None:
            form = mask_form(models[node.name], node)
            if form is None:
                left.append(node.name)
                models[node.name] = _with_ones(models[node.name], node)
            else:
                models[node.name] = form.model
    plain = onnx.load_model_from_string(unsplit_model(replace(bundle, models=models)))
    last = bundle.graph.by_name[bundle.graph.exits[-1]]
    if not isinstance(last, Exit):
        raise CompileError(f"{bundle.graph.exits[-1]!r} is no exit")
    keep_only(plain.graph, {f"{last.name}.{last.answer}"})
    for port in (*plain.graph.input, *plain.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = 1
    del plain.graph.value_info[:]
    return FullModel(model=bytes(plain.SerializeToString()), masks_left=tuple(left))


def _with_ones(model: bytes, node: ComputeNode) -> bytes:
    """A node whose mask is a stored tensor of ones instead of an input."""
    import onnx
    from onnx import numpy_helper

    proto = onnx.load_model_from_string(model)
    if node.mask is None:
        return model
    name, groups = node.mask.port, node.mask.groups
    kept = [port for port in proto.graph.input if port.name != name]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    ones = numpy_helper.from_array(np.ones((1, groups), np.float32), name)
    proto.graph.initializer.append(ones)
    return bytes(proto.SerializeToString())


def keep_only(graph: onnx.GraphProto, wanted: Collection[str]) -> None:
    """Keep only what some outputs of a graph hang on.

    Args:
        graph: its operators in topological order; changed in place.
        wanted: names of the outputs.
    """
    needed, nodes = set(wanted), []
    for op in reversed(graph.node):
        if needed.intersection(op.output):
            needed.update(op.input)
            nodes.append(op)
    fields: Mapping[Any, list[Any]] = {
        "node": nodes[::-1],
        "initializer": [tensor for tensor in graph.initializer if tensor.name in needed],
        "input": [port for port in graph.input if port.name in needed],
        "output": [port for port in graph.output if port.name in wanted],
    }
    for name, kept in fields.items():
        field = getattr(graph, name)
        del field[:]
        field.extend(kept)


def full_call(model: FullModel) -> FullCall:
    """The full network in one session of onnxruntime with its own defaults, on one thread.

    Raises:
        CompileError: onnxruntime refuses it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            model.model, options, providers=["CPUExecutionProvider"]
        )
    except Exception as exc:  # its errors share no public root
        raise CompileError(f"the full network: onnxruntime refuses it: {exc}") from exc
    ports = session.get_inputs()
    if len(ports) != 1:
        raise CompileError(f"the full network takes {len(ports)} inputs; one is timed here")
    name = ports[0].name
    return lambda x: session.run(None, {name: x[None]})
