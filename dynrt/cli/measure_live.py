"""The live line of a session: stage, runs and power, on a terminal only."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import click
import numpy as np

from dynrt.cli.progress import clock
from dynrt.fpga.journal import Source
from dynrt.fpga.samples import Samples

_EVERY_S = 0.25
_WIDTH = 78


class LiveLine:
    """One line on stderr that is written over; nothing where stderr is no terminal."""

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty()
        self._latest: Callable[[], Samples] | None = None
        self._source: Source = "emulated"
        self._stage = self._window = ""
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._shows:
            self._thread = threading.Thread(target=self._run, name="live line", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            click.echo("\r" + " " * _WIDTH + "\r", err=True, nl=False)

    def stage(self, text: str, done: int, total: int) -> None:
        """What is being done, and how far it is."""
        self._stage = f"{text} {done}/{total}"

    def window(self, case: str, kind: str) -> None:
        """A window begins."""
        self._window = f"{kind} window" + (f" of {case}" if case else "")

    def listen(self, latest: Callable[[], Samples], source: Source) -> None:
        """Take the power from here."""
        self._latest, self._source = latest, source

    def text(self) -> str:
        """The line as it is now."""
        spent = clock(time.monotonic() - self._began)
        parts = [spent, self._stage, self._window, self._power()]
        return "  ".join(part for part in parts if part)[:_WIDTH]

    def _power(self) -> str:
        if self._latest is None:
            return ""
        watts = self._latest().watts
        good = watts[np.isfinite(watts)]
        return f"{good.mean():.3f} W {self._source}" if len(good) else ""

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            click.echo("\r" + self.text().ljust(_WIDTH), err=True, nl=False)
