"""The stages ``base`` and ``branches``: a backbone alone, or jointly with its branch exits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from dynrt.train.losses import joint_loss
from dynrt.train.pictures import Pictures
from dynrt.train.recipe import DenseSpec, GateSpec, NetworkSpec, NetworkStage
from dynrt.zoo import BranchedResNet, DenseNet, GatedNetwork, ResNet

EVALUATION_BATCH = 500


def new_backbone(spec: NetworkSpec | DenseSpec, *, seed: int) -> ResNet | DenseNet:
    """The base network with the seed's initial weights; the caller's random numbers stay."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(spec, NetworkSpec):
            return ResNet(spec.depth, classes=spec.classes, width=spec.width)
        return DenseNet(
            spec.depth,
            growth=spec.growth,
            bottleneck=spec.bottleneck,
            compression=spec.compression,
            classes=spec.classes,
        )


def new_gated(
    spec: NetworkSpec | DenseSpec, gates: GateSpec, *, branches: bool, seed: int
) -> GatedNetwork:
    """The network with gates, and branches if wanted, with the seed's initial weights."""
    backbone = new_backbone(spec, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        return GatedNetwork(
            backbone,
            layer=gates.layer,
            channel=gates.channel,
            group_channels=gates.group_channels,
            branches=branches,
        )


def new_branched(spec: NetworkSpec, *, seed: int) -> BranchedResNet:
    """The network with branches, with the seed's initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BranchedResNet(spec.depth, classes=spec.classes, width=spec.width)


class NetworkTask:
    """A network with one or several outputs, as :class:`dynrt.train.loop.Task` wants it.

    Args:
        module: gives logits, or logits of every exit.
        teacher: trained, or ``None``.
        stage: settings.
        seed: of order and augmentation.
        train, validation: pictures.
        exit_names: of the outputs.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        teacher: ResNet | None,
        stage: NetworkStage,
        seed: int,
        train: Pictures,
        validation: Pictures,
        exit_names: tuple[str, ...],
    ) -> None:
        self._stage = stage
        self._seed = seed
        self._train = train
        self._validation = validation
        self._exit_names = exit_names
        self._layout = torch.channels_last if stage.channels_last else torch.contiguous_format
        module.to(memory_format=self._layout)  # type: ignore[call-overload]
        self._module = module
        self._teacher = teacher
        if teacher is not None:
            teacher.to(memory_format=self._layout).eval()  # type: ignore[call-overload]

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self._module

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training pictures."""
        return len(self._train) // self._stage.descent.batch

    def _precision(self) -> AbstractContextManager[object]:
        if self._stage.precision == "bfloat16":
            return torch.autocast("cpu", dtype=torch.bfloat16)
        return nullcontext()

    def _outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits of every exit."""
        out = self._module(x)
        return (out,) if isinstance(out, Tensor) else tuple(out)

    def _soft_labels(self, x: Tensor) -> Tensor | None:
        settings = self._stage.teacher
        if self._teacher is None or settings is None:
            return None
        with torch.no_grad():
            logits = self._teacher(x).float()
            return torch.softmax(logits / settings.temperature, 1)

    def losses(self, epoch: int, first_step: int) -> Iterator[Tensor]:
        """The joint loss of each batch of one epoch."""
        for x, labels, soft in self._batches(epoch, first_step):
            with self._precision():
                outputs = self._outputs(x)
            yield self._joint(outputs, labels, soft)

    def _batches(
        self, epoch: int, first_step: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Pictures in the stage's layout, labels, and what the teacher says of them."""
        batches = self._train.shuffled(
            seed=self._seed,
            epoch=epoch,
            batch=self._stage.descent.batch,
            first_step=first_step,
        )
        for pictures, labels in batches:
            x = pictures.contiguous(memory_format=self._layout)
            with self._precision():
                soft = self._soft_labels(x)
            yield x, labels, soft

    def _joint(self, outputs: tuple[Tensor, ...], labels: Tensor, soft: Tensor | None) -> Tensor:
        settings = self._stage.teacher
        return joint_loss(
            outputs,
            labels,
            self._stage.exit_weights,
            soft_labels=soft,
            share=0.0 if settings is None else settings.share,
            temperature=1.0 if settings is None else settings.temperature,
        )

    def measures(self) -> dict[str, float]:
        """Nothing besides accuracy."""
        return {}

    def accuracy(self) -> dict[str, float]:
        """Share of validation pictures that each exit classifies rightly, in this precision."""
        self._module.eval()
        right = [0] * len(self._exit_names)
        with torch.no_grad(), self._precision():
            for pictures, labels in self._validation.in_order(EVALUATION_BATCH):
                x = pictures.contiguous(memory_format=self._layout)
                for i, logits in enumerate(self._outputs(x)):
                    right[i] += int((logits.argmax(1) == labels).sum())
        self._module.train()
        count = len(self._validation)
        return {name: n / count for name, n in zip(self._exit_names, right, strict=True)}
