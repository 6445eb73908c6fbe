"""Random chains whose blocks are gated, some with channel masks, some followed by exits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from dynrt.ir.check import require_valid
from dynrt.ir.cost import Cost
from dynrt.ir.graph import (
    Accept,
    Argmax,
    Array,
    ChannelMask,
    ComputeNode,
    ControlEdge,
    ControlNode,
    DataEdge,
    Exit,
    Graph,
    InputNode,
    Port,
    PortRef,
    TensorType,
    Threshold,
)

ROWS = 6
_WIDTH = 3
_PIXEL = TensorType(dtype="float32", shape=(1, 1, 1))
_VECTOR = TensorType(dtype="float32", shape=(_WIDTH,))
_PAIR = TensorType(dtype="float32", shape=(2,))


@dataclass(frozen=True, kw_only=True)
class GatedCase:
    """A gated chain and what its nodes compute; picture ``i`` is one pixel of value ``i``."""

    graph: Graph
    functions: Mapping[str, Any]
    labels: np.typing.NDArray[np.int64]


class _Maker:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = [InputNode(name="x", type=_PIXEL)]
        self.data: list[DataEdge] = []
        self.control: list[ControlEdge] = []
        self.exits: list[str] = []
        self.functions: dict[str, Any] = {}
        self.here: tuple[PortRef, PortRef | None] = (PortRef("x", "x"), None)

    def values(self, *shape: int) -> Array:
        return self.rng.integers(-4, 5, shape).astype(np.float32) / np.float32(2)

    def macs(self, low: int = 0) -> Cost:
        return Cost(macs=int(self.rng.integers(low, 12)))

    def feed(self, name: str, port: str = "a") -> None:
        source, default = self.here
        self.data.append(DataEdge(source=source, target=PortRef(name, port), default=default))

    def compute(self, name: str, outputs: dict[str, TensorType], **more: Any) -> None:
        ports = (Port(name="a", type=_PIXEL if name == "stem" else _VECTOR), *more.pop("ports", ()))
        self.nodes.append(
            ComputeNode(
                name=name,
                inputs=ports,
                outputs=tuple(Port(name=n, type=t) for n, t in outputs.items()),
                cost=more.pop("cost", self.macs()),
                **more,
            )
        )
        self.feed(name)

    def mix(self, size: int) -> Any:
        weight, bias = self.values(_WIDTH, size), self.values(size)

        def run(x: Array) -> Array:
            out: Array = np.clip(np.round(x @ weight + bias), -4, 4).astype(np.float32) / 2
            return out

        return run

    def stem(self) -> None:
        table = self.values(ROWS, _WIDTH)
        self.compute("stem", {"b": _VECTOR})

        def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            rows = np.rint(inputs["a"].reshape(-1) * 255).astype(np.int64)
            return {"b": table[rows]}

        self.functions["stem"] = run
        self.here = (PortRef("stem", "b"), None)

    def unit(self, i: int, *, masked: bool, argmax: bool) -> None:
        gate, control, block = f"gate{i}", f"control{i}", f"block{i}"
        kind = _PAIR if argmax else TensorType(dtype="float32", shape=(1,))
        self.compute(gate, {"s": kind})
        scores = self.mix(2 if argmax else 1)
        self.functions[gate] = lambda inputs: {"s": scores(inputs["a"])}
        rule = Argmax() if argmax else Threshold(thresholds=(0.0,))
        self.nodes.append(ControlNode(name=control, actions=2 if argmax else 1, rule=rule))
        self.data.append(DataEdge(source=PortRef(gate, "s"), target=PortRef(control, "scores")))
        ran = [block]
        body = self.mix(_WIDTH)
        if masked:
            ran.append(mask := f"mask{i}")
            self.compute(mask, {"m": _VECTOR})
            kept = self.mix(_WIDTH)
            self.functions[mask] = lambda inputs: {"m": (kept(inputs["a"]) > 0).astype(np.float32)}
            self.compute(
                block,
                {"b": _VECTOR},
                ports=(Port(name="m", type=_VECTOR),),
                mask=ChannelMask(port="m", groups=_WIDTH, group_macs=2),
                cost=self.macs(7),
            )
            self.data.append(DataEdge(source=PortRef(mask, "m"), target=PortRef(block, "m")))
            self.functions[block] = lambda inputs: {"b": body(inputs["a"]) * inputs["m"]}
        else:
            self.compute(block, {"b": _VECTOR})
            self.functions[block] = lambda inputs: {"b": body(inputs["a"])}
        self.control += [ControlEdge(control=control, target=t, action=0) for t in ran]
        past = PortRef(gate, "a")
        if argmax:  # another way round instead of none
            self.compute(f"other{i}", {"b": _VECTOR})
            other = self.mix(_WIDTH)
            self.functions[f"other{i}"] = lambda inputs: {"b": other(inputs["a"])}
            self.control.append(ControlEdge(control=control, target=f"other{i}", action=1))
            past = PortRef(f"other{i}", "b")
        self.here = (PortRef(block, "b"), past)

    def exit(self, *, last: bool) -> None:
        name = f"exit{len(self.exits) + 1}"
        accept = Accept(kind="always") if last else Accept(kind="hinge", port="d", threshold=0.5)
        self.nodes.append(
            Exit(
                name=name,
                inputs=(Port(name="a", type=_VECTOR),),
                outputs=(Port(name="logits", type=_VECTOR), Port(name="d", type=_VECTOR)),
                answer="logits",
                accept=accept,
                cost=self.macs(),
            )
        )
        self.feed(name)
        logits, distances = self.mix(_WIDTH), self.mix(_WIDTH)
        self.functions[name] = lambda inputs: {
            "logits": logits(inputs["a"]),
            "d": distances(inputs["a"]),
        }
        self.exits.append(name)


@st.composite
def gated_cases(draw: st.DrawFn) -> GatedCase:
    maker = _Maker(draw(st.integers(0, 2**32 - 1)))
    maker.stem()
    units = draw(st.integers(1, 4))
    for i in range(units):
        maker.unit(i, masked=draw(st.booleans()), argmax=draw(st.booleans()))
        if i < units - 1 and draw(st.booleans()):
            maker.exit(last=False)
    maker.exit(last=True)
    graph = Graph(
        nodes=tuple(maker.nodes),
        data=tuple(maker.data),
        control=tuple(maker.control),
        exits=tuple(maker.exits),
    )
    require_valid(graph)
    labels = maker.rng.integers(0, _WIDTH, ROWS)
    return GatedCase(graph=graph, functions=maker.functions, labels=labels)
