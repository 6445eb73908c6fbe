"""How the tensors between segments lie in memory in an optimised graph.

Behind a border ``P`` of which onnxruntime has a blocked (or channels-last) form ``q``, ``P`` is a
reordered copy of ``q``, and what follows reads ``q``. Such a border is cut at ``q``. Ports that an
edge's default can exchange for one another must have one layout, since a segment that reads the
edge has one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import onnx

from dynrt.ir.graph import Graph, NodeId, Port, PortRef
from dynrt.runtime.compile.runner import NCHWC
from dynrt.runtime.compiled import PLAIN, Layout

_TO_NCHW, _TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """A port's tensors in the optimised graph.

    Attributes:
        plain: the tensor as declared.
        stored: the same in another layout, or empty.
        layout: of ``stored``.
        copy_of: a tensor that ``plain`` is an unchanged copy of, or empty.
    """

    plain: str
    stored: str = ""
    layout: Layout = PLAIN
    copy_of: str = ""

    def name_in(self, layout: Layout) -> str:
        """The tensor that has ``layout``."""
        return self.stored if layout.kind != "plain" else self.plain


@dataclass(slots=True, kw_only=True)
class Optimised:
    """An optimised graph, indexed.

    Attributes:
        model: the graph.
        makers: index of the operator that makes each tensor.
        readers: indices of the operators that read each tensor.
        stored: initialisers by name.
    """

    model: onnx.ModelProto
    makers: dict[str, int] = field(default_factory=dict)
    readers: dict[str, list[int]] = field(default_factory=dict)
    stored: dict[str, onnx.TensorProto] = field(default_factory=dict)
    operators: list[onnx.NodeProto] = field(default_factory=list)

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Optimised:
        """Index ``model``."""
        out = cls(model=model)
        out.operators = list(model.graph.node)
        for i, op in enumerate(out.operators):
            out.makers.update({t: i for t in op.output if t})
            for t in dict.fromkeys(op.input):
                out.readers.setdefault(t, []).append(i)
        out.stored = {t.name: t for t in model.graph.initializer}
        return out

    def maker(self, tensor: str) -> onnx.NodeProto | None:
        """The operator that makes ``tensor``."""
        at = self.makers.get(tensor)
        return None if at is None else self.operators[at]


def find_borders(
    graph: Optimised, tensors: Mapping[PortRef, str], ports: Mapping[PortRef, Port], block: int
) -> dict[PortRef, Border]:
    """The border of each output port in ``tensors``."""
    out: dict[PortRef, Border] = {}
    claimed: dict[str, PortRef] = {}
    for ref, plain in tensors.items():
        out[ref] = border = _border(graph, plain, ports[ref].type.shape, block)
        if border.stored:
            first = claimed.setdefault(border.stored, ref)
            if first != ref:  # two ports of one tensor: each keeps its own
                out[first] = Border(plain=out[first].plain, copy_of=out[first].copy_of)
                out[ref] = Border(plain=plain)
    return out


def _border(graph: Optimised, plain: str, shape: tuple[int, ...], block: int) -> Border:
    op = graph.maker(plain)
    if op is None:
        return Border(plain=plain)
    if op.op_type == "Identity":
        return Border(plain=plain, copy_of=op.input[0])
    source = op.input[0] if op.input else ""
    if len(shape) != 3 or source in graph.stored:
        return Border(plain=plain)
    attributes = {a.name: a for a in op.attribute}
    if op.op_type == "ReorderOutput" and op.domain == NCHWC and block > 1:
        last = attributes.get("channels_last")
        if last is None or not last.i:
            return Border(plain=plain, stored=source, layout=Layout(kind="nchwc", block=block))
    if op.op_type == "Transpose" and _perm(op) == _TO_NCHW:
        return Border(plain=plain, stored=source, layout=Layout(kind="nhwc"))
    return Border(plain=plain)


def turned_border(graph: Optimised, plain: str, turned: str) -> Border:
    """The border of a port that the flat graph gives channels last, as ``turned``."""
    op = graph.maker(turned)
    if op is not None and op.op_type == "Transpose" and _perm(op) == _TO_NHWC:
        plain = op.input[0]  # it was computed as declared after all
    return Border(plain=plain, stored=turned, layout=Layout(kind="nhwc"))


def choose_layouts(
    graph: Graph,
    optimised: Optimised,
    borders: Mapping[PortRef, Border],
    plain_only: Collection[PortRef],
    part_of: Mapping[NodeId, int],
) -> dict[PortRef, Layout]:
    """One layout per output port of the schedule, alike for ports that a default can exchange.

    Args:
        graph: valid.
        optimised: its flat form.
        borders: of the ports that the flat form gives.
        plain_only: ports that must lie as declared, because of who gives or reads them.
        part_of: the segment of each node; inside one, no default is ever used.
    """
    groups = _exchangeable(graph, part_of)
    members: dict[PortRef, list[PortRef]] = {}
    for ref, root in groups.items():
        members.setdefault(root, []).append(ref)
    out: dict[PortRef, Layout] = {}
    for refs in members.values():
        kinds = {borders[r].layout if r in borders else PLAIN for r in refs}
        same = len(kinds) == 1 and not any(r in plain_only for r in refs)
        wanted = same and _wanted(optimised, [borders[r] for r in refs if r in borders])
        layout = next(iter(kinds)) if wanted else PLAIN
        out.update(dict.fromkeys(refs, layout))
    return out


def _wanted(graph: Optimised, borders: list[Border]) -> bool:
    """Whether an operator reads a stored form, or none reads the plain one."""
    if any(_is_read(graph, b.stored, besides=b.plain) for b in borders if b.stored):
        return True
    return not any(_is_read(graph, b.plain, besides=b.stored) for b in borders)


def _is_read(graph: Optimised, tensor: str, *, besides: str) -> bool:
    """Whether an operator reads ``tensor``, other than the one that makes ``besides`` of it."""
    return any(besides not in graph.operators[i].output for i in graph.readers.get(tensor, ()))


def _perm(op: onnx.NodeProto) -> tuple[int, ...]:
    return next((tuple(a.ints) for a in op.attribute if a.name == "perm"), ())


def _exchangeable(graph: Graph, part_of: Mapping[NodeId, int]) -> dict[PortRef, PortRef]:
    """A representative for each output port of the schedule; one for all that defaults exchange."""
    parent = {
        PortRef(name, p.name): PortRef(name, p.name)
        for name in graph.order
        for p in graph.by_name[name].outputs
    }

    def root(ref: PortRef) -> PortRef:
        while parent[ref] != ref:
            parent[ref] = parent[parent[ref]]
            ref = parent[ref]
        return ref

    for edge in graph.data:
        other = edge.default
        if not isinstance(other, PortRef) or edge.source not in parent:
            continue
        if part_of.get(edge.source.node, -1) == part_of.get(edge.target.node, -2):
            continue
        if other not in parent:  # an input port: it takes what its own edge's source gives
            other = graph.edge_into[other].source
        if other in parent:
            parent[root(other)] = root(edge.source)
    return {ref: root(ref) for ref in parent}
