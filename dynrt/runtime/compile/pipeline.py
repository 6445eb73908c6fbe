"""From a bundle to a compiled network."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from dynrt.bundle import Bundle
from dynrt.errors import CompileError
from dynrt.ir.graph import Array, ComputeNode, ControlNode, Exit, Graph, NodeId, Port, PortRef
from dynrt.runtime.compile.borders import (
    Border,
    Optimised,
    choose_layouts,
    find_borders,
    turned_border,
)
from dynrt.runtime.compile.cutting import Cutter, Wanted
from dynrt.runtime.compile.joined import Joiner, common_opset, joinable, parsed
from dynrt.runtime.compile.mask_whole import whole_nodes, with_gathered
from dynrt.runtime.compile.partition import Guards, partition
from dynrt.runtime.compile.probes import BATCHES, Portable, Values, probe_inputs
from dynrt.runtime.compile.runner import Loaded, channel_block, optimised, use_threads
from dynrt.runtime.compile.shortcuts import with_convolved_shortcuts
from dynrt.runtime.compile.small import small_gates
from dynrt.runtime.compile.verify import Verifier
from dynrt.runtime.compiled import PLAIN, Compiled, Layout, Segment, SegmentPort


def compile_bundle(bundle: Bundle, *, threads: int = 1) -> Compiled:
    """Compile ``bundle`` for this machine and this onnxruntime.

    Args:
        bundle: checked.
        threads: that will run it; one call is compiled like another.

    Raises:
        CompileError: onnxruntime refuses the joined graph, or the parts do not compute what the
            bundle's own models compute.
    """
    try:
        use_threads(threads)
        return _Compilation(bundle).result()
    except CompileError as exc:
        raise CompileError(f"bundle {bundle.name!r}: {exc}") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cuts:
    """What one attempt at cutting gave.

    Attributes:
        layouts: of every output port of the schedule.
        segments: in order.
        failed: nodes of segments that could not be cut.
    """

    layouts: Mapping[PortRef, Layout]
    segments: tuple[Segment, ...]
    failed: frozenset[NodeId]


class _Compilation:
    """One compilation, from start to end.

    Args:
        bundle: to be compiled.
    """

    def __init__(self, bundle: Bundle) -> None:
        graph = self._graph = bundle.graph
        scheduled = [n for n in graph.order if isinstance(graph.by_name[n], ComputeNode | Exit)]
        self._raw_models = {n: bundle.models[n] for n in scheduled}
        models = parsed(self._raw_models)
        opset = common_opset(models)
        self._unjoined = {n for n in scheduled if not _is_joinable(graph, models, n, opset)}
        self._guards = Guards(graph)
        joined = [n for n in scheduled if n not in self._unjoined]
        self._whole = whole_nodes(graph, self._raw_models, joined)
        self._portable = Portable(graph, self._raw_models, whole=self._whole)
        self._probes = [probe_inputs(graph, n, seed=n) for n in BATCHES]
        self._portable.run_all(self._probes)
        self._gates = small_gates(graph, models, self._guards.gates, self._probes)
        self._small = {g.node: g for g in self._gates}
        flat = {**models, **parsed({n: w.form.model for n, w in self._whole.items()})}
        eased = {n: with_convolved_shortcuts(m) for n, m in flat.items()}
        self._joiner = Joiner(graph, eased, opset)
        self._ports: dict[PortRef, Port] = {
            PortRef(n, p.name): p for n in graph.order for p in graph.by_name[n].outputs
        }
        self._loose = any(_rounds(models[n]) for n in scheduled)

    def result(self) -> Compiled:
        """The compiled network, verified.

        Raises:
            CompileError: it cannot be had.
        """
        graph = self._graph
        parts = [
            p for p in partition(graph, self._guards, self._unjoined) if p[0] not in self._small
        ]
        gives = self._gives(parts)
        joined = [n for part in parts for n in part if n not in self._unjoined]
        wanted = [ref for part, refs in zip(parts, gives, strict=True) for ref in refs]
        flat_gives = [r for r in wanted if r.node not in self._unjoined]
        if not joined:
            raw = tuple(self._raw_segment(n) for part in parts for n in part)
            return self._finished(_Cuts(layouts={}, segments=raw, failed=frozenset()))
        model, takes = self._joiner.flat(joined, flat_gives)
        best = Optimised.of(optimised(model, place="the joined graph"))
        flat = self._run_flat(best.model, takes, flat_gives)
        borders = self._borders(best, takes, flat_gives)
        failed: frozenset[NodeId] = frozenset()
        while True:
            cuts = self._cut(parts, gives, best, borders, failed)
            verifier = Verifier(graph, cuts.layouts, self._portable, loose=self._loose)
            odd = cuts.failed or self._unsound(verifier, cuts.segments, flat)
            if not odd:
                break
            failed |= odd
        for values, own in zip(flat, self._probes, strict=True):
            verifier.same_values(values, own)
        verifier.same_bits(cuts.segments, flat, self._probes)
        return self._finished(cuts)

    def _gives(self, parts: Sequence[tuple[NodeId, ...]]) -> list[tuple[PortRef, ...]]:
        """What something outside each part reads, also by way of a default."""
        graph = self._graph
        named = {e.default for e in graph.data if isinstance(e.default, PortRef)}
        out = []
        for part in parts:
            inside = set(part)
            found = [
                ref
                for name in part
                for ref in _outputs(graph, name)
                if isinstance(graph.by_name[name], Exit)
                or any(
                    e.target.node not in inside or e.target in named
                    for e in graph.edges_naming.get(ref, ())
                )
            ]
            out.append(tuple(found or _outputs(graph, part[-1])[:1]))
        return out

    def _run_flat(
        self, model: onnx.ModelProto, takes: Sequence[PortRef], gives: Sequence[PortRef]
    ) -> list[Values]:
        """What the uncut graph gives on each probe."""
        name_of = self._joiner.tensor
        run = Loaded(model.SerializeToString(), optimise=False, place="the uncut graph")
        out = []
        for values in self._probes:
            given = run({name_of(r): values[r] for r in takes})
            out.append({r: self._given(given, r) for r in gives})
        return out

    def _given(self, given: Mapping[str, Array], ref: PortRef) -> Array:
        """An output of the uncut graph as declared."""
        if not self._joiner.channels_last(ref):
            return given[self._joiner.tensor(ref)]
        return np.ascontiguousarray(given[self._joiner.turned(ref)].transpose(0, 3, 1, 2))

    def _borders(
        self, best: Optimised, takes: Sequence[PortRef], gives: Sequence[PortRef]
    ) -> dict[PortRef, Border]:
        name_of = self._joiner.tensor
        turned = [r for r in gives if self._joiner.channels_last(r)]
        straight = {r: name_of(r) for r in gives if not self._joiner.channels_last(r)}
        return {
            **{r: Border(plain=name_of(r)) for r in takes},
            **{r: turned_border(best, name_of(r), self._joiner.turned(r)) for r in turned},
            **find_borders(best, straight, self._ports, channel_block()),
        }

    def _cut(
        self,
        parts: Sequence[tuple[NodeId, ...]],
        gives: Sequence[tuple[PortRef, ...]],
        best: Optimised,
        borders: Mapping[PortRef, Border],
        failed: frozenset[NodeId],
    ) -> _Cuts:
        """One attempt; parts with a node in ``failed`` are left as the bundle's own models."""
        raw = {n for p in parts if not failed.isdisjoint(p) for n in p} if failed else set()
        raw |= self._unjoined
        part_of = {n: i for i, p in enumerate(parts) for n in p if n not in raw}
        plain = self._plain_only(raw)
        layouts = choose_layouts(self._graph, best, borders, plain, part_of)
        cutter = Cutter(best, borders, layouts, self._ports)
        segments: list[Segment] = []
        odd: set[NodeId] = set()
        for part, refs in zip(parts, gives, strict=True):
            if not raw.isdisjoint(part):
                segments += [self._raw_segment(n) for n in part]
                continue
            segment = cutter.cut(Wanted(nodes=part, takes=self._takes(part), gives=refs))
            whole = self._whole.get(part[0])
            if segment is not None and whole is not None:
                between = self._joiner.inner(whole.name, whole.form.between)
                segment = with_gathered(segment, whole, between)
            if segment is None:
                odd.update(part)
            else:
                segments.append(segment)
        return _Cuts(layouts=layouts, segments=tuple(segments), failed=frozenset(odd))

    def _plain_only(self, raw: Collection[NodeId]) -> set[PortRef]:
        """Ports that are given or read by something that knows no other layout."""
        graph = self._graph
        out: set[PortRef] = set()
        for name in graph.order:
            node = graph.by_name[name]
            if not isinstance(node, ComputeNode) or name in raw or name in self._small:
                out.update(_outputs(graph, name))
            if name in self._small:
                program = self._small[name].program
                read = [p for p in program.takes if p not in program.pools]
            elif isinstance(node, ControlNode) or name in raw:
                read = [p.name for p in node.inputs]
            else:
                continue
            out.update(graph.edge_into[PortRef(name, p)].source for p in read)
        return out

    def _takes(self, part: tuple[NodeId, ...]) -> dict[PortRef, PortRef]:
        """Sources outside a part that it reads, each with the first input port that does."""
        inside, out = set(part), dict[PortRef, PortRef]()
        for name in part:
            for port in self._graph.by_name[name].inputs:
                if name in self._whole and port.name == self._whole[name].mask.port:
                    continue
                ref = PortRef(name, port.name)
                source = self._graph.edge_into[ref].source
                if source.node not in inside:
                    out.setdefault(source, ref)
        return out

    def _raw_segment(self, name: NodeId) -> Segment:
        node = self._graph.by_name[name]
        return Segment(
            nodes=(name,),
            takes=tuple(SegmentPort(name=p.name, port=PortRef(name, p.name)) for p in node.inputs),
            gives=tuple(SegmentPort(name=p.name, port=PortRef(name, p.name)) for p in node.outputs),
            model=self._raw_models[name],
            raw=True,
        )

    def _unsound(
        self, verifier: Verifier, segments: Sequence[Segment], flat: Sequence[Values]
    ) -> frozenset[NodeId]:
        """Nodes of segments that do not read what their edges carry, or not what a mask keeps."""
        one, several = ({**self._probes[i], **flat[i]} for i in (0, -1))
        return frozenset(
            n
            for s in segments
            if not s.raw
            and not (
                verifier.reads_what_it_takes(s, several) and verifier.gathers_what_is_kept(s, one)
            )
            for n in s.nodes
        )

    def _finished(self, cuts: _Cuts) -> Compiled:
        layouts = {ref: cuts.layouts.get(ref, PLAIN) for ref in self._ports}
        return Compiled(layouts=layouts, segments=cuts.segments, gates=self._gates)


def _is_joinable(
    graph: Graph, models: Mapping[NodeId, onnx.ModelProto], name: NodeId, opset: int
) -> bool:
    """Whether a node can be in the flat graph, and reads each tensor in one way only."""
    node = graph.by_name[name]
    if not isinstance(node, ComputeNode | Exit) or not joinable(models[name], node, opset):
        return False
    defaults: dict[PortRef, object] = {}
    for port in node.inputs:
        edge = graph.edge_into[PortRef(name, port.name)]
        if defaults.setdefault(edge.source, edge.default) != edge.default:
            return False
    return True


def _outputs(graph: Graph, name: NodeId) -> list[PortRef]:
    return [PortRef(name, p.name) for p in graph.by_name[name].outputs]


def _rounds(model: onnx.ModelProto) -> bool:
    """Whether a model computes with 8-bit or half-precision numbers."""
    half = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return any(
        op.op_type in ("QuantizeLinear", "DequantizeLinear")
        or (op.op_type == "Cast" and any(a.name == "to" and a.i in half for a in op.attribute))
        for op in model.graph.node
    ) or any(v.type.tensor_type.elem_type in half for v in model.graph.input)
