"""One module, one plain ONNX graph."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from dynrt.errors import ExportError
from dynrt.exporters.onnx_node import call_module, export_node, frozen_copy
from dynrt.exporters.plain import OPSET
from tests.exporters.networks import (
    Attention,
    Block,
    CellGate,
    SmallResNet,
    images,
    operators,
    port,
    seeded,
)

PLACE = "node 'n'"


def test_ports_batch_and_header_are_as_declared() -> None:
    made = export_node(seeded(Block(3, 4, 2)), [port("x", 3, 8, 8)], ["features"], place=PLACE)
    model = onnx.load_model_from_string(made.model)
    assert [p.name for p in made.outputs] == ["features"]
    assert made.outputs[0].type.shape == (4, 4, 4)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    for info, shape in ((model.graph.input[0], (3, 8, 8)), (model.graph.output[0], (4, 4, 4))):
        dims = info.type.tensor_type.shape.dim
        assert dims[0].dim_param == "batch"
        assert tuple(d.dim_value for d in dims[1:]) == shape
    assert (model.producer_name, model.producer_version, model.doc_string) == ("dynrt", "", "")


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_gives_what_torch_gives(batch: int) -> None:
    net = seeded(SmallResNet())
    made = export_node(net, [port("x", 3, 8, 8)], ["y"], place=PLACE)
    x = images(batch, 3, 8, 8)
    session = onnxruntime.InferenceSession(made.model)
    (got,) = session.run(["y"], {"x": x})
    want = call_module(frozen_copy(net), [x], ["y"], place=PLACE)["y"]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_no_norm_no_constant_node_and_no_note_is_left() -> None:
    made = export_node(seeded(SmallResNet()), [port("x", 3, 8, 8)], ["y"], place=PLACE)
    assert {"BatchNormalization", "Constant", "Dropout"}.isdisjoint(operators(made.model))
    model = onnx.load_model_from_string(made.model)
    for node in model.graph.node:
        assert not node.doc_string
        assert not node.metadata_props
    assert b"/" not in b"".join(n.name.encode() for n in model.graph.node)


def digest_of_a_network() -> str:
    torch.manual_seed(0)
    made = export_node(seeded(SmallResNet()), [port("x", 3, 8, 8)], ["y"], place=PLACE)
    return hashlib.sha256(made.model).hexdigest()


def test_bytes_are_the_same_each_time_and_in_each_process() -> None:
    code = f"from {__name__} import digest_of_a_network as d; print(d())"
    other = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": "."},
    ).stdout.strip()
    assert digest_of_a_network() == digest_of_a_network() == other


def test_float16_halves_the_bytes_and_keeps_the_answer() -> None:
    net = seeded(SmallResNet())
    whole, half = (
        export_node(net, [port("x", 3, 8, 8)], ["y"], weights=w, place=PLACE).model
        for w in ("float32", "float16")
    )
    assert len(half) < 0.62 * len(whole)
    kinds = {t.data_type for t in onnx.load_model_from_string(half).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    x = images(4, 3, 8, 8)
    a, b = (onnxruntime.InferenceSession(m).run(None, {"x": x})[0] for m in (whole, half))
    assert 0 < np.abs(a - b).max() < 5e-3 * np.abs(a).max()


def test_weights_beyond_float16_stay_whole() -> None:
    net = nn.Linear(16, 16)
    net.weight.data[0, 0] = 1e6
    made = export_node(net, [port("x", 16)], ["y"], weights="float16", place=PLACE)
    x = images(1, 16)
    got = onnxruntime.InferenceSession(made.model).run(None, {"x": x})[0]
    want = call_module(net, [x], ["y"], place=PLACE)["y"]
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_gate_with_state_keeps_the_order_of_ports() -> None:
    gate = CellGate(nn.LSTMCell(6, 5), 8)
    ports = [port("x", 8, 4, 4), port("h", 5), port("c", 5)]
    made = export_node(gate, ports, ["scores", "h_next", "c_next"], place=PLACE)
    values = {"x": images(2, 8, 4, 4), "h": images(2, 5, seed=1), "c": images(2, 5, seed=2)}
    session = onnxruntime.InferenceSession(made.model)
    got = dict(zip((p.name for p in made.outputs), session.run(None, values), strict=True))
    want = call_module(gate, list(values.values()), list(got), place=PLACE)
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, atol=1e-6)


class ByName(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"b": x + 1, "a": x, "unused": x}


class Ones(nn.Module):
    def forward(self) -> Tensor:
        return torch.ones(1, 3)


def test_results_by_name_pass_through_and_constants_are_nodes_too() -> None:
    made = export_node(ByName(), [port("x", 2)], ["a", "b"], place=PLACE)
    x = images(3, 2)
    a, b = onnxruntime.InferenceSession(made.model).run(["a", "b"], {"x": x})
    np.testing.assert_array_equal(a, x)
    np.testing.assert_array_equal(b, x + 1)
    dummy = export_node(Ones(), [], ["y"], place=PLACE)
    (y,) = onnxruntime.InferenceSession(dummy.model).run(None, {})
    np.testing.assert_array_equal(y, np.ones((1, 3), np.float32))


def test_unused_and_whole_number_inputs_are_kept() -> None:
    class Choose(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(4, 3)

        def forward(self, index: Tensor, unused: Tensor) -> Tensor:
            out: Tensor = self.table(index)
            return out

    ports = [port("index", 2, dtype="int64"), port("unused", 1)]
    made = export_node(Choose(), ports, ["y"], place=PLACE)
    assert [i.name for i in onnx.load_model_from_string(made.model).graph.input] == [
        "index",
        "unused",
    ]


def test_attention_in_evaluation_mode_is_spelt_out() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x)
            return out

    for module in (Attention(), Layer()):
        made = export_node(module, [port("x", 3, 8)], ["y"], place=PLACE)
        x = images(2, 3, 8)
        got = onnxruntime.InferenceSession(made.model).run(None, {"x": x})[0]
        want = call_module(frozen_copy(module), [x], ["y"], place=PLACE)["y"]
        np.testing.assert_allclose(got, want, atol=1e-5)
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_module_and_its_inputs_are_left_alone() -> None:
    net = SmallResNet().train()
    relu = net.get_submodule("layer1.0.relu")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    export_node(net, [port("x", 3, 8, 8)], ["y"], place=PLACE)
    assert net.training
    assert getattr(relu, "inplace", None) is True
    assert all(p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    x = -np.ones((1, 4), np.float32)
    call_module(nn.ReLU(inplace=True), [x], ["y"], place=PLACE)
    assert (x == -1).all()


class MixesBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class DropsBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(0)


class BakesBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.zeros(len(x.tolist()), 1)


class Grows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.repeat(1, x.shape[0])


class Complex(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.complex(x, x)


class Unsupported(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.special.bessel_j0(x)
        return out


class NoTensor(nn.Module):
    def forward(self, x: Tensor) -> int:
        return 3


@pytest.mark.parametrize(
    ("module", "outputs", "says"),
    [
        (MixesBatch(), ["y"], "depends on the rest of its batch"),
        (DropsBatch(), ["y"], r"'y' has shape \(2,\) for a batch of 3; its first axis"),
        (BakesBatch(), ["y"], "onnxruntime cannot run it: .*Add"),
        (Grows(), ["y"], "shape of output 'y' depends on the batch"),
        (Complex(), ["y"], "'y' is complex64; use float32"),
        (Unsupported(), ["y"], "torch cannot export it: UnsupportedOperatorError"),
        (NoTensor(), ["y"], "'y' is int, not a tensor"),
        (nn.Identity(), ["y", "z"], r"gives 1 tensors for 2 outputs \(y, z\)"),
        (ByName(), ["y"], r"gives \['a', 'b', 'unused'\], not 'y'"),
        (nn.Linear(3, 3), ["y"], "the module fails: RuntimeError: mat1 and mat2"),
    ],
)
def test_what_cannot_be_a_node_is_refused(module: nn.Module, outputs: list[str], says: str) -> None:
    with pytest.raises(ExportError, match=says) as caught:
        export_node(module, [port("x", 2)], outputs, place=PLACE)
    assert str(caught.value).startswith(PLACE)
    assert "\n" not in str(caught.value)


def test_a_failing_export_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError):
        export_node(Unsupported(), [port("x", 2)], ["y"], place=PLACE)
    assert capfd.readouterr() == ("", "")
