"""The invariants of a graph, each with a short code; every violation says how to mend it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from dynrt.errors import GraphError
from dynrt.ir.certificate import path_violations
from dynrt.ir.flow import Flow
from dynrt.ir.graph import (
    DTYPES,
    Argmax,
    ChannelMask,
    ComputeNode,
    Constant,
    ControlNode,
    DataEdge,
    Exit,
    Graph,
    InputNode,
    Node,
    Port,
    PortRef,
    TensorType,
)
from dynrt.ir.violation import Violation

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
_SCORED = ("hinge", "max_softmax", "entropy", "margin")


def require_valid(graph: Graph, place: str = "") -> None:
    """Check ``graph``.

    Raises:
        GraphError: it breaks an invariant; the error lists all that were found.
    """
    if problems := check(graph):
        raise GraphError(problems, place=place)


def check(graph: Graph) -> list[Violation]:
    """Every broken invariant; the later groups are only looked at if the earlier ones hold."""
    for group in (_names, _edges, _types, _structure):
        if found := list(group(graph)):
            return found
    return path_violations(Flow(graph))


def _bad(code: str, place: object, message: str, mend: str) -> Violation:
    return Violation(code=code, place=str(place), message=message, mend=mend)


def _ports(node: Node) -> tuple[Port, ...]:
    return (*node.inputs, *node.outputs)


def _names(graph: Graph) -> Iterator[Violation]:
    for name, count in Counter(n.name for n in graph.nodes).items():
        if count > 1:
            yield _bad(
                "duplicate-node", name, f"{count} nodes have this name", "rename all but one"
            )
        if not _NAME.fullmatch(name):
            yield _bad(
                "bad-name", repr(name), "names are letters, digits, _ and -, at most 100", "rename"
            )
    for node in graph.nodes:
        for port, count in Counter(p.name for p in _ports(node)).items():
            ref = PortRef(node.name, port)
            if count > 1:
                yield _bad("duplicate-port", ref, f"{count} ports have this name", "rename one")
            if not _NAME.fullmatch(port):
                yield _bad("bad-name", repr(str(ref)), "not a port name", "rename")
        for p in _ports(node):
            yield from _type(PortRef(node.name, p.name), p.type)
        yield from _node(node)
    if not graph.exits:
        yield _bad("no-exit", "graph", "nothing gives an answer", "add an exit")
    declared = [n.name for n in graph.nodes if isinstance(n, Exit)]
    if sorted(graph.exits) != sorted(declared):
        yield _bad(
            "exit-order",
            "graph",
            f"the order {list(graph.exits)} is not one of the exits {declared}",
            "list every exit exactly once",
        )


def _type(place: PortRef, kind: TensorType) -> Iterator[Violation]:
    if kind.dtype not in DTYPES:
        yield _bad(
            "bad-dtype", place, f"{kind.dtype!r} is not supported", f"use {', '.join(DTYPES)}"
        )
    if any(n < 1 for n in kind.shape):
        yield _bad("bad-shape", place, f"{kind.shape} has a size below 1", "give fixed sizes")


def _node(node: Node) -> Iterator[Violation]:
    if isinstance(node, ComputeNode | Exit):
        for what in ("macs", "femtojoules", "nanoseconds", "milli_mac_equivalents"):
            value = getattr(node.cost, what)
            if value is not None and value < 0:
                yield _bad("negative-cost", node.name, f"{what} is {value}", "costs are 0 or more")
        if not node.outputs:
            yield _bad("no-output", node.name, "it gives nothing", "declare its outputs")
    if isinstance(node, ComputeNode) and node.mask is not None:
        yield from _mask(node, node.mask)
    if isinstance(node, InputNode) and node.param is not None:
        yield from _constant(node.name, node.param, node.type)
    if isinstance(node, ControlNode):
        if node.actions < 1:
            yield _bad("no-action", node.name, f"{node.actions} actions", "give it at least one")
        elif not isinstance(node.rule, Argmax):
            got = node.rule.thresholds
            if len(got) != node.actions:
                yield _bad(
                    "threshold-count",
                    node.name,
                    f"{len(got)} thresholds for {node.actions} actions",
                    "give one per action",
                )
            if any(math.isnan(t) for t in got):
                yield _bad("bad-threshold", node.name, "a threshold is NaN", "give a number")
    if isinstance(node, Exit):
        yield from _exit(node)


def _kept(node: ComputeNode, mask: ChannelMask) -> Iterator[Violation]:
    """Energies by kept groups: all of them, none below zero or above the node's."""
    for what in ("femtojoules", "milli_mac_equivalents"):
        kept: tuple[int, ...] = getattr(mask, f"kept_{what}")
        most = getattr(node.cost, what)
        if kept and (
            most is None or len(kept) != mask.groups + 1 or min(kept) < 0 or max(kept) > most
        ):
            yield _bad(
                "bad-mask",
                PortRef(node.name, mask.port),
                f"kept_{what} has {len(kept)} values from {min(kept)} to {max(kept)} for "
                f"{mask.groups} groups in a node of {most}",
                "give one for each number of kept groups, none above the node's cost",
            )


