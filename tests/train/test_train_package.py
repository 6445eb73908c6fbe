"""From weights to a bundle: nodes, exits, costs, and what it computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dynrt.bundle import Bundle, Preprocessing
from dynrt.errors import RecipeError
from dynrt.exporters import prove
from dynrt.ir.graph import Exit
from dynrt.train.networks import new_branched
from dynrt.train.package import (
    CIFAR10_LABELS,
    UNCALIBRATED,
    build_bundle,
    network_spec,
    run_bundle,
    run_weights,
)
from dynrt.train.recipe import NetworkSpec
from dynrt.zoo import ExitGates
from tests.train.tiny import Bench, tiny_recipe

SMALL = Preprocessing(height=16, width=16, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
LABELS = ("red", "green", "blue")


def _weights(depth: int, width: int, classes: int, *, baseline: bool = False) -> dict[str, Tensor]:
    """Random weights of a network with branches and d-gates."""
    net = new_branched(NetworkSpec(depth=depth, width=width, classes=classes), seed=1)
    sizes = [net.branch(i).feature_size for i in range(len(net.branches))]
    gates = ExitGates(sizes, classes, baseline=baseline)
    torch.manual_seed(2)
    for gate in gates.parameters():
        torch.nn.init.normal_(gate)
    return {**net.state_dict(), **gates.state_dict()}


@pytest.fixture(scope="module")
def small() -> dict[str, Tensor]:
    return _weights(26, 2, 3, baseline=True)


def _bundle(weights: dict[str, Tensor], thresholds: dict[str, float] | None = None) -> Bundle:
    return build_bundle(weights, thresholds, labels=LABELS, preprocessing=SMALL)


@pytest.fixture(scope="module")
def bundle(small: dict[str, Tensor]) -> Bundle:
    return build_bundle(
        small,
        {"exit1": 0.25, "exit4": 2.0},
        name="small",
        labels=LABELS,
        preprocessing=SMALL,
        card={"data": "none"},
        provenance={"command": "a test"},
    )


def test_nodes_and_exits_have_the_usual_names(bundle: Bundle) -> None:
    # depth 26: four blocks a stage, branches after the first and the third of each
    names = [n.name for n in bundle.graph.nodes]
    assert [n for n in names if n.startswith(("stem", "block"))] == [
        "stem",
        *(f"block{i}" for i in range(1, 13)),
    ]
    assert bundle.graph.exits == ("exit1", "exit2", "exit3", "exit4", "exit5", "exit6", "final")
    sources = {
        e.target.node: e.source.node
        for e in bundle.graph.data
        if e.target.node in bundle.graph.exits
    }
    assert sources == {
        "exit1": "block1",
        "exit2": "block3",
        "exit3": "block5",
        "exit4": "block7",
        "exit5": "block9",
        "exit6": "block11",
        "final": "block12",
    }


def test_early_exits_accept_by_distance_and_answer_with_logits(bundle: Bundle) -> None:
    exits = [bundle.graph.by_name[name] for name in bundle.graph.exits]
    for node in exits[:-1]:
        assert isinstance(node, Exit)
        assert [p.name for p in node.outputs] == ["logits", "distances"]
        assert (node.answer, node.accept.kind, node.accept.port) == ("logits", "hinge", "distances")
    thresholds = [node.accept.threshold for node in exits[:-1] if isinstance(node, Exit)]
    assert thresholds == [0.25, UNCALIBRATED, UNCALIBRATED, 2.0, UNCALIBRATED, UNCALIBRATED]
    final = exits[-1]
    assert isinstance(final, Exit)
    assert [p.name for p in final.outputs] == ["logits"]
    assert final.accept.kind == "always"


def test_card_provenance_labels_and_preprocessing_are_carried(
    bundle: Bundle, small: dict[str, Tensor]
) -> None:
    assert bundle.name == "small"
    assert bundle.labels == LABELS
    assert bundle.preprocessing == SMALL
    assert bundle.card == {"data": "none"}
    assert bundle.provenance["command"] == "a test"
    assert bundle.provenance["weights"] == "float16"
    assert len(bundle.provenance["trained_weights_sha256"]) == 64
    other = {**small, "gates.0.bias": small["gates.0.bias"] + 1}
    assert (
        _bundle(other).provenance["trained_weights_sha256"]
        != bundle.provenance["trained_weights_sha256"]
    )


def test_the_bundle_computes_what_the_modules_compute(
    bundle: Bundle, small: dict[str, Tensor]
) -> None:
    spec = network_spec(small, {"exit1": 0.25, "exit4": 2.0}, labels=LABELS, preprocessing=SMALL)
    rng = np.random.default_rng(0)
    inputs = [{"image": rng.normal(size=(3, 16, 16)).astype(np.float32)} for _ in range(2)]
    report = prove(spec, bundle, inputs)
    assert set(bundle.graph.exits) <= set(report.covered)


def test_resnet38_fits_its_budgets() -> None:
    bundle = build_bundle(_weights(38, 16, 10))
    assert bundle.labels == CIFAR10_LABELS
    certificate = bundle.certificate
    heads = {e.name: e for e in certificate.exits}
    # every head on the way counts; 41 MFLOPs reach exit 2, 170 MFLOPs the end
    assert heads["exit2"].full_macs <= 41_000_000 // 2
    assert certificate.full_macs == heads["final"].full_macs <= 170_000_000 // 2
    assert certificate.full_macs == 83_018_368 + 1_907_584
    assert certificate.cheapest_macs == 442_368 + 4_718_592 + 295_552


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gates.0.weight": None}, r"weights of the d-gates: lacks 'gates\.0\.weight'"),
        ({"branches.5.classifier.bias": None}, r"lacks 'branches\.5\.classifier\.bias'"),
        ({"backbone.conv1.weight": None}, r"no backbone\.conv1\.weight"),
        ({"more": torch.zeros(1)}, "holds the unknown 'more'"),
        ({"gates.1.bias": torch.zeros(4)}, r"gates\.1\.bias has the shape \(4,\)"),
    ],
)
def test_weights_that_do_not_fit(
    small: dict[str, Tensor], change: dict[str, Tensor | None], message: str
) -> None:
    changed = {k: t for k, t in {**small, **change}.items() if t is not None}
    with pytest.raises(RecipeError, match=message):
        network_spec(changed, labels=LABELS, preprocessing=SMALL)


def test_a_network_without_blocks() -> None:
    weights = {
        "backbone.conv1.weight": torch.zeros(2, 3, 3, 3),
        "backbone.linear.bias": torch.zeros(3),
    }
    with pytest.raises(RecipeError, match=r"no block backbone\.layer1\.0"):
        network_spec(weights)


def test_thresholds_and_labels_that_do_not_fit(small: dict[str, Tensor]) -> None:
    with pytest.raises(RecipeError, match="threshold for 'final'; the early exits are exit1"):
        network_spec(small, {"final": 1.0}, labels=LABELS, preprocessing=SMALL)
    with pytest.raises(RecipeError, match="10 labels for 3 classes"):
        network_spec(small, preprocessing=SMALL)


def test_two_exits_in_one_place() -> None:
    with pytest.raises(RecipeError, match="two exits after 'block3'"):
        network_spec(_weights(8, 2, 3), labels=LABELS, preprocessing=SMALL)


def test_a_run_becomes_a_bundle_that_says_how_it_was_trained(tmp_path: Path) -> None:
    text = tiny_recipe(epochs=1).replace("depth = 8", "depth = 14")
    bench = Bench(tmp_path, text)
    with pytest.raises(RecipeError, match=r"this is no folder that dynrt train filled"):
        run_bundle(tmp_path / "out")
    bench.train("out", seconds=0.0)
    with pytest.raises(RecipeError, match="stage 'branches' is not finished"):
        run_weights(tmp_path / "out")
    result = bench.train("out")
    made = run_bundle(tmp_path / "out", {"exit2": 3.0}, card={"licence": "Apache-2.0"})
    assert made.name == "tiny"
    assert made.labels == ("0", "1", "2")
    assert made.preprocessing is not None
    assert (made.preprocessing.height, made.preprocessing.std[0]) == (8, 0.229)
    card = json.loads(json.dumps(made.card))
    assert card["licence"] == "Apache-2.0"
    assert (card["recipe"], card["schedule"], card["seed"]) == ("tiny", "cpu", 0)
    assert card["validation_accuracy"] == {k: dict(v) for k, v in result.accuracy.items()}
    exit2 = made.graph.by_name["exit2"]
    assert isinstance(exit2, Exit)
    assert exit2.accept.threshold == 3.0


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schedule": "cpu", "picture_size": 3}'])
def test_a_folder_whose_description_is_broken(tmp_path: Path, content: str) -> None:
    (tmp_path / "recipe.toml").write_text(tiny_recipe())
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RecipeError, match="this is no folder that dynrt train filled"):
        run_bundle(tmp_path)
