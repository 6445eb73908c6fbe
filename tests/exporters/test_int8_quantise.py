"""A float bundle becomes an int8 one that means the same graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from dynrt.bundle import Bundle, build_bundle, read_bundle, write_bundle
from dynrt.exporters.int8 import quantise
from dynrt.exporters.int8_compare import compare, with_report
from dynrt.exporters.scope import Scope
from dynrt.ir.graph import (
    ComputeNode,
    Exit,
    InputNode,
    PortRef,
)
from dynrt.ir.reference import interpret
from dynrt.runtime import Network
from dynrt.runtime.ort import OrtBackend
from tests.exporters.int8_networks import (
    border_scale,
    chain,
    chain_int8,
    gated,
    gated_int8,
    types_of,
)
from tests.exporters.networks import (
    bright_images,
    images,
    operators,
)


def test_compute_nodes_hand_uint8_to_one_another_and_heads_stay_float() -> None:
    types = types_of(chain_int8())
    assert types["image.image"] == types["stem.x"] == "float32"
    for border in ("stem.y", "block.x", "block.y", "exit1.x", "shrink.x", "shrink.y", "final.x"):
        assert types[border] == "uint8", border
    for name in ("exit1", "final"):
        assert types[f"{name}.logits"] == types[f"{name}.distances"] == "float32"
        rest = operators(chain_int8().models[name])
        assert rest[0] == "DequantizeLinear"
        assert rest[1:] == operators(chain().models[name])


def test_costs_and_decisions_are_those_of_the_float_graph() -> None:
    for a, b in ((chain(), chain_int8()), (gated(), gated_int8())):
        costs = [
            {n.name: n.cost for n in x.graph.nodes if isinstance(n, ComputeNode | Exit)}
            for x in (a, b)
        ]
        assert costs[0] == costs[1]
        assert a.graph.control == b.graph.control
        assert a.graph.exits == b.graph.exits
        assert (a.certificate.full_macs, a.certificate.cheapest_macs) == (
            b.certificate.full_macs,
            b.certificate.cheapest_macs,
        )


def test_answers_stay_close() -> None:
    x = images(64, 3, 8, 8, seed=9)
    report = compare(chain(), chain_int8(), [(x[:40], None), (x[40:], None)])
    assert report.inputs == 64
    assert report.same_answers >= 0.9
    assert [e.name for e in report.exits] == ["exit1", "final"]
    functions = [OrtBackend(b.models) for b in (chain(), chain_int8())]
    logits = []
    for bundle, backend in zip((chain(), chain_int8()), functions, strict=True):
        network = Network(bundle.graph, backend, bundle=bundle)
        network.set(thresholds={"exit1": float("inf")})
        logits.append(np.stack([r.answer for r in network.run_batch(x)]))
    off = np.abs(logits[0] - logits[1]).max()
    assert 0 < off < 0.05 * np.abs(logits[0]).max()


def joined(bundle: Bundle, until: str) -> bytes:
    """All compute nodes and one exit as one model."""
    scope, graph = Scope(prefix=""), bundle.graph
    have = {PortRef(n.name, n.name): n.name for n in graph.inputs()}
    last: Mapping[str, str] = {}
    for name in graph.order:
        node = graph.by_name[name]
        if isinstance(node, InputNode) or (isinstance(node, Exit) and name != until):
            continue
        feeds = {p.name: have[graph.edge_into[PortRef(name, p.name)].source] for p in node.inputs}
        model = onnx.load_model_from_string(bundle.models[name])
        last = scope.inline(model, feeds, stem=name, place="joined")
        have.update({PortRef(name, port): tensor for port, tensor in last.items()})
    ends = [
        helper.make_tensor_value_info(v, onnx.TensorProto.FLOAT, ["batch", 5])
        for v in last.values()
    ]
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 3, 8, 8])
    body = helper.make_graph(scope.nodes, "joined", [image], ends, scope.initializers)
    opset = helper.make_opsetid("", 17)
    whole = helper.make_model(body, opset_imports=[opset], ir_version=8)
    return bytes(whole.SerializeToString())


def test_joined_onnxruntime_computes_every_convolution_and_sum_in_integers(
    tmp_path: Path,
) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        joined(chain_int8(), "final"), options, providers=["CPUExecutionProvider"]
    )
    graph = onnx.load(tmp_path / "optimised.onnx").graph
    kinds = Counter(n.op_type for n in graph.node)
    assert (kinds["QLinearConv"], kinds["QLinearAdd"]) == (5, 2)  # stem 1, blocks 2 and 2
    assert kinds["Conv"] == kinds["FusedConv"] == kinds["Add"] == 0
    # The picture comes in and the head's features go out: nothing else changes its form.
    assert (kinds["QuantizeLinear"], kinds["DequantizeLinear"]) == (1, 1)
    x = images(4, 3, 8, 8, seed=3)
    network = Network(chain_int8().graph, OrtBackend(chain_int8().models))
    network.set(thresholds={"exit1": float("inf")})
    apart = np.stack([r.answer for r in network.run_batch(x)])
    assert np.abs(session.run(None, {"image": x})[0] - apart).max() < 1e-5


def test_the_shortcut_moves_stored_integers() -> None:
    model = onnx.load_model_from_string(chain_int8().models["shrink"])
    maker = {n.output[0]: n for n in model.graph.node}
    pad = next(n for n in model.graph.node if n.op_type == "Pad")
    source = pad.input[0]
    while source in maker:
        assert maker[source].op_type == "Slice"
        source = maker[source].input[0]
    assert source == "x"
    filler = {t.name: t for t in model.graph.initializer}[pad.input[2]]
    value = numpy_helper.to_array(filler)
    assert value.dtype == np.uint8
    assert int(value) == border_scale(chain_int8(), PortRef("shrink", "x"))[1]


def test_the_bundle_is_smaller_and_comes_back_from_disk(tmp_path: Path) -> None:
    write_bundle(chain(), tmp_path / "float.dynrt")
    sha = write_bundle(chain_int8(), tmp_path / "int8.dynrt")
    assert read_bundle(tmp_path / "int8.dynrt") == chain_int8()
    assert chain_int8().sha256 == sha
    sizes = [(tmp_path / f"{n}.dynrt").stat().st_size for n in ("int8", "float")]
    assert sizes[0] < 0.5 * sizes[1]


def test_the_same_data_gives_the_same_bytes() -> None:
    again = quantise(chain(), [images(32, 3, 8, 8, seed=k) for k in range(2)])
    assert again.sha256 == chain_int8().sha256
    assert again.models == chain_int8().models


def test_exchangeable_ports_share_one_scale_and_gates_stay_float() -> None:
    bundle = gated_int8()
    types = types_of(bundle)
    group = ["stem.y", *(f"b{i}.{p}" for i in range(4) for p in "xy")]
    group += [*(f"b{i}_gate.x" for i in range(4)), "final.x"]
    assert {types[name] for name in group} == {"uint8"}
    scales = {border_scale(bundle, PortRef(*name.split("."))) for name in group}
    assert len(scales) == 1
    for i in range(4):
        gate = f"b{i}_gate"
        assert {types[f"{gate}.{p}"] for p in ("h", "c", "scores", "h_next")} == {"float32"}
        assert Counter(operators(bundle.models[gate])) - Counter(
            operators(gated().models[gate])
        ) == Counter({"DequantizeLinear": 1})


@pytest.mark.parametrize("kept", ["none", "half", "all"])
def test_skipped_blocks_hand_the_stored_integers_through(kept: str) -> None:
    bundle = gated_int8()
    bound = {"none": (1, 1, 1, 1), "half": (0, 1, 1, 0), "all": (0, 0, 0, 0)}[kept]
    thresholds: dict[str, float | tuple[float, ...]] = {
        f"b{i}_gate_control": (float("inf") if off else float("-inf"),)
        for i, off in enumerate(bound)
    }
    backend = OrtBackend(bundle.models)
    took: dict[str, np.ndarray] = {}

    def call(name: str, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        given = backend.call(name, inputs)
        took.update({f"{name}.{k}": v for k, v in {**inputs, **given}.items()})
        return given

    nodes = {n: partial(call, n) for n in bundle.models}
    x = bright_images(3)
    network = Network(bundle.graph, backend, bundle=bundle)
    network.set(thresholds=thresholds)
    for row in x:
        took.clear()
        result = interpret(bundle.graph, nodes, {"image": row[None]}, thresholds=thresholds)
        ran = [i for i in range(4) if f"b{i}" in result.path]
        assert ran == [i for i in range(4) if not bound[i]]
        source = f"b{ran[-1]}.y" if ran else "stem.y"
        assert took["final.x"].dtype == np.uint8
        np.testing.assert_array_equal(took["final.x"], took[source])
        assert network.run(row).path == result.path


def test_own_decisions_of_a_gated_network_mostly_stay() -> None:
    x = bright_images(48)
    labels = np.arange(48) % 5
    report = compare(gated(), gated_int8(), [(x, labels)], data="noise")
    assert report.same_paths >= 0.8
    assert report.exits == ()  # what an exit sees is decided on the way
    assert report.float_accuracy is not None
    described = with_report(gated_int8(), report)
    assert described.card["accuracy"] == report.int8_accuracy
    assert described.provenance["int8"] == str(report)
    assert "same path on" in str(report)


def test_the_card_does_not_claim_the_float_networks_accuracy() -> None:
    old = chain()
    told = build_bundle(
        name=old.name,
        graph=old.graph,
        models=old.models,
        card={"accuracy": 0.9, "seed": 3},
        provenance=old.provenance,
    )
    new = quantise(told, [images(4, 3, 8, 8)])
    assert "accuracy" not in new.card
    assert new.card["seed"] == 3
    source = new.card["quantised_from"]
    assert isinstance(source, dict)
    assert (source["accuracy"], source["sha256"]) == (0.9, told.sha256)
    assert new.provenance["quantised_from"] == told.sha256
