"""Small bundles of ONNX, and two ways to run them with some nodes skipped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

from dynrt.bundle import Bundle, build_bundle
from dynrt.ir.cost import Cost
from dynrt.ir.graph import (
    Accept,
    Array,
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
    Rule,
    TensorType,
    Threshold,
)
from dynrt.runtime.compiled import Compiled, Segment
from dynrt.runtime.kernels import KERNELS
from tests.bundle.samples import in_one_unit
from tests.graphs import random_case

Shape = tuple[int, ...]


def weights(rng: np.random.Generator, *shape: int) -> Array:
    fan_in = int(np.prod(shape[1:])) or 1
    values: Array = (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)
    return values


@dataclass
class Model:
    """Writes one node's ONNX."""

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]
    opset: int = 17
    ops: list[NodeProto] = field(default_factory=list)
    stored: dict[str, Array] = field(default_factory=dict)

    def op(self, kind: str, inputs: list[str | Array], output: str, **attributes: Any) -> str:
        names = []
        for value in inputs:
            if isinstance(value, str):
                names.append(value)
            else:
                names.append(f"w{len(self.stored)}")
                self.stored[names[-1]] = value
        self.ops.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def data(self) -> bytes:
        first = "batch" if self.inputs else 1
        infos = [
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, [first, *s]) for n, s in x.items()]
            for x in (self.inputs, self.outputs)
        ]
        stored = [numpy_helper.from_array(v, n) for n, v in self.stored.items()]
        graph = helper.make_graph(self.ops, "node", infos[0], infos[1], stored)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        return bytes(model.SerializeToString())


