"""What a running training tells: progress values while it runs, records that stay."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynrt.train.checkpoint import write_atomically

#: One line of ``records.jsonl``: plain JSON.
Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a training stands; one is given after every step.

    Attributes:
        stage: its name, or ``features`` while these are computed.
        epoch, epochs: the epoch under way, from 1, of how many.
        step, steps: steps done in this epoch, of how many.
        loss: mean of this epoch so far, ``None`` where nothing is minimised.
        accuracy: fractions by exit on the validation pictures, after an epoch's last step.
        measures: shares that gates saved, with the accuracy.
        seconds: since this call of ``train`` began.
        eta_s: seconds until this stage is done at the speed so far; ``None`` if unknown.
    """

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None
    accuracy: Mapping[str, float] | None
    seconds: float
    eta_s: float | None
    measures: Mapping[str, float] | None = None


@dataclass(slots=True, kw_only=True)
class Watch:
    """The clock of one call of ``train``: whom to tell, when to save, when to stop.

    Attributes:
        tell: receives every progress value.
        limit_s: stop at the first step after so many seconds, or ``None``.
        save_every_s: at most so many seconds of work are lost by a kill.
        clock: monotonic seconds.
    """

    tell: Callable[[Progress], None]
    limit_s: float | None
    save_every_s: float
    clock: Callable[[], float] = time.monotonic
    _start_s: float = field(init=False)
    _saved_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._start_s = self._saved_s = self.clock()

    @property
    def seconds(self) -> float:
        """Since the call began."""
        return self.clock() - self._start_s

    @property
    def out_of_time(self) -> bool:
        """Whether the call should end."""
        return self.limit_s is not None and self.seconds >= self.limit_s

    def should_save(self) -> bool:
        """Whether the last save is long enough ago; if so, it counts as saved now."""
        now = self.clock()
        if now - self._saved_s < self.save_every_s:
            return False
        self._saved_s = now
        return True


class Journal:
    """``records.jsonl``: rewritten whole after each epoch, so that it never holds half a line.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._finished: list[Record] = []

    def publish(self, current: Sequence[Record]) -> None:
        """Write the records of finished stages and of the ``current`` one."""
        lines = (json.dumps(r, sort_keys=True) + "\n" for r in (*self._finished, *current))
        write_atomically(self.path, "".join(lines).encode())

    def finish(self, stage: Sequence[Record]) -> None:
        """Keep a finished stage's records."""
        self._finished.extend(stage)
        self.publish(())
