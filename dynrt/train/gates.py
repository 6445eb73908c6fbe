"""The stage ``gates``: d-gates on cached features of the frozen network.

Shafiee et al. train each gate by itself on *all* training data with everything else frozen. The
frozen network sees each picture once (and once mirrored), its pooled features are kept, and all
gates descend side by side: they share no parameter, so each is trained as if it were alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from dynrt.train.losses import gate_loss, softmax_gate_loss
from dynrt.train.pictures import Pictures, epoch_generator
from dynrt.train.progress import Progress, Watch
from dynrt.train.recipe import GateStage
from dynrt.zoo import ExitGates

_FEATURE_BATCH = 250


class Pools(Protocol):
    """A network that gives a vector at each place where a d-gate may stand."""

    def pooled(self, x: Tensor, /) -> Sequence[Tensor]:
        """Normalised pictures ``(n, 3, h, w)`` to one vector ``(n, feature_size)`` per place."""
        ...

    def eval(self) -> object:
        """Put it into evaluation mode."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """Pooled features of many pictures.

    Attributes:
        by_exit: one tensor per branch, ``(n, feature_size)``, float32.
        labels: ``(n,)``, int64.
    """

    by_exit: tuple[Tensor, ...]
    labels: Tensor


def pooled_features(net: Pools, pictures: Pictures, *, flipped: bool, watch: Watch) -> Features:
    """Run the frozen network once over all pictures, and once over their mirror images.

    Args:
        net: in whatever state; it is put into evaluation mode.
        pictures: unaugmented.
        flipped: whether the mirror images are added.
        watch: is told how far it is. Its time limit does not stop this: it could not be resumed.
    """
    net.eval()
    parts: list[tuple[Tensor, ...]] = []
    labels: list[Tensor] = []
    views = (False, True) if flipped else (False,)
    total = len(views) * -(-len(pictures) // _FEATURE_BATCH)
    started_s = watch.seconds
    for view in views:
        for x, part_labels in pictures.in_order(_FEATURE_BATCH, flipped=view):
            with torch.no_grad():
                vectors = net.pooled(x)
            parts.append(tuple(vector.contiguous() for vector in vectors))
            labels.append(part_labels)
            done = len(labels)
            watch.tell(
                Progress(
                    stage="features",
                    epoch=1,
                    epochs=1,
                    step=done,
                    steps=total,
                    loss=None,
                    accuracy=None,
                    seconds=watch.seconds,
                    eta_s=(watch.seconds - started_s) / done * (total - done),
                )
            )
    return Features(
        by_exit=tuple(torch.cat(p) for p in zip(*parts, strict=True)), labels=torch.cat(labels)
    )


def accuracy_of(scores: Tensor, labels: Tensor) -> float:
    """Share of rows ``(n, classes)`` whose largest score is the label's."""
    return int((scores.argmax(1) == labels).sum()) / len(labels)


class GateTask:
    """All d-gates, and the baseline's, as :class:`dynrt.train.loop.Task` wants them.

    Args:
        gates: to be trained.
        stage: settings.
        seed: of the order of the features.
        train, validation: features.
        classifiers: the branches' own linear layers, for comparison; none where the places have
            no branches.
    """

    def __init__(
        self,
        gates: ExitGates,
        *,
        stage: GateStage,
        seed: int,
        train: Features,
        validation: Features,
        classifiers: Sequence[nn.Linear],
    ) -> None:
        self._gates = gates
        self._stage = stage
        self._seed = seed
        self._train = train
        self._validation = validation
        with torch.no_grad():
            self._logit_accuracy = {
                f"exit{i}.logits": accuracy_of(layer(x), validation.labels)
                for i, (layer, x) in enumerate(
                    zip(classifiers, validation.by_exit, strict=bool(classifiers)), 1
                )
            }

    @property
    def module(self) -> nn.Module:
        """The gates."""
        return self._gates

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training features."""
        return len(self._train.labels) // self._stage.descent.batch

    def losses(self, epoch: int, first_step: int) -> Iterator[Tensor]:
        """The sum of all gates' losses on each batch; no gate's gradient sees another."""
        weight, batch = self._stage.norm_weight, self._stage.descent.batch
        generator = epoch_generator(self._seed, epoch)
        order = torch.randperm(len(self._train.labels), generator=generator)
        for step in range(first_step, self.steps_per_epoch):
            rows = order[step * batch : (step + 1) * batch]
            labels = self._train.labels[rows]
            hinge, soft = self._gates([x[rows] for x in self._train.by_exit])
            d_gates, softmax_gates = self._gates.layers()
            total = torch.zeros(())
            for gate, distances in zip(d_gates, hinge, strict=True):
                total = total + gate_loss(distances, labels, gate.weight, weight)
            for gate, logits in zip(softmax_gates, soft, strict=True):
                total = total + softmax_gate_loss(logits, labels, gate.weight, weight)
            yield total

    def accuracy(self) -> dict[str, float]:
        """On the validation pictures: by distances, by the baseline, by the branches' logits."""
        with torch.no_grad():
            hinge, soft = self._gates(self._validation.by_exit)
        labels = self._validation.labels
        out = {
            f"exit{i}.distances": accuracy_of(scores, labels) for i, scores in enumerate(hinge, 1)
        }
        for i, scores in enumerate(soft, 1):
            out[f"exit{i}.softmax"] = accuracy_of(scores, labels)
        return out | self._logit_accuracy

    def measures(self) -> dict[str, float]:
        """Nothing besides accuracy."""
        return {}
