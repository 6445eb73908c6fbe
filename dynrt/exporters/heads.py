"""Exits and gates as they are said of a chain: a module, what it gives, and its rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from dynrt.errors import ExportError
from dynrt.exporters.spec import NetworkBuilder, Wire
from dynrt.ir.graph import Accept, NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """An exit's module and rule.

    Attributes:
        module: takes the features; gives ``outputs``.
        outputs: names of its results.
        answer: which of them is the answer; by default the first.
        accept: when it ends the run; by default maximum softmax of the answer of at least 0.9, and
            ``always`` for the last exit.
        name: of the exit; by default ``exit1``, ``exit2``, ... and ``final``.
    """

    module: nn.Module
    outputs: tuple[str, ...] = ("logits",)
    answer: str | None = None
    accept: Accept | None = None
    name: NodeId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A gate that decides whether a block runs.

    Attributes:
        module: takes the features (and, if the gates are recurrent, the state tensors) and gives
            one score ``(n, 1)`` (and the next state).
        threshold: the block runs where the score is at least this.
    """

    module: nn.Module
    threshold: float = 0.5


def d_gate(
    module: nn.Module, *, threshold: float, outputs: Sequence[str] = ("logits", "distances")
) -> Head:
    """An exit that leaves by hinge distance (Shafiee et al., algorithm 1).

    Args:
        module: gives ``distances``: ``w'x - b`` per class, and whatever else ``outputs`` names.
        threshold: least largest distance that is accepted.
        outputs: names of the results; the first is the answer (``("distances",)``: the gate alone).
    """
    if "distances" not in outputs:
        raise ExportError(f"a d-gate gives 'distances'; its outputs are {', '.join(outputs)}")
    rule = Accept(kind="hinge", port="distances", threshold=threshold)
    return Head(module=module, outputs=tuple(outputs), accept=rule)


@dataclass(slots=True, kw_only=True)
class ExitNumbers:
    """Adds heads to a builder under the usual names."""

    net: NetworkBuilder
    last: NodeId
    count: int = field(default=0)

    def add(self, head: Head | nn.Module, features: Wire, *, final: bool) -> None:
        """Add one exit that reads ``features``."""
        known = head if isinstance(head, Head) else Head(module=head)
        self.count += 1
        name = known.name or (self.last if final else f"exit{self.count}")
        answer = known.answer or known.outputs[0]
        usual = Accept(kind="max_softmax", port=answer, threshold=0.9)
        rule = known.accept or (Accept(kind="always") if final else usual)
        self.net.exit(
            name,
            known.module,
            {"x": features},
            outputs=known.outputs,
            answer=answer,
            accept=rule,
        )
