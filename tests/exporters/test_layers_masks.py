"""Layers that a channel mask takes a share of."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from dynrt.bundle import Bundle
from dynrt.errors import ExportError
from dynrt.exporters import lower
from dynrt.exporters.int8 import quantise
from dynrt.exporters.layers import layers_of
from dynrt.exporters.mask_macs import count_group_macs
from dynrt.exporters.onnx_node import export_node
from dynrt.ir.cost import Cost
from dynrt.ir.graph import ChannelMask, ComputeNode
from dynrt.ir.layers import ConvLayer, PassLayer, UnmodelledLayer
from tests.exporters.masked_networks import dynamic, gated
from tests.exporters.networks import images, port
from tests.exporters.onnx_models import int64, model, op


@cache
def lowered() -> Bundle:
    return lower(gated())


@cache
def in_integers() -> Bundle:
    return quantise(lowered(), [images(16, 3, 8, 8)])


def marks(bundle: Bundle, node: str) -> dict[str, str]:
    """What each marked operator loses."""
    assert bundle.layers is not None
    rows = [r for r in bundle.layers[node] if not isinstance(r, UnmodelledLayer)]
    return {r.name: r.masked for r in rows if r.masked is not None}


def test_both_convolutions_and_what_lies_between_are_marked() -> None:
    assert marks(lowered(), "block") == {
        "Conv_0": "filters",
        "Relu_1": "words",
        "Mul_11": "words",
        "Conv_12": "channels",
    }
    assert marks(lowered(), "gate") == marks(lowered(), "stem") == marks(lowered(), "final") == {}


def test_a_dropped_group_takes_its_share_of_the_marked_convolutions() -> None:
    bundle = lower(dynamic())
    assert bundle.layers is not None
    found = 0
    for node in bundle.graph.nodes:
        mask = node.mask if isinstance(node, ComputeNode) else None
        if mask is not None:
            rows = bundle.layers[node.name]
            marked = [r for r in rows if isinstance(r, ConvLayer) and r.masked]
            assert {r.masked for r in marked} == {"filters", "channels"}
            assert sum(r.macs for r in marked) == mask.groups * mask.group_macs
            found += 1
    assert found == 3


def test_the_product_with_the_mask_happens_on_the_way_out() -> None:
    assert lowered().layers is not None
    rows = {r.name: r for r in (lowered().layers or {})["block"]}
    product, spelt = rows["Mul_11"], rows["Expand_9"]
    assert isinstance(product, PassLayer)
    assert product.fused
    assert isinstance(spelt, PassLayer)
    assert (spelt.masked, spelt.writes_words) == (None, 64)


def test_a_quantised_node_is_marked_alike() -> None:
    kinds = marks(in_integers(), "block")
    convs = {k: v for k, v in kinds.items() if k.startswith("Conv")}
    assert convs == {"Conv_0": "filters", "Conv_12": "channels"}
    others = [k.split("_")[0] for k in kinds if k not in convs]
    assert sorted(others) == [
        "DequantizeLinear",
        "DequantizeLinear",
        "Mul",
        "QuantizeLinear",
        "QuantizeLinear",
        "Relu",
    ]
    assert in_integers().layers is not None
    rows = (in_integers().layers or {})["block"]
    assert {r.dtype for r in rows if isinstance(r, ConvLayer)} == {"int8"}
    passes = [r for r in rows if isinstance(r, PassLayer) and r.masked]
    assert all(r.fused for r in passes)


class Masked(nn.Module):
    """Two convolutions with a mask between them, spelt out in one of several ways."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        groups = 2 if form == "grouped" else 1
        self.first = nn.Conv2d(4, 8, 3, 1, 1)
        self.second = nn.Conv2d(8, 4, 3, 1, 1, groups=groups)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        keep = mask if self.form == "soft" else (mask >= 0.5).to(mask.dtype)
        wide = keep[:, :, None].expand(-1, -1, 4).reshape(-1, 8, 1, 1)
        y = self.first(x)
        if self.form == "late":
            out: Tensor = self.second(y) * wide[:, :4]
        elif self.form == "shared":
            out = self.second(y * wide) + y[:, :4]
        elif self.form == "twice":
            out = self.second(y * wide) * wide[:, :4]
        elif self.form == "sum":
            out = self.second(y + wide)
        elif self.form == "pooled":
            out = self.second(y.mean((2, 3), keepdim=True) * wide)
        elif self.form == "softmax":
            out = self.second(torch.softmax(y * wide, 1))
        elif self.form == "entering":
            out = self.second(torch.cat([x, x], 1) * wide)
        else:
            out = self.second(y * wide)
        return out


