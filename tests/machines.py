"""Machines of plain Python functions: the compiled mode without onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dynrt.ir.graph import Array, Exit, Graph, PortRef
from dynrt.runtime import CallableBackend, Network
from dynrt.runtime.backends import Function
from dynrt.runtime.compile.partition import Guards, partition
from dynrt.runtime.compiled import PLAIN, Compiled, Segment, SegmentPort


class FunctionEngine:
    """Runs segments by the functions of their nodes.

    Attributes:
        calls: nodes that were run, in order.
    """

    def __init__(
        self, graph: Graph, segments: Sequence[Segment], functions: Mapping[str, Function]
    ) -> None:
        self.graph, self.segments, self.functions = graph, segments, functions
        self.calls: list[str] = []

    def handle(self, array: Array) -> Array:
        return array

    def bind(
        self, segment: int, takes: Sequence[Array], gives: Sequence[Array]
    ) -> tuple[Callable[[Any], Any], Any]:
        part = self.segments[segment]
        sources = [self.graph.edge_into[t.port].source for t in part.takes]
        direct = {t.port: array for t, array in zip(part.takes, takes, strict=True)}

        def run(_: object) -> None:
            values = dict(zip(sources, takes, strict=True))
            for name in part.nodes:
                self.calls.append(name)
                edges = self.graph.edge_into
                node = self.graph.by_name[name]
                refs = {p.name: PortRef(name, p.name) for p in node.inputs}
                inputs = {
                    n: direct[r] if r in direct else values[edges[r].source]
                    for n, r in refs.items()
                }
                gave = self.functions[name](inputs)
                values.update({PortRef(name, port): value for port, value in gave.items()})
            for give, array in zip(part.gives, gives, strict=True):
                np.copyto(array, values[give.port])

        return run, None

    def bind_kept(
        self, segment: int, takes: Sequence[Array], gives: Sequence[Array], kept: Array
    ) -> tuple[Callable[[Any], Any], Any]:
        raise AssertionError("no segment of functions leaves channels out")


def compiled_of(graph: Graph) -> Compiled:
    """The segments that compiling would make, everything plain, every output over any input."""
    named = {e.default for e in graph.data if isinstance(e.default, PortRef)}
    segments = []
    for part in partition(graph, Guards(graph), ()):
        takes: dict[PortRef, PortRef] = {}
        single = len(part) == 1
        for name in part:
            for port in graph.by_name[name].inputs:
                ref = PortRef(name, port.name)
                source = graph.edge_into[ref].source
                if source.node not in part:
                    takes.setdefault(ref if single else source, ref)
        gives = [
            PortRef(name, port.name)
            for name in part
            for port in graph.by_name[name].outputs
            if isinstance(graph.by_name[name], Exit)
            or PortRef(name, port.name) in named
            or any(
                e.target.node not in part or e.target in named
                for e in graph.edges_naming.get(PortRef(name, port.name), ())
            )
        ]
        segments.append(
            Segment(
                nodes=part,
                takes=tuple(SegmentPort(name=str(r), port=r) for r in takes.values()),
                gives=tuple(SegmentPort(name=str(r), port=r) for r in gives),
                overwrites=tuple((t, g) for g in range(len(gives)) for t in range(len(takes))),
                model=b"",
            )
        )
    layouts = {PortRef(n.name, p.name): PLAIN for n in graph.nodes for p in n.outputs}
    return Compiled(layouts=layouts, segments=tuple(segments), gates=())


def compiled_network(graph: Graph, functions: Mapping[str, Function]) -> Network:
    """A network in the compiled mode, without onnxruntime."""
    network = portable_network(graph, functions)
    compiled = compiled_of(graph)
    network.compile(compiled, FunctionEngine(graph, compiled.segments, functions))
    return network


def portable_network(graph: Graph, functions: Mapping[str, Function]) -> Network:
    """The same network in the portable mode."""
    return Network(graph, CallableBackend(functions))
