"""A graph as text: one line per node, for error messages, golden tests and people."""

from __future__ import annotations

from dynrt.ir.graph import (
    Argmax,
    ComputeNode,
    Constant,
    ControlNode,
    DataEdge,
    Graph,
    InputNode,
    Node,
    PortRef,
)


def to_text(graph: Graph) -> str:
    """One line per node in schedule order, then nodes that no exit needs.

    ``block1(x=stem.y ?block1.x if gate1[0]) -> y:float32[16x32x32] 4718592 MAC`` reads: takes port
    ``y`` of ``stem`` as ``x``; ``?`` names the default of an edge whose source did not run.
    """
    rest = [n.name for n in graph.nodes if n.name not in set(graph.order)]
    lines = [_line(graph, graph.by_name[name]) for name in (*graph.order, *rest)]
    lines.append(f"exits {' '.join(graph.exits)} combine {graph.combine.kind}")
    return "\n".join(lines)


def _line(graph: Graph, node: Node) -> str:
    if isinstance(node, InputNode):
        return f"input {node.name}:{node.type}" + (" parameter" if node.param is not None else "")
    takes = ", ".join(_edge(graph.edge_into[PortRef(node.name, p.name)]) for p in node.inputs)
    switches = " or ".join(f"{e.control}[{e.action}]" for e in graph.controls_of.get(node.name, ()))
    head = f"{node.name}({takes}{' if ' + switches if switches else ''})"
    if isinstance(node, ControlNode):
        if isinstance(node.rule, Argmax):
            return f"control {head} argmax of {node.actions}"
        return f"control {head} threshold {', '.join(f'{t:g}' for t in node.rule.thresholds)}"
    gives = ", ".join(f"{p.name}:{p.type}" for p in node.outputs)
    cost = f"{node.cost.macs} MAC"
    if isinstance(node, ComputeNode):
        return f"{head} -> {gives} {cost}"
    rule = node.accept
    accept = f"{rule.kind}({rule.port}) >= {rule.threshold:g}" if rule.scored else rule.kind
    return f"exit {head} -> {gives} answer {node.answer} accept {accept} {cost}"


def _edge(edge: DataEdge) -> str:
    text = f"{edge.target.port}={edge.source}"
    if isinstance(edge.default, Constant):
        value = edge.default.value
        same = value.size and (value == value.flat[0]).all()
        return f"{text} ?{value.flat[0]:g}" if same else f"{text} ?tensor"
    return f"{text} ?{edge.default}" if edge.default is not None else text
