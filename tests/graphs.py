"""Random dynamic networks of plain functions, for property tests and soaks.

Functions are element-wise sums and products rounded to halves: the same in any batch, and full of
ties.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynrt.ir.check import check
from dynrt.ir.cost import Cost
from dynrt.ir.graph import (
    Accept,
    Argmax,
    Array,
    ChannelMask,
    Combine,
    ComputeNode,
    Constant,
    ControlEdge,
    ControlNode,
    DataEdge,
    Default,
    Exit,
    Graph,
    InputNode,
    Node,
    Port,
    PortRef,
    TensorType,
    Threshold,
)
from dynrt.runtime.backends import Function

WIDTH = 3
VECTOR = TensorType(dtype="float32", shape=(WIDTH,))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A valid graph, functions for its nodes, and a batch of inputs."""

    graph: Graph
    functions: Mapping[str, Function]
    inputs: Mapping[str, Array]
    batch: int


class _Builder:
    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng = rng
        self.extra = rng.spawn(1)[0]  # energies: drawn apart, so that a seed keeps its graph
        self.normalised = bool(self.extra.random() < 0.5)
        self.nodes: list[Node] = [InputNode(name="x", type=VECTOR)]
        self.data: list[DataEdge] = []
        self.control: list[ControlEdge] = []
        self.exits: list[str] = []
        self.functions: dict[str, Function] = {}
        self.pool = [PortRef("x", "x")]
        self.named = [PortRef("x", "x")]
        self.states: list[PortRef] = []
        self.open_actions: list[tuple[str, int]] = []
        self.size = size
        if self.chance(0.2):
            value = Constant(self.values(WIDTH))
            self.nodes.append(InputNode(name="k", type=VECTOR, param=value))
            self.pool.append(PortRef("k", "k"))

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, items: list[Any]) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def values(self, n: int) -> Array:
        return (self.rng.integers(-4, 5, size=n) / 2).astype(np.float32)

    def cost(self) -> Cost:
        return Cost(
            macs=int(self.rng.choice([0, 1, 2, 3, 5, 8, 13, 21])),
            femtojoules=int(self.rng.integers(0, 40)),
            milli_mac_equivalents=int(self.extra.integers(0, 40)) if self.normalised else None,
        )

    def kept(self, most: int | None) -> tuple[int, ...]:
        """Energies by kept groups, in any order; sometimes not modelled."""
        if most is None or self.extra.random() < 0.3:
            return ()
        return tuple(int(v) for v in self.extra.integers(0, most + 1, size=WIDTH + 1))

    def default(self, name: str) -> Default | None:
        if self.chance(0.25):
            return Constant(self.values(WIDTH))
        if self.chance(0.5):
            return self.pick([r for r in self.named if r.node != name])  # type: ignore[no-any-return]
        return None

    def feed(self, name: str, port: str, pool: list[PortRef]) -> Port:
        recent = pool[-3:] if self.chance(0.7) else pool
        edge = DataEdge(
            source=self.pick(recent), target=PortRef(name, port), default=self.default(name)
        )
        self.data.append(edge)
        self.named.append(edge.target)
        return Port(name=port, type=VECTOR)

    def function(self, name: str, outputs: dict[str, int]) -> None:
        weights = {port: (self.values(6), self.values(n)) for port, n in outputs.items()}

        def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
            out = {}
            for port, (w, bias) in weights.items():
                total = np.zeros((1, WIDTH), np.float32)
                for j, value in enumerate(inputs.values()):
                    total = total + w[j] * value + w[j + 3] * np.roll(value, 1, axis=1)
                flat = np.resize(bias, (1, len(bias))) + np.take(
                    total, np.arange(len(bias)) % WIDTH, axis=1
                )
                out[port] = np.clip(np.round(flat), -8, 8).astype(np.float32)
            return out

        self.functions[name] = run

    def controlled(self, name: str, p: float) -> None:
        if not self.open_actions and not self.control:
            return
        if not self.chance(p):
            return
        for _ in range(int(self.rng.integers(1, 3))):
            if self.open_actions and self.chance(0.8):
                control, action = self.open_actions.pop(0)
            elif self.control:
                edge = self.pick(self.control)
                control, action = edge.control, edge.action
            else:
                return
            edge = ControlEdge(control=control, target=name, action=action)
            if edge not in self.control:
                self.control.append(edge)

    def compute(self, i: int) -> None:
        name = f"n{i}"
        count = 0 if self.chance(0.05) else int(self.rng.integers(1, 3))
        ports = tuple(self.feed(name, f"a{j}", self.pool) for j in range(count))
        cost, mask = self.cost(), None
        if ports and self.chance(0.15):
            each = int(self.rng.integers(0, cost.macs // WIDTH + 1))
            mask = ChannelMask(
                port=ports[-1].name,
                groups=WIDTH,
                group_macs=each,
                kept_femtojoules=self.kept(cost.femtojoules),
                kept_milli_mac_equivalents=self.kept(cost.milli_mac_equivalents),
            )
        node = ComputeNode(
            name=name,
            inputs=ports,
            outputs=(Port(name="y", type=VECTOR),),
            cost=cost,
            mask=mask,
        )
        self.nodes.append(node)
        self.function(name, {"y": WIDTH})
        self.controlled(name, 0.6)
        self.pool.append(PortRef(name, "y"))

    def gate(self, i: int) -> None:
        name, control = f"g{i}", f"q{i}"
        actions = int(self.rng.integers(1, 4))
        ports = [self.feed(name, "a", self.pool)]
        if self.states and self.chance(0.6):
            ports.append(self.feed(name, "h", self.states))
        scores = Port(name="s", type=TensorType(dtype="float32", shape=(actions,)))
        outputs = (scores, Port(name="state", type=VECTOR)) if self.chance(0.4) else (scores,)
        node = ComputeNode(name=name, inputs=tuple(ports), outputs=outputs, cost=self.cost())
        self.nodes.append(node)
        self.function(name, {p.name: p.type.shape[0] for p in outputs})
        if len(outputs) > 1:
            self.states.append(PortRef(name, "state"))
        self.controlled(name, 0.15)
        bounds = tuple(float(v) for v in self.values(actions))
        rule = Argmax() if self.chance(0.5) else Threshold(thresholds=bounds)
        self.nodes.append(ControlNode(name=control, actions=actions, rule=rule))
        self.data.append(DataEdge(source=PortRef(name, "s"), target=PortRef(control, "scores")))
        self.open_actions += [(control, a) for a in range(actions)]

    def exit(self, i: int, kind: str) -> None:
        name = f"e{i}"
        port = self.feed(name, "a", self.pool)
        accept = Accept(
            kind=kind,  # type: ignore[arg-type]
            port="y" if kind not in ("always", "never") else "",
            threshold=float(self.rng.choice([-1.0, 0.2, 0.5, 0.9, 2.0])),
        )
        out = (Port(name="y", type=VECTOR),)
        node = Exit(
            name=name, inputs=(port,), outputs=out, answer="y", accept=accept, cost=self.cost()
        )
        self.nodes.append(node)
        self.function(name, {"y": WIDTH})
        self.controlled(name, 0.3)
        self.exits.append(name)

    def build(self) -> Graph:
        kinds = ["hinge", "max_softmax", "entropy", "margin", "never", "always"]
        for i in range(self.size):
            if self.chance(0.4) and len(self.open_actions) < 5:
                self.gate(i)
            else:
                self.compute(i)
            if self.chance(0.25):
                self.exit(i, self.pick(kinds))
        combine = Combine()
        final = int(self.rng.integers(1, 3))
        if self.chance(0.25):
            final = int(self.rng.integers(2, 4))
            combine = Combine(kind=self.pick(["last", "sum", "max", "concat"]), absent=-99.0)
        for j in range(final):
            several = combine.kind != "first" or self.chance(0.7)
            self.exit(100 + j, "always" if several else self.pick(kinds))
        for k, (control, action) in enumerate(self.open_actions):
            name = f"d{k}"
            out = (Port(name="y", type=VECTOR),)
            self.nodes.append(ComputeNode(name=name, inputs=(), outputs=out, cost=self.cost()))
            self.function(name, {"y": WIDTH})
            self.control.append(ControlEdge(control=control, target=name, action=action))
        return Graph(
            nodes=tuple(self.nodes),
            data=tuple(self.data),
            control=tuple(self.control),
            exits=tuple(self.exits),
            combine=combine,
        )


def _without_dead(graph: Graph) -> Graph:
    """Leave out compute nodes that no exit needs, with their edges; unswitched actions may remain."""
    needed = set(graph.order)
    keep = {
        n.name
        for n in graph.nodes
        if n.name in needed
        or isinstance(n, InputNode)
        or (isinstance(n, ComputeNode) and not n.inputs)
    }
    return Graph(
        nodes=tuple(n for n in graph.nodes if n.name in keep),
        data=tuple(e for e in graph.data if e.target.node in keep),
        control=tuple(e for e in graph.control if e.control in keep and e.target in keep),
        exits=graph.exits,
        combine=graph.combine,
    )


def _switch_dummies(graph: Graph, builder: _Builder) -> Graph:
    """Give every action that switches nothing a dummy node."""
    nodes, control = list(graph.nodes), list(graph.control)
    for node in graph.nodes:
        if isinstance(node, ControlNode):
            owned = {e.action for e in control if e.control == node.name}
            for action in set(range(node.actions)) - owned:
                name = f"u{len(nodes)}"
                out = (Port(name="y", type=VECTOR),)
                nodes.append(ComputeNode(name=name, inputs=(), outputs=out, cost=builder.cost()))
                builder.function(name, {"y": WIDTH})
                control.append(ControlEdge(control=node.name, target=name, action=action))
    return Graph(
        nodes=tuple(nodes),
        data=graph.data,
        control=tuple(control),
        exits=graph.exits,
        combine=graph.combine,
    )


def random_case(seed: int, *, size: int | None = None, batch: int | None = None) -> Case:
    """A random valid case; the same for the same seed."""
    rng = np.random.default_rng(seed)
    while True:
        builder = _Builder(rng, size or int(rng.integers(2, 10)))
        graph = _switch_dummies(_without_dead(builder.build()), builder)
        if check(graph):
            continue
        rows = batch or int(rng.integers(1, 6))
        x = (rng.integers(-6, 7, size=(rows, WIDTH)) / 2).astype(np.float32)
        return Case(graph=graph, functions=builder.functions, inputs={"x": x}, batch=rows)
