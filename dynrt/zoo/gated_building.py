"""What a gated network is built of, for each kind of backbone: channel gates, masked units, branches."""

from __future__ import annotations

from typing import Literal, cast

from torch import nn

from dynrt.errors import DynrtError
from dynrt.zoo.branches import Branch, BranchHead, DenseBranch
from dynrt.zoo.chain import Chain, Unit
from dynrt.zoo.channel_gates import ChannelGate, LightGate, whole_groups
from dynrt.zoo.densenet import BOTTLENECK, DenseLayer, DenseNet, MaskedDenseLayer
from dynrt.zoo.masked import MaskedBlock, MaskGate
from dynrt.zoo.resnet import BasicBlock, ResNet

ChannelKind = Literal["none", "output", "inner"]


def channel_groups(unit: Unit, kind: ChannelKind, size: int) -> int:
    """How many groups of ``size`` channels a gate of this kind decides on.

    Raises:
        DynrtError: the channels are no whole groups, or there is nothing between convolutions.
    """
    channels = unit.c_out
    if kind == "inner":
        if isinstance(unit.module, BasicBlock):
            channels = unit.module.conv1.out_channels
        elif isinstance(unit.module, DenseLayer) and unit.module.middle:
            channels = unit.module.middle
        else:
            raise DynrtError(f"{unit.name}: there are no two convolutions to gate the channels of")
    return whole_groups(channels, size, unit.name)


def inner_masked(unit: Unit, groups: int) -> nn.Module:
    """The unit with a mask between its convolutions; the same weights."""
    if isinstance(unit.module, BasicBlock):
        return MaskedBlock.of(unit.module, groups=groups)
    return MaskedDenseLayer.of(cast("DenseLayer", unit.module), groups=groups)


def channel_gate(unit: Unit, kind: ChannelKind, groups: int) -> nn.Module:
    """A gate that is cheap beside the unit: features to the scores of its groups."""
    if kind == "inner":
        return MaskGate(unit.c_in, groups)
    first = next(m for m in unit.module.modules() if isinstance(m, nn.Conv2d))
    middle = max(1, first.out_channels // 2)
    if unit.dense and first.kernel_size != (1, 1):  # no bottleneck: as if there were one
        middle = max(1, BOTTLENECK * unit.c_out // 2)
    if unit.dense:
        return LightGate(unit.c_in, middle, unit.c_out, groups)
    if first.kernel_size == (1, 1):
        return LightGate(unit.c_in, middle, middle, groups)
    return ChannelGate(unit.c_in, groups)


def branch_places(chain: Chain) -> tuple[Unit, ...]:
    """The units behind which branches stand: about 1/4 and 3/4 of each stage."""
    places = []
    for stage in chain.stages():
        units = [u for u in stage if u.dense or not any(v.dense for v in stage)]
        inside = {max(1, len(units) // 4), max(1, 3 * len(units) // 4)}
        places += [units[at - 1] for at in sorted(inside)]
    return tuple(places)


def new_branch(backbone: nn.Module, chain: Chain, unit: Unit) -> BranchHead:
    """The branch behind ``unit``.

    Raises:
        DynrtError: branches are not made for this backbone.
    """
    if isinstance(backbone, DenseNet):
        return DenseBranch(unit.c_behind, unit.stage, classes=chain.classes)
    if isinstance(backbone, ResNet):
        stage = chain.stages()[unit.stage]
        early = stage.index(unit) + 1 == max(1, len(stage) // 4)
        return Branch(unit.stage, early=early, width=backbone.width, classes=chain.classes)
    raise DynrtError(f"branches are not made for a {type(backbone).__name__}")
