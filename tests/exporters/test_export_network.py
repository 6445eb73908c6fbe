"""From a spec to a file, proven; and what the package says it has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dynrt.exporters
import dynrt.runtime
from dynrt.bundle import Bundle, Preprocessing, read_bundle, write_bundle
from dynrt.errors import ExportError, ParityError
from dynrt.exporters import (
    NetworkBuilder,
    NetworkSpec,
    Tolerance,
    export,
    export_network,
    lower,
    sequential_exits,
)
from dynrt.exporters.plain import Weights
from dynrt.ir.graph import TensorType
from tests.exporters.networks import Block, images, pooled_head, seeded

IMAGE = TensorType(dtype="float32", shape=(3, 8, 8))
SAMPLES = images(4, 3, 8, 8)


def network() -> NetworkSpec:
    return sequential_exits(
        "small",
        IMAGE,
        [("stem", nn.Conv2d(3, 16, 3, 1, 1)), ("body", seeded(Block(16, 16)))],
        {"stem": pooled_head(16), "body": pooled_head(16)},
    ).build(
        labels=list("abcde"),
        preprocessing=Preprocessing(
            height=8, width=8, channels=3, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
        ),
        card={"data": "none", "seed": 0},
    )


@pytest.mark.parametrize("weights", ["float32", "float16"])
def test_a_bundle_goes_to_a_file_and_back(tmp_path: Path, weights: Weights) -> None:
    bundle, report = export_network(
        network(), SAMPLES, weights=weights, provenance={"recipe": "test"}
    )
    path = tmp_path / "small.dynrt"
    assert write_bundle(bundle, path) == bundle.sha256
    again = read_bundle(path)
    assert again == bundle
    assert again.provenance["parity"] == str(report)
    assert again.provenance["recipe"] == "test"
    assert again.provenance["weights"] == weights
    assert {"torch", "onnx", "onnxruntime", "opset"} <= again.provenance.keys()
    assert again.card == {"data": "none", "seed": 0}
    result = dynrt.runtime.load(path).run(SAMPLES[0])
    assert result.label == "abcde"[result.index]


def test_lowering_is_reproducible() -> None:
    spec = network()
    assert lower(spec).sha256 == lower(spec).sha256


def test_float16_is_smaller_and_held_to_its_own_tolerance() -> None:
    spec = network()
    whole, half = (export_network(spec, SAMPLES, weights=w) for w in ("float32", "float16"))
    sizes = [sum(map(len, bundle.models.values())) for bundle, _ in (whole, half)]
    assert sizes[1] < 0.7 * sizes[0]
    assert half[1].max_abs_error > whole[1].max_abs_error
    with pytest.raises(ParityError, match="differs by"):
        export_network(
            spec, SAMPLES, weights="float16", tolerance=Tolerance(absolute=1e-6, relative=0.0)
        )


def test_float16_does_not_hide_what_is_wired_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake below float16's tolerance is found by the proof with float32 weights."""

    def wrong(spec: NetworkSpec, *, weights: Weights = "float32", **_: object) -> Bundle:
        bundle = lower(spec, weights=weights)
        with torch.no_grad():
            for parameter in spec.modules["stem"].parameters():
                parameter.add_(1e-3)
        return bundle

    monkeypatch.setattr(export, "lower", wrong)
    with pytest.raises(ParityError, match=r"node 'stem'.*0\.0001 \+ 0\.0001"):
        export_network(network(), SAMPLES, weights="float16")


def test_operators_without_weights_that_are_unknown_are_noted() -> None:
    """``IsNaN`` and friends are known; a determinant multiplies, and is not counted."""

    class Det(nn.Module):
        def forward(self, x: object) -> object:
            import torch

            return torch.det(x)[:, None]  # type: ignore[arg-type]

    net = NetworkBuilder("det")
    net.exit("final", Det(), {"x": net.input("x", (3, 3))})
    bundle = lower(net.build())
    assert bundle.provenance["uncounted_operators"] == "final: Det"


def test_several_inputs_are_given_by_name() -> None:
    class Add(nn.Module):
        def forward(self, x: float, y: float) -> float:
            return x + y

    net = NetworkBuilder("add")
    net.exit("final", Add(), {"x": net.input("a", (2,)), "y": net.input("b", (2,))})
    spec = net.build()
    with pytest.raises(ExportError, match="'add' has inputs a, b; give samples by name"):
        export_network(spec, np.zeros((1, 2), np.float32))
    one = np.ones(2, np.float32)
    _, report = export_network(spec, [{"a": one, "b": one}])
    assert report.inputs == 1


def test_all_that_is_named_is_there() -> None:
    for name in dynrt.exporters.__all__:
        assert hasattr(dynrt.exporters, name)
    assert dynrt.exporters.__all__ == sorted(dynrt.exporters.__all__)
