"""Cuts an optimised graph into segments at its borders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from dynrt.ir.graph import NodeId, Port, PortRef
from dynrt.runtime.compile.borders import Border, Optimised
from dynrt.runtime.compile.joined import value_info
from dynrt.runtime.compile.runner import NCHWC
from dynrt.runtime.compiled import Layout, Segment, SegmentPort


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A segment to be cut.

    Attributes:
        nodes: that it runs.
        takes: sources outside it, each with the input port that stands for it.
        gives: output ports that something outside reads.
    """

    nodes: tuple[NodeId, ...]
    takes: Mapping[PortRef, PortRef]
    gives: tuple[PortRef, ...]


class Cutter:
    """Cuts one optimised graph.

    Args:
        graph: the optimised graph.
        borders: of every port that is read between segments.
        layouts: in which those ports are handed over.
        ports: output ports by reference.
    """

    def __init__(
        self,
        graph: Optimised,
        borders: Mapping[PortRef, Border],
        layouts: Mapping[PortRef, Layout],
        ports: Mapping[PortRef, Port],
    ) -> None:
        self._graph, self._borders = graph, borders
        self._layouts, self._ports = layouts, ports
        self._owners: dict[str, set[NodeId]] = {}
        for ref, border in borders.items():
            for name in (border.plain, border.stored):
                if name:
                    self._owners.setdefault(name, set()).add(ref.node)

    def cut(self, wanted: Wanted) -> Segment | None:
        """The segment, or ``None`` if the graph has no such cut: operators were fused across it."""
        stops = self._stops(wanted)
        if stops is None:
            return None
        gives = {ref: self._borders[ref].name_in(self._layouts[ref]) for ref in wanted.gives}
        turned = {  # borders that the graph does not have as declared
            ref: self._borders[ref].stored
            for ref, name in gives.items()
            if name not in self._graph.makers and self._borders[ref].stored
        }
        found = self._trace(wanted, stops, [turned.get(r, name) for r, name in gives.items()])
        if found is None:
            return None
        at, weights, reached = found
        converted, operators = self._conversions(stops, reached)
        operators += [self._graph.operators[i] for i in sorted(at)]
        for ref, last in turned.items():
            layout, channels = self._borders[ref].layout, self._ports[ref].type.shape[0]
            operators.append(_to_plain(last, gives[ref], layout, channels))
        taken = {ref: port for ref, port in wanted.takes.items() if ref in converted}
        stored = [self._graph.stored[name] for name in sorted(weights)]
        renamed: dict[PortRef, str] = {}
        inputs = set(converted.values())
        made = {t for op in operators for t in op.output}
        for ref, name in gives.items():
            renamed[ref] = name
            if name in inputs or name not in made:  # a tensor passed on, or a constant
                renamed[ref] = f"{name}:copy"
                operators.append(helper.make_node("Identity", [name], [renamed[ref]]))
        model = self._model(
            operators,
            stored,
            [(converted[ref], ref) for ref in taken],
            [(renamed[ref], ref) for ref in gives],
        )
        takes = tuple(SegmentPort(name=converted[ref], port=port) for ref, port in taken.items())
        return Segment(
            nodes=wanted.nodes,
            takes=takes,
            gives=tuple(SegmentPort(name=renamed[ref], port=ref) for ref in gives),
            overwrites=self._overwrites(operators, list(taken), converted, renamed),
            model=model.SerializeToString(deterministic=True),
        )

    def _stops(self, wanted: Wanted) -> dict[str, PortRef] | None:
        """Tensors at which a trace back ends, each with the port whose value it is."""
        stops: dict[str, PortRef] = {}
        for ref in wanted.takes:
            border = self._borders[ref]
            for name in (border.plain, border.stored):
                if name and stops.setdefault(name, ref) != ref:
                    return None
        for ref in wanted.takes:
            if copied := self._borders[ref].copy_of:
                stops.setdefault(copied, ref)
        return stops

    def _trace(
        self, wanted: Wanted, stops: Mapping[str, PortRef], ends: Sequence[str]
    ) -> tuple[set[int], set[str], set[str]] | None:
        """Operators, initialisers and stops that ``ends`` need."""
        own = set(wanted.nodes)
        operators: set[int] = set()
        weights: set[str] = set()
        reached: set[str] = set()
        seen: set[str] = set()
        todo = list(ends)
        while todo:
            tensor = todo.pop()
            if not tensor or tensor in seen:
                continue
            seen.add(tensor)
            if tensor in stops:
                reached.add(tensor)
                continue
            owners = self._owners.get(tensor)
            if owners is not None and own.isdisjoint(owners):
                return None  # another segment's tensor, not what the edge carries
            if tensor in self._graph.stored:
                weights.add(tensor)
                continue
            maker = self._graph.makers.get(tensor)
            if maker is None:
                return None
            operators.add(maker)
            todo.extend(self._graph.operators[maker].input)
        return operators, weights, reached

    def _conversions(
        self, stops: Mapping[str, PortRef], reached: set[str]
    ) -> tuple[dict[PortRef, str], list[onnx.NodeProto]]:
        """The tensor of each port that is an input, and operators that make its other forms."""
        inputs: dict[PortRef, str] = {}
        operators: list[onnx.NodeProto] = []
        for tensor in sorted(reached):
            ref = stops[tensor]
            border, layout = self._borders[ref], self._layouts[ref]
            name = inputs.setdefault(ref, border.name_in(layout))
            if tensor == name:
                continue
            if tensor == border.stored:
                operators.append(_to_stored(name, tensor, border.layout))
            elif tensor == border.plain:
                channels = self._ports[ref].type.shape[0]
                operators.append(_to_plain(name, tensor, layout, channels))
            else:  # what the port is a copy of; such a port has no other form
                operators.append(helper.make_node("Identity", [name], [tensor]))
        return inputs, operators

    def _model(
        self,
        operators: Sequence[onnx.NodeProto],
        stored: Sequence[onnx.TensorProto],
        takes: Sequence[tuple[str, PortRef]],
        gives: Sequence[tuple[str, PortRef]],
    ) -> onnx.ModelProto:
        source = self._graph.model
        graph = helper.make_graph(
            operators,
            "segment",
            [self._info(name, ref) for name, ref in takes],
            [self._info(name, ref) for name, ref in gives],
            stored,
        )
        return helper.make_model(
            graph, opset_imports=source.opset_import, ir_version=source.ir_version
        )

    def _info(self, name: str, ref: PortRef) -> onnx.ValueInfoProto:
        kind = self._ports[ref].type
        return value_info(name, kind.dtype, self._layouts[ref].stored_shape(kind.shape))

    def _overwrites(
        self,
        operators: Sequence[onnx.NodeProto],
        taken: Sequence[PortRef],
        inputs: Mapping[PortRef, str],
        outputs: Mapping[PortRef, str],
    ) -> tuple[tuple[int, int], ...]:
        """Outputs that a convolution adds up in the memory of an input that nothing reads later.

        Such a convolution starts from its fourth input; onnxruntime copies it to the output first,
        unless both are the same memory.
        """
        makers = {t: op for op in operators for t in op.output}
        out = []
        for give, (ref, name) in enumerate(outputs.items()):
            op = makers.get(name)
            if op is None or op.domain != NCHWC or op.op_type != "Conv" or len(op.input) != 4:
                continue
            added = op.input[3]
            for take, source in enumerate(taken):
                if (
                    inputs[source] == added
                    and added not in op.input[:3]
                    and self._layouts[source] == self._layouts[ref]
                    and self._ports[source].type == self._ports[ref].type
                    and _reads_before(operators, makers, added, op)
                ):
                    out.append((take, give))
        return tuple(out)


def _reads_before(
    operators: Sequence[onnx.NodeProto],
    makers: Mapping[str, onnx.NodeProto],
    tensor: str,
    last: onnx.NodeProto,
) -> bool:
    """Whether whatever reads ``tensor`` must have run before ``last``."""
    before: set[str] = set()
    todo = list(last.input)
    while todo:
        name = todo.pop()
        if name in before or name not in makers:
            continue
        before.update(makers[name].output)
        todo.extend(makers[name].input)
    return all(
        op is last or not before.isdisjoint(op.output) for op in operators if tensor in op.input
    )


def _to_stored(plain: str, stored: str, layout: Layout) -> onnx.NodeProto:
    if layout.kind == "nchwc":
        return helper.make_node("ReorderInput", [plain], [stored], domain=NCHWC)
    return helper.make_node("Transpose", [plain], [stored], perm=[0, 2, 3, 1])


def _to_plain(stored: str, plain: str, layout: Layout, channels: int) -> onnx.NodeProto:
    if layout.kind == "nchwc":
        return helper.make_node("ReorderOutput", [stored], [plain], domain=NCHWC, channels=channels)
    return helper.make_node("Transpose", [stored], [plain], perm=[0, 3, 1, 2])
