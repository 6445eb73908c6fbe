"""DDI's layer gates (Wang et al., section III-A): an LSTM that decides, block by block, what to skip.

A gate pools the block's input over the picture, projects it to a few numbers, takes one step of an
LSTM and reads one score from the hidden state. The LSTM and the last layer are shared by all gates,
so that the state runs through the network; each gate has its own projection, since channels differ.
The paper gives the sizes (10 and 10), as SkipNet before it.
"""

from __future__ import annotations

from torch import Tensor, nn

from dynrt.errors import DynrtError
from dynrt.zoo.resnet import BasicBlock, ResNet

#: Numbers after the projection, and size of the hidden state.
GATE_WIDTH = 10


class LayerGate(nn.Module):
    """One gate: features and the LSTM's state to a score in (0, 1) and the next state.

    Args:
        channels: of the features.
        cell: the LSTM, shared by all gates of a network.
        score: from hidden state to one number, shared likewise.
    """

    def __init__(self, channels: int, cell: nn.LSTMCell, score: nn.Linear) -> None:
        super().__init__()
        self.project = nn.Linear(channels, cell.input_size)
        self.cell = cell
        self.score = score

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(n, channels, height, width)``, state ``(n, hidden)`` twice, to score ``(n, 1)``, state."""
        h, c = self.cell(self.project(x.mean((2, 3))), (h, c))
        return self.score(h).sigmoid(), h, c


class LayerGates(nn.Module):
    """A gate for every block of a :class:`~dynrt.zoo.resnet.ResNet` but the first of each stage.

    Args:
        backbone: whose blocks are gated.
        gate_first: gate the very first block too, whose shape does not change either.
        project, hidden: numbers after the projection, and in the LSTM's state.

    Attributes:
        positions: these blocks, counted from 1.
        gates: one for each.

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
        super().__init__()
        blocks = skippable(backbone, first=gate_first)
        if not blocks:
            raise DynrtError(f"a ResNet-{backbone.depth} has no block to skip")
        self.positions, channels = tuple(blocks), blocks.values()
        self.cell = nn.LSTMCell(project, hidden)
        self.score = nn.Linear(hidden, 1)
        self.gates = nn.ModuleList(LayerGate(n, self.cell, self.score) for n in channels)

    def by_segment(self) -> dict[str, nn.Module]:
        """The gates under the names of :func:`dynrt.zoo.gates.segments`."""
        return {f"block{at}": gate for at, gate in zip(self.positions, self.gates, strict=True)}


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
