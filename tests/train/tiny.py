"""A network, pictures and recipes so small that a whole training takes a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dynrt.train import TrainResult, train
from dynrt.train.progress import Progress

_STAGE = """
[stages.{stage}.{schedule}]
epochs = {epochs}
batch = 16
momentum = 0.95
momentum_at_peak = 0.85
weight_decay = 5e-4
precision = "float32"
channels_last = true
exit_weights = {weights}
rate = {{ kind = "one-cycle", peak = {peak}, warmup = 0.25, start_divisor = 10.0, end_divisor = 1e3 }}
"""
_GATES = """
[stages.gates.{schedule}]
epochs = {epochs}
batch = 16
momentum = 0.9
momentum_at_peak = 0.9
weight_decay = 0.0
norm_weight = 1e-3
flipped = true
baseline = true
rate = {{ kind = "drops", peak = 0.1, at = [0.5], divisor = 10.0 }}
"""
HEAD = """
format = 1
name = "tiny"
summary = "a test"
seed = {seed}
[network]
depth = 8
width = 4
classes = 3
[pictures]
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
crop_padding = 1
flip = true
"""


def tiny_recipe(
    *,
    seed: int = 0,
    epochs: int = 2,
    peak: float = 0.1,
    stages: tuple[str, ...] = ("base", "branches", "gates"),
    extra: str = "",
) -> str:
    """A recipe for :func:`tiny_pictures`; ``extra`` is put at the end of the ``cpu`` base stage."""
    text = HEAD.format(seed=seed)
    weights = {"base": "[1.0]", "branches": "[0.5, 1.0, 1.0, 1.0]"}
    for stage in stages:
        for schedule in ("paper", "cpu"):
            text += (
                _GATES.format(schedule=schedule, epochs=epochs)
                if stage == "gates"
                else _STAGE.format(
                    stage=stage,
                    schedule=schedule,
                    epochs=epochs,
                    peak=peak,
                    weights=weights[stage],
                )
            )
        if stage == "base":
            text += extra
    return text


def tiny_pictures(path: Path, *, count: int = 48, side: int = 8, seed: int = 0) -> str:
    """Write pictures of three classes, each with a colour of its own; returns the data spec."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pictures = rng.integers(0, 120, (count, side, side, 3), dtype=np.uint8)
    pictures[np.arange(count), :, :, labels] += 100
    np.savez(path, pictures=pictures, labels=labels.astype(np.int64))
    return f"npz:{path}"


class Interrupted(Exception):  # noqa: N818  (no error of ours: it stands for a kill)
    """Raised by a progress callback to stop a training where it stands."""


class StopAfter:
    """A progress callback that interrupts after ``steps`` calls."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self, progress: Progress) -> None:
        if self.left == 0:
            raise Interrupted(progress)
        self.left -= 1


class Bench:
    """A folder with tiny data and a tiny recipe."""

    def __init__(self, folder: Path, recipe: str | None = None) -> None:
        self.folder = folder
        self.data = tiny_pictures(folder / "pictures.npz")
        self.recipe = folder / "tiny.toml"
        self.recipe.write_text(tiny_recipe() if recipe is None else recipe)

    def train(self, out: str, **options: object) -> TrainResult:
        """Train into ``out`` with one thread."""
        return train(self.recipe, self.data, self.folder / out, threads=1, **options)  # type: ignore[arg-type]


def same_tensors(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of tensors are equal to the bit."""
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].numpy().tobytes() == b[k].numpy().tobytes() for k in a
    )


_GATED = """
[stages.{stage}]
batch = 16
momentum = 0.9
momentum_at_peak = 0.9
weight_decay = 5e-4
precision = "float32"
channels_last = true
exit_weights = {weights}
resource = "{resource}"
target = {target}
alpha = 0.2
band = 0.05
gate_rate = 0.5
clip_norm = 1.0
rate = {{ kind = "one-cycle", peak = 0.1, warmup = 0.25, start_divisor = 10.0, end_divisor = 1e3 }}
cpu.epochs = {epochs}
paper.epochs = {epochs}
"""


def gated_recipe(
    *,
    network: str = "depth = 14\nwidth = 4",
    gates: str = 'layer = true\nchannel = "output"\ngroup_channels = 1',
    epochs: int = 2,
    ddi: bool = True,
    d_gates: bool = True,
    resource: str = "computation",
    extra: str = "",
) -> str:
    """A recipe of the stages ``base``, ``open``, ``iadi``, ``ddi`` and ``gates``.

    Networks of two units a stage: three branches and the last exit. ``extra`` is put at the end of stage ``iadi``.
    """
    text = HEAD.format(seed=0).replace("depth = 8\nwidth = 4", network) + f"[gates]\n{gates}\n"
    for schedule in ("paper", "cpu"):
        text += _STAGE.format(
            stage="base", schedule=schedule, epochs=epochs, peak=0.1, weights="[1.0]"
        )
    rows = [("open", "skipping", 0.0, "[1.0]"), ("iadi", resource, 0.3, "[1.0]")]
    if ddi:
        rows.append(("ddi", "computation", 0.3, "[0.5, 0.5, 0.5, 1.0]"))
    for stage, kind, target, weights in rows:
        text += _GATED.format(
            stage=stage, resource=kind, target=target, weights=weights, epochs=epochs
        )
        if stage == "iadi":
            text += extra
    if ddi and d_gates:
        for schedule in ("paper", "cpu"):
            text += _GATES.format(schedule=schedule, epochs=epochs)
    return text