def exported(form: str) -> tuple[bytes, ComputeNode]:
    inputs = (port("x", 4, 6, 6), port("mask", 2))
    made = export_node(Masked(form), inputs, ["y"], place="n")
    node = ComputeNode(
        name="n",
        inputs=made.inputs,
        outputs=made.outputs,
        cost=Cost(macs=0),
        mask=ChannelMask(port="mask", groups=2, group_macs=0),
    )
    return made.model, node


@pytest.mark.parametrize(
    "form",
    ["soft", "grouped", "late", "shared", "twice", "sum", "pooled", "softmax", "entering"],
)
def test_a_mask_that_saves_nothing_marks_nothing(form: str) -> None:
    data, node = exported(form)
    made = layers_of(data, place="n", node=node)
    assert [r for r in made if not isinstance(r, UnmodelledLayer) and r.masked] == []
    with pytest.raises(ExportError, match="does not multiply the channels"):
        count_group_macs(data, node)


def test_the_plain_form_is_marked() -> None:
    data, node = exported("plain")
    made = layers_of(data, place="n", node=node)
    assert [r.masked for r in made if isinstance(r, ConvLayer)] == ["filters", "channels"]
    # Without the node nothing is known of a mask.
    assert [r.masked for r in layers_of(data, place="n") if isinstance(r, ConvLayer)] == [None] * 2


def test_a_mask_that_cannot_be_tried_is_named() -> None:
    # Nobody knows the operator that spells the mask out; the model says what shape it gives.
    nodes = [
        op("Conv", "x v", "f"),
        op("Odd", "mask", "wide", domain="com.example"),
        op("Mul", "f wide", "m"),
        op("Conv", "m w", "y"),
    ]
    constants = {"v": (8, 4, 1, 1), "w": (4, 8, 1, 1)}
    proto = model(nodes, {"x": ("batch", 4, 6, 6), "mask": ("batch", 2)}, constants=constants)
    wide = helper.make_tensor_value_info("wide", TensorProto.FLOAT, ["batch", 8, 1, 1])
    proto.graph.value_info.append(wide)
    _, node = exported("plain")
    with pytest.raises(ExportError, match=r"^node 'n': "):
        layers_of(proto, place="node 'n'", node=node)


@pytest.mark.parametrize(("middle", "marked"), [("Relu", True), ("Add", False)])
def test_a_quantised_node_is_only_marked_for_one_tensor_in_between(
    middle: str, marked: bool
) -> None:
    nodes = [
        op("DequantizeLinear", "q s z", "v", axis=0),
        op("Conv", "x v", "f"),
        op(middle, "f" if marked else "f other", "g"),
        op("Concat", "mask mask mask mask", "four", axis=1),
        op("Reshape", "four shape", "wide"),
        op("Mul", "g wide", "m"),
        op("Conv", "m w", "y"),
    ]
    constants = {
        "q": np.ones((8, 4, 1, 1), np.int8),
        "s": np.ones(8, np.float32),
        "z": np.zeros(8, np.int8),
        "w": (4, 8, 1, 1),
        "shape": int64(-1, 8, 1, 1),
    }
    given = {"x": ("batch", 4, 6, 6), "other": ("batch", 8, 6, 6), "mask": ("batch", 2)}
    _, node = exported("plain")
    made = layers_of(model(nodes, given, constants=constants), place="n", node=node)
    parts = [r.masked for r in made if not isinstance(r, UnmodelledLayer) and r.masked]
    assert parts == (["filters", "words", "words", "channels"] if marked else [])


def test_a_mask_on_what_enters_the_node_marks_nothing() -> None:
    nodes = [
        op("Concat", "mask mask mask mask", "four", axis=1),
        op("Reshape", "four shape", "wide"),
        op("Mul", "x wide", "m"),
        op("Conv", "m w", "y"),
    ]
    constants = {"w": (4, 8, 1, 1), "shape": int64(-1, 8, 1, 1)}
    proto = model(nodes, {"x": ("batch", 8, 6, 6), "mask": ("batch", 2)}, constants=constants)
    _, node = exported("plain")
    made = layers_of(proto, place="n", node=node)
    assert [r.masked for r in made if not isinstance(r, UnmodelledLayer)] == [None] * 4
