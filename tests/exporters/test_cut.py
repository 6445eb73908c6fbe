"""A plain ONNX model cut at named tensors."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

import dynrt.runtime
from dynrt.errors import ExportError
from dynrt.exporters.cut import cut_onnx, read_onnx
from dynrt.exporters.macs import count_macs
from dynrt.ir.graph import ComputeNode
from tests.exporters.networks import Attention, SmallResNet, SmallUNet, images, seeded


def torch_onnx(
    module: nn.Module, *shape: int, batch: str | None = "N", outputs: tuple[str, ...] = ("y",)
) -> onnx.ModelProto:
    """As somebody else's script exports it."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (torch.zeros(1, *shape),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["img:0"],
            output_names=list(outputs),
            dynamic_axes={"img:0": {0: batch}} if batch else None,
        )
    return onnx.load_model_from_string(buffer.getvalue())


def tensors(model: onnx.ModelProto, op: str) -> list[str]:
    return [n.output[0] for n in model.graph.node if n.op_type == op]


@pytest.mark.parametrize("net", [SmallResNet(), SmallUNet()])
def test_the_chain_computes_what_the_model_computes(net: nn.Module) -> None:
    torch.manual_seed(0)
    model = torch_onnx(seeded(net), 3, 8, 8)
    cuts = tensors(model, "Relu")
    bundle = cut_onnx(model, cuts[::-1], name="m", labels=list("abcde"))
    network = dynrt.runtime.load(bundle)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for x in images(3, 3, 8, 8):
        (want,) = session.run(None, {"img:0": x[None]})
        result = network.run(x)
        np.testing.assert_allclose(result.answer, want[0], atol=1e-5)
        assert result.label == "abcde"[want[0].argmax()]
        assert len(result.path) == len(cuts) + 1
    # cutting neither adds nor hides work; the results of three samples together are the same
    assert bundle.certificate.full_macs == count_macs(model, place="m").macs
    batch = network.run_batch(images(3, 3, 8, 8))
    np.testing.assert_allclose(
        batch[2].answer, network.run(images(3, 3, 8, 8)[2]).answer, atol=1e-5
    )


def test_two_tensors_cross_one_cut() -> None:
    model = torch_onnx(SmallUNet(), 3, 8, 8)
    bundle = cut_onnx(model, [tensors(model, "Relu")[1]], name="unet")
    first = next(n for n in bundle.graph.nodes if isinstance(n, ComputeNode))
    assert len(first.outputs) == 2


def test_no_cut_is_one_exit() -> None:
    bundle = cut_onnx(torch_onnx(SmallResNet(), 3, 8, 8), [], name="whole")
    assert [n.name for n in bundle.graph.nodes] == ["img_0", "final"]
    assert set(bundle.provenance) >= {"onnx", "producer", "weights"}


def test_sizes_are_computed_again_and_not_carried() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            rows = x.size(0)
            y = torch.relu(self.one(x)).view(rows, 2, 3)
            out: Tensor = self.two(y.view(rows, 6))
            return out

    model = torch_onnx(Net(), 4)
    bundle = cut_onnx(model, tensors(model, "Relu"), name="sizes")
    final = bundle.graph.by_name["final"]
    assert {p.type.dtype for p in final.inputs} == {"float32"}
    assert {p.type.shape for p in final.inputs} <= {(6,), (4,)}


def test_a_fixed_batch_of_one_is_set_free_where_that_works() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    model = torch_onnx(net, 3, 8, 8, batch=None)
    network = dynrt.runtime.load(cut_onnx(model, tensors(model, "Relu"), name="one"))
    assert len(network.run_batch(images(4, 3, 8, 8))) == 4


def test_attention_and_float16() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Attention(), Attention()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.two(self.one(x)).mean(1)
            return out

    model = torch_onnx(Net(), 6, 8)
    cut = tensors(model, "MatMul")[4]
    whole, half = (cut_onnx(model, [cut], name="a", weights=w) for w in ("float32", "float16"))
    sizes = [sum(map(len, b.models.values())) for b in (whole, half)]
    assert sizes[1] < sizes[0]
    x = images(1, 6, 8)[0]
    a, b = (dynrt.runtime.load(bundle).run(x).answer for bundle in (whole, half))
    np.testing.assert_allclose(a, b, atol=5e-3)


