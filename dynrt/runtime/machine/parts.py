"""What all machines of one loaded network share: its plan, its sessions, and who runs which node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from dynrt.errors import BackendError
from dynrt.ir.graph import Array, ComputeNode, Exit, NodeId, PortRef
from dynrt.runtime.backends import CheckedBackend
from dynrt.runtime.compiled import PLAIN, Compiled, SmallGate
from dynrt.runtime.machine.buffers import Kind
from dynrt.runtime.plan import Plan

#: Something to be called with one argument, and that argument.
Bound = tuple[Callable[[Any], Any], Any]


class Engine(Protocol):
    """Runs segments on memory that is bound beforehand (``dynrt.runtime.ort.OrtSegments``)."""

    def handle(self, array: Array) -> Any:
        """What stands for ``array``, sharing its memory."""
        ...

    def bind(self, segment: int, takes: Sequence[Any], gives: Sequence[Any]) -> Bound:
        """A call that runs a segment on handles, in the order of its ports."""
        ...

    def bind_kept(
        self, segment: int, takes: Sequence[Any], gives: Sequence[Any], kept: Any
    ) -> Bound:
        """The same for a gathered segment; ``kept`` is the handle of the groups' numbers."""
        ...


class Parts:
    """A compiled network, loaded.

    Args:
        plan: of the bundle's graph.
        compiled: of the same graph.
        engine: has the segments.
        portable: runs any node by its own ONNX: gates near a tie, and parts of segments.

    Raises:
        BackendError: a node of the schedule is in no part, or in two.
    """

    def __init__(
        self, plan: Plan, compiled: Compiled, engine: Engine, portable: CheckedBackend
    ) -> None:
        self.plan, self.compiled = plan, compiled
        self.engine, self.portable = engine, portable
        self.gates: Mapping[NodeId, SmallGate] = {g.node: g for g in compiled.gates}
        self.segment_of = {n: i for i, s in enumerate(compiled.segments) for n in s.nodes}
        self.index_of = {s.name: s.index for s in plan.steps}
        parts = [n for s in compiled.segments for n in s.nodes] + list(self.gates)
        nodes = {s.name for s in plan.steps if isinstance(s.flow.node, ComputeNode | Exit)}
        if sorted(parts) != sorted(nodes):
            odd = sorted(nodes.symmetric_difference(parts)) or sorted(parts)
            raise BackendError(f"the compiled network is not of this bundle: {odd[0]!r}")
        self._kinds: dict[PortRef, Kind] = {}
        for node in plan.graph.nodes:
            for port in node.outputs:
                ref = PortRef(node.name, port.name)
                layout = compiled.layouts.get(ref, PLAIN)
                self._kinds[ref] = Kind(port.type.dtype, port.type.shape, layout)

    def kind(self, ref: PortRef) -> Kind:
        """What an output port gives."""
        return self._kinds[ref]

    def taken_kind(self, ref: PortRef) -> Kind:
        """What an input port takes: what its edge's source gives."""
        return self._kinds[self.plan.graph.edge_into[ref].source]
