"""The papers' architectures in torch; no training and no bundles here.

``resnet`` has the CIFAR ResNet of any depth 6k + 2, ``densenet`` the CIFAR DenseNet, ``branches``
DDI's branch exits, ``layer_gates``, ``channel_gates`` and ``gated`` what DDI skips, and ``gates`` the
decision gates of Shafiee et al. with the heads that join them and branches; ``exits`` says where any
backbone may have one.

Raises:
    MissingExtraError: torch is not installed.
"""

from __future__ import annotations

from importlib.util import find_spec

from dynrt.errors import MissingExtraError

if find_spec("torch") is None:
    raise MissingExtraError("torch", "train")

from dynrt.zoo.branches import Branch, BranchedResNet, BranchHead, DenseBranch, branch_positions
from dynrt.zoo.chain import Backbone, Chain, Unit
from dynrt.zoo.channel_gates import ChannelGate, LightGate
from dynrt.zoo.densenet import DenseNet
from dynrt.zoo.exits import ExitNetwork, ExitPoint, VectorHead, exit_points
from dynrt.zoo.gate_costs import GatedCosts, count_costs, gate_shares
from dynrt.zoo.gated import GatedNetwork, GatedOutput
from dynrt.zoo.gates import DecisionGate, ExitGates, ExitHead, FinalHead, exit_heads, segments
from dynrt.zoo.imagenet import ImageNetDenseNet, ImageNetResNet, densenet201, resnet101
from dynrt.zoo.masked import MaskedBlock, MaskGate
from dynrt.zoo.resnet import BasicBlock, ResNet, Stem

__all__ = [
    "Backbone",
    "BasicBlock",
    "Branch",
    "BranchHead",
    "BranchedResNet",
    "Chain",
    "ChannelGate",
    "DecisionGate",
    "DenseBranch",
    "DenseNet",
    "ExitGates",
    "ExitHead",
    "ExitNetwork",
    "ExitPoint",
    "FinalHead",
    "GatedCosts",
    "GatedNetwork",
    "GatedOutput",
    "ImageNetDenseNet",
    "ImageNetResNet",
    "LightGate",
    "MaskGate",
    "MaskedBlock",
    "ResNet",
    "Stem",
    "Unit",
    "VectorHead",
    "branch_positions",
    "count_costs",
    "densenet201",
    "exit_heads",
    "exit_points",
    "gate_shares",
    "resnet101",
    "segments",
]
