"""Kinds of nodes, ports and networks that are quantised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from dynrt.bundle import Bundle, build_bundle
from dynrt.errors import ExportError
from dynrt.exporters.chains import gated_blocks, sequential_exits
from dynrt.exporters.int8 import quantise
from dynrt.exporters.int8_compare import compare
from dynrt.exporters.lower import lower
from dynrt.exporters.spec import NetworkBuilder, wire
from dynrt.ir.graph import (
    Accept,
    ComputeNode,
    Constant,
    PortRef,
    TensorType,
    Threshold,
)
from dynrt.runtime import Network
from dynrt.runtime.ort import OrtBackend
from tests.exporters import masked_networks
from tests.exporters.int8_networks import (
    IMAGE,
    ONE,
    border_scale,
    chain,
    pooled_head_of_one,
    types_of,
)
from tests.exporters.networks import (
    images,
    operators,
    pooled_head,
    seeded,
)


def zero_filled() -> Bundle:
    """A block that, when skipped, leaves zeros (the paper's usual default)."""
    net = NetworkBuilder("zeros")
    x = net.input("image", (3, 8, 8))
    y = net.compute("stem", nn.Conv2d(3, 8, 3, 1, 1), {"x": x})
    net.gate(
        "gate",
        pooled_head_of_one(8),
        {"x": y},
        actions=[["block"]],
        rule=Threshold(thresholds=(0.0,)),
    )
    z = net.compute("block", nn.Conv2d(8, 8, 3, 1, 1), {"x": y})
    net.exit(
        "final",
        pooled_head(8),
        {"x": wire(z, default="zeros")},
        outputs=("logits",),
        answer="logits",
        accept=Accept(kind="always"),
    )
    return lower(net.build())


def test_a_constant_default_is_stored_as_its_port_is() -> None:
    torch.manual_seed(0)
    bundle = quantise(zero_filled(), [images(16, 3, 8, 8)])
    edge = bundle.graph.edge_into[PortRef("final", "x")]
    assert isinstance(edge.default, Constant)
    scale, zero = border_scale(bundle, PortRef("final", "x"))
    assert edge.default.value.dtype == np.uint8
    assert set(edge.default.value.reshape(-1).tolist()) == {zero}
    assert 0 < zero < 255  # values on both sides of zero
    assert scale == border_scale(bundle, PortRef("block", "y"))[0]


def test_products_in_the_trunk_are_in_integers_too() -> None:
    torch.manual_seed(0)
    kind = TensorType(dtype="float32", shape=(4,))
    first = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    net = sequential_exits("flat", kind, [("first", first)], {"first": nn.Linear(16, 3)})
    old = lower(net.build())
    x = images(64, 4)
    new = quantise(old, [x])
    assert types_of(new)["first.y"] == "uint8"
    stored = onnx.load_model_from_string(new.models["first"]).graph.initializer
    assert sum(t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 2 for t in stored) == 2
    assert compare(old, new, [(x, None)]).same_answers >= 0.9


def test_float16_weights_are_quantised_as_well() -> None:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1))
    net = sequential_exits("half", IMAGE, [("stem", stem)], {"stem": pooled_head(16)})
    half = lower(net.build(), weights="float16")
    assert "Cast" in operators(half.models["stem"])
    new = quantise(half, [images(16, 3, 8, 8)])
    assert "Cast" not in operators(new.models["stem"])
    assert len(new.models["stem"]) < 0.9 * len(half.models["stem"])


def test_a_kept_node_computes_in_float_between_integer_borders() -> None:
    bundle = quantise(chain(), [images(16, 3, 8, 8)], keep=("block",))
    kept = operators(bundle.models["block"])
    assert kept == ["DequantizeLinear", *operators(chain().models["block"]), "QuantizeLinear"]
    assert types_of(bundle)["block.y"] == "uint8"
    x = images(32, 3, 8, 8, seed=5)
    assert compare(chain(), bundle, [(x, None)]).same_answers >= 0.9


def test_a_network_of_several_inputs_takes_batches_by_name() -> None:
    torch.manual_seed(0)

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)

        def forward(self, x: Tensor, z: Tensor) -> Tensor:
            return functional.relu(self.a(x) + self.b(z))

    net = NetworkBuilder("two")
    left, right = net.input("left", (3, 8, 8)), net.input("right", (3, 8, 8))
    y = net.compute("sum", Sum(), {"x": left, "z": right})
    net.exit(
        "final", pooled_head(8), {"x": y}, outputs=("logits",), answer="logits",
        accept=Accept(kind="always"),
    )  # fmt: skip
    bundle = lower(net.build())
    with pytest.raises(ExportError, match="the network has the inputs left, right"):
        quantise(bundle, [ONE])
    with pytest.raises(ExportError, match=r"hold \[1, 2\] samples"):
        quantise(bundle, [{"left": ONE, "right": ONE[:1]}])
    both = {"left": images(16, 3, 8, 8), "right": images(16, 3, 8, 8, seed=1)}
    new = quantise(bundle, [both])
    assert compare(bundle, new, [(both, None)]).same_answers >= 0.85


