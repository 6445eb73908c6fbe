"""Pictures of a graph: a self-contained SVG with a layered layout, and dot and Mermaid text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from dynrt.cli.text import megaflops
from dynrt.ir.graph import (
    ComputeNode,
    ControlNode,
    Exit,
    Graph,
    InputNode,
    Node,
    NodeId,
)

_BOX_W, _BOX_H = 156, 40
_STEP_X, _STEP_Y = 184, 68
_MARGIN = 20

_STYLE = """
text { font: 12px sans-serif; text-anchor: middle; fill: #1a1a1a }
.cost { font-size: 10px; fill: #555 }
.input { fill: #e8eef7 } .compute { fill: #fff } .control { fill: #fdf1d6 } .exit { fill: #dff2e1 }
rect, polygon { stroke: #444; stroke-width: 1.2 }
path { fill: none; stroke: #444; stroke-width: 1.2; marker-end: url(#tip) }
.gate { stroke: #b06a00; stroke-dasharray: 5 3 } .default { stroke: #999; stroke-dasharray: 2 3 }
""".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrow:
    """One drawn edge; ``kind`` is ``data``, ``default`` or ``gate``."""

    source: NodeId
    target: NodeId
    kind: str
    label: str = ""


def kind_of(node: Node) -> str:
    """``input``, ``compute``, ``control`` or ``exit``."""
    kinds: tuple[tuple[type, str], ...] = (
        (InputNode, "input"),
        (ComputeNode, "compute"),
        (ControlNode, "control"),
        (Exit, "exit"),
    )
    return next(name for cls, name in kinds if isinstance(node, cls))


def note_of(node: Node) -> str:
    """The second line of a node: what it costs or how it decides."""
    if isinstance(node, InputNode):
        return str(node.type)
    if isinstance(node, ControlNode):
        return type(node.rule).__name__.lower()
    flops = f"{megaflops(node.cost.flops)} MFLOPs"
    if not isinstance(node, Exit):
        return flops
    accept = node.accept
    rule = f"{accept.kind} >= {accept.threshold:.3g}" if accept.scored else accept.kind
    return f"{rule}, {flops}"


def _arrows(graph: Graph) -> tuple[_Arrow, ...]:
    """Every edge, several between the same two nodes drawn once."""
    seen: dict[tuple[NodeId, NodeId, str], _Arrow] = {}
    for edge in graph.data:
        kind = "data" if edge.default is None else "default"
        arrow = _Arrow(source=edge.source.node, target=edge.target.node, kind=kind)
        seen.setdefault((arrow.source, arrow.target, kind), arrow)
    for link in graph.control:
        key = (link.control, link.target, f"gate{link.action}")
        seen.setdefault(
            key,
            _Arrow(source=link.control, target=link.target, kind="gate", label=str(link.action)),
        )
    return tuple(seen.values())


def place(graph: Graph) -> dict[NodeId, tuple[int, int]]:
    """Column and layer of each node: below all its parents, trunks straight.

    A node takes its first parent's column if that is free in its layer, else the nearest free one
    to the right; of the nodes in a layer, the one with the longest way still to go chooses first.
    """
    parents = {name: graph.parents_of.get(name, ()) for name in graph.by_name}
    layer: dict[NodeId, int] = {}
    tail: dict[NodeId, int] = {}
    order = _topological(parents)
    for name in order:
        layer[name] = max((layer[p] + 1 for p in parents[name]), default=0)
        tail[name] = 0
    for name in reversed(order):
        for parent in parents[name]:
            tail[parent] = max(tail[parent], tail[name] + 1)
    column: dict[NodeId, int] = {}
    for depth in range(max(layer.values(), default=-1) + 1):
        taken: set[int] = set()
        here = [name for name in order if layer[name] == depth]
        for name in sorted(here, key=lambda n: -tail[n]):
            wish = next((column[p] for p in parents[name]), 0)
            while wish in taken:
                wish += 1
            taken.add(wish)
            column[name] = wish
    return {name: (column[name], layer[name]) for name in order}


def _topological(parents: Mapping[NodeId, Sequence[NodeId]]) -> list[NodeId]:
    """Parents first; otherwise in the order given."""
    done: dict[NodeId, None] = {}
    for name in parents:
        stack = [(name, False)]
        while stack:
            here, ready = stack.pop()
            if here in done:
                continue
            if ready:
                done[here] = None
                continue
            stack.append((here, True))
            stack.extend((p, False) for p in reversed(parents[here]) if p not in done)
    return list(done)


def to_svg(graph: Graph, *, title: str) -> str:
    """A drawing that needs nothing else: solid data, dashed decisions, dotted edges with a default."""
    spots = place(graph)
    centre = {
        name: (_MARGIN + _BOX_W // 2 + x * _STEP_X, _MARGIN + _BOX_H // 2 + y * _STEP_Y)
        for name, (x, y) in spots.items()
    }
    width = max(x for x, _ in centre.values()) + _BOX_W // 2 + _MARGIN
    height = max(y for _, y in centre.values()) + _BOX_H // 2 + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" '
        'style="fill:#444;stroke:none;marker-end:none"/></marker></defs>',
    ]
    parts += [_svg_arrow(arrow, centre, spots) for arrow in _arrows(graph)]
    parts += [_svg_node(graph.by_name[name], *centre[name]) for name in spots]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _svg_arrow(
    arrow: _Arrow,
    centre: Mapping[NodeId, tuple[int, int]],
    spots: Mapping[NodeId, tuple[int, int]],
) -> str:
    (x1, y1), (x2, y2) = centre[arrow.source], centre[arrow.target]
    y1, y2 = y1 + _BOX_H // 2, y2 - _BOX_H // 2
    far = spots[arrow.target][1] - spots[arrow.source][1] > 1
    # An edge over several layers swings out to the left of the boxes between its ends.
    bend = -_BOX_W // 2 - 24 if far and x1 == x2 else 0
    down = (y2 - y1) // 2
    curve = f"M{x1} {y1} C{x1 + bend} {y1 + down} {x2 + bend} {y2 - down} {x2} {y2}"
    text = f'<path class="{arrow.kind}" d="{curve}"/>'
    if arrow.label:
        text += f'<text class="cost" x="{(x1 + x2) // 2 + 10}" y="{(y1 + y2) // 2}">'
        text += f"{escape(arrow.label)}</text>"
    return text


def _svg_node(node: Node, x: int, y: int) -> str:
    kind = kind_of(node)
    left, top = x - _BOX_W // 2, y - _BOX_H // 2
    if kind == "control":
        points = f"{left},{y} {x},{top - 6} {left + _BOX_W},{y} {x},{y + _BOX_H // 2 + 6}"
        shape = f'<polygon class="{kind}" points="{points}"/>'
    else:
        radius = _BOX_H // 2 if kind == "input" else 4
        shape = (
            f'<rect class="{kind}" x="{left}" y="{top}" width="{_BOX_W}" height="{_BOX_H}" '
            f'rx="{radius}"/>'
        )
    name, note = escape(node.name[:20]), escape(note_of(node))
    return (
        f'<g><title>{escape(node.name)}</title>{shape}<text x="{x}" y="{y - 2}">{name}</text>'
        f'<text class="cost" x="{x}" y="{y + 12}">{note}</text></g>'
    )


def to_dot(graph: Graph, *, title: str) -> str:
    """Graphviz text."""
    shapes = {"input": "oval", "compute": "box", "control": "diamond", "exit": "doubleoctagon"}
    styles = {"data": "solid", "default": "dotted", "gate": "dashed"}
    rows = [f"digraph {_quoted(title)} {{", "  rankdir=TB;"]
    for node in graph.nodes:
        label = _quoted(f"{node.name}\n{note_of(node)}")
        rows.append(f"  {_quoted(node.name)} [shape={shapes[kind_of(node)]}, label={label}];")
    for arrow in _arrows(graph):
        label = f", label={_quoted(arrow.label)}" if arrow.label else ""
        ends = f"{_quoted(arrow.source)} -> {_quoted(arrow.target)}"
        rows.append(f"  {ends} [style={styles[arrow.kind]}{label}];")
    return "\n".join([*rows, "}"]) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def to_mermaid(graph: Graph, *, title: str) -> str:
    """Mermaid text, as Markdown pages show it."""
    ids = {node.name: f"n{i}" for i, node in enumerate(graph.nodes)}
    brackets = {"input": "([%s])", "compute": "[%s]", "control": "{%s}", "exit": "[[%s]]"}
    rows = [f"%% {' '.join(title.split())}", "flowchart TB"]
    for node in graph.nodes:
        text = f"{node.name}<br/>{note_of(node)}".replace('"', "#quot;")
        rows.append("  " + ids[node.name] + brackets[kind_of(node)] % f'"{text}"')
    for arrow in _arrows(graph):
        line = {"data": "-->", "default": "-.->", "gate": f"-. {arrow.label} .->"}[arrow.kind]
        rows.append(f"  {ids[arrow.source]} {line} {ids[arrow.target]}")
    return "\n".join(rows) + "\n"
