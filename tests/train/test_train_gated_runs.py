"""Finished runs of networks with gates, and of d-gates on a backbone alone, as bundles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import dynrt.runtime
from dynrt.errors import RecipeError
from dynrt.ir.graph import Accept, Exit
from dynrt.train import load_recipe
from dynrt.train.checkpoint import read_tensor_file, tensors_sha256
from dynrt.train.package import finished_stage, run_bundle
from dynrt.train.package_run import trained_bundle
from dynrt.train.stages import weights_path
from dynrt.zoo import DenseNet, ExitGates, ResNet
from dynrt.zoo.exits import ExitNetwork
from tests.train.tiny import Bench, tiny_recipe

NETWORK = "[network]\ndepth = 8\nwidth = 4\nclasses = 3\n"
DENSE = """[network]
family = "densenet"
depth = 16
growth = 4
bottleneck = true
compression = 0.5
classes = 3
"""
GATED = """
[gates]
layer = true
channel = "output"
group_channels = 1
"""
GATED_STAGE = """
[stages.{stage}]
epochs = 1
batch = 16
momentum = 0.9
momentum_at_peak = 0.9
weight_decay = 1e-4
precision = "float32"
channels_last = true
exit_weights = {weights}
resource = "computation"
target = 0.3
alpha = 0.1
rate = {{ kind = "drops", peak = 0.05, at = [], divisor = 10.0 }}
[stages.{stage}.cpu]
[stages.{stage}.paper]
"""


def gates_only(network: str, points: list[str], grid: int) -> str:
    """d-gates on a backbone that the run trains itself."""
    text = tiny_recipe(stages=("base", "gates"), epochs=1).replace(NETWORK, network)
    more = f"exit_points = {json.dumps(points)}\n" + (f"exit_grid = {grid}\n" if grid > 1 else "")
    return text.replace("seed = 0\n", f"seed = 0\n{more}")


def gated() -> str:
    """Base, IADI in its two steps, branches, d-gates."""
    text = tiny_recipe(stages=("base", "gates"), epochs=1).replace("depth = 8", "depth = 14")
    text = text.replace("[stages.base.paper]", GATED + "[stages.base.paper]")
    for stage in ("open", "iadi", "ddi"):
        weights = "[1.0]" if stage != "ddi" else "[1.0, 1.0, 1.0, 1.0]"
        text += GATED_STAGE.format(stage=stage, weights=weights)
    return text


def samples(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2


@pytest.mark.parametrize(
    ("network", "points", "grid"),
    [(NETWORK, ["block1", "block2"], 1), (DENSE, ["dense2", "dense3", "dense5"], 2)],
    ids=["resnet", "densenet"],
)
def test_d_gates_on_a_backbone_of_any_family(
    tmp_path: Path, network: str, points: list[str], grid: int
) -> None:
    bench = Bench(tmp_path, gates_only(network, points, grid))
    result = bench.train("out")
    assert result.finished
    out = tmp_path / "out"
    early = [f"exit{i + 1}" for i in range(len(points))]
    assert set(result.accuracy["gates"]) == {
        f"{name}.{kind}" for name in early for kind in ("distances", "softmax")
    }
    bundle = trained_bundle(out, dict.fromkeys(early, -1.5), precision="float32")
    exits = [n for n in bundle.graph.nodes if isinstance(n, Exit)]
    assert [n.name for n in exits] == [*early, "final"]
    assert exits[0].accept == Accept(kind="hinge", port="distances", threshold=-1.5)
    assert [n for n in bundle.models if n not in bundle.graph.exits][:-1] == points
    backbone = (
        ResNet(8, width=4, classes=3) if network is NETWORK else DenseNet(16, growth=4, classes=3)
    )
    weights, _ = finished_stage(out, "base")
    backbone.load_state_dict(weights)
    net = ExitNetwork(backbone, points, grid=grid).eval()
    gates = ExitGates(net.feature_sizes, 3, baseline=True)
    of_gates, _ = finished_stage(out, "gates")
    gates.load_state_dict(of_gates)
    x = samples(6)
    with torch.no_grad():
        vectors, logits = net(x)
        hinge, soft = gates(vectors)
    sure = trained_bundle(out, dict.fromkeys(early, 1e9), name="sure", precision="float32")
    first = trained_bundle(out, dict.fromkeys(early, 0.0), rule="softmax", precision="float32")
    assert sure.name == "sure"
    assert bundle.name == "tiny"
    assert bundle.provenance["trained_weights_sha256"] == tensors_sha256({**weights, **of_gates})
    for sample, full, at_once in zip(x.numpy(), logits, soft[0], strict=True):
        result_full = dynrt.runtime.load(sure).run(sample)
        assert result_full.exit == "final"
        np.testing.assert_allclose(result_full.answer, full.numpy(), atol=1e-4)
        result_first = dynrt.runtime.load(first).run(sample)
        assert result_first.exit == "exit1"
        np.testing.assert_allclose(result_first.answer, at_once.numpy(), atol=1e-4)
    assert len(hinge) == len(early)
    validation = bundle.card["validation_accuracy"]
    assert isinstance(validation, dict)
    assert set(validation) == {"base", "gates"}


def test_a_run_with_layer_and_channel_gates(tmp_path: Path) -> None:
    bench = Bench(tmp_path, gated())
    assert bench.train("out").finished
    out = tmp_path / "out"
    bundle = trained_bundle(out, {"exit1": 0.5})
    names = set(bundle.models)
    assert {"stem", "block2_gate", "block2_mask", "block4_mask", "exit1", "final"} <= names
    accepts = {n.name: n.accept for n in bundle.graph.nodes if isinstance(n, Exit)}
    assert accepts["exit1"] == Accept(kind="hinge", port="distances", threshold=0.5)
    # d-gates not trained yet: branches are there for budgets only
    weights_path(out, "gates").rename(tmp_path / "gates")
    kinds = {n.name: n.accept.kind for n in trained_bundle(out).graph.nodes if isinstance(n, Exit)}
    assert kinds == {"exit1": "never", "exit2": "never", "exit3": "never", "final": "always"}
    with pytest.raises(RecipeError, match="the network has no d-gates"):
        trained_bundle(out, {"exit1": 0.5})
    # nor branches: IADI alone
    weights_path(out, "ddi").rename(tmp_path / "ddi")
    assert trained_bundle(out).graph.exits == ("final",)
    kept = read_tensor_file(weights_path(out, "iadi"), kind="weights").tensors
    assert trained_bundle(out).provenance["trained_weights_sha256"] == tensors_sha256(kept)
    weights_path(out, "iadi").unlink()
    with pytest.raises(RecipeError, match="stage 'iadi' is not finished"):
        trained_bundle(out)


def test_a_run_with_branches_is_the_network_that_it_was(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path,
        tiny_recipe(epochs=1).replace("depth = 8", "depth = 14"),
    )
    bench.train("out")
    out = tmp_path / "out"
    made, before = trained_bundle(out, {"exit1": 2.0}), run_bundle(out, {"exit1": 2.0})
    assert made.graph == before.graph
    assert made.models == before.models
    assert made.card == before.card
    assert made.provenance == before.provenance
    with pytest.raises(RecipeError, match="accept by distances"):
        trained_bundle(out, rule="softmax")


@pytest.mark.parametrize(
    ("name", "units"), [("resnet56", 27), ("resnet74", 36), ("densenet100", 48)]
)
@pytest.mark.parametrize("variant", ["main", "late", "grid"])
def test_the_recipes_for_d_gates_name_units_of_their_networks(
    name: str, units: int, variant: str
) -> None:
    for schedule in ("cpu", "paper"):
        recipe = load_recipe(f"dgates-{name}-{variant}", schedule=schedule)
        assert tuple(recipe.stages) == ("base", "gates")
        assert recipe.exit_points is not None
        assert (recipe.exit_grid > 1) == (variant == "grid")
        assert recipe.network.depth == int(name.removeprefix("resnet").removeprefix("densenet"))
        prefix = "dense" if name.startswith("dense") else "block"
        numbers = [int(p.removeprefix(prefix)) for p in recipe.exit_points]
        assert numbers == sorted(set(numbers))
        assert 0 < numbers[0] < numbers[-1] < units
