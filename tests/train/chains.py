"""Chains of gated blocks with exits, and random energies, for tests of the energy loss."""

from __future__ import annotations

import numpy as np

from dynrt.ir.cost import Cost
from dynrt.ir.graph import (
    Accept,
    ComputeNode,
    ControlEdge,
    ControlNode,
    DataEdge,
    Exit,
    Graph,
    InputNode,
    Node,
    Port,
    PortRef,
    TensorType,
    Threshold,
)

VECTOR = TensorType(dtype="float32", shape=(2,))
ONE = TensorType(dtype="float32", shape=(1,))


def chain(blocks: int, *, exits: tuple[int, ...] = ()) -> Graph:
    """x -> gated block1 .. blockN (a gate before each, identity when skipped), exits behind some."""
    nodes: list[Node] = [InputNode(name="x", type=VECTOR)]
    data: list[DataEdge] = []
    control: list[ControlEdge] = []
    names: list[str] = []
    here, default = PortRef("x", "x"), None
    port, out = Port(name="x", type=VECTOR), Port(name="y", type=VECTOR)

    def feed(target: str) -> None:
        data.append(DataEdge(source=here, target=PortRef(target, "x"), default=default))

    for i in range(1, blocks + 1):
        gate, keep, block = f"gate{i}", f"keep{i}", f"block{i}"
        score = Port(name="s", type=ONE)
        nodes += [
            ComputeNode(name=gate, inputs=(port,), outputs=(score,), cost=Cost(macs=1)),
            ControlNode(name=keep, actions=1, rule=Threshold(thresholds=(0.5,))),
            ComputeNode(name=block, inputs=(port,), outputs=(out,), cost=Cost(macs=10)),
        ]
        feed(gate)
        data.append(DataEdge(source=PortRef(gate, "s"), target=PortRef(keep, "scores")))
        control.append(ControlEdge(control=keep, target=block, action=0))
        feed(block)
        here, default = PortRef(block, "y"), PortRef(block, "x")
        if i in exits or i == blocks:
            name = f"exit{i}"
            accept = (
                Accept(kind="always")
                if i == blocks
                else Accept(kind="max_softmax", port="y", threshold=0.5)
            )
            nodes.append(
                Exit(
                    name=name,
                    inputs=(port,),
                    outputs=(out,),
                    answer="y",
                    accept=accept,
                    cost=Cost(macs=2),
                )
            )
            feed(name)
            names.append(name)
    return Graph(nodes=tuple(nodes), data=tuple(data), control=tuple(control), exits=tuple(names))


def energies(graph: Graph, rng: np.random.Generator) -> dict[str, float]:
    return {
        n.name: float(rng.uniform(0, 9)) for n in graph.nodes if isinstance(n, ComputeNode | Exit)
    }
