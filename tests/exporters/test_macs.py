"""Multiply counts from ONNX against torch's and fvcore's on the same modules."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dynrt.errors import ExportError
from dynrt.exporters.macs import count_macs
from dynrt.exporters.onnx_node import export_node, frozen_copy
from tests.exporters.networks import Attention, Block, SmallDenseNet, SmallResNet, SmallUNet, port


class Mlp(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 5, bias=False))


MODULES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv": (nn.Conv2d(3, 8, 3, padding=1), (3, 8, 8)),
    "strided": (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 9, 9)),
    "grouped": (nn.Conv2d(4, 8, 3, groups=2), (4, 8, 8)),
    "depthwise": (nn.Conv2d(4, 4, 5, groups=4, padding=2), (4, 8, 8)),
    "dilated": (nn.Conv2d(3, 4, 3, dilation=2), (3, 9, 9)),
    "uneven": (nn.Conv2d(3, 4, (1, 5), stride=(2, 1), padding=(0, 2)), (3, 9, 7)),
    "conv1d": (nn.Conv1d(3, 4, 3), (3, 16)),
    "padded-apart": (
        nn.Sequential(nn.ZeroPad2d((1, 2, 0, 3)), nn.Conv2d(3, 4, 3)),
        (3, 8, 8),
    ),
    "linear": (nn.Linear(12, 7), (12,)),
    "linear-over-steps": (nn.Linear(12, 7), (5, 12)),
    "mlp": (Mlp(), (3, 8, 8)),
    "attention": (Attention(), (6, 8)),
    "block": (Block(4, 8, 2), (4, 8, 8)),
    "resnet": (SmallResNet(), (3, 8, 8)),
    "densenet": (SmallDenseNet(), (3, 8, 8)),
}


def exported(module: nn.Module, shape: tuple[int, ...]) -> bytes:
    return export_node(module, [port("x", *shape)], ["y"], place="n").model


def torch_macs(module: nn.Module, *inputs: Tensor) -> int:
    """Half of what torch's own counter says."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        frozen_copy(module)(*inputs)
    total = int(counter.get_total_flops())
    assert total % 2 == 0
    return total // 2


