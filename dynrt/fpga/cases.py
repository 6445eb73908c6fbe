"""Ways to run one network that are measured against each other: paths, and skipping ratios."""

from __future__ import annotations

from collections.abc import Sequence

from dynrt.errors import SessionError
from dynrt.fpga.manifest import Case
from dynrt.ir.flow import gates_of
from dynrt.ir.graph import Argmax, ComputeNode, ControlNode, Exit, Graph, NodeId

#: DDI's table I has computational savings from 40 to 80 %; ours starts at none.
RATIOS = (0.0, 0.2, 0.4, 0.6, 0.8)


def path_cases(graph: Graph) -> tuple[Case, ...]:
    """One case for each exit: those before it refuse, it accepts."""
    return tuple(
        Case(name=f"to {name}", force=_to_exit(graph, name)) for name in graph.exits if name
    )


def skipping_cases(graph: Graph, ratios: Sequence[float] = RATIOS) -> tuple[Case, ...]:
    """One case for each skipping ratio, every input alike.

    A network with layer gates skips that share of its gated blocks, spread evenly, and runs to its
    last exit. One without takes the exit whose savings in MACs are nearest.

    Raises:
        SessionError: a ratio is not within 0 and 1, or nothing can be skipped.
    """
    if wrong := [r for r in ratios if not 0 <= r <= 1]:
        raise SessionError(f"skipping ratio {wrong[0]:g}: it must be from 0 to 1")
    units = gated_units(graph)
    if units:
        return tuple(_skipping(graph, units, ratio) for ratio in ratios)
    if len(graph.exits) < 2:
        raise SessionError("the network has neither layer gates nor several exits: nothing to skip")
    return tuple(_by_exit(graph, ratio) for ratio in ratios)


def gated_units(graph: Graph) -> dict[NodeId, ControlNode]:
    """Compute nodes, no gates themselves, that a control node can switch off and on; in order."""
    gates = gates_of(graph)
    out: dict[NodeId, ControlNode] = {}
    for name in graph.order:
        edges = graph.controls_of.get(name, ())
        owners = {edge.control for edge in edges}
        if len(owners) != 1 or name in gates or not isinstance(graph.by_name[name], ComputeNode):
            continue
        control = graph.by_name[owners.pop()]
        if isinstance(control, ControlNode) and _bits(graph, control, name, on=False) is not None:
            out[name] = control
    return out


def forced_units(graph: Graph, off: Sequence[NodeId]) -> dict[str, int]:
    """Decisions under which the gated units ``off`` are skipped and all others run.

    Raises:
        SessionError: two units hang on one gate and want different decisions of it.
    """
    out: dict[str, int] = {}
    for unit, control in gated_units(graph).items():
        bits = _bits(graph, control, unit, on=unit not in off)
        if bits is None or out.get(control.name, bits) != bits:
            raise SessionError(f"gate {control.name!r} cannot switch {unit!r} by itself")
        out[control.name] = bits
    return out


def _bits(graph: Graph, control: ControlNode, unit: NodeId, *, on: bool) -> int | None:
    """Active actions of ``control`` with which ``unit`` runs or does not; ``None`` if there are none."""
    runs = {e.action for e in graph.controls_of[unit] if e.control == control.name}
    wanted = [a for a in range(control.actions) if (a in runs) == on]
    if isinstance(control.rule, Argmax) or on:
        return 1 << wanted[0] if wanted else None
    return 0


def _to_exit(graph: Graph, name: NodeId) -> dict[str, int]:
    """Decisions that end every run at an exit."""
    before = graph.exits[: graph.exits.index(name)]
    force = {e: 0 for e in before if _scored(graph, e)}
    if stuck := [e for e in before if not _scored(graph, e) and _always(graph, e)]:
        raise SessionError(f"exit {stuck[0]!r} always accepts: {name!r} is not reached")
    return force | ({name: 1} if _scored(graph, name) else {})


def _scored(graph: Graph, name: NodeId) -> bool:
    node = graph.by_name[name]
    return isinstance(node, Exit) and node.accept.scored


def _always(graph: Graph, name: NodeId) -> bool:
    node = graph.by_name[name]
    return isinstance(node, Exit) and node.accept.kind == "always"


def _skipping(graph: Graph, units: dict[NodeId, ControlNode], ratio: float) -> Case:
    names = list(units)
    count = round(ratio * len(names))
    # Evenly spread: a block is skipped where the running total of the ratio passes a whole number.
    off = [
        n for i, n in enumerate(names) if (i + 1) * count // len(names) > i * count // len(names)
    ]
    force = forced_units(graph, off) | _to_exit(graph, graph.exits[-1])
    return Case(name=f"{count} of {len(names)} blocks skipped", force=force, skipping=ratio)


def _by_exit(graph: Graph, ratio: float) -> Case:
    full = macs_to(graph, graph.exits[-1])
    saved = {name: 1 - macs_to(graph, name) / full for name in graph.exits}
    name = min(graph.exits, key=lambda e: (abs(saved[e] - ratio), graph.exits.index(e)))
    return Case(
        name=f"to {name}, {saved[name]:.0%} of the MACs skipped",
        force=_to_exit(graph, name),
        skipping=ratio,
    )


def macs_to(graph: Graph, exit_: NodeId) -> int:
    """MACs of all that comes before an exit in the schedule, heads that are passed included."""
    total = 0
    for name in graph.order:
        node = graph.by_name[name]
        if isinstance(node, ComputeNode | Exit):
            total += node.cost.macs
        if name == exit_:
            break
    return total
