"""Layers multiply exactly as often as ``count_macs`` says: on networks, and on ONNX's own test models."""

from __future__ import annotations

import warnings

import onnx
import pytest
import torch
from torch import nn

from dynrt.bundle import Bundle, packaged_models, read_bundle, resolve
from dynrt.bundle.layer_json import decode_layers, encode_layers
from dynrt.bundle.limits import DEFAULT_LIMITS
from dynrt.errors import ExportError
from dynrt.exporters.layers import layer_table, layers_of
from dynrt.exporters.macs import count_macs
from dynrt.exporters.onnx_node import export_node
from dynrt.exporters.plain import Weights
from dynrt.ir.cost import Cost
from dynrt.ir.graph import Accept, Exit, Graph
from dynrt.ir.layers import WORD_BITS, Layer, UnmodelledLayer
from tests.exporters.int8_networks import chain, chain_int8, gated_int8
from tests.exporters.networks import (
    Attention,
    Block,
    SmallDenseNet,
    SmallResNet,
    SmallUNet,
    TwoHeads,
    port,
)

NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "attention": (Attention(), (6, 8)),
    "block": (Block(4, 8, 2), (4, 8, 8)),
    "densenet": (SmallDenseNet(), (3, 8, 8)),
    "encoder": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (6, 8)),
    "resnet": (SmallResNet(), (3, 8, 8)),
    "unet": (SmallUNet(), (3, 8, 8)),
}
HEAD = Exit(
    name="it",
    inputs=(),
    outputs=(),
    answer="y",
    accept=Accept(kind="always"),
    cost=Cost(macs=0),
)
GRAPH = Graph(nodes=(HEAD,), data=())


def require_sound(layers: tuple[Layer, ...]) -> None:
    """A bundle takes them, and gives them back."""
    table = {"it": layers}
    assert decode_layers(encode_layers(table), graph=GRAPH, limits=DEFAULT_LIMITS) == table
    for layer in layers:
        if not isinstance(layer, UnmodelledLayer):
            assert layer.dtype in WORD_BITS


@pytest.mark.parametrize("weights", ["float32", "float16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str, weights: Weights) -> None:
    module, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = export_node(module, [port("x", *shape)], ["y"], weights=weights, place="n").model
    made = layers_of(model, place="n")
    assert sum(layer.macs for layer in made) == count_macs(model, place="n").macs > 0
    assert not any(isinstance(layer, UnmodelledLayer) for layer in made)
    require_sound(made)


def test_two_heads() -> None:
    model = export_node(TwoHeads(8), [port("x", 8, 4, 4)], ["a", "b"], place="n").model
    made = layers_of(model, place="n")
    assert [layer.op for layer in made] == ["ReduceMean", "Gemm", "Gemm"]
    assert sum(layer.macs for layer in made) == 2 * 8 * 5


def require_counted(bundle: Bundle) -> None:
    table = layer_table(bundle.models, bundle.graph)
    assert table.keys() == bundle.models.keys()
    for name, layers in table.items():
        node = bundle.graph.by_name[name]
        assert sum(layer.macs for layer in layers) == getattr(node, "cost").macs  # noqa: B009
        assert not any(isinstance(layer, UnmodelledLayer) for layer in layers)


@pytest.mark.parametrize("name", [m.name for m in packaged_models()])
def test_packaged_bundles(name: str) -> None:
    require_counted(read_bundle(resolve(name)))


@pytest.mark.parametrize("made", [chain, chain_int8, gated_int8])
def test_small_bundles(made: object) -> None:
    assert callable(made)
    require_counted(made())


def test_every_operator_in_onnxs_own_tests() -> None:
    """About a thousand models, one operator each: no foreign error, the same count, a sound table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases are computed when they are collected
        from onnx.backend.test.case.node import collect_testcases

        models = {c.name: c.model for c in collect_testcases(None) if c.model is not None}
    seen: dict[str, int] = {}
    compared = refused = 0
    for name, model in models.items():
        ops = [n.op_type for n in model.graph.node]
        if len(ops) != 1 or seen.get(ops[0], 0) >= 4:
            continue
        seen[ops[0]] = seen.get(ops[0], 0) + 1
        try:
            made = layers_of(model, place=name)
        except ExportError:
            refused += 1
            continue
        require_sound(made)
        try:
            want = count_macs(model, place=name).macs
        except ExportError:
            continue
        assert sum(layer.macs for layer in made) == want, name
        compared += 1
    assert len(seen) > 150
    assert compared > 300
    assert refused < 40


def test_a_model_is_taken_as_bytes_or_as_it_is() -> None:
    model = export_node(Block(4, 4), [port("x", 4, 6, 6)], ["y"], place="n").model
    assert layers_of(model, place="n") == layers_of(onnx.load_model_from_string(model), place="n")
