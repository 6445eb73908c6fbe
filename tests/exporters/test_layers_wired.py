"""Every way to a bundle gives it a layer table, and keeps it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from dynrt.bundle import Bundle, read_bundle, replace_parts, write_bundle
from dynrt.errors import ExportError
from dynrt.exporters import attach_exits, cut_onnx, export_network, lower
from dynrt.exporters.int8 import quantise
from dynrt.exporters.int8_compare import compare, with_report
from dynrt.exporters.layers import layer_table, layers_of
from dynrt.exporters.onnx_node import export_node
from dynrt.ir.cost import Cost
from dynrt.ir.counts import EnergySource
from dynrt.ir.graph import ChannelMask, ComputeNode, Exit, Node
from dynrt.ir.layers import ConvLayer
from tests.exporters.int8_networks import chain, chain_int8
from tests.exporters.masked_networks import gated
from tests.exporters.networks import SmallResNet, images, pooled_head, port, seeded
from tests.exporters.onnx_models import model, op

SOURCE = EnergySource(
    table="made-up", hardware="none", policy="corrected", backend="analytic 1", unit="J"
)


def require_table(bundle: Bundle) -> None:
    """Its table is that of its models, node by node, with all their multiplications."""
    assert bundle.layers == layer_table(bundle.models, bundle.graph)
    for node in bundle.graph.nodes:
        if isinstance(node, ComputeNode | Exit):
            assert bundle.layers is not None
            assert sum(layer.macs for layer in bundle.layers[node.name]) == node.cost.macs


def test_an_exported_network_has_one_and_a_file_keeps_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = seeded(SmallResNet()).eval()
    example = torch.from_numpy(images(2, 3, 8, 8))
    spec = attach_exits("net", net, example, {"layer1": pooled_head(8)}).build()
    bundle, _ = export_network(spec, images(4, 3, 8, 8))
    require_table(bundle)
    assert "parity" in bundle.provenance  # noted after it was lowered
    path = tmp_path / "net.dynrt"
    write_bundle(bundle, path)
    assert read_bundle(path).layers == bundle.layers
    require_table(lower(spec, weights="float16"))


def test_a_cut_model_has_one() -> None:
    data = export_node(SmallResNet(), [port("x", 3, 8, 8)], ["y"], place="n").model
    proto = onnx.load_model_from_string(data)
    tensor = next(n.output[0] for n in proto.graph.node if n.op_type == "Relu")
    bundle = cut_onnx(proto, [tensor], name="cut")
    assert len(bundle.models) == 2
    require_table(bundle)


def test_a_quantised_network_has_its_own() -> None:
    require_table(chain_int8())
    assert chain_int8().layers != chain().layers
    report = compare(chain(), chain_int8(), [(images(8, 3, 8, 8), None)], data="noise")
    told = with_report(chain_int8(), report)
    assert "int8" in told.card
    assert told.layers == chain_int8().layers


def test_energies_of_the_float_network_are_not_those_of_the_quantised_one() -> None:
    old = lower(gated())

    def costed(node: Node) -> Node:
        if not isinstance(node, ComputeNode | Exit):
            return node
        dear = replace(node, cost=replace(node.cost, femtojoules=1000))
        if isinstance(dear, ComputeNode) and isinstance(dear.mask, ChannelMask):
            mask = replace(dear.mask, kept_femtojoules=(200, 400, 600, 800, 1000))
            return replace(dear, mask=mask)
        return dear

    graph = replace(old.graph, nodes=tuple(costed(n) for n in old.graph.nodes))
    priced = replace_parts(old, graph=graph, energy=SOURCE)
    made = quantise(priced, [images(16, 3, 8, 8)])
    assert made.energy is None
    for node in made.graph.nodes:
        if isinstance(node, ComputeNode | Exit):
            assert node.cost == Cost(macs=node.cost.macs)
            mask = node.mask if isinstance(node, ComputeNode) else None
            assert mask is None or mask.kept_femtojoules == ()
    require_table(made)


def test_a_dummy_node_has_no_layers() -> None:
    class Three(nn.Module):
        def forward(self) -> torch.Tensor:
            return torch.full((1, 3), 3.0)

    made = export_node(Three(), [], ["y"], place="n")
    assert layers_of(made.model, place="n") == ()


def test_a_node_that_cannot_be_tabled_is_named() -> None:
    bundle = chain()
    wide = model([op("Relu", "x", "y")], {"x": ("batch", "any")}).SerializeToString()
    with pytest.raises(ExportError, match=r"^node 'block': axis 1 \('any'\) of input 'x'"):
        layer_table({**bundle.models, "block": wide}, bundle.graph)


def test_stored_weights_of_half_the_bytes_are_multiplied_whole() -> None:
    bundle = lower(gated(), weights="float16")
    assert bundle.layers is not None
    convs = [r for rows in bundle.layers.values() for r in rows if isinstance(r, ConvLayer)]
    assert {r.dtype for r in convs} == {"float32"}
    assert [r.masked for r in convs] == [None, "filters", "channels"]
