"""Batch norms go into their linear neighbours, exactly where that is exact."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dynrt.exporters.onnx_node import call_module, export_node, frozen_copy
from tests.exporters.networks import images, operators, port, seeded

FOLDED = {
    "conv": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
    "conv-without-bias": nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)),
    "grouped-conv": nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)),
    "conv-transpose": nn.Sequential(nn.ConvTranspose2d(3, 4, 3, 2), nn.BatchNorm2d(4)),
    "grouped-conv-transpose": nn.Sequential(
        nn.ConvTranspose2d(3, 6, 2, 2, groups=3), nn.BatchNorm2d(6)
    ),
    "norm-then-conv": nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)),
    "norm-then-conv-without-bias": nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, bias=False)),
    "two-norms": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)),
    "linear": nn.Sequential(nn.Flatten(), nn.Linear(108, 4), nn.BatchNorm1d(4)),
    "linear-without-bias": nn.Sequential(
        nn.Flatten(), nn.Linear(108, 4, bias=False), nn.BatchNorm1d(4)
    ),
    "norm-then-linear": nn.Sequential(nn.Flatten(), nn.BatchNorm1d(108), nn.Linear(108, 4)),
    "norm-then-linear-without-bias": nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(108), nn.Linear(108, 4, bias=False)
    ),
    "plain-norm": nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)),
}


class ConvTwice(nn.Module):
    """The convolution's own result is used beside the norm's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        out: Tensor = y + self.bn(y)
        return out


class SharedConv(nn.Module):
    """One set of weights under two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.one, self.two = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.one(self.conv(x)) + self.two(self.conv(-x))
        return out


class LinearOverSteps(nn.Module):
    """The norm's channels are the steps, not the linear layer's outputs, though both are 6."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.bn = nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.linear(functional.relu(x[:, 0])))
        return out


KEPT = {
    "norm-then-padded-conv": nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)),
    "norm-then-grouped-conv": nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, groups=3)),
    "activation-between": nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
    "used-twice": ConvTwice(),
    "other-axis": LinearOverSteps(),
}


def both(module: nn.Module) -> tuple[bytes, float]:
    """The export, and its largest difference from torch."""
    torch.manual_seed(0)
    module = seeded(module)
    made = export_node(module, [port("x", 3, 6, 6)], ["y"], place="n").model
    x = images(2, 3, 6, 6)
    got = onnxruntime.InferenceSession(made).run(None, {"x": x})[0]
    want = call_module(frozen_copy(module), [x], ["y"], place="n")["y"]
    return made, float(np.abs(got - want).max())


@pytest.mark.parametrize("name", FOLDED)
def test_norm_is_folded_and_nothing_changes(name: str) -> None:
    model, error = both(FOLDED[name])
    assert "BatchNormalization" not in operators(model)
    assert error < 2e-5


@pytest.mark.parametrize("name", KEPT)
def test_norm_that_cannot_be_folded_stays(name: str) -> None:
    model, error = both(KEPT[name])
    assert operators(model).count("BatchNormalization") == 1
    assert error < 2e-5


def test_shared_weights_are_folded_apart() -> None:
    model, error = both(SharedConv())
    assert operators(model).count("BatchNormalization") == 0
    assert operators(model).count("Conv") == 2
    assert error < 2e-5


def test_norm_of_a_result_keeps_the_name_of_the_result() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.conv(x)
            return y, self.bn(y)

    made = export_node(seeded(Both()), [port("x", 3, 6, 6)], ["raw", "normed"], place="n").model
    assert operators(made).count("BatchNormalization") == 1
    names = [o.name for o in onnxruntime.InferenceSession(made).get_outputs()]
    assert names == ["raw", "normed"]
