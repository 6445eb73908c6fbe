"""Times alternatives in turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]
Call = Callable[[], Any]

#: One block of calls takes at least this long.
BLOCK_S = 0.006
_WARM_UPS = 2
_MOST_CALLS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """Something to time.

    Attributes:
        call: what is timed.
        prepare: called before each block, untimed; two untimed calls follow it.
    """

    call: Call
    prepare: Call = lambda: None


def interleaved(
    alternatives: Mapping[str, Alternative],
    rounds: int,
    *,
    block_s: float = BLOCK_S,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Seconds]:
    """Seconds per call of each alternative, ``(rounds,)``; odd rounds go backwards.

    Args:
        alternatives: by name.
        rounds: how often each has its turn.
        block_s: calls of one turn take at least this long together; their mean is one sample.
        clock: for tests.
    """
    counts = {name: _calls(item, block_s, clock) for name, item in alternatives.items()}
    found = {name: np.empty(rounds) for name in alternatives}
    names = list(alternatives)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            item = alternatives[name]
            _ready(item)
            call, count = item.call, counts[name]
            began = clock()
            for _ in range(count):
                call()
            found[name][number] = (clock() - began) / count
    return found


def _ready(item: Alternative) -> None:
    item.prepare()
    for _ in range(_WARM_UPS):
        item.call()


def _calls(item: Alternative, block_s: float, clock: Callable[[], float]) -> int:
    """How many calls fill a block."""
    _ready(item)
    began = clock()
    item.call()
    taken_s = clock() - began
    return max(1, min(_MOST_CALLS, round(block_s / max(taken_s, 1e-7))))
