"""Decision gates (Shafiee et al., section 2) and the exit heads that carry them.

A d-gate is one linear layer on a feature vector x; ``w'x - b`` is the signed distance to each
class's boundary, and an input leaves where the largest distance reaches the threshold (algorithm
1). It is put on a branch's pooled features, so that an exit's logits and distances share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from dynrt.errors import DynrtError
from dynrt.zoo.branches import BranchedResNet, BranchHead
from dynrt.zoo.resnet import ResNet, Stem


class DecisionGate(nn.Linear):
    """Distances ``w'x - b`` of a feature vector; starts at zero, since its loss is convex.

    ``bias`` holds **-b**, so that the layer computes ``weight @ x + bias``.
    """

    def __init__(self, feature_size: int, classes: int = 10) -> None:
        super().__init__(feature_size, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All zero: every class's boundary is equally far from everything."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class ExitGates(nn.Module):
    """One d-gate per exit, and beside it, if wanted, the paper's baseline.

    Attributes:
        gates: trained with the hinge loss; keys ``gates.I.weight`` and ``gates.I.bias``.
        softmax_gates: the same layers trained with cross-entropy (section 3.2's comparison), or
            none; keys ``softmax_gates.I...``.
    """

    def __init__(self, feature_sizes: Sequence[int], classes: int, *, baseline: bool) -> None:
        super().__init__()
        self.gates = nn.ModuleList(DecisionGate(size, classes) for size in feature_sizes)
        self.softmax_gates = nn.ModuleList(
            DecisionGate(size, classes) for size in (feature_sizes if baseline else ())
        )

    def layers(self) -> tuple[list[DecisionGate], list[DecisionGate]]:
        """The d-gates, and the baseline's gates, by exit."""
        return (
            [cast("DecisionGate", gate) for gate in self.gates],
            [cast("DecisionGate", gate) for gate in self.softmax_gates],
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Feature vectors ``(n, size)`` to distances and baseline logits, each ``(n, classes)``."""
        hinge = [gate(x) for gate, x in zip(self.gates, features, strict=True)]
        # Without the baseline there are no softmax gates.
        soft = [gate(x) for gate, x in zip(self.softmax_gates, features, strict=False)]
        return hinge, soft


class ExitHead(nn.Module):
    """A branch and its d-gate on one feature vector: a block's output to logits and distances."""

    def __init__(self, branch: BranchHead, gate: DecisionGate) -> None:
        super().__init__()
        self.branch = branch
        self.gate = gate

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``logits`` (the answer) and ``distances`` (what the exit accepts by), ``(n, classes)``."""
        vector = self.branch.pooled(x)
        return self.branch.classifier(vector), self.gate(vector)


class FinalHead(nn.Module):
    """Global average pooling and the backbone's own linear layer: the last block to ``logits``."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """``(n, c, h, w)`` to logits ``(n, classes)``."""
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def segments(backbone: ResNet) -> tuple[tuple[str, nn.Module], ...]:
    """The backbone cut into named modules that run one after another: ``stem``, ``block1``, ..."""
    blocks = ((f"block{i}", block) for i, block in enumerate(backbone.blocks(), 1))
    return (("stem", Stem(backbone.conv1, backbone.bn1)), *blocks)


def exit_heads(net: BranchedResNet, gates: ExitGates) -> tuple[tuple[str, str, nn.Module], ...]:
    """Each exit's name, the segment whose output it takes, and its head; ``final`` comes last.

    Raises:
        DynrtError: the gates are not as many as the branches.
    """
    if len(gates.gates) != len(net.branches):
        raise DynrtError(f"{len(gates.gates)} d-gates for {len(net.branches)} branches")
    d_gates, _ = gates.layers()
    rows: list[tuple[str, str, nn.Module]] = []
    for i, (name, at) in enumerate(zip(net.exit_names, net.positions, strict=False)):
        head = ExitHead(net.branch(i), d_gates[i])
        rows.append((name, f"block{at}", head))
    last = f"block{len(net.backbone.blocks())}"
    return (*rows, (net.exit_names[-1], last, FinalHead(net.backbone.linear)))
