"""A backbone as a chain: a stem, units of which some can be skipped, and a head.

Residual networks hand features on from unit to unit. In a DenseNet a unit gives *new* features,
which are put behind those that it took; the network is a chain of units all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unit:
    """What a layer gate can skip, or what stands between such units.

    Attributes:
        name: ``block7``, ``dense3``, ``transition1``: that of its node in a bundle.
        path: of the module inside the backbone (``layer2.0``).
        module: features to features; of a dense layer, to its new features.
        stage: from 0; features have one height and width within a stage.
        c_in: channels that it takes.
        c_out: channels that it gives; of a dense layer, its new ones.
        skippable: whether it may be left out: a residual block whose output has the shape of its
            input, or a dense layer behind another one of its dense block.
        dense: whether its output is put behind what it took.
    """

    name: str
    path: str
    module: nn.Module
    stage: int
    c_in: int
    c_out: int
    skippable: bool
    dense: bool = False

    @property
    def c_behind(self) -> int:
        """Channels that the next unit takes."""
        return self.c_in + self.c_out if self.dense else self.c_out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chain:
    """A backbone's parts; all share its weights.

    Attributes:
        stem: pictures to the features that the first unit takes.
        units: in order.
        pool: features of the last unit to a vector ``(n, size)``.
        classifier: the vector to logits.
    """

    stem: nn.Module
    units: tuple[Unit, ...]
    pool: nn.Module
    classifier: nn.Linear

    @property
    def classes(self) -> int:
        """Logits per picture."""
        return self.classifier.out_features

    def stages(self) -> tuple[tuple[Unit, ...], ...]:
        """The units of each stage."""
        count = 1 + max(unit.stage for unit in self.units)
        return tuple(tuple(u for u in self.units if u.stage == stage) for stage in range(count))


class Backbone(Protocol):
    """A network that says which chain it is."""

    def chain(self) -> Chain:
        """Its parts, as they are now."""
        ...
