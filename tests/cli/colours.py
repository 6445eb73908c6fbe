"""Tiny real networks for the command line; the main one tells the colour of a picture.

``stem`` (1x1 convolution) -> ``exit1`` (accepts clear colours) -> ``block1`` (3x3 convolution) ->
``final``. The convolutions are identities, so each answer can be worked out by hand: the logits are
the mean of each channel, times 20 at ``final``; at ``exit1`` times 4, but blue looks greenish there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from dynrt.bundle import Bundle, Preprocessing, build_bundle
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
    Port,
    PortRef,
    TensorType,
    Threshold,
)
from dynrt.ir.graph import Constant as Value

SIDE = 8
IMAGE = TensorType(dtype="float32", shape=(3, SIDE, SIDE))
LOGITS = TensorType(dtype="float32", shape=(3,))
STEM_MACS = 3 * 3 * SIDE * SIDE  # 1 * 1 kernel, 3 -> 3 channels
HEAD_MACS = 3 * 3  # a 3 -> 3 matrix on the pooled picture
BLOCK_MACS = 9 * 3 * 3 * SIDE * SIDE  # 3 * 3 kernel
CHEAPEST = 2 * (STEM_MACS + HEAD_MACS)
FULL = 2 * (STEM_MACS + HEAD_MACS + BLOCK_MACS + HEAD_MACS)


def _model(
    nodes: list[Any], sources: Port | tuple[Port, ...], target: Port, *stored: tuple[str, Any]
) -> bytes:
    def info(port: Port) -> Any:
        return helper.make_tensor_value_info(
            port.name, TensorProto.FLOAT, ["batch", *port.type.shape]
        )

    tensors = [numpy_helper.from_array(np.asarray(v, np.float32), name) for name, v in stored]
    ports = sources if isinstance(sources, tuple) else (sources,)
    graph = helper.make_graph(nodes, "g", [info(p) for p in ports], [info(target)], tensors)
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return bytes(model.SerializeToString())


def _conv(source: str, target: str, *, kernel: int) -> bytes:
    weight = np.zeros((3, 3, kernel, kernel), np.float32)
    weight[range(3), range(3), kernel // 2, kernel // 2] = 1
    node = helper.make_node("Conv", [source, "w"], [target], pads=[kernel // 2] * 4)
    x, y = Port(name=source, type=IMAGE), Port(name=target, type=IMAGE)
    return _model([node], x, y, ("w", weight))


def _head(source: str, matrix: Any) -> bytes:
    nodes = [
        helper.make_node("GlobalAveragePool", [source], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    x, y = Port(name=source, type=IMAGE), Port(name="logits", type=LOGITS)
    return _model(nodes, x, y, ("w", matrix))


def _compute(name: str, macs: int, *, energy: bool) -> ComputeNode:
    return ComputeNode(
        name=name,
        inputs=(Port(name="x", type=IMAGE),),
        outputs=(Port(name="y", type=IMAGE),),
        cost=_cost(macs, energy=energy),
    )


def _cost(macs: int, *, energy: bool) -> Cost:
    return Cost(macs=macs, femtojoules=macs * 1000 if energy else None)


def _exit(name: str, accept: Accept, *, energy: bool) -> Exit:
    return Exit(
        name=name,
        inputs=(Port(name="x", type=IMAGE),),
        outputs=(Port(name="logits", type=LOGITS),),
        answer="logits",
        accept=accept,
        cost=_cost(HEAD_MACS, energy=energy),
    )


def colour_bundle(*, energy: bool = False) -> Bundle:
    """The network of the module's docstring; with ``energy`` each MAC costs a picojoule."""

    def edge(source: str, target: str) -> DataEdge:
        return DataEdge(source=PortRef(*source.split(".")), target=PortRef(target, "x"))

    graph = Graph(
        nodes=(
            InputNode(name="image", type=IMAGE),
            _compute("stem", STEM_MACS, energy=energy),
            _exit(
                "exit1",
                Accept(kind="max_softmax", port="logits", threshold=0.8),
                energy=energy,
            ),
            _compute("block1", BLOCK_MACS, energy=energy),
            _exit("final", Accept(kind="always"), energy=energy),
        ),
        data=(
            edge("image.image", "stem"),
            edge("stem.y", "exit1"),
            edge("stem.y", "block1"),
            edge("block1.y", "final"),
        ),
        exits=("exit1", "final"),
    )
    return build_bundle(
        name="colours",
        graph=graph,
        models={
            "stem": _conv("x", "y", kernel=1),
            "exit1": _head("x", [[4, 0, 0], [0, 4, 0], [0, 2, 3]]),
            "block1": _conv("x", "y", kernel=3),
            "final": _head("x", np.eye(3) * 20),
        },
        labels=("red", "green", "blue"),
        preprocessing=Preprocessing(
            height=SIDE, width=SIDE, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3
        ),
        card={"accuracy": 0.875, "data": "colours made up here"},
        provenance={"dynrt": "test"},
    )


