"""A gated network cut into modules that run one after another: what an exporter wires up.

``GatedNetwork.export_parts()`` gives this; ``dynrt.train.package_gated`` turns it into a bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GatedPart:
    """One segment: the stem, a residual block, a dense layer, a transition.

    Attributes:
        name: of the segment (``stem``, ``block1``, ...).
        module: features to features. With ``previous`` it also takes the new features of the dense
            layer before it, and with a channel gate, last of all, the mask ``(n, groups)``:
            ``module(x)``, ``module(x, mask)``, ``module(x, previous, mask)``.
        layer_gate: features and the LSTM's state to a score ``(n, 1)`` in (0, 1) and the next
            state, or ``None``: always runs.
        channel_gate: features to the mask ``(n, groups)``: a group is kept from 0.5 on; or
            ``None``. It runs only where the segment runs.
        dense: the module gives only the new features, which are put behind those that it took
            (along the channels); where it is skipped, the new features of the dense layer before
            it are put there once more. The first layer of a dense block has no layer gate.
        previous: of a dense segment: a dropped channel is that of the layer before it.
    """

    name: str
    module: nn.Module
    layer_gate: nn.Module | None = None
    channel_gate: nn.Module | None = None
    dense: bool = False
    previous: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExitPart:
    """One exit, in the form that a d-gate can share: features to a vector, the vector to logits.

    Attributes:
        name: of the exit; the last is ``final``.
        after: the segment whose output it takes.
        pooled: that output to the vector ``(n, feature_size)``.
        classifier: the vector to logits ``(n, classes)``; ``None`` where a d-gate is all there is
            behind the vector, and its distances are the answer.
    """

    name: str
    after: str
    pooled: nn.Module
    classifier: nn.Linear | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GatedParts:
    """A whole gated network.

    Attributes:
        parts: the segments in the order in which they run.
        exits: in the order in which they are tried.
        state: sizes of the layer gates' state by name (``{"h": 10, "c": 10}``), zeros at first;
            empty without layer gates.
    """

    parts: tuple[GatedPart, ...]
    exits: tuple[ExitPart, ...]
    state: Mapping[str, int] = field(default_factory=dict)


class MeanPool(nn.Module):
    """Global average pooling, after ``before`` if there is something: ``(n, c, h, w)`` to ``(n, c)``."""

    def __init__(self, before: nn.Module | None = None) -> None:
        super().__init__()
        self.before = nn.Identity() if before is None else before

    def forward(self, x: Tensor) -> Tensor:
        """Maps to a vector."""
        vector: Tensor = self.before(x).mean((2, 3))
        return vector
