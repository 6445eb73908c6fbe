"""Small bundles for tests: real ONNX of a few nodes each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from dynrt.bundle import Bundle, Preprocessing, build_bundle
from dynrt.bundle.versions import TABLES_SINCE, version_of
from dynrt.ir.cost import Cost
from dynrt.ir.counts import (
    AccessCounts,
    CountTable,
    EnergySource,
    Gap,
    NodeCounts,
    TypedCounts,
)
from dynrt.ir.graph import (
    Accept,
    Argmax,
    ChannelMask,
    ComputeNode,
    Constant,
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
from dynrt.ir.layers import ConvLayer, GemmLayer, Layer, PassLayer, UnmodelledLayer

ELEMENT = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}


def plain_onnx(
    inputs: Sequence[Port], outputs: Sequence[Port], *, opset: int = 17, weight: float = 0.0
) -> bytes:
    """ONNX with these ports; each output is a stored tensor, repeated along the batch if it can be.

    The graphs are valid, small, and each has an initializer and an attribute.
    """
    nodes, stored = [], []
    for port in outputs:
        value = np.full((1, *port.type.shape), weight).astype(port.type.dtype)
        stored.append(numpy_helper.from_array(value, f"{port.name}_value"))
        if not inputs:
            nodes.append(helper.make_node("Identity", [f"{port.name}_value"], [port.name]))
            continue
        first, rank = inputs[0].name, len(port.type.shape)
        nodes += [
            helper.make_node("Shape", [first], [f"{port.name}_n"], start=0, end=1),
            helper.make_node(
                "Concat",
                [f"{port.name}_n", *[f"{port.name}_one"] * rank],
                [f"{port.name}_s"],
                axis=0,
            ),
            helper.make_node("Expand", [f"{port.name}_value", f"{port.name}_s"], [port.name]),
        ]
        stored.append(helper.make_tensor(f"{port.name}_one", TensorProto.INT64, [1], [1]))
    graph = helper.make_graph(
        nodes, "g", [value_info(p) for p in inputs], [value_info(p) for p in outputs], stored
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(model.SerializeToString())


def value_info(port: Port) -> ValueInfoProto:
    """A port as ONNX declares it."""
    return helper.make_tensor_value_info(
        port.name, ELEMENT[port.type.dtype], ["batch", *port.type.shape]
    )


def port(name: str, *shape: int, dtype: str = "float32") -> Port:
    """A port."""
    return Port(name=name, type=TensorType(dtype=dtype, shape=shape))


def skip_graph() -> Graph:
    """A stem, a gate that may skip a block, an early exit with a hinge rule, and a last exit."""
    x, y = port("x", 2, 3), port("y", 2, 3)
    early, last = port("logits", 4), port("distances", 4)
    cost = Cost(macs=12, femtojoules=1200)
    return Graph(
        nodes=(
            InputNode(name="image", type=x.type),
            InputNode(
                name="keep",
                type=TensorType(dtype="float32", shape=()),
                param=Constant(np.array(0.5, np.float32)),
            ),
            ComputeNode(name="stem", inputs=(x,), outputs=(y,), cost=cost),
            ComputeNode(
                name="gate",
                inputs=(x, port("keep")),
                outputs=(port("scores", 2),),
                cost=Cost(macs=1, femtojoules=90),
            ),
            ControlNode(name="choose", actions=2, rule=Argmax()),
            ComputeNode(name="block", inputs=(x,), outputs=(y,), cost=cost),
            ComputeNode(
                name="dummy",
                inputs=(),
                outputs=(port("zero", 1),),
                cost=Cost(macs=0, femtojoules=0),
            ),
            ControlNode(name="more", actions=1, rule=Threshold(thresholds=(0.25,))),
            ComputeNode(name="extra", inputs=(x,), outputs=(y,), cost=cost),
            Exit(
                name="exit1",
                inputs=(x,),
                outputs=(early, last),
                answer="logits",
                accept=Accept(kind="hinge", port="distances", threshold=0.125),
                cost=Cost(macs=24, femtojoules=3000),
            ),
            Exit(
                name="final",
                inputs=(x, port("side", 2, 3)),
                outputs=(early,),
                answer="logits",
                accept=Accept(kind="always"),
                cost=Cost(macs=24, femtojoules=3000),
            ),
        ),
        data=(
            DataEdge(source=PortRef("image", "image"), target=PortRef("stem", "x")),
            DataEdge(source=PortRef("stem", "y"), target=PortRef("gate", "x")),
            DataEdge(source=PortRef("keep", "keep"), target=PortRef("gate", "keep")),
            DataEdge(source=PortRef("gate", "scores"), target=PortRef("choose", "scores")),
            DataEdge(source=PortRef("dummy", "zero"), target=PortRef("more", "scores")),
            DataEdge(source=PortRef("stem", "y"), target=PortRef("block", "x")),
            DataEdge(source=PortRef("stem", "y"), target=PortRef("extra", "x")),
            DataEdge(source=PortRef("stem", "y"), target=PortRef("exit1", "x")),
            DataEdge(
                source=PortRef("block", "y"),
                target=PortRef("final", "x"),
                default=PortRef("block", "x"),
            ),
            DataEdge(
                source=PortRef("extra", "y"),
                target=PortRef("final", "side"),
                default=Constant(np.arange(6, dtype=np.float32).reshape(2, 3)),
            ),
        ),
        control=(
            ControlEdge(control="choose", target="dummy", action=0),
            ControlEdge(control="choose", target="block", action=1),
            ControlEdge(control="more", target="extra", action=0),
        ),
        exits=("exit1", "final"),
    )


def masked(graph: Graph) -> Graph:
    """``graph`` with a node that has a mask of two groups, before the last exit."""
    x, y, m = port("x", 2, 3), port("y", 2, 3), port("mask", 2)
    node = ComputeNode(
        name="thin",
        inputs=(x, m),
        outputs=(y,),
        cost=Cost(macs=12, femtojoules=1200),
        mask=ChannelMask(port="mask", groups=2, group_macs=5),
    )
    ones = Constant(np.ones(2, np.float32))
    before = next(e for e in graph.data if e.target == PortRef("extra", "x"))
    return replace(
        graph,
        nodes=(*graph.nodes, InputNode(name="mask", type=m.type, param=ones), node),
        data=(
            *(e for e in graph.data if e is not before),
            replace(before, source=PortRef("thin", "y")),
            DataEdge(source=before.source, target=PortRef("thin", "x")),
            DataEdge(source=PortRef("mask", "mask"), target=PortRef("thin", "mask")),
        ),
    )


def models_of(graph: Graph) -> dict[str, bytes]:
    """Plain ONNX for each node that needs it."""
    return {
        n.name: plain_onnx(n.inputs, n.outputs)
        for n in graph.nodes
        if isinstance(n, ComputeNode | Exit)
    }


def picture_graph() -> Graph:
    """A gray picture, one exit."""
    x, answer = port("x", 1, 4, 5), port("logits", 2)
    return Graph(
        nodes=(
            InputNode(name="image", type=x.type),
            Exit(
                name="final",
                inputs=(x,),
                outputs=(answer,),
                answer="logits",
                accept=Accept(kind="always"),
                cost=Cost(macs=40),
            ),
        ),
        data=(DataEdge(source=PortRef("image", "image"), target=PortRef("final", "x")),),
        exits=("final",),
    )


@cache
def skip_bundle() -> Bundle:
    """Gates, defaults, parameters, energy; labels, no pictures."""
    graph = skip_graph()
    return build_bundle(
        name="skip",
        graph=graph,
        models=models_of(graph),
        labels=("cat", "dog", "müde", "a b"),
        card={"data": "random", "accuracy": {"exit1": 0.5, "final": 0.75}, "seeds": [1, 2]},
        provenance={"dynrt": "0.1.0", "note": "two\nlines"},
    )


@cache
def picture_bundle() -> Bundle:
    """One exit, pictures, no energy."""
    graph = picture_graph()
    return build_bundle(
        name="tiny picture net",
        graph=graph,
        models=models_of(graph),
        preprocessing=Preprocessing(height=4, width=5, channels=1, mean=(0.5,), std=(0.25,)),
    )


@cache
def masked_bundle() -> Bundle:
    """The first, with a channel mask: version 2 of the format."""
    graph = masked(skip_graph())
    return build_bundle(name="masked", graph=graph, models=models_of(graph))


#: 7x9 without padding, kernel 3x2, stride 2x1, dilation 1x2, uneven padding: rows
#: (7 + 1 + 0 - 3) // 2 + 1 = 3, columns (9 + 0 + 2 - 3) // 1 + 1 = 9.
CONV = ConvLayer(
    name="/stem/Conv",
    op="Conv",
    dtype="float32",
    in_h=7,
    in_w=9,
    out_h=3,
    out_w=9,
    channels=4,
    filters=6,
    groups=2,
    kernel_h=3,
    kernel_w=2,
    stride_h=2,
    dilation_w=2,
    pad_top=1,
    pad_right=2,
)
SOURCE = EnergySource(
    table="made-up", hardware="tiny", policy="corrected", backend="analytic 1", unit="J"
)


def layers_of(graph: Graph) -> dict[str, tuple[Layer, ...]]:
    """A layer table with every kind of layer."""
    last = (GemmLayer(name="fc", op="Gemm", dtype="int8", m=1, k=6, n=4),)
    rows: dict[str, tuple[Layer, ...]] = {
        "stem": (
            CONV,
            PassLayer(
                name="/relu",
                op="Relu",
                dtype="float32",
                reads_words=162,
                writes_words=162,
                operations=162,
                fused=True,
            ),
        ),
        "gate": (replace(last[0], m=3, repeat=2),),
        "block": (
            UnmodelledLayer(name="top", op="TopK", macs=0, bytes_moved=None, reason="sorts"),
        ),
        "dummy": (),
        "extra": (UnmodelledLayer(name="", op="Conv", macs=9, bytes_moved=64, reason="3 axes"),),
        "thin": (
            replace(CONV, name="a", masked="filters"),
            PassLayer(
                name="b",
                op="Mul",
                dtype="float16",
                reads_words=8,
                writes_words=6,
                view=True,
                masked="words",
            ),
            GemmLayer(name="c", op="MatMul", dtype="float32", m=2, k=6, n=5, masked="channels"),
        ),
    }
    return {name: rows.get(name, last) for name in models_of(graph)}


def counts_of(graph: Graph) -> CountTable:
    """A count table with several number formats, gaps and kept groups."""
    counts = AccessCounts(macs=12, cycles=34, pe_cycles=56, dram_ofmap_writes=2**63 - 1)
    plain = (
        TypedCounts(dtype="float32", counts=counts),
        TypedCounts(dtype="int8", counts=AccessCounts(hops_ofmap=7)),
    )
    gaps = (
        Gap(op="TopK", count=2, macs=0, bytes_moved=None, reason="sorts"),
        Gap(op="Conv", count=1, macs=9, bytes_moved=64, reason="3 axes"),
    )
    rows = {
        "stem": NodeCounts(typed=plain),
        "dummy": NodeCounts(typed=()),
        "extra": NodeCounts(typed=(), gaps=gaps),
        "thin": NodeCounts(typed=plain, kept=((), plain[:1], plain)),
    }
    return CountTable(
        hardware={"name": "tiny", "rows": 2, "clock_hz": 1.5e6, "notes": ["a", {"b": None}]},
        policy="corrected",
        backend="analytic 1",
        nodes={name: rows.get(name, NodeCounts(typed=plain[:1])) for name in models_of(graph)},
    )


def with_kept(graph: Graph, **kept: tuple[int, ...]) -> Graph:
    """``graph`` with energies by kept groups in the node ``thin``."""
    node = graph.by_name["thin"]
    assert isinstance(node, ComputeNode)
    assert node.mask is not None
    changed = replace(node, mask=replace(node.mask, **kept))  # type: ignore[arg-type]
    return replace(graph, nodes=tuple(changed if n is node else n for n in graph.nodes))


def normalised(graph: Graph) -> Graph:
    """``graph`` with its femtojoules as thousandths of MAC-equivalents."""
    nodes = [
        replace(n, cost=Cost(macs=n.cost.macs, milli_mac_equivalents=n.cost.femtojoules))
        if isinstance(n, ComputeNode | Exit)
        else n
        for n in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes))


def in_one_unit(graph: Graph, unit: str) -> tuple[Graph, EnergySource | None]:
    """``graph`` with energies in no other unit, and their source if version 3 needs one."""
    nodes: list[Node] = []
    for node in graph.nodes:
        if isinstance(node, ComputeNode | Exit):
            node = replace(node, cost=_cost_in(node.cost, unit))
        if isinstance(node, ComputeNode) and node.mask is not None:
            if unit == "J":
                mask = replace(node.mask, kept_milli_mac_equivalents=())
            else:
                mask = replace(node.mask, kept_femtojoules=())
            node = replace(node, mask=mask)
        nodes.append(node)
    graph = replace(graph, nodes=tuple(nodes))
    source = replace(SOURCE, unit=unit) if version_of(graph) >= TABLES_SINCE else None
    return graph, source


def _cost_in(cost: Cost, unit: str) -> Cost:
    if unit == "J":
        return replace(cost, milli_mac_equivalents=None)
    return replace(cost, femtojoules=None)


@cache
def energy_bundle() -> Bundle:
    """Layers, counts, energies with their source, by kept groups too: version 3 of the format."""
    graph = with_kept(masked(skip_graph()), kept_femtojoules=(100, 1200, 900))
    return build_bundle(
        name="energy",
        graph=graph,
        models=models_of(graph),
        layers=layers_of(graph),
        counts=counts_of(graph),
        energy=SOURCE,
    )


@cache
def normalised_bundle() -> Bundle:
    """Energies in MAC-equivalents, no table: version 3 of the format."""
    graph = normalised(masked(skip_graph()))
    graph = with_kept(graph, kept_milli_mac_equivalents=(0, 1, 1200))
    return build_bundle(
        name="normalised",
        graph=graph,
        models=models_of(graph),
        energy=replace(SOURCE, unit="MACeq"),
    )
