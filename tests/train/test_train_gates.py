"""d-gates: trained by themselves on all data, from features of a network that stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from dynrt.train.gates import Features, GateTask, pooled_features
from dynrt.train.loop import StageRun
from dynrt.train.losses import gate_loss
from dynrt.train.pictures import Pictures
from dynrt.train.progress import Journal, Watch
from dynrt.train.recipe import Descent, GateStage, PictureSpec, Rate
from dynrt.zoo import BranchedResNet, ExitGates

DESCENT = Descent(
    epochs=3,
    batch=8,
    rate=Rate(kind="drops", peak=0.05),
    momentum=0.9,
    momentum_at_peak=0.9,
    weight_decay=0.0,
)
STAGE = GateStage(descent=DESCENT, norm_weight=1e-3, flipped=False, baseline=True)


def _features(sizes: tuple[int, ...], *, count: int = 64, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.integers(0, 3, count))
    return Features(
        by_exit=tuple(
            torch.from_numpy(rng.normal(size=(count, size)).astype(np.float32))
            + 2 * nn.functional.one_hot(labels, size).float()
            for size in sizes
        ),
        labels=labels,
    )


def _task(features: Features, stage: GateStage = STAGE) -> GateTask:
    sizes = [x.shape[1] for x in features.by_exit]
    return GateTask(
        ExitGates(sizes, 3, baseline=stage.baseline),
        stage=stage,
        seed=0,
        train=features,
        validation=features,
        classifiers=[nn.Linear(size, 3) for size in sizes],
    )


def _trained(folder: Path, features: Features, descent: Descent = DESCENT) -> ExitGates:
    task = _task(features)
    run = StageRun(
        stage="gates",
        descent=descent,
        identity={},
        checkpoint=folder / "c.safetensors",
        watch=Watch(tell=lambda _: None, limit_s=None, save_every_s=1e9),
        journal=Journal(folder / "r.jsonl"),
    )
    assert run.fit(task) is not None
    (folder / "c.safetensors").unlink()
    module = task.module
    assert isinstance(module, ExitGates)
    return module


def test_gates_together_are_each_gate_alone(tmp_path: Path) -> None:
    features = _features((4, 5))
    together = _trained(tmp_path, features).layers()
    for i in range(2):
        one = Features(by_exit=(features.by_exit[i],), labels=features.labels)
        alone = _trained(tmp_path, one).layers()
        for kind in (0, 1):
            assert torch.equal(together[kind][i].weight, alone[kind][0].weight)
            assert torch.equal(together[kind][i].bias, alone[kind][0].bias)


def test_the_optimum_of_the_convex_loss_is_approached(tmp_path: Path) -> None:
    features = _features((4,), count=256)
    descent = Descent(
        epochs=30,
        batch=64,
        rate=Rate(kind="one-cycle", peak=0.1, warmup=0.1, start_divisor=10, end_divisor=1e4),
        momentum=0.9,
        momentum_at_peak=0.9,
        weight_decay=0.0,
    )
    gate = _trained(tmp_path, features, descent).layers()[0][0]
    x, labels = features.by_exit[0].double(), features.labels

    def loss(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return gate_loss(x @ weight.T + bias, labels, weight, STAGE.norm_weight)

    # sub-gradient descent over everything at once, with shrinking steps, as the reference
    weight = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    best = float("inf")
    for step in range(600):
        value = loss(weight, bias)
        best = min(best, float(value.detach()))
        gradients = torch.autograd.grad(value, (weight, bias))
        with torch.no_grad():
            for parameter, gradient in zip((weight, bias), gradients, strict=True):
                parameter -= 0.5 / (1 + step) ** 0.6 * gradient
    with torch.no_grad():
        ours = float(loss(gate.weight.double(), gate.bias.double()))
    assert ours <= best * 1.02
    assert best < 1.0  # 3 at the start


def test_easy_features_lie_outside_the_margin(tmp_path: Path) -> None:
    labels = torch.arange(60) % 3
    easy = Features(by_exit=(10 * nn.functional.one_hot(labels, 3).float(),), labels=labels)
    gate = _trained(tmp_path, easy).layers()[0][0]
    with torch.no_grad():
        distances = gate(easy.by_exit[0])
    assert torch.equal(distances.argmax(1), labels)
    assert float(distances.max(1).values.min()) >= 0.9


def test_accuracy_names_gates_baseline_and_logits() -> None:
    features = _features((4, 5))
    accuracy = _task(features).accuracy()
    assert accuracy.keys() == {
        f"exit{i}.{kind}" for i in (1, 2) for kind in ("distances", "softmax", "logits")
    }
    # gates at zero say class 0 of everything
    share = int((features.labels == 0).sum()) / len(features.labels)
    assert accuracy["exit1.distances"] == accuracy["exit2.softmax"] == share


def test_without_baseline_there_is_only_the_hinge() -> None:
    stage = GateStage(descent=DESCENT, norm_weight=0.0, flipped=False, baseline=False)
    task = _task(_features((4,)), stage)
    assert task.accuracy().keys() == {"exit1.distances", "exit1.logits"}
    # all distances zero: every one of three classes is one short of its margin
    assert [float(loss.detach()) for loss in task.losses(0, 0)] == [3.0] * 8


def test_features_are_those_of_the_frozen_network() -> None:
    rng = np.random.default_rng(0)
    spec = PictureSpec(mean=(0.5,) * 3, std=(0.25,) * 3, crop_padding=2, flip=True)
    pixels = rng.integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    pictures = Pictures(pixels, np.arange(7, dtype=np.int64) % 3, spec, place="test")
    net = BranchedResNet(8, width=2, classes=3)
    before = {k: t.clone() for k, t in net.state_dict().items()}
    steps: list[tuple[int, int]] = []
    watch = Watch(tell=lambda p: steps.append((p.step, p.steps)), limit_s=0.0, save_every_s=1e9)
    found = pooled_features(net.train(), pictures, flipped=True, watch=watch)
    assert steps == [(1, 2), (2, 2)]
    assert all(torch.equal(before[k], t) for k, t in net.state_dict().items())
    assert found.labels.tolist() == [*(i % 3 for i in range(7))] * 2
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        plain, mirrored = net.eval().pooled(x), net.pooled(x.flip(3))
    for vectors, one, other in zip(found.by_exit, plain, mirrored, strict=True):
        torch.testing.assert_close(vectors, torch.cat([one, other]))
    assert [x.shape for x in found.by_exit] == [(14, b) for b in (4, 8, 8)]