def gated_bundle() -> Bundle:
    """A vector, a parameter, a gate that skips ``block1``, and one exit; no pictures, no labels.

    The gate's score is the parameter; ``block1`` doubles, its identity default does not.
    """
    vector = TensorType(dtype="float32", shape=(2,))
    one = TensorType(dtype="float32", shape=(1,))
    x, y = Port(name="x", type=vector), Port(name="y", type=vector)
    k, scores = Port(name="k", type=one), Port(name="out", type=one)
    graph = Graph(
        nodes=(
            InputNode(name="v", type=vector),
            InputNode(name="k_cpt", type=one, param=Value(np.array([1.0], np.float32))),
            ComputeNode(name="gate", inputs=(k,), outputs=(scores,), cost=Cost(macs=1)),
            ControlNode(name="keep", actions=1, rule=Threshold(thresholds=(0.5,))),
            ComputeNode(name="block1", inputs=(x,), outputs=(y,), cost=Cost(macs=100)),
            Exit(
                name="end",
                inputs=(x,),
                outputs=(Port(name="answer", type=vector),),
                answer="answer",
                accept=Accept(kind="always"),
                cost=Cost(macs=2),
            ),
        ),
        data=(
            DataEdge(source=PortRef("k_cpt", "k_cpt"), target=PortRef("gate", "k")),
            DataEdge(source=PortRef("gate", "out"), target=PortRef("keep", "scores")),
            DataEdge(source=PortRef("v", "v"), target=PortRef("block1", "x")),
            DataEdge(
                source=PortRef("block1", "y"),
                target=PortRef("end", "x"),
                default=PortRef("block1", "x"),
            ),
        ),
        control=(ControlEdge(control="keep", target="block1", action=0),),
        exits=("end",),
    )
    add = helper.make_node("Add", ["x", "x"], ["y"])
    models = {
        "gate": _model([helper.make_node("Identity", ["k"], ["out"])], k, scores),
        "block1": _model([add], x, y),
        "end": _model(
            [helper.make_node("Identity", ["x"], ["answer"])], x, Port(name="answer", type=vector)
        ),
    }
    return build_bundle(name="gated", graph=graph, models=models)


def pair_bundle() -> Bundle:
    """Two inputs, ``a`` and ``b``, and one exit that adds them."""
    vector = TensorType(dtype="float32", shape=(2,))
    a, b = Port(name="x", type=vector), Port(name="y", type=vector)
    end = Exit(
        name="end",
        inputs=(a, b),
        outputs=(Port(name="sum", type=vector),),
        answer="sum",
        accept=Accept(kind="always"),
        cost=Cost(macs=2),
    )
    graph = Graph(
        nodes=(InputNode(name="a", type=vector), InputNode(name="b", type=vector), end),
        data=(
            DataEdge(source=PortRef("a", "a"), target=PortRef("end", "x")),
            DataEdge(source=PortRef("b", "b"), target=PortRef("end", "y")),
        ),
        exits=("end",),
    )
    model = _model([helper.make_node("Add", ["x", "y"], ["sum"])], (a, b), end.outputs[0])
    return build_bundle(name="pair", graph=graph, models={"end": model}, labels=("low", "high"))


def paint(
    path: Path, colour: tuple[int, int, int], *, size: tuple[int, int] = (SIDE, SIDE)
) -> Path:
    """A picture of one colour."""
    Image.new("RGB", size, colour).save(path)
    return path