class TwoAnswers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.early, self.late = nn.Linear(4, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.early(x)
        return torch.tanh(y), self.late(torch.relu(y))


def test_a_second_output_is_a_port_of_the_exit() -> None:
    model = torch_onnx(TwoAnswers(), 4, outputs=("a", "b"))
    bundle = cut_onnx(model, [tensors(model, "Gemm")[0]], name="two")
    assert [p.name for p in bundle.graph.by_name["final"].outputs] == ["a", "b"]


def plain(
    change: Callable[[onnx.ModelProto], None] | None = None, first: int | str = "N"
) -> onnx.ModelProto:
    """``x -> Relu -> r -> Neg -> y``."""
    nodes = [
        helper.make_node("Relu", ["x"], ["relu_out"]),
        helper.make_node("Neg", ["relu_out"], ["y"]),
    ]
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [first, 4]) for n in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "g", info[:1], info[1:]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    if change is not None:
        change(model)
    return model


def with_external_data(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer.add(name="w", data_type=1, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")


def with_custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"


def with_branch(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("body", onnx.GraphProto(name="b")))


def with_function(model: onnx.ModelProto) -> None:
    model.functions.add(name="f", domain="d")


def with_free_axis(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"


def with_scalar_input(model: onnx.ModelProto) -> None:
    del model.graph.input[0].type.tensor_type.shape.dim[:]


def with_transposed_middle(model: onnx.ModelProto) -> None:
    model.graph.node[0].CopyFrom(helper.make_node("Transpose", ["x"], ["relu_out"], perm=[1, 0]))


def with_strings(model: onnx.ModelProto) -> None:
    model.graph.node[0].CopyFrom(
        helper.make_node("Cast", ["x"], ["relu_out"], to=TensorProto.COMPLEX64)
    )


def with_early_output(model: onnx.ModelProto) -> None:
    model.graph.node.insert(1, helper.make_node("Tanh", ["relu_out"], ["late"]))
    model.graph.node[2].input[0] = "late"
    model.graph.output.insert(
        0, helper.make_tensor_value_info("relu_out", TensorProto.FLOAT, ["N", 4])
    )


@pytest.mark.parametrize(
    ("model", "cuts", "says"),
    [
        (plain(), ["relu_ot"], "there is no tensor 'relu_ot'; near: relu_out"),
        (plain(), ["q"], "there is no tensor 'q'; it has 2 tensors"),
        (plain(), ["x"], "'x' is an input or a constant"),
        (plain(), ["y"], "'y' is an output; nothing would be left"),
        (plain(), ["relu_out", "relu_out"], "a tensor is named twice"),
        (
            plain(first=4),
            ["relu_out"],
            r"input 'x' has shape \[4, 4\]; its first axis must be the b",
        ),
        (plain(with_scalar_input), ["relu_out"], r"input 'x' has shape \[\]; its first axis"),
        (plain(with_free_axis), ["relu_out"], "axis 1 of input 'x', .*, has no fixed size"),
        (plain(with_external_data), ["relu_out"], "'w' is external data; save it in one file"),
        (plain(with_custom_operator), ["relu_out"], "com.example::Relu is not standard ONNX"),
        (plain(with_branch), ["relu_out"], "operator Relu '' has a subgraph"),
        (plain(with_function), ["relu_out"], "has 1 local functions"),
        (plain(with_transposed_middle), ["relu_out"], r"'relu_out' has shape \(4, 1\) for one sam"),
        (plain(with_early_output), ["late"], "output 'relu_out' is computed before the last cut"),
    ],
)
def test_what_cannot_be_cut(model: onnx.ModelProto, cuts: list[str], says: str) -> None:
    with pytest.raises(ExportError, match=says) as caught:
        cut_onnx(model, cuts, name="m")
    assert str(caught.value).startswith("model 'm'")
    assert "\n" not in str(caught.value)


def test_files(tmp_path: Path) -> None:
    good = tmp_path / "good.onnx"
    good.write_bytes(plain().SerializeToString())
    assert read_onnx(good).graph.node[0].op_type == "Relu"
    text = tmp_path / "text.onnx"
    text.write_text("this is no model")
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"")
    for path, says in (
        (text, "text.onnx is no ONNX model"),
        (empty, "empty.onnx is no ONNX model, or an empty one"),
        (tmp_path / "none.onnx", "none.onnx: No such file"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(ExportError, match=says):
            read_onnx(path)
