"""DDI's gated networks (Wang et al., section III): a backbone whose units and channels are skipped.

Per picture a layer gate decides on a unit, and where the unit runs a channel gate decides on its
channels (MGL2S, equation 3). Decisions are 0 or 1 in training too, so that batch norm sees the
features that it will see later; the gates get the gradient of the score that was rounded (straight
through). A batch is computed whole, or, with :meth:`GatedNetwork.explore`, mostly where units run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from dynrt.errors import DynrtError
from dynrt.zoo.branches import BranchHead
from dynrt.zoo.chain import Backbone, Chain, Unit
from dynrt.zoo.channel_gates import DenseOutputMasked, OutputMasked, spread
from dynrt.zoo.decisions import choose, choose_rows, hard, take_rows
from dynrt.zoo.gated_building import (
    ChannelKind,
    branch_places,
    channel_gate,
    channel_groups,
    inner_masked,
    new_branch,
)
from dynrt.zoo.layer_gates import GATE_WIDTH, LayerGate, UnitGates, mean_pool
from dynrt.zoo.parts import ExitPart, GatedPart, GatedParts, MeanPool

#: How the names of the gates' parameters begin.
LAYER_GATES, CHANNEL_GATES = "layer_gates.", "channel_gates."
LayerKeep = Literal["all", "gates"]


class GatedOutput(NamedTuple):
    """What a gated network gives for ``n`` pictures.

    Attributes:
        logits: of every exit in order, ``(n, classes)``; ``final`` is last.
        layer: ``(n, gated units)``, 1 where the unit runs and 0 where it is skipped.
        layer_scores: ``(n, gated units)``, the gates' scores in 0..1.
        channel: per channel-gated unit ``(n, groups)``, 1 where a group is computed; 0 for all
            groups of a unit that is skipped.
    """

    logits: tuple[Tensor, ...]
    layer: Tensor
    layer_scores: Tensor
    channel: tuple[Tensor, ...]


class GatedNetwork(nn.Module):
    """A backbone with layer gates, channel gates and branches, each if wanted.

    The gated units are those that a chain calls skippable: all but the first of every stage.

    Args:
        backbone: a :class:`ResNet` or :class:`DenseNet`, or another network with a ``chain``. With
            ``inner`` channels its units are replaced by masked ones with the same weights.
        layer: whether units have layer gates.
        channel: ``output``: on a unit's output channels; ``inner``: between its convolutions.
        group_channels: that a channel gate keeps or drops together.
        branches: whether DDI's branch exits are added, two per stage.

    Attributes:
        unit_names: in order.
        gated, channelled: names of the units with a layer gate, with a channel gate.
        exit_names: ``exit1``, ..., ``final``.
        exit_after: the unit that each exit stands behind.

    Raises:
        DynrtError: nothing can be skipped, channels are no whole groups, or there are no such gates
            or branches for this backbone.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        layer: bool = True,
        channel: ChannelKind = "none",
        group_channels: int = 1,
        branches: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, nn.Module):
            raise DynrtError(f"a backbone is a torch module, not {type(backbone).__name__}")
        units = [u for u in backbone.chain().units if u.skippable]
        if not units:
            raise DynrtError(f"a {type(backbone).__name__} so small has no unit to skip")
        self.kind: ChannelKind = channel
        self.groups = {
            u.name: channel_groups(u, channel, group_channels) for u in units if channel != "none"
        }
        if channel == "inner":
            for unit in units:
                backbone.set_submodule(unit.path, inner_masked(unit, self.groups[unit.name]))
        self.backbone = backbone
        self.chain: Chain = backbone.chain()
        self.unit_names = tuple(u.name for u in self.chain.units)
        self.gated = tuple(u.name for u in units) if layer else ()
        self.channelled = tuple(self.groups)
        self.layer_gates = UnitGates({u.name: u.c_in for u in units}) if layer else None
        self.channel_gates = (
            nn.ModuleList(channel_gate(u, channel, self.groups[u.name]) for u in units)
            if self.groups
            else None
        )
        places = branch_places(self.chain) if branches else ()
        self.branches = (
            nn.ModuleList(new_branch(backbone, self.chain, u) for u in places) if branches else None
        )
        self.exit_names = (*(f"exit{i}" for i in range(1, len(places) + 1)), "final")
        self.exit_after: Mapping[str, str] = dict(
            zip(self.exit_names, (*(u.name for u in places), self.unit_names[-1]), strict=True)
        )
        self._keep: LayerKeep = "gates"
        self._explored = 1.0
        self._frozen = False

    def freeze_backbone(self) -> None:
        """Let the backbone learn nothing: neither weights nor batch norm's averages."""
        self._frozen = True
        self.backbone.requires_grad_(requires_grad=False)
        self.backbone.eval()

    def train(self, mode: bool = True) -> Self:
        """As of any module, but a frozen backbone stays as it is used."""
        super().train(mode)
        if self._frozen:
            self.backbone.eval()
        return self

    def set_layer(self, keep: LayerKeep) -> None:
        """Follow the layer ``gates``, or run ``all`` units whatever they say."""
        self._keep = keep

    def explore(self, share: float) -> None:
        """In training, compute only this share of what is skipped, 0..1; see :func:`choose_rows`.

        1 computes every unit for every picture. Evaluation does so always.
        """
        self._explored = share

    def branch(self, index: int) -> BranchHead:
        """The branch of exit ``index + 1``.

        Raises:
            DynrtError: the network has no branches.
        """
        if self.branches is None:
            raise DynrtError("this gated network has no branches")
        return cast("BranchHead", self.branches[index])

    def forward(self, x: Tensor) -> GatedOutput:
        """Normalised pictures ``(n, 3, h, w)``, float."""
        maps, x, layer, scores, channel = self._run(x)
        logits = [self.branch(i)(seen) for i, seen in enumerate(maps)]
        logits.append(self.chain.classifier(self.chain.pool(x)))
        return GatedOutput(tuple(logits), layer, scores, channel)

    def pooled(self, x: Tensor) -> list[Tensor]:
        """Normalised pictures ``(n, 3, h, w)`` to each branch's vector ``(n, feature_size)``."""
        maps = self._run(x)[0]
        return [self.branch(i).pooled(seen) for i, seen in enumerate(maps)]

    def _run(self, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
        """Maps at the branches, the last map, decisions, scores, and masks."""
        count = len(x)
        x = self.chain.stem(x)
        gates = dict(
            zip(self.gated, self.layer_gates.gates if self.layer_gates else (), strict=True)
        )
        masks = dict(zip(self.channelled, self.channel_gates or (), strict=True))
        h = c = torch.zeros(count, GATE_WIDTH)
        wanted = set(self.exit_after.values()) if self.branches is not None else set()
        last = self.unit_names[-1]
        maps, layers, scores, channels = list[Tensor](), list[Tensor](), list[Tensor](), []
        previous = x
        for unit in self.chain.units:
            runs = mask = None
            if unit.name in gates:
                score, h, c = _step(gates[unit.name], x, h, c)
                runs = hard(score) if self._keep == "gates" else torch.ones_like(score)
                scores.append(score)
                layers.append(runs)
            if unit.name in masks:
                mask = hard(masks[unit.name](x).float())
                channels.append(mask if runs is None else mask * runs)
            new = self._unit(unit, x, previous, runs, mask)
            x, previous = (torch.cat([x, new], 1), new) if unit.dense else (new, x)
            _keep_layout(x)
            if unit.name in wanted and unit.name != last:
                maps.append(x)
        empty = torch.zeros(count, 0)
        return (
            maps,
            x,
            torch.cat(layers, 1) if layers else empty,
            torch.cat(scores, 1) if scores else empty,
            tuple(channels),
        )

    def _unit(
        self, unit: Unit, x: Tensor, previous: Tensor, runs: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """A unit's output; ``runs`` is ``(n, 1)`` and ``mask`` ``(n, groups)``, both 0 or 1."""
        passes = previous if unit.dense else x
        if runs is not None and self.training and self._explored < 1:
            return choose_rows(
                lambda rows: self._masked_rows(unit, x, passes, mask, rows),
                passes,
                runs,
                self._explored,
            )
        new = self._masked(unit, x, passes, mask)
        return new if runs is None else choose(new, passes, runs[:, :, None, None])

    def _masked_rows(
        self, unit: Unit, x: Tensor, passes: Tensor, mask: Tensor | None, rows: Tensor
    ) -> Tensor:
        """The same for the pictures of these indices alone."""
        taken = take_rows(x, rows)
        if mask is None:
            return self._masked(unit, taken, taken, None)
        passed = taken if passes is x else take_rows(passes, rows)
        return self._masked(unit, taken, passed, take_rows(mask, rows))

    def _masked(self, unit: Unit, x: Tensor, passes: Tensor, mask: Tensor | None) -> Tensor:
        """The unit's output where it runs."""
        if mask is None:
            out: Tensor = unit.module(x)
        elif self.kind == "inner":
            out = unit.module(x, mask.to(x.dtype))
        else:
            out = choose(unit.module(x), passes, spread(mask, unit.c_out))
        return out

    def export_parts(self) -> GatedParts:
        """The network in modules that run one after another, in evaluation mode, weights shared."""
        gates = self.layer_gates.by_segment() if self.layer_gates is not None else {}
        masks = dict(zip(self.channelled, self.channel_gates or (), strict=True))
        parts = [GatedPart(name="stem", module=self.chain.stem)]
        for unit in self.chain.units:
            module = unit.module
            if unit.name in masks and self.kind == "output":
                groups = self.groups[unit.name]
                module = (
                    DenseOutputMasked(module, unit.c_out, groups)
                    if unit.dense
                    else OutputMasked(module, unit.c_out, groups)
                )
            parts.append(
                GatedPart(
                    name=unit.name,
                    module=module,
                    layer_gate=gates.get(unit.name),
                    channel_gate=masks.get(unit.name),
                    dense=unit.dense,
                    previous=unit.dense and unit.name in masks and self.kind == "output",
                )
            )
        exits = [
            ExitPart(
                name=name,
                after=self.exit_after[name],
                pooled=MeanPool(branch.features),
                classifier=branch.classifier,
            )
            for i, name in enumerate(self.exit_names[:-1])
            for branch in [self.branch(i)]
        ]
        final = ExitPart(
            name=self.exit_names[-1],
            after=self.unit_names[-1],
            pooled=self.chain.pool,
            classifier=self.chain.classifier,
        )
        for module in (p for part in parts for p in _modules(part)):
            module.eval()
        for one in (*exits, final):
            one.pooled.eval()
        return GatedParts(
            parts=tuple(parts),
            exits=(*exits, final),
            state={"h": GATE_WIDTH, "c": GATE_WIDTH} if self.gated else {},
        )


def _modules(part: GatedPart) -> list[nn.Module]:
    return [m for m in (part.module, part.layer_gate, part.channel_gate) if m is not None]


def _keep_layout(x: Tensor) -> None:
    """Have the gradient of a channels-last map be so, too.

    That of a mean or of a shortcut is not, and would stay as it is through all units that are skipped.
    """
    if x.requires_grad and x.is_contiguous(memory_format=torch.channels_last):
        x.register_hook(lambda grad: grad.contiguous(memory_format=torch.channels_last))


def _step(gate: LayerGate, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A layer gate in float32, whatever precision the features have."""
    with torch.autocast(x.device.type, enabled=False):
        return gate.step(mean_pool(x).float(), h, c)
