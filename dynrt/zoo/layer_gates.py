"""DDI's layer gates (Wang et al., section III-A): an LSTM that decides, block by block, what to skip.

A gate pools the block's input over the picture, projects it to a few numbers, takes one step of an
LSTM and reads one score from the hidden state. The LSTM and the last layer are shared by all gates,
so that the state runs through the network; each gate has its own projection, since channels differ.
The paper gives the sizes (10 and 10), as SkipNet before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from dynrt.errors import DynrtError
from dynrt.zoo.resnet import BasicBlock, ResNet

#: Numbers after the projection, and size of the hidden state.
GATE_WIDTH = 10


def mean_pool(x: Tensor) -> Tensor:
    """``(n, channels, height, width)`` to ``(n, channels)``; the gradient has the layout of ``x``.

    That of ``x.mean((2, 3))`` has the plain one, in which summing a channels-last network's gates
    and features takes longer than a gate does.
    """
    pooled: Tensor = _MeanPool.apply(x)
    return pooled


class _MeanPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = x.shape
        ctx.last = x.is_contiguous(memory_format=torch.channels_last)
        if not ctx.last:
            return x.mean((2, 3))
        total: Tensor = x.permute(0, 2, 3, 1).flatten(1, 2).sum(1)
        return total / (x.shape[2] * x.shape[3])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        count, channels, height, width = ctx.size
        each: Tensor = grad / (height * width)
        if not ctx.last:
            return each[:, :, None, None].expand(count, channels, height, width)
        return each.repeat(1, height * width).view(count, height, width, channels).movedim(3, 1)


class LayerGate(nn.Module):
    """One gate: features and the LSTM's state to a score in (0, 1) and the next state.

    Args:
        project: from pooled features to what the LSTM takes; the gate's own.
        cell: the LSTM, shared by all gates of a network.
        score: from hidden state to one number, shared likewise.
    """

    def __init__(self, project: nn.Linear, cell: nn.LSTMCell, score: nn.Linear) -> None:
        super().__init__()
        self.project = project
        self.cell = cell
        self.score = score

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(n, channels, height, width)``, state ``(n, hidden)`` twice, to score ``(n, 1)``, state."""
        return self.step(x.mean((2, 3)), h, c)

    def step(self, pooled: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same on features that are pooled already, ``(n, channels)``."""
        h, c = self.cell(self.project(pooled), (h, c))
        return self.score(h).sigmoid(), h, c


class UnitGates(nn.Module):
    """A gate for each of some units; they share one LSTM and the layer that reads it.

    Args:
        channels: that each gated unit takes, by name and in order.
        project, hidden: numbers after the projection, and in the LSTM's state.

    Attributes:
        names: of the gated units.
        projections: one linear layer each; with ``cell`` and ``score`` all that is learnt.
    """

    def __init__(
        self, channels: Mapping[str, int], *, project: int = GATE_WIDTH, hidden: int = GATE_WIDTH
    ) -> None:
        super().__init__()
        self.names = tuple(channels)
        self.cell = nn.LSTMCell(project, hidden)
        self.score = nn.Linear(hidden, 1)
        self.projections = nn.ModuleList(nn.Linear(n, project) for n in channels.values())

    @property
    def gates(self) -> list[LayerGate]:
        """One for each unit; their weights are these."""
        made = (LayerGate(cast("nn.Linear", p), self.cell, self.score) for p in self.projections)
        return [gate.train(self.training) for gate in made]

    def by_segment(self) -> dict[str, nn.Module]:
        """The gates by unit."""
        return dict(zip(self.names, self.gates, strict=True))


class LayerGates(UnitGates):
    """A gate for every block of a :class:`~dynrt.zoo.resnet.ResNet` but the first of each stage.

    Args:
        backbone: whose blocks are gated.
        gate_first: gate the very first block too, whose shape does not change either.
        project, hidden: numbers after the projection, and in the LSTM's state.

    Attributes:
        positions: these blocks, counted from 1.

    Raises:
        DynrtError: there is no such block.
    """

    def __init__(
        self,
        backbone: ResNet,
        *,
        gate_first: bool = False,
        project: int = GATE_WIDTH,
        hidden: int = GATE_WIDTH,
    ) -> None:
        blocks = skippable(backbone, first=gate_first)
        if not blocks:
            raise DynrtError(f"a ResNet-{backbone.depth} has no block to skip")
        channels = {f"block{at}": n for at, n in blocks.items()}
        super().__init__(channels, project=project, hidden=hidden)
        self.positions = tuple(blocks)


def skippable(backbone: ResNet, *, first: bool = False) -> dict[int, int]:
    """Channels that each skippable block takes, by block, counted from 1.

    The first block of the second and third stage changes the shape, and always runs. That of the
    first stage keeps it, and is left out all the same unless ``first`` is set: one block of every
    stage then always runs (33 of a ResNet-74's 36 blocks have gates).
    """
    per_stage = backbone.blocks_per_stage
    found = {}
    for number, block in enumerate(backbone.blocks(), 1):
        if isinstance(block, BasicBlock) and ((number - 1) % per_stage or (first and number == 1)):
            found[number] = block.conv1.in_channels
    return found
