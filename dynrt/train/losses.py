"""Loss functions: DDI's joint loss with distillation, the d-gate's hinge loss and its baseline."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    soft_labels: Tensor | None = None,
    share: float = 0.0,
    temperature: float = 1.0,
) -> Tensor:
    """Cross-entropy, of which ``share`` is replaced by distillation (Hinton et al., 2015).

    Args:
        logits: ``(n, classes)``, float32.
        labels: ``(n,)``, int64.
        soft_labels: the teacher's softmax at ``temperature``, ``(n, classes)``, or ``None``.
        share: of the distillation term, 0..1.
        temperature: of both softmaxes; the term is scaled by its square.
    """
    hard = functional.cross_entropy(logits, labels)
    if soft_labels is None:
        return hard
    soft = functional.kl_div(
        functional.log_softmax(logits / temperature, 1), soft_labels, reduction="batchmean"
    )
    return (1 - share) * hard + share * temperature * temperature * soft


def joint_loss(
    outputs: Sequence[Tensor],
    labels: Tensor,
    weights: Sequence[float],
    *,
    soft_labels: Tensor | None = None,
    share: float = 0.0,
    temperature: float = 1.0,
) -> Tensor:
    """Weighted sum of all exits' losses; DDI's equation 4 is the case of weights 1 and no teacher.

    Outputs are taken as float32, whatever precision the forward pass had.
    """
    total = torch.zeros(())
    for weight, logits in zip(weights, outputs, strict=True):
        total = total + weight * classification_loss(
            logits.float(), labels, soft_labels=soft_labels, share=share, temperature=temperature
        )
    return total


def hinge_loss(distances: Tensor, labels: Tensor) -> Tensor:
    """One-vs-all hinge loss (Shafiee et al., equation 1): summed over classes, mean over samples.

    Its sub-gradient is ``-y x`` where ``y * y_hat < 1`` and zero elsewhere, also at equality; the
    paper prints the condition as ``y_hat < 1``.

    Args:
        distances: ``w'x - b`` per class, ``(n, classes)``.
        labels: ``(n,)``, int64; y is +1 for the label's class and -1 for the others.
    """
    sides = torch.full_like(distances, -1.0)
    sides[torch.arange(len(labels)), labels] = 1.0
    return functional.relu(1.0 - sides * distances).sum(1).mean()


def gate_norm(weight: Tensor) -> Tensor:
    """Sum over classes of the Euclidean norm of w; its sub-gradient at w = 0 is zero.

    Args:
        weight: of a d-gate, ``(classes, features)``, one row per one-vs-all classifier.
    """
    norms: Tensor = torch.linalg.vector_norm(weight, dim=1)
    return norms.sum()


def gate_loss(distances: Tensor, labels: Tensor, weight: Tensor, norm_weight: float) -> Tensor:
    """The d-gate's loss (section 2.2) with **+** lambda ||w||; the paper prints a minus."""
    return hinge_loss(distances, labels) + norm_weight * gate_norm(weight)


def softmax_gate_loss(logits: Tensor, labels: Tensor, weight: Tensor, norm_weight: float) -> Tensor:
    """The baseline of section 3.2: the same linear layer with cross-entropy."""
    return functional.cross_entropy(logits, labels) + norm_weight * gate_norm(weight)