def _mask(node: ComputeNode, mask: ChannelMask) -> Iterator[Violation]:
    place = PortRef(node.name, mask.port)
    if mask.groups < 1:
        yield _bad("bad-mask", place, f"{mask.groups} groups", "give it at least one")
    elif mask.group_macs < 0 or mask.groups * mask.group_macs > node.cost.macs:
        yield _bad(
            "bad-mask",
            place,
            f"{mask.groups} groups of {mask.group_macs} MACs in a node of {node.cost.macs}",
            "count what one group costs",
        )
    yield from _kept(node, mask)
    kinds = [p.type for p in node.inputs if p.name == mask.port]
    want = TensorType(dtype="float32", shape=(mask.groups,))
    if not kinds:
        yield _bad(
            "unknown-mask",
            place,
            f"the mask's port is none of its inputs {sorted(p.name for p in node.inputs)}",
            "name one of them",
        )
    elif kinds[0] != want:
        yield _bad("mask-type", place, f"the mask is {kinds[0]}, not {want}", "make it that")


def _exit(node: Exit) -> Iterator[Violation]:
    outputs = {p.name for p in node.outputs}
    if node.answer not in outputs:
        yield _bad(
            "unknown-answer",
            node.name,
            f"the answer {node.answer!r} is none of its outputs {sorted(outputs)}",
            "name one of them",
        )
    rule = node.accept
    if rule.kind not in (*_SCORED, "always", "never"):
        yield _bad("bad-rule", node.name, f"{rule.kind!r} is no rule", f"use {', '.join(_SCORED)}")
    if rule.scored and rule.port not in outputs:
        yield _bad(
            "unknown-score",
            node.name,
            f"the score's port {rule.port!r} is none of its outputs {sorted(outputs)}",
            "name one of them",
        )
    if math.isnan(rule.threshold):
        yield _bad("bad-threshold", node.name, "the threshold is NaN", "give a number")


def _edges(graph: Graph) -> Iterator[Violation]:
    outputs = {PortRef(n.name, p.name) for n in graph.nodes for p in n.outputs}
    inputs = {PortRef(n.name, p.name) for n in graph.nodes for p in n.inputs}
    known = graph.by_name
    for target, count in Counter(e.target for e in graph.data).items():
        if count > 1:
            yield _bad(
                "duplicate-edge", target, f"{count} data edges enter it", "join them in a node"
            )
    for edge in graph.data:
        for ref, pool, role in ((edge.source, outputs, "output"), (edge.target, inputs, "input")):
            if ref.node not in known:
                yield _bad("unknown-node", ref, "no such node", "remove the edge")
            elif ref not in pool:
                yield _bad("unknown-port", ref, f"no such {role} port", "name a declared port")
        if isinstance(edge.default, PortRef) and edge.default not in outputs | inputs:
            yield _bad("unknown-port", edge.default, "a default names it", "name a declared port")
    fed = {e.target for e in graph.data}
    for ref in sorted(inputs - fed):
        yield _bad("dangling-port", ref, "no data edge enters it", "connect it")
    yield from _control_edges(graph)


def _control_edges(graph: Graph) -> Iterator[Violation]:
    known = graph.by_name
    pairs = Counter((e.control, e.target, e.action) for e in graph.control)
    for (control, target, action), count in pairs.items():
        place = f"{control}[{action}]->{target}"
        if count > 1:
            yield _bad("duplicate-edge", place, f"it is there {count} times", "keep one")
        node = known.get(control)
        if node is None or target not in known:
            yield _bad("unknown-node", place, "no such node", "remove the edge")
        elif not isinstance(node, ControlNode):
            yield _bad(
                "mixed-outgoing",
                place,
                f"{control!r} hands on data and may not own control edges (D2NN restriction 1)",
                f"feed {control!r} to a control node and let that own the edge",
            )
        elif not 0 <= action < node.actions:
            yield _bad(
                "edge-without-action", place, f"it has {node.actions} actions", "name one of them"
            )
        elif isinstance(known[target], ControlNode):
            yield _bad(
                "control-under-control",
                place,
                "a node under control has no outgoing control edge (D2NN restriction 2)",
                f"switch the node that feeds {target!r} instead",
            )
        elif isinstance(known[target], InputNode):
            yield _bad("controlled-input", place, "inputs always run", "switch what reads it")
    for node in graph.nodes:
        if isinstance(node, ControlNode):
            owned = {e.action for e in graph.control if e.control == node.name}
            for action in sorted(set(range(node.actions)) - owned):
                yield _bad(
                    "action-without-edge",
                    f"{node.name}[{action}]",
                    "this action switches nothing on",
                    "give it a dummy node, or drop its score",
                )


