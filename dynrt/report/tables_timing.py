"""Time saved beside FLOPs saved, on real inputs with the network's own decisions.

Settings and the full network take turns, picture part by picture part and every other round
backwards, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dynrt.calibrate.observe import Setting
from dynrt.errors import DataError
from dynrt.ir.graph import Array
from dynrt.report.tables_full import FullCall

if TYPE_CHECKING:
    from dynrt.runtime import Network

_WARM_UPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One setting against the full network, on the same inputs.

    Attributes:
        inputs: how many, all rounds together.
        seconds: median over rounds of the mean time of one run.
        full_seconds: the same of the full network.
        time_saved: a share of the full network's time (negative if it is the faster one).
        flops_saved: a share of its FLOPs, on the inputs that were timed.
        ratio: time saved over FLOPs saved; ``None`` where no FLOPs are saved.
        low, high: first and third quartile over rounds of that ratio.
    """

    inputs: int
    seconds: float
    full_seconds: float
    time_saved: float
    flops_saved: float
    ratio: float | None
    low: float | None
    high: float | None

    def cells(self) -> dict[str, Any]:
        """As cells of a table's row."""
        return {
            "seconds": self.seconds,
            "full_seconds": self.full_seconds,
            "time_saved": self.time_saved,
            "timed_flops_saved": self.flops_saved,
            "time_over_flops": self.ratio,
            "time_over_flops_low": self.low,
            "time_over_flops_high": self.high,
            "timed_inputs": self.inputs,
        }


def time_settings(
    network: Network,
    settings: Sequence[Setting],
    full: FullCall,
    full_macs: int,
    inputs: Array,
    *,
    rounds: int = 10,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Time single runs of every setting and of the full network.

    Args:
        network: loaded; it is left as it was.
        settings: what to time.
        full: the full network.
        full_macs: its multiply-accumulates.
        inputs: ``(n, ...)``: shared out over the rounds; at least one each.
        rounds: turns.
        clock: for tests.

    Raises:
        DataError: fewer inputs than rounds.
    """
    if not 1 <= rounds <= len(inputs):
        raise DataError(f"{len(inputs)} inputs cannot be timed in {rounds} rounds")
    seconds = np.zeros((len(settings) + 1, rounds))
    macs = np.zeros((len(settings), rounds))
    before = network.policy
    try:
        for turn, part in enumerate(np.array_split(inputs, rounds)):
            order = range(len(settings) + 1)
            for at in order if turn % 2 == 0 else reversed(order):
                if at == len(settings):
                    seconds[at, turn], _ = _timed(full, part, clock)
                    continue
                setting = settings[at]
                network.set(
                    budget=setting.budget, thresholds={**before.thresholds, **setting.thresholds}
                )
                seconds[at, turn], results = _timed(network.run, part, clock)
                macs[at, turn] = float(np.mean([r.macs for r in results]))
    finally:
        network.set(budget=before.budget, thresholds=before.thresholds)
    return [_timing(seconds[i], seconds[-1], macs[i] / full_macs, inputs) for i in range(len(macs))]


def _timed(
    call: Callable[[Array], Any], pictures: Array, clock: Callable[[], float]
) -> tuple[float, list[Any]]:
    """Mean seconds of one call, and what each gave; some are run before, untimed."""
    for picture in pictures[:_WARM_UPS]:
        call(picture)
    began = clock()
    given = [call(picture) for picture in pictures]
    return (clock() - began) / len(pictures), given


def _timing(ours: Array, full: Array, shares: Array, inputs: Array) -> Timing:
    middle, whole = float(np.median(ours)), float(np.median(full))
    time_saved, flops_saved = 1 - middle / whole, 1 - float(np.mean(shares))
    ratio = low = high = None
    if flops_saved > 0:
        ratio = time_saved / flops_saved
        each = [(1 - a / b) / (1 - s) for a, b, s in zip(ours, full, shares, strict=True) if s < 1]
        low, high = (float(q) for q in np.percentile(each, (25, 75)))
    return Timing(
        inputs=len(inputs),
        seconds=middle,
        full_seconds=whole,
        time_saved=time_saved,
        flops_saved=flops_saved,
        ratio=ratio,
        low=low,
        high=high,
    )