def fvcore_macs(module: nn.Module, x: Tensor) -> int:
    """Fvcore's convolutions and products; it counts a MAC as one."""
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it scripts a loss when imported
        from fvcore.nn import FlopCountAnalysis
    counts = FlopCountAnalysis(frozen_copy(module), x).by_operator()
    return sum(int(counts[op]) for op in ("conv", "linear", "addmm", "matmul", "bmm"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", MODULES)
def test_count_is_that_of_torch_and_fvcore(name: str) -> None:
    module, shape = MODULES[name]
    x = torch.zeros(1, *shape)
    macs = count_macs(exported(module, shape), place="n").macs
    assert macs == torch_macs(module, x) == fvcore_macs(module, x) > 0


def test_transposed_convolution() -> None:
    # 4 x 4 inputs of 3 channels, each meets 6 / 3 filters of 2 x 2 in its group
    module = nn.ConvTranspose2d(3, 6, 2, 2, groups=3)
    assert count_macs(exported(module, (3, 4, 4)), place="n").macs == 16 * 3 * 2 * 4
    net = SmallUNet()
    assert count_macs(exported(net, (3, 8, 8)), place="n").macs == torch_macs(
        net, torch.zeros(1, 3, 8, 8)
    )


@settings(max_examples=15)
@given(
    groups=st.integers(1, 3),
    per_group=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
)
def test_any_convolution_counts_as_torch_counts_it(
    groups: int,
    per_group: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    size: tuple[int, int],
) -> None:
    for n, k, p in zip(size, kernel, padding, strict=True):
        assume(n + 2 * p >= dilation * (k - 1) + 1)
    c_in, c_out = (groups * n for n in per_group)
    module = nn.Conv2d(c_in, c_out, kernel, stride, padding, dilation=dilation, groups=groups)
    macs = count_macs(exported(module, (c_in, *size)), place="n").macs
    assert macs == torch_macs(module, torch.zeros(1, c_in, *size))


def test_lstm_cell_matches_the_closed_form() -> None:
    # four gates, each a product with the input (6) and with the state (5), 5 outputs each
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTMCell(6, 5)

        def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            h, c = self.cell(x, (h, c))
            return h, c

    ports = [port("x", 6), port("h", 5), port("c", 5)]
    model = export_node(Cell(), ports, ["h1", "c1"], place="n").model
    assert count_macs(model, place="n").macs == 4 * 5 * (6 + 5)


@pytest.mark.parametrize(
    ("kind", "gates", "directions"), [(nn.LSTM, 4, 1), (nn.GRU, 3, 2), (nn.RNN, 1, 1)]
)
def test_recurrent_operators_match_the_closed_form(
    kind: type[nn.LSTM] | type[nn.GRU] | type[nn.RNN], gates: int, directions: int
) -> None:
    # 7 steps; per gate and direction 5 outputs of 6 inputs and 5 states
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = kind(6, 5, batch_first=True, bidirectional=directions == 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x)[0]
            return out

    model = exported(Net(), (7, 6))
    assert kind.__name__ in [n.op_type for n in onnx.load_model_from_string(model).graph.node]
    assert count_macs(model, place="n").macs == 7 * gates * directions * 5 * (6 + 5)


def test_float16_weights_count_the_same() -> None:
    net = SmallResNet()
    half = export_node(net, [port("x", 3, 8, 8)], ["y"], weights="float16", place="n").model
    assert count_macs(half, place="n").macs == count_macs(exported(net, (3, 8, 8)), place="n").macs


def test_einsum_of_two_operands() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("bik,bjk->bij", x, x)

    # 4 x 4 outputs over 3
    assert count_macs(exported(Net(), (4, 3)), place="n").macs == 4 * 4 * 3


def model_of(op: str, constant: np.ndarray | None, domain: str = "", **more: str) -> bytes:
    """One operator on ``x (batch, 4)``, perhaps with a constant beside it."""
    names = ["x"] if constant is None else ["x", "w"]
    node = helper.make_node(op, names, ["y"], name="it", domain=domain, **more)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [] if constant is None else [numpy_helper.from_array(constant, "w")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())


def test_weights_without_a_formula_are_an_error() -> None:
    square = np.eye(4, dtype=np.float32)
    with pytest.raises(ExportError, match=r"n: operator FusedMatMul \('it'\) has weights"):
        count_macs(model_of("FusedMatMul", square, "com.microsoft"), place="n")


def test_unknown_operators_without_weights_are_listed() -> None:
    count = count_macs(model_of("QuickGelu", None, "com.microsoft"), place="n")
    assert (count.macs, count.unknown) == (0, ("QuickGelu",))
    assert count_macs(model_of("Relu", None), place="n").unknown == ()


def test_einsum_of_three_operands_is_an_error() -> None:
    node = helper.make_node("Einsum", ["x", "x", "x"], ["y"], name="it", equation="bi,bi,bi->bi")
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4]) for n in "xy"]
    graph = helper.make_graph([node], "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ExportError, match="'bi,bi,bi->bi' is not one plain product"):
        count_macs(model, place="n")


def test_shapes_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ExportError, match="n: shapes do not fit"):
        count_macs(model_of("MatMul", np.ones((3, 3), np.float32)), place="n")


def test_shapes_computed_from_data_are_measured() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            steps = (x.new_ones(3).cumsum(0)[-1] + 0 * x.sum()).to(torch.int64)
            wide = x[:, None].expand(x.shape[0], steps, 4)  # type: ignore[call-overload]
            out: Tensor = self.linear(wide).sum(1)
            return out

    assert count_macs(exported(Net(), (4,)), place="n").macs == 3 * 4 * 2


def test_layers_add_up_and_keep_their_order() -> None:
    count = count_macs(exported(Mlp(), (3, 8, 8)), place="n")
    assert [layer.macs for layer in count.layers] == [192 * 32, 32 * 5]
    assert count.macs == sum(layer.macs for layer in count.layers)