def _types(graph: Graph) -> Iterator[Violation]:
    types = {PortRef(n.name, p.name): p.type for n in graph.nodes for p in _ports(n)}
    for edge in graph.data:
        want = types[edge.target]
        yield from _same(edge, "edge", types[edge.source], want)
        if isinstance(edge.default, PortRef):
            yield from _same(edge, "default", types[edge.default], want)
        elif edge.default is not None:
            yield from _constant(str(edge.target), edge.default, want)
    shapes = {n.name: types[PortRef(n.name, n.answer)] for n in graph.nodes if isinstance(n, Exit)}
    first = shapes[graph.exits[0]]
    for name in graph.exits:
        kind = shapes[name]
        joined = graph.combine.kind == "concat"
        if (kind.dtype != first.dtype or kind.shape != first.shape) and not joined:
            yield _bad(
                "answer-type",
                name,
                f"its answer is {kind}, that of {graph.exits[0]!r} is {first}",
                "give all exits one answer type, or combine by concat",
            )
        elif joined and (kind.dtype != first.dtype or len(kind.shape) != 1):
            yield _bad(
                "answer-type", name, f"concat joins vectors of one dtype, not {kind}", "mend it"
            )


def _same(edge: DataEdge, what: str, got: TensorType, want: TensorType) -> Iterator[Violation]:
    source = edge.default if what == "default" else edge.source
    place = f"{source}->{edge.target}"
    prefix = "default-" if what == "default" else ""
    if got.dtype != want.dtype:
        yield _bad(
            f"{prefix}dtype", place, f"{got.dtype} into {want.dtype}", "convert it in a node"
        )
    if got.shape != want.shape:
        yield _bad(f"{prefix}shape", place, f"{got} into {want}", "reshape it in a node")


def _constant(place: str, constant: Constant, want: TensorType) -> Iterator[Violation]:
    value = constant.value
    if value.dtype.name != want.dtype:
        yield _bad("default-dtype", place, f"{value.dtype.name} for {want.dtype}", "convert it")
    if value.shape != want.shape:
        yield _bad("default-shape", place, f"{value.shape} for {want.shape}", "give it that shape")


def _structure(graph: Graph) -> Iterator[Violation]:
    cycle = _cycle(graph)
    if cycle:
        yield _bad("cycle", " -> ".join(cycle), "it feeds itself", "remove one of these edges")
        return
    needed = set(graph.order)
    for node in graph.nodes:
        if isinstance(node, Exit) and any(e.source.node == node.name for e in graph.data):
            yield _bad(
                "exit-feeds", node.name, "an exit ends the run and feeds nothing", "split the head"
            )
        dummy = isinstance(node, ComputeNode) and not node.inputs
        if node.name not in needed and not isinstance(node, InputNode | ControlNode) and not dummy:
            yield _bad("dead-node", node.name, "no exit needs it", "remove it")
    if graph.combine.kind != "first":
        kinds = [
            n.accept.kind for name in graph.exits if isinstance(n := graph.by_name[name], Exit)
        ]
        tail = kinds[len(kinds) - kinds.count("always") :]
        if kinds.count("always") < 2 or set(tail) != {"always"}:
            yield _bad(
                "combine",
                "graph",
                f"{graph.combine.kind!r} joins two or more 'always' exits at the end, got {kinds}",
                "put them last",
            )


def _cycle(graph: Graph) -> list[str]:
    """One cycle over data, default and control edges, or nothing."""
    colour: dict[str, int] = {}
    for start in graph.parents_of:
        path: list[str] = []
        stack: list[tuple[str, bool]] = [(start, False)]
        while stack:
            here, leave = stack.pop()
            if leave:
                colour[here] = 2
                path.pop()
            elif colour.get(here) == 1:
                return [*path[path.index(here) :], here][::-1]
            elif here not in colour:
                colour[here] = 1
                path.append(here)
                stack.append((here, True))
                stack.extend(
                    (p, False) for p in graph.parents_of.get(here, ()) if colour.get(p) != 2
                )
    return []
