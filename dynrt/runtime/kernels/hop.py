"""A hop, and the loop that follows hops, in Python; the native module has twins of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: What :func:`follow` says about where it stopped.
ENDED, SHORT, UNKNOWN, UNDECIDED = range(4)


class Hop:
    """What happens between two decisions.

    Attributes:
        runs: calls ``f(argument)``, in order.
        kernels: calls without arguments that come after them.
        decide: gives the outcome, an index into :attr:`next`; below 0: it cannot say. ``None`` at
            the end.
        next: the hop behind each outcome; ``None`` where it is not known yet.
        macs: what the hop is charged.
        need_macs: with less than this left, it is not begun.
    """

    __slots__ = ("__weakref__", "decide", "kernels", "macs", "need_macs", "next", "runs")

    def __init__(self) -> None:
        self.runs: tuple[tuple[Callable[[Any], object], Any], ...] = ()
        self.kernels: tuple[Callable[[], None], ...] = ()
        self.decide: Callable[[], int] | None = None
        self.next: list[Hop | None] = []
        self.macs: int = 0
        self.need_macs: int = 0


def follow(hop: Hop, left_macs: int, trail: list[Hop]) -> tuple[int, Hop, int]:
    """Run hops from ``hop`` on until something needs attention.

    Args:
        hop: the first one.
        left_macs: what may still be spent.
        trail: every hop that was run is appended.

    Returns:
        Why it stopped, at which hop, and that hop's outcome: ``ENDED`` it decides nothing;
        ``SHORT`` less is left than it needs (it was not run); ``UNKNOWN`` the hop behind the
        outcome is not known; ``UNDECIDED`` the outcome is negative. An exception of a call is
        passed on; its hop is not in the trail.
    """
    left = left_macs
    while True:
        if hop.need_macs > left:
            return SHORT, hop, 0
        left -= hop.macs
        for run, argument in hop.runs:
            run(argument)
        for kernel in hop.kernels:
            kernel()
        trail.append(hop)
        if hop.decide is None:
            return ENDED, hop, 0
        outcome = hop.decide()
        if outcome < 0:
            return UNDECIDED, hop, outcome
        ahead = hop.next[outcome] if outcome < len(hop.next) else None
        if ahead is None:
            return UNKNOWN, hop, outcome
        hop = ahead
