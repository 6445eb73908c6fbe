"""What a training recipe says: a network, the pictures' treatment, and its stages.

``base`` is the backbone alone. Then either ``branches`` trains backbone and DDI's branches jointly,
or ``open`` and ``iadi`` train layer and channel gates (IADI), and ``ddi`` adds the branches to that.
``gates`` are d-gates on the frozen rest. :mod:`dynrt.train.recipe_file` reads recipes from TOML.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

FORMAT = 1
Schedule = Literal["cpu", "paper"]
StageName = Literal["base", "branches", "open", "iadi", "ddi", "gates"]
Precision = Literal["float32", "bfloat16"]
RateKind = Literal["one-cycle", "drops"]
ResourceKind = Literal["skipping", "computation", "energy"]
ChannelKind = Literal["none", "output", "inner"]

SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
STAGES: tuple[StageName, ...] = get_args(StageName)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
RATE_KINDS: tuple[RateKind, ...] = get_args(RateKind)
RESOURCES: tuple[ResourceKind, ...] = get_args(ResourceKind)
CHANNELS: tuple[ChannelKind, ...] = get_args(ChannelKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """A CIFAR ResNet: ``depth`` 6k + 2, channels of its first stage, classes."""

    depth: int
    width: int
    classes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSpec:
    """A CIFAR DenseNet: see :class:`dynrt.zoo.DenseNet`."""

    depth: int
    growth: int
    bottleneck: bool
    compression: float
    classes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """The gates of IADI.

    Attributes:
        layer: whether units have layer gates.
        channel: where channels are gated.
        group_channels: that a channel gate keeps or drops together.
    """

    layer: bool
    channel: ChannelKind
    group_channels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSpec:
    """How pictures become tensors.

    Attributes:
        mean, std: per channel, of pixels scaled to 0..1.
        crop_padding: black pixels put around a training picture before it is cropped again.
        flip: whether half of the training pictures are mirrored.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int
    flip: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """Weights from outside the run, by file name, and their SHA-256 if the recipe pins it."""

    file: str
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Learning rate and momentum over a stage's steps; see :mod:`dynrt.train.schedule`.

    Attributes:
        kind: ``one-cycle``: up to ``peak`` over the share ``warmup`` of all steps, then down, both
            by half a cosine; ``drops``: ``peak``, divided by ``divisor`` at each of ``at``.
        peak: highest learning rate.
        warmup, start_divisor, end_divisor: of ``one-cycle``.
        at, divisor: of ``drops``; shares of all steps.
    """

    kind: RateKind
    peak: float
    warmup: float = 0.0
    start_divisor: float = 1.0
    end_divisor: float = 1.0
    at: tuple[float, ...] = ()
    divisor: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Descent:
    """Stochastic gradient descent with Nesterov momentum.

    Attributes:
        epochs, batch: passes over the data, and pictures a step; the rest of an epoch is dropped.
        rate: the learning rate.
        momentum, momentum_at_peak: they differ where the momentum falls while the rate rises.
        weight_decay: on parameters of more than one dimension only.
    """

    epochs: int
    batch: int
    rate: Rate
    momentum: float
    momentum_at_peak: float
    weight_decay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A trained ResNet whose softened outputs are part of the loss (Hinton et al., 2015)."""

    depth: int
    width: int
    weights: WeightFile
    share: float
    temperature: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkStage:
    """``base`` or ``branches``.

    Attributes:
        descent: the optimiser.
        precision: of the forward pass; ``bfloat16`` by autocast.
        channels_last: memory layout; faster on CPUs.
        exit_weights: weight of each exit's loss, the last exit's at the end.
        teacher: for distillation, or ``None``.
        start: weights that the stage goes on from, or ``None``.
    """

    descent: Descent
    precision: Precision
    channels_last: bool
    exit_weights: tuple[float, ...]
    teacher: Teacher | None
    start: WeightFile | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightStage:
    """A stage that is taken from a file: nothing is learnt."""

    weights: WeightFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What gates are trained to save.

    Attributes:
        kind: ``skipping``: every unit counts 1, times the share of its channels (the paper's);
            ``computation``: multiply-accumulates that are left out, what the gates take taken off;
            ``energy``: the same in modelled energy.
        hardware, table: of ``energy``, by name; otherwise ``None``.
    """

    kind: ResourceKind
    hardware: str | None = None
    table: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedStage:
    """``open``, ``iadi`` or ``ddi``: a network with gates (Wang et al., equation 5).

    Attributes:
        network: everything that other networks are trained by, too.
        resource: what is saved.
        target: share of it, 0..1. The sign of alpha is that of what is still missing, batch by
            batch.
        alpha: weight of the resource loss; that is counted in units of the network, as in the paper.
        band: distance from the target within which alpha fades; 0 is the paper's bare sign.
        gate_rate: what the learning rate of the layer gates is multiplied by.
        channel_rate: the same of the channel gates.
        epoch_share: of an epoch's batches that are taken; each epoch draws its own.
        explored: share of the pictures that skip a unit for which it is computed all the same.
        clip_norm: longest gradient, or ``None``.
    """

    network: NetworkStage
    resource: Resource
    target: float
    alpha: float
    band: float
    gate_rate: float
    channel_rate: float
    epoch_share: float
    explored: float
    clip_norm: float | None

    @property
    def descent(self) -> Descent:
        """The optimiser."""
        return self.network.descent


@dataclass(frozen=True, slots=True, kw_only=True)
class GateStage:
    """``gates``: d-gates on the features of the frozen network.

    Attributes:
        descent: the optimiser.
        norm_weight: lambda of the d-gate loss.
        flipped: whether each training picture is seen mirrored too.
        baseline: whether the cross-entropy gates of the paper's comparison are trained beside.
    """

    descent: Descent
    norm_weight: float
    flipped: bool
    baseline: bool


Stage = NetworkStage | GatedStage | GateStage | WeightStage


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A checked recipe with one schedule chosen.

    Attributes:
        name, summary: for people.
        seed: of initial weights, sampling and augmentation.
        network: the backbone.
        gates: of the stages ``open``, ``iadi`` and ``ddi``; ``None`` without them.
        exit_points: units behind which d-gates stand where there are no branches; ``None``: behind
            every main block but the last.
        exit_grid: fields a side that these d-gates see features averaged over; 1: over the picture.
        stages: in the order in which they run.
        schedule: the one chosen.
        folder: of the file; weights are looked for there too.
        text: the file as it was read.
    """

    name: str
    summary: str
    seed: int
    network: NetworkSpec | DenseSpec
    gates: GateSpec | None
    exit_points: tuple[str, ...] | None
    exit_grid: int
    pictures: PictureSpec
    stages: dict[StageName, Stage]
    schedule: Schedule
    folder: Path
    text: str

    def stage_sha256(self, stage: StageName) -> str:
        """Hash of all that decides a stage's outcome, of what the recipe says; not of its name."""
        content: dict[str, object] = {
            "format": FORMAT,
            "seed": self.seed,
            "network": asdict(self.network),
            "pictures": asdict(self.pictures),
            "stage": stage,
            "settings": asdict(self.stages[stage]),
        }
        if self.gates is not None:
            content["gates"] = asdict(self.gates)
        if self.exit_points is not None:
            content["exit_points"] = self.exit_points
        if self.exit_grid != 1:
            content["exit_grid"] = self.exit_grid
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()
