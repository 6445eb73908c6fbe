"""Losses in closed form: equation 4 of DDI, the corrected equations 1 to 3 of the d-gates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from dynrt.train.losses import (
    classification_loss,
    gate_loss,
    gate_norm,
    hinge_loss,
    joint_loss,
    softmax_gate_loss,
)


def _case(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights ``(c, f)``, biases, features ``(n, f)``, labels."""
    rng = np.random.default_rng(seed)
    n, f, c = rng.integers(1, 6), rng.integers(1, 5), rng.integers(2, 5)
    made = [torch.from_numpy(rng.normal(size=s)) for s in ((c, f), (c,), (n, f))]
    return made[0], made[1], made[2], torch.from_numpy(rng.integers(0, c, n))


def test_equation_4_is_the_plain_sum() -> None:
    torch.manual_seed(0)
    outputs, labels = [torch.randn(4, 3) for _ in range(3)], torch.tensor([0, 2, 1, 1])
    wanted = sum(float(functional.cross_entropy(o, labels)) for o in outputs)
    assert float(joint_loss(outputs, labels, [1, 1, 1])) == pytest.approx(wanted, rel=1e-6)


def test_exits_are_weighted() -> None:
    torch.manual_seed(0)
    outputs, labels = [torch.randn(4, 3) for _ in range(2)], torch.tensor([0, 2, 1, 1])
    a, b = (float(functional.cross_entropy(o, labels)) for o in outputs)
    assert float(joint_loss(outputs, labels, [0.25, 2])) == pytest.approx(0.25 * a + 2 * b)


def test_every_exit_needs_a_weight() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        joint_loss([torch.zeros(1, 2)], torch.tensor([0]), [1.0, 1.0])


def test_half_precision_outputs_are_summed_in_float32() -> None:
    out = torch.zeros(2, 3, dtype=torch.bfloat16)
    assert joint_loss([out], torch.tensor([0, 1]), [1.0]).dtype == torch.float32


def test_distillation_by_hand() -> None:
    logits, teacher, t = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]), 2.0
    q = np.exp([0.0, 1.0]) / np.exp([0.0, 1.0]).sum()
    p = np.exp([0.5, 0.0]) / np.exp([0.5, 0.0]).sum()
    kl = float((q * np.log(q / p)).sum())
    hard = -np.log(np.exp(1.0) / (np.exp(1.0) + 1.0))
    ours = classification_loss(
        logits,
        torch.tensor([0]),
        soft_labels=torch.softmax(teacher / t, 1),
        share=0.25,
        temperature=t,
    )
    assert float(ours) == pytest.approx(0.75 * hard + 0.25 * t * t * kl, rel=1e-5)


def test_hinge_by_hand() -> None:
    # label 0: max(0, 1 - 3) + max(0, 1 + 0.5) + max(0, 1 - 2) = 1.5; label 2: 4 + 0 + 0.5
    distances = torch.tensor([[3.0, 0.5, -2.0], [3.0, -1.0, 0.5]])
    assert float(hinge_loss(distances, torch.tensor([0, 2]))) == pytest.approx((1.5 + 4.5) / 2)


@given(st.integers(0, 10_000))
def test_sub_gradient_is_minus_y_x_where_y_times_y_hat_is_below_one(seed: int) -> None:
    weight, bias, x, labels = _case(seed)
    weight.requires_grad_()
    distances = x @ weight.T + bias
    hinge_loss(distances, labels).backward()
    wanted = np.zeros(weight.shape)
    for sample, label in zip(range(len(x)), labels.tolist(), strict=True):
        for c in range(weight.shape[0]):
            y = 1.0 if c == label else -1.0
            if y * float(distances[sample, c].detach()) < 1:
                wanted[c] += -y * x[sample].numpy() / len(x)
    assert weight.grad is not None
    np.testing.assert_allclose(weight.grad.numpy(), wanted, atol=1e-12)


def test_no_gradient_at_equality_nor_for_negatives_beyond_the_margin() -> None:
    distances = torch.tensor([[1.0, -1.0, -5.0]], requires_grad=True)
    hinge_loss(distances, torch.tensor([0])).backward()
    assert distances.grad is not None
    # the printed condition y_hat < 1 would give a gradient at -1 and -5
    assert not distances.grad.any()


@given(st.integers(0, 10_000), st.floats(0.01, 10))
def test_the_norm_is_added(seed: int, norm_weight: float) -> None:
    weight, bias, x, labels = _case(seed)
    distances = x @ weight.T + bias
    norms = sum(float(np.linalg.norm(row)) for row in weight.numpy())
    plain = float(hinge_loss(distances, labels))
    whole = float(gate_loss(distances, labels, weight, norm_weight))
    assert whole == pytest.approx(plain + norm_weight * norms)
    soft = float(softmax_gate_loss(distances, labels, weight, norm_weight))
    entropy = float(functional.cross_entropy(distances, labels))
    assert soft == pytest.approx(entropy + norm_weight * norms)


def test_the_norm_has_a_sub_gradient_at_zero() -> None:
    weight = torch.zeros(3, 4, requires_grad=True)
    gate_norm(weight).backward()
    assert weight.grad is not None
    assert not weight.grad.any()


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_gate_loss_is_convex(seed: int, share: float) -> None:
    weight, bias, x, labels = _case(seed)
    other = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=weight.shape))

    def loss(w: torch.Tensor) -> float:
        return float(gate_loss(x @ w.T + bias, labels, w, 0.3))

    between = share * weight + (1 - share) * other
    assert loss(between) <= share * loss(weight) + (1 - share) * loss(other) + 1e-9
