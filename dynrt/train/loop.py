"""The optimiser loop of every stage: resumable at any step, to the same bits.

All that a step depends on is the weights, the momentum buffers, and the numbers of epoch and step:
the learning rate is a function of the step, and an epoch's random numbers can be drawn again. On
one machine, at float32 and one thread, an interrupted training therefore ends in the same weights
as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from dynrt.errors import RecipeError
from dynrt.train.checkpoint import (
    TensorFile,
    read_tensor_file,
    require_same,
    write_tensor_file,
)
from dynrt.train.progress import Journal, Progress, Record, Watch
from dynrt.train.recipe import Descent
from dynrt.train.schedule import pace_at
from dynrt.train.weights import load_weights

_MODEL, _MOMENTUM = "model/", "momentum/"


class Task(Protocol):
    """What a stage trains."""

    @property
    def module(self) -> nn.Module:
        """Holds the parameters that are trained, and the state that is kept."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """At least one."""
        ...

    def losses(self, epoch: int, first_step: int) -> Iterator[Tensor]:
        """The loss of each step of ``epoch`` (from 0) that is not before ``first_step``."""
        ...

    def accuracy(self) -> dict[str, float]:
        """Fractions on the validation pictures by exit."""
        ...

    def measures(self) -> dict[str, float]:
        """What the last call of ``accuracy`` measured besides; often nothing."""
        ...


@dataclass(slots=True, kw_only=True)
class _Position:
    """Where a stage stands; ``step`` counts within the epoch."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    epoch_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRun:
    """One stage in one run.

    Attributes:
        stage: its name.
        descent: the optimiser's settings.
        identity: what its checkpoint belongs to.
        checkpoint: the file.
        watch: the call's clock.
        journal: where records go.
        clip_norm: longer gradients are shortened to this; ``None`` for none.
        rates: what the learning rate of parameters is multiplied by, by the start of their names.
    """

    stage: str
    descent: Descent
    identity: Mapping[str, str]
    checkpoint: Path
    watch: Watch
    journal: Journal
    clip_norm: float | None = None
    rates: Mapping[str, float] = field(default_factory=dict)

    def fit(self, task: Task) -> list[Record] | None:
        """Train ``task`` to its last epoch, from its checkpoint if there is one.

        Returns:
            The records of all epochs, or ``None`` if the time was up before; the checkpoint then
            holds everything.

        Raises:
            RecipeError: the checkpoint is damaged or foreign, or the loss is not finite.
        """
        optimiser = _optimiser(task.module, self.descent, self.rates)
        position, records = self._resume(task.module, optimiser)
        steps, epochs = task.steps_per_epoch, self.descent.epochs
        done_before = position.epoch * steps + position.step
        started_s = self.watch.seconds
        while position.epoch < epochs:
            task.module.train()
            entered_s = self.watch.seconds - position.epoch_s
            for loss in task.losses(position.epoch, position.step):
                at = position.epoch * steps + position.step
                position.loss_sum += self._step(loss, optimiser, at, epochs * steps, position)
                position.step += 1
                position.epoch_s = self.watch.seconds - entered_s
                left = epochs * steps - at - 1
                eta_s = (self.watch.seconds - started_s) / (at + 1 - done_before) * left
                if position.step < steps:
                    self._tell(position, steps, eta_s, None)
                    if self.watch.out_of_time:
                        self._save(task.module, optimiser, position, records)
                        return None
                    if self.watch.should_save():
                        self._save(task.module, optimiser, position, records)
            accuracy, measures = task.accuracy(), task.measures()
            position.epoch_s = self.watch.seconds - entered_s
            records.append(self._record(position, steps, accuracy, measures))
            left = epochs * steps - (position.epoch + 1) * steps
            done = (position.epoch + 1) * steps - done_before
            eta_s = (self.watch.seconds - started_s) / max(done, 1) * left
            last = position
            position = _Position(epoch=position.epoch + 1)
            self._save(task.module, optimiser, position, records)
            self.journal.publish(records)
            self._tell(last, steps, eta_s, accuracy, measures)
            if self.watch.out_of_time and position.epoch < epochs:
                return None
        return records

    def _step(
        self,
        loss: Tensor,
        optimiser: torch.optim.SGD,
        at: int,
        total: int,
        position: _Position,
    ) -> float:
        value = float(loss.detach())
        if not isfinite(value):
            raise RecipeError(
                f"stage {self.stage!r}: the loss is {value} in epoch {position.epoch + 1} at step "
                f"{position.step + 1}; a peak rate below {self.descent.rate.peak:g} may help"
            )
        pace = pace_at(self.descent, at, total)
        for group in optimiser.param_groups:
            group["lr"] = pace.rate * group["factor"]
            group["momentum"] = pace.momentum
        optimiser.zero_grad()
        loss.backward()
        if self.clip_norm is not None:
            parameters = (p for group in optimiser.param_groups for p in group["params"])
            torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        optimiser.step()
        return value

    def _record(
        self,
        position: _Position,
        steps: int,
        accuracy: Mapping[str, float],
        measures: Mapping[str, float],
    ) -> Record:
        record: Record = {
            "stage": self.stage,
            "epoch": position.epoch + 1,
            "loss": position.loss_sum / steps,
            "accuracy": dict(accuracy),
            "seconds": round(position.epoch_s, 3),
        }
        return record | ({"measures": dict(measures)} if measures else {})

    def _tell(
        self,
        position: _Position,
        steps: int,
        eta_s: float,
        accuracy: Mapping[str, float] | None,
        measures: Mapping[str, float] | None = None,
    ) -> None:
        self.watch.tell(
            Progress(
                stage=self.stage,
                epoch=position.epoch + 1,
                epochs=self.descent.epochs,
                step=position.step,
                steps=steps,
                loss=position.loss_sum / position.step,
                accuracy=accuracy,
                measures=measures,
                seconds=self.watch.seconds,
                eta_s=eta_s,
            )
        )

    def _save(
        self,
        module: nn.Module,
        optimiser: torch.optim.SGD,
        position: _Position,
        records: list[Record],
    ) -> None:
        tensors = {_MODEL + name: t for name, t in module.state_dict().items()}
        for name, parameter in module.named_parameters():
            buffer = optimiser.state[parameter].get("momentum_buffer")
            if buffer is not None:
                tensors[_MOMENTUM + name] = buffer
        state = {
            "stage": self.stage,
            "epoch": position.epoch,
            "step": position.step,
            "loss_sum": position.loss_sum,
            "epoch_s": position.epoch_s,
            "records": records,
        }
        content = TensorFile(
            kind="checkpoint", identity=self.identity, state=state, tensors=tensors
        )
        write_tensor_file(self.checkpoint, content)

    def _resume(
        self, module: nn.Module, optimiser: torch.optim.SGD
    ) -> tuple[_Position, list[Record]]:
        if not self.checkpoint.exists():
            return _Position(), []
        content = read_tensor_file(self.checkpoint, kind="checkpoint")
        require_same(self.checkpoint, content.identity, self.identity)
        place = str(self.checkpoint)
        load_weights(module, _under(content.tensors, _MODEL), place=place)
        buffers = _under(content.tensors, _MOMENTUM)
        for name, parameter in module.named_parameters():
            if name in buffers:
                # In the parameter's memory layout, so that sums run in the same order.
                own = torch.empty_like(parameter, requires_grad=False).copy_(buffers[name])
                optimiser.state[parameter]["momentum_buffer"] = own
        state = content.state
        position = _Position(
            epoch=int(str(state["epoch"])),
            step=int(str(state["step"])),
            loss_sum=float(str(state["loss_sum"])),
            epoch_s=float(str(state["epoch_s"])),
        )
        records = state["records"]
        if not isinstance(records, list):
            raise RecipeError(f"{place}: damaged: its records are no list")
        self.journal.publish(records)
        return position, list(records)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def _optimiser(module: nn.Module, descent: Descent, rates: Mapping[str, float]) -> torch.optim.SGD:
    """SGD whose weight decay spares biases and batch norm (parameters of one dimension)."""
    named = dict(module.named_parameters())
    factors = {n: next((f for p, f in rates.items() if n.startswith(p)), 1.0) for n in named}
    groups = [
        {
            "params": [p for n, p in named.items() if factors[n] == one and (p.ndim > 1) == decays],
            "weight_decay": descent.weight_decay if decays else 0.0,
            "factor": one,
        }
        for one in sorted(set(factors.values()) | {1.0})
        for decays in (True, False)
    ]
    nesterov = min(descent.momentum, descent.momentum_at_peak) > 0
    return torch.optim.SGD(
        groups, lr=descent.rate.peak, momentum=descent.momentum, nesterov=nesterov
    )