def test_a_branch_that_is_chosen_inside_a_node_keeps_it_float() -> None:
    """Names of a node's ports are also renamed where the branches of an ``If`` read them."""
    yes, no = (
        helper.make_graph(
            [helper.make_node(op, ["x"], [f"{op}.y"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}.y", onnx.TensorProto.FLOAT, None)],
        )
        for op in ("Relu", "Neg")
    )
    choice = numpy_helper.from_array(np.array(True), "choice")
    node = helper.make_node("If", ["choice"], ["y"], then_branch=yes, else_branch=no)
    old = chain()
    block = old.graph.by_name["block"]
    model = onnx.load_model_from_string(old.models["block"])
    body = helper.make_graph([node], "block", model.graph.input, model.graph.output, [choice])
    chosen = helper.make_model(
        body, opset_imports=model.opset_import, ir_version=model.ir_version
    ).SerializeToString()
    graph = replace(old.graph, nodes=tuple(n if n != block else block for n in old.graph.nodes))
    bundle = build_bundle(name="if", graph=graph, models={**old.models, "block": chosen})
    x = images(16, 3, 8, 8)
    new = quantise(bundle, [x])
    assert operators(new.models["block"]) == ["DequantizeLinear", "If", "QuantizeLinear"]
    assert compare(bundle, new, [(x, None)]).same_answers >= 0.85


def test_a_channel_mask_stays_float_and_drops_the_same_channels() -> None:
    old = lower(masked_networks.gated())
    new = quantise(old, [images(64, 3, 8, 8)])
    types = types_of(new)
    assert (types["gate.x"], types["block.x"], types["block.y"]) == ("uint8",) * 3
    assert types["gate.y"] == types["block.mask"] == "float32"
    blocks = [b.graph.by_name["block"] for b in (old, new)]
    masks = [n.mask for n in blocks if isinstance(n, ComputeNode)]
    assert masks[0] == masks[1] is not None
    x = images(32, 3, 8, 8, seed=4)
    runs = [Network(b.graph, OrtBackend(b.models)).run_batch(x) for b in (old, new)]
    macs = [[r.macs for r in results] for results in runs]
    assert len(set(macs[0])) > 1  # groups are dropped, not the same ones every time
    assert np.mean(np.array(macs[0]) == np.array(macs[1])) >= 0.8
    assert compare(old, new, [(x, None)]).same_answers >= 0.85


def test_seven_bit_weights_are_close_too() -> None:
    new = quantise(chain(), [images(16, 3, 8, 8)], weight_bits=7)
    for tensor in onnx.load_model_from_string(new.models["block"]).graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8:
            assert np.abs(numpy_helper.to_array(tensor).astype(int)).max(initial=0) <= 63
    x = images(32, 3, 8, 8, seed=5)
    assert compare(chain(), new, [(x, None)]).same_answers >= 0.85


def test_a_block_that_may_hand_the_picture_on_has_float_ports() -> None:
    """Its default is a network input, which stays float; inside it computes in integers."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 3, 3, 1, 1), nn.ReLU(), nn.Conv2d(3, 3, 3, 1, 1))
    named = [("first", first), ("second", nn.Conv2d(3, 8, 3, 1, 1))]
    net = gated_blocks(
        "early", IMAGE, named, {"first": pooled_head_of_one(3)}, {"second": pooled_head(8)}
    )
    old = lower(net.build())
    x = images(48, 3, 8, 8)
    new = quantise(old, [x])
    types = types_of(new)
    assert types["first.x"] == types["first.y"] == types["second.x"] == "float32"
    assert types["second.y"] == "uint8"
    inside = operators(new.models["first"])
    assert (inside[0], inside[-1]) == ("QuantizeLinear", "DequantizeLinear")
    assert compare(old, new, [(x, None)]).same_answers >= 0.85


def test_one_tensor_may_leave_by_two_ports() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = seeded(nn.Conv2d(3, 8, 3, 1, 1))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = functional.relu(self.conv(x))
            return y, y

    net = NetworkBuilder("twice")
    net.compute("stem", Twice(), {"x": net.input("image", (3, 8, 8))}, outputs=("y", "again"))
    for name, port, kind in (("exit1", "again", "never"), ("final", "y", "always")):
        net.exit(
            name, pooled_head(8), {"x": PortRef("stem", port)}, outputs=("logits",),
            answer="logits", accept=Accept(kind=kind),  # type: ignore[arg-type]
        )  # fmt: skip
    old = lower(net.build())
    x = images(32, 3, 8, 8)
    new = quantise(old, [x])
    assert types_of(new)["exit1.x"] == types_of(new)["final.x"] == "uint8"
    assert operators(new.models["stem"]).count("QuantizeLinear") == 2  # the picture, the features
    given = OrtBackend(new.models).call("stem", {"x": x})
    np.testing.assert_array_equal(given["y"], given["again"])
    assert compare(old, new, [(x, None)]).same_answers >= 0.85
