"""The stages ``open``, ``iadi`` and ``ddi``: networks whose gates learn what to leave out.

Wang et al., sections III-C and IV-A. ``open`` trains the gates alone, the backbone frozen, until
nothing is skipped, since batch norm's averages are those of the whole network. ``iadi`` then trains
everything jointly on L + alpha E, where alpha is positive while a batch saves less than the target
and negative while it saves more. ``ddi`` does the same with the branches' losses in L (equation 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

import torch
from torch import Tensor

from dynrt.train.iadi_losses import RunCost, resource_loss
from dynrt.train.networks import EVALUATION_BATCH, NetworkTask
from dynrt.train.pictures import Pictures
from dynrt.train.recipe import GatedStage
from dynrt.zoo import GatedNetwork, GatedOutput, ResNet


class GatedTask(NetworkTask):
    """A gated network, as :class:`dynrt.train.loop.Task` wants it.

    Args:
        net: with gates.
        teacher: trained, or ``None``.
        stage: settings.
        cost: what the stage's resource loss counts.
        measured: what else is measured on the validation pictures: name to cost.
        seed: of order and augmentation.
        train, validation: pictures.
    """

    def __init__(
        self,
        net: GatedNetwork,
        *,
        teacher: ResNet | None,
        stage: GatedStage,
        cost: RunCost,
        measured: Mapping[str, RunCost],
        seed: int,
        train: Pictures,
        validation: Pictures,
    ) -> None:
        super().__init__(
            net,
            teacher=teacher,
            stage=stage.network,
            seed=seed,
            train=train,
            validation=validation,
            exit_names=net.exit_names,
        )
        self._net = net
        net.explore(stage.explored)
        self._gated = stage
        self._cost = cost
        self._measured = measured
        self._measures: dict[str, float] = {}

    @property
    def steps_per_epoch(self) -> int:
        """The stage's share of the whole batches in the training pictures, one at least."""
        return max(1, int(super().steps_per_epoch * self._gated.epoch_share))

    def losses(self, epoch: int, first_step: int) -> Iterator[Tensor]:
        """L + alpha E of each batch of one epoch."""
        stage = self._gated
        left = self.steps_per_epoch - first_step
        for x, labels, soft in islice(self._batches(epoch, first_step), left):
            with self._precision():
                out: GatedOutput = self._net(x)
            yield self._joint(out.logits, labels, soft) + resource_loss(
                self._cost(out),
                units=self._cost.units,
                target=stage.target,
                alpha=stage.alpha,
                band=stage.band,
            )

    def accuracy(self) -> dict[str, float]:
        """Share of validation pictures that each exit classifies rightly, in this precision."""
        self._net.eval()
        right = [0] * len(self._net.exit_names)
        spent = dict.fromkeys(self._measured, 0.0)
        with torch.no_grad(), self._precision():
            for pictures, labels in self._validation.in_order(EVALUATION_BATCH):
                out: GatedOutput = self._net(pictures.contiguous(memory_format=self._layout))
                for i, logits in enumerate(out.logits):
                    right[i] += int((logits.argmax(1) == labels).sum())
                for name, cost in self._measured.items():
                    spent[name] += float(cost(out).sum())
        self._net.train()
        count = len(self._validation)
        self._measures = {name: 1 - total / count for name, total in spent.items()}
        return {name: n / count for name, n in zip(self._net.exit_names, right, strict=True)}

    def measures(self) -> dict[str, float]:
        """Shares that the runs of the last :meth:`accuracy` saved up to the last exit."""
        return self._measures
