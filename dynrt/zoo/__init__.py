"""The papers' architectures in torch; no training and no bundles here.

``resnet`` has the CIFAR ResNet of any depth 6k + 2, ``branches`` DDI's branch exits on it, and
``gates`` the decision gates of Shafiee et al. with the heads that join both.

Raises:
    MissingExtraError: torch is not installed.
"""

from __future__ import annotations

from importlib.util import find_spec

from dynrt.errors import MissingExtraError

if find_spec("torch") is None:
    raise MissingExtraError("torch", "train")

from dynrt.zoo.branches import Branch, BranchedResNet, branch_positions
from dynrt.zoo.gates import DecisionGate, ExitGates, ExitHead, FinalHead, exit_heads, segments
from dynrt.zoo.masked import MaskedBlock, MaskGate
from dynrt.zoo.resnet import BasicBlock, ResNet, Stem

__all__ = [
    "BasicBlock",
    "Branch",
    "BranchedResNet",
    "DecisionGate",
    "ExitGates",
    "ExitHead",
    "FinalHead",
    "MaskGate",
    "MaskedBlock",
    "ResNet",
    "Stem",
    "branch_positions",
    "exit_heads",
    "segments",
]
