"""What a walk stops for: whoever drives it runs a node, or looks at a tensor, and tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from dynrt.ir.graph import ControlNode, Exit, NodeId
from dynrt.runtime.plan import PlanStep

#: Whatever stands for one sample's tensor; told apart by equality.
Ref = Any


class Call(NamedTuple):
    """``step`` must be run on ``inputs``, with ``kept`` of its channel groups if it has a mask."""

    step: PlanStep
    inputs: dict[str, Ref]
    kept: int | None = None


class Kept(NamedTuple):
    """How many groups does the mask keep?"""

    step: PlanStep
    mask: Ref


class Scores(NamedTuple):
    """What do the scores of a control node say?"""

    step: PlanStep
    node: ControlNode
    scores: Ref


class Verdict(NamedTuple):
    """Does the exit's rule accept what its head gave?"""

    step: PlanStep
    node: Exit
    values: Ref


class Ended(NamedTuple):
    """There is an answer: what every head that ran gave is in ``heads``."""

    exit: Exit
    heads: Mapping[NodeId, Mapping[str, Ref]]
    accepted: bool
    forced: bool


Need = Call | Kept | Scores | Verdict | Ended