class Net:
    """Builds a bundle node by node."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Node] = []
        self.data: list[DataEdge] = []
        self.control: list[ControlEdge] = []
        self.exits: list[str] = []
        self.models: dict[str, bytes] = {}
        self.shapes: dict[PortRef, Shape] = {}

    def input(self, name: str, *shape: int) -> PortRef:
        self.nodes.append(InputNode(name=name, type=kind(shape)))
        return self._gives(PortRef(name, name), shape)

    def _gives(self, ref: PortRef, shape: Shape) -> PortRef:
        self.shapes[ref] = shape
        return ref

    def node(
        self,
        name: str,
        inputs: Mapping[str, PortRef | tuple[PortRef, Default | None]],
        outputs: Mapping[str, Shape],
        write: Callable[[Model], object],
        *,
        exit_rule: Accept | None = None,
        opset: int = 17,
    ) -> PortRef:
        taken = {}
        for port, wire in inputs.items():
            source, default = wire if isinstance(wire, tuple) else (wire, None)
            taken[port] = self.shapes[source]
            target = PortRef(name, port)
            self.data.append(DataEdge(source=source, target=target, default=default))
        model = Model(taken, outputs, opset)
        write(model)
        self.models[name] = model.data()
        ports = tuple(Port(name=n, type=kind(s)) for n, s in taken.items())
        given = tuple(Port(name=n, type=kind(s)) for n, s in outputs.items())
        cost = Cost(macs=10)
        if exit_rule is None:
            self.nodes.append(ComputeNode(name=name, inputs=ports, outputs=given, cost=cost))
        else:
            self.exits.append(name)
            self.nodes.append(
                Exit(
                    name=name,
                    inputs=ports,
                    outputs=given,
                    answer=next(iter(outputs)),
                    accept=exit_rule,
                    cost=cost,
                )
            )
        for port, shape in outputs.items():
            self._gives(PortRef(name, port), shape)
        return PortRef(name, next(iter(outputs)))

    def decide(self, scores: PortRef, actions: list[list[str]], rule: Rule | None = None) -> None:
        name = f"{scores.node}_control"
        chosen = rule or Threshold(thresholds=(0.0,) * len(actions))
        self.nodes.append(ControlNode(name=name, actions=len(actions), rule=chosen))
        self.data.append(DataEdge(source=scores, target=PortRef(name, "scores")))
        for i, targets in enumerate(actions):
            self.control += [ControlEdge(control=name, target=t, action=i) for t in targets]

    def pooled(self, name: str, x: Any, n: int, **more: Any) -> PortRef:
        """A gate or exit: the mean of the features, and a matrix."""

        def write(m: Model) -> None:
            c = m.inputs["x"][0]
            m.op("GlobalAveragePool", ["x"], "p")
            m.op("Flatten", ["p"], "f")
            out = next(iter(m.outputs))
            m.op("Gemm", ["f", weights(self.rng, n, c), weights(self.rng, n)], out, transB=1)

        return self.node(name, {"x": x}, {"s": (n,)}, write, **more)

    def conv(
        self, name: str, x: Any, channels: int, *, relu: bool = True, opset: int = 17
    ) -> PortRef:
        source = x[0] if isinstance(x, tuple) else x
        c, h, w = self.shapes[source]

        def write(m: Model) -> None:
            kernel = weights(self.rng, channels, c, 3, 3)
            m.op("Conv", ["x", kernel], "c" if relu else "y", pads=[1] * 4)
            if relu:
                m.op("Relu", ["c"], "y")

        return self.node(name, {"x": x}, {"y": (channels, h, w)}, write, opset=opset)

    def block(self, name: str, x: Any) -> PortRef:
        """A residual block."""
        source = x[0] if isinstance(x, tuple) else x
        c = self.shapes[source][0]

        def write(m: Model) -> None:
            m.op("Conv", ["x", weights(self.rng, c, c, 3, 3)], "a", pads=[1] * 4)
            m.op("Relu", ["a"], "b")
            m.op("Conv", ["b", weights(self.rng, c, c, 3, 3)], "d", pads=[1] * 4)
            m.op("Add", ["d", "x"], "e")
            m.op("Relu", ["e"], "y")

        return self.node(name, {"x": x}, {"y": self.shapes[source]}, write)

    def bundle(self, name: str = "net") -> Bundle:
        graph = Graph(
            nodes=tuple(self.nodes),
            data=tuple(self.data),
            control=tuple(self.control),
            exits=tuple(self.exits),
        )
        return build_bundle(name=name, graph=graph, models=self.models)


ALWAYS = Accept(kind="always")


def kind(shape: Shape) -> TensorType:
    return TensorType(dtype="float32", shape=tuple(shape))


def gated_chain(blocks: int, channels: int, *, size: int = 8, seed: int = 0) -> Bundle:
    """Residual blocks, each skipped or not by a gate on pooled features."""
    net = Net(seed)
    x: Any = net.conv("stem", net.input("image", 3, size, size), channels)
    for i in range(blocks):
        gate = net.pooled(f"g{i}", x, 1)
        after = net.block(f"b{i}", x)
        net.decide(gate, [[f"b{i}"]])
        x = (after, PortRef(f"b{i}", "x"))
    net.pooled("final", x, 5, exit_rule=ALWAYS)
    return net.bundle(f"chain{blocks}")


def random_bundle(seed: int) -> Bundle:
    """A random graph of matrices (``tests.graphs``)."""
    graph, energy = in_one_unit(random_case(seed).graph, "MACeq" if seed % 2 else "J")
    rng = np.random.default_rng(seed)
    models = {}
    for node in graph.nodes:
        if not isinstance(node, ComputeNode | Exit):
            continue
        model = Model(
            {p.name: p.type.shape for p in node.inputs},
            {p.name: p.type.shape for p in node.outputs},
        )
        for out, shape in model.outputs.items():
            total: str | Array = weights(rng, 1, *shape)
            for name, taken in model.inputs.items():
                part = model.op("MatMul", [name, weights(rng, *taken, *shape)], f"{name}.{out}.m")
                total = model.op("Add", [total, part], f"{name}.{out}.s")
            model.op("Identity" if rng.random() < 0.5 else "Tanh", [total], out)
        models[node.name] = model.data()
    return build_bundle(name=f"random{seed}", graph=graph, models=models, energy=energy)


Held = dict[PortRef, Array]
Runs = Callable[[str, Mapping[str, Array]], Mapping[str, Array]]


def held_value(graph: Graph, target: PortRef, held: Held, batch: int) -> Array | None:
    """What an input port takes, as declared."""
    edge = graph.edge_into[target]
    if edge.source in held:
        return held[edge.source]
    if isinstance(edge.default, Constant):
        return np.repeat(edge.default.value[None], batch, axis=0)
    if edge.default is None:
        return None
    if edge.default in graph.edge_into:
        return held_value(graph, edge.default, held, batch)
    return held.get(edge.default)


def run_portable(
    bundle: Bundle, inputs: Held, on: Collection[tuple[str, int]]
) -> tuple[Held, list[str]]:
    """What every port holds, and the nodes that ran, when these actions of control nodes are active."""
    graph, held = bundle.graph, dict(inputs)
    batch, ran = len(next(iter(inputs.values()))), []
    awake: set[str] = set()
    for name in graph.order:
        node = graph.by_name[name]
        if isinstance(node, InputNode):
            continue
        values = {
            p.name: held_value(graph, PortRef(name, p.name), held, batch) for p in node.inputs
        }
        links = graph.controls_of.get(name, ())
        active = not links or any((e.control, e.action) in on and e.control in awake for e in links)
        if not active or any(v is None for v in values.values()):
            continue
        awake.add(name)
        if isinstance(node, ControlNode):
            continue
        ran.append(name)
        session = onnxruntime.InferenceSession(bundle.models[name])
        names = [o.name for o in session.get_outputs()]
        for port, value in zip(names, session.run(names, values), strict=True):
            held[PortRef(name, port)] = np.repeat(value, batch, 0) if not values else value
    return held, ran


def run_compiled(bundle: Bundle, compiled: Compiled, inputs: Held, ran: Collection[str]) -> Held:
    """What the ports that segments and gates give hold, as declared, when these nodes run."""
    graph, held = bundle.graph, dict(inputs)
    batch = len(next(iter(inputs.values())))
    shapes = {PortRef(n.name, p.name): p.type.shape for n in graph.nodes for p in n.outputs}
    gates = {g.node: g for g in compiled.gates}
    segments = {n: s for s in compiled.segments for n in s.nodes}
    for name in graph.order:
        if name not in ran:
            continue
        if name in gates:
            node, program = graph.by_name[name], gates[name].program
            given = {p.name: np.zeros((batch, *p.type.shape), np.float32) for p in node.outputs}
            for row in range(batch):
                takes = {}
                for port in program.takes:
                    value = held_value(graph, PortRef(name, port), held, batch)
                    assert value is not None
                    pool = port in program.pools
                    sample = value[row].astype(np.float32)
                    takes[port] = sample.mean((1, 2)) if pool else sample.reshape(-1)
                gives = {p: v[row].reshape(-1) for p, v in given.items()}
                KERNELS.bind_program(program, takes, gives)()
            held.update({PortRef(name, p): v for p, v in given.items()})
        elif segments[name].nodes[0] == name:
            segment = segments[name]
            assert set(segment.nodes) <= set(ran)
            taken = {}
            for take in segment.takes:
                value = held_value(graph, take.port, held, batch)
                assert value is not None
                layout = compiled.layouts[graph.edge_into[take.port].source]
                taken[take.name] = layout.from_plain(value)
            for ref, stored in run_segment(segment, taken).items():
                rows = np.repeat(stored, batch, 0) if not segment.takes else stored
                held[ref] = compiled.layouts[ref].to_plain(rows, shapes[ref])
    return held


def run_segment(segment: Segment, taken: Mapping[str, Array]) -> Held:
    """A segment's outputs, as stored."""
    options = onnxruntime.SessionOptions()
    if not segment.raw:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(segment.model, options)
    names = [g.name for g in segment.gives]
    return dict(zip((g.port for g in segment.gives), session.run(names, taken), strict=True))


def probe(bundle: Bundle, batch: int, seed: int = 0) -> Held:
    rng = np.random.default_rng(seed)
    return {
        PortRef(n.name, n.name): rng.standard_normal((batch, *n.type.shape)).astype(np.float32)
        for n in bundle.graph.inputs()
    }


def actions_of(bundle: Bundle) -> list[tuple[str, int]]:
    return sorted({(e.control, e.action) for e in bundle.graph.control})


def same_with(bundle: Bundle, compiled: Compiled, on: Collection[tuple[str, int]]) -> None:
    """Compiled and portable give the same where these actions are active."""
    inputs = probe(bundle, 2, len(on))
    want, ran = run_portable(bundle, inputs, on)
    got = run_compiled(bundle, compiled, inputs, ran)
    given = {g.port for s in compiled.segments for g in s.gives if g.port.node in ran}
    assert given <= got.keys()
    for ref, value in got.items():
        np.testing.assert_allclose(value, want[ref], rtol=1e-4, atol=1e-4, err_msg=str(ref))
