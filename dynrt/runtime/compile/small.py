"""Gates and exits small enough for a kernel, tried out against their own ONNX."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx

from dynrt.ir.graph import Array, ComputeNode, ControlNode, Exit, Graph, NodeId, PortRef
from dynrt.ir.rules import accept_score
from dynrt.runtime.compile.probes import Values, relative_error
from dynrt.runtime.compile.recognise import recognise
from dynrt.runtime.compiled import PLAIN, SmallGate
from dynrt.runtime.kernels import KERNELS
from dynrt.runtime.kernels.program import Program

#: A kernel that deviates more, relative to the largest output, is not used.
_TOLERANCE = 1e-3
_ROUNDING = 5e-6
_SAFETY = 8.0


def small_gates(
    graph: Graph,
    models: Mapping[NodeId, onnx.ModelProto],
    gates: Collection[NodeId],
    probes: Sequence[Values],
) -> tuple[SmallGate, ...]:
    """Those of the gates and exits that a kernel can run, in the order of the schedule.

    Args:
        graph: valid.
        models: of its compute nodes and exits.
        gates: compute nodes that only decide.
        probes: what every port holds, ``(batch, ...)`` each.
    """
    found = []
    for name in graph.order:
        node = graph.by_name[name]
        if isinstance(node, Exit) or (isinstance(node, ComputeNode) and name in gates):
            program = recognise(models[name], node.inputs, node.outputs)
            if program is not None:
                gate = _tried(graph, node, program, probes)
                if gate is not None:
                    found.append(gate)
    return tuple(found)


def _tried(
    graph: Graph, node: ComputeNode | Exit, program: Program, probes: Sequence[Values]
) -> SmallGate | None:
    """The gate, with its tie distance; ``None`` if it deviates too much from its ONNX."""
    largest = deviation = 0.0
    for values in probes:
        for row in range(len(next(iter(values.values())))):
            want = {p.name: values[PortRef(node.name, p.name)][row] for p in node.outputs}
            got = _run(graph, node, program, values, row)
            if any(not relative_error(want[p], got[p]) <= _TOLERANCE for p in want):
                return None
            scores, computed = _scores(graph, node, want), _scores(graph, node, got)
            sound = np.isfinite(scores) & np.isfinite(computed)
            scores, computed = scores[sound], computed[sound]
            largest = max(largest, float(np.abs(scores).max(initial=0.0)))
            deviation = max(deviation, float(np.abs(scores - computed).max(initial=0.0)))
    tie = max(_ROUNDING * max(1.0, largest), _SAFETY * deviation)
    return SmallGate(node=node.name, program=program, tie_distance=tie)


def _run(
    graph: Graph, node: ComputeNode | Exit, program: Program, values: Values, row: int
) -> dict[str, Array]:
    """What the kernel gives for one sample, as the ports declare it."""
    takes: dict[str, Array] = {}
    for port in node.inputs:
        if port.name not in program.takes:
            continue
        source = graph.edge_into[PortRef(node.name, port.name)].source
        sample = np.ascontiguousarray(values[source][row])
        pool = program.pools.get(port.name)
        if pool is None:
            takes[port.name] = sample.astype(np.float32, copy=False).reshape(-1)
            continue
        takes[port.name] = np.zeros(pool.shape[0], np.float32)
        KERNELS.bind_pool(
            sample,
            shape=pool.shape,
            layout=PLAIN,
            out=takes[port.name],
        )()
    gives = {p.name: np.zeros(p.type.shape, np.float32) for p in node.outputs}
    KERNELS.bind_program(program, takes, {n: v.reshape(-1) for n, v in gives.items()})()
    return gives


def _scores(graph: Graph, node: ComputeNode | Exit, given: Mapping[str, Array]) -> Array:
    """All numbers that a rule compares, from the node's outputs."""
    found: list[float] = []
    if isinstance(node, Exit):
        scored = node.accept.scored and not np.isnan(given[node.accept.port]).any()
        if scored:
            found.append(accept_score(node.accept.kind, given[node.accept.port]))
    else:
        for name, value in given.items():
            readers = graph.edges_naming.get(PortRef(node.name, name), ())
            if any(isinstance(graph.by_name[e.target.node], ControlNode) for e in readers):
                found.extend(value.astype(np.float64).reshape(-1))
    return np.array(found, np.float64)
