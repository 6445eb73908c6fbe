"""Points of any backbone where a d-gate can stand; the backbone itself stays as it is.

Shafiee et al. (section 2.3) put d-gates behind the main blocks of a trained network, on its frozen
features: of a network of four main blocks behind the first three. A gate sees the features averaged
over the picture, or, since a narrow network has few channels, over each field of a grid on it. In a DenseNet what a dense layer gives is not activated yet; there the batch norm
and ReLU with which the next unit begins come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynrt.errors import DynrtError
from dynrt.zoo.chain import Backbone, Chain, Unit
from dynrt.zoo.parts import ExitPart, GatedPart, GatedParts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExitPoint:
    """Where a d-gate stands.

    Attributes:
        after: the unit whose features it sees.
        pooled: these features to a vector.
        size: of the vector.
    """

    after: str
    pooled: nn.Module
    size: int


class GridPool(nn.Module):
    """Averages over the fields of a grid on the picture, after batch norm and ReLU if there is one.

    Args:
        grid: fields a side; 1 is global average pooling.
        norm: shared with the backbone, or ``None``.
    """

    def __init__(self, grid: int, norm: nn.BatchNorm2d | None = None) -> None:
        super().__init__()
        self.grid = grid
        self.before = nn.Identity() if norm is None else nn.Sequential(norm, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """``(n, c, h, w)`` to ``(n, c * grid * grid)``."""
        x = self.before(x)
        if self.grid == 1:
            return x.mean((2, 3))
        return functional.adaptive_avg_pool2d(x, self.grid).flatten(1)


def exit_points(
    backbone: Backbone, after: Sequence[str] | None = None, *, grid: int = 1
) -> tuple[ExitPoint, ...]:
    """Points behind units of a backbone, in their order.

    Args:
        backbone: any.
        after: names of units; by default the last of every main block (stage, dense block) but the
            last, which the network's own classifier stands behind.
        grid: fields a side that features are averaged over; 1: over the whole picture.

    Raises:
        DynrtError: no such unit, one twice, the last one, no point at all, or no such grid.
    """
    if grid < 1:
        raise DynrtError(f"a grid has at least one field a side, not {grid}")
    chain = backbone.chain()
    names = [unit.name for unit in chain.units]
    wanted = main_block_ends(chain) if after is None else tuple(after)
    for name in wanted:
        if name not in names:
            raise DynrtError(f"no unit {name!r}; there are {names[0]} to {names[-1]}")
        if wanted.count(name) > 1:
            raise DynrtError(f"two exit points after {name!r}")
        if name == names[-1]:
            raise DynrtError(f"after {name!r} stands the network's own classifier")
    if not wanted:
        raise DynrtError("no exit points: the network is one main block; name units")
    return tuple(
        ExitPoint(
            after=unit.name,
            pooled=GridPool(grid, _norm(unit, then)),
            size=unit.c_behind * grid * grid,
        )
        for unit, then in zip(chain.units, chain.units[1:], strict=False)
        if unit.name in wanted
    )


def main_block_ends(chain: Chain) -> tuple[str, ...]:
    """The last unit of every main block but the last; of a dense block, its last dense layer."""
    ends = []
    for stage in chain.stages()[:-1]:
        dense = [unit for unit in stage if unit.dense]
        ends.append((dense or list(stage))[-1].name)
    return tuple(ends)


def _norm(unit: Unit, then: Unit) -> nn.BatchNorm2d | None:
    """What ``then``, the unit behind ``unit``, begins with, if that is what activates features."""
    if not unit.dense:
        return None
    norm = next((m for m in then.module.modules() if isinstance(m, nn.BatchNorm2d)), None)
    if norm is None or norm.num_features != unit.c_behind:
        raise DynrtError(
            f"{then.name!r} does not begin with a batch norm of what {unit.name!r} gives"
        )
    return norm


class Stretch(nn.Module):
    """Units that run one after another; they share the backbone's weights.

    Args:
        units: in order.
        stem: before them, or ``None``.
    """

    def __init__(self, units: Sequence[Unit], stem: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = nn.Identity() if stem is None else stem
        self.steps = nn.ModuleList(unit.module for unit in units)
        self.dense = tuple(unit.dense for unit in units)

    def forward(self, x: Tensor) -> Tensor:
        """Features (of the first stretch: pictures) to features."""
        x = self.stem(x)
        for step, dense in zip(self.steps, self.dense, strict=True):
            given = step(x)
            x = torch.cat([x, given], 1) if dense else given
        return x


class ExitNetwork(nn.Module):
    """A backbone and the points where its features are seen; all weights are the backbone's.

    Args:
        backbone: gives its chain.
        after, grid: as of :func:`exit_points`.

    Attributes:
        points: of the early exits.
        exit_names: ``exit1``, ``exit2``, ... and ``final``.
        feature_sizes: of the early exits' vectors.
    """

    def __init__(
        self, backbone: Backbone, after: Sequence[str] | None = None, *, grid: int = 1
    ) -> None:
        super().__init__()
        if not isinstance(backbone, nn.Module):
            raise DynrtError(f"a backbone is a torch module, not {type(backbone).__name__}")
        self.backbone: nn.Module = backbone
        self.chain: Chain = backbone.chain()
        self.points = exit_points(backbone, after, grid=grid)
        self.exit_names = (*(f"exit{i + 1}" for i in range(len(self.points))), "final")
        self.feature_sizes = tuple(point.size for point in self.points)
        self.classes = self.chain.classes

    def stretches(self) -> tuple[tuple[str, Stretch], ...]:
        """The backbone cut at the points; each stretch is named after its last unit."""
        chain = self.chain
        ends = {point.after for point in self.points}
        out: list[tuple[str, Stretch]] = []
        units: list[Unit] = []
        for unit in chain.units:
            units.append(unit)
            if unit.name in ends or unit is chain.units[-1]:
                out.append((unit.name, Stretch(units, None if out else chain.stem)))
                units = []
        return tuple(out)

    def pooled(self, x: Tensor) -> list[Tensor]:
        """Normalised pictures ``(n, 3, h, w)`` to the vector at each point, ``(n, size)``."""
        vectors = []
        for (_, stretch), point in zip(self.stretches(), self.points, strict=False):
            x = stretch(x)
            vectors.append(point.pooled(x))
        return vectors

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The vectors at the points, and the backbone's own logits ``(n, classes)``."""
        vectors = []
        stretches = self.stretches()
        for at, (_, stretch) in enumerate(stretches):
            x = stretch(x)
            if at < len(self.points):
                vectors.append(self.points[at].pooled(x))
        logits: Tensor = self.chain.classifier(self.chain.pool(x))
        return vectors, logits

    def export_parts(self) -> GatedParts:
        """The stretches, an exit without a classifier at each point, and the backbone's own."""
        stretches = self.stretches()
        early = (
            ExitPart(name=name, after=point.after, pooled=point.pooled, classifier=None)
            for name, point in zip(self.exit_names, self.points, strict=False)
        )
        final = ExitPart(
            name="final",
            after=stretches[-1][0],
            pooled=self.chain.pool,
            classifier=self.chain.classifier,
        )
        parts = tuple(GatedPart(name=name, module=stretch) for name, stretch in stretches)
        return GatedParts(parts=parts, exits=(*early, final))


class VectorHead(nn.Module):
    """An exit's head: features to a vector, and that to the results of one or two linear layers.

    Args:
        pooled: features to the vector.
        layers: each from the vector to ``(n, classes)``: a classifier, a d-gate, or both.
    """

    def __init__(self, pooled: nn.Module, *layers: nn.Module) -> None:
        super().__init__()
        self.pooled = pooled
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """What each layer makes of the vector."""
        vector = self.pooled(x)
        return tuple(layer(vector) for layer in self.layers)
