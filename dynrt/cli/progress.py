"""Progress on stderr: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

#: Told how many of how many are done.
Tell = Callable[[int, int], None]


@contextlib.contextmanager
def bar(label: str) -> Iterator[Tell]:
    """A bar that is told how far things are; it shows on a terminal only.

    Yields:
        A function of the count that is done and the total; the total may grow.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr, show_pos=True) as shown:

        def tell(done: int, total: int) -> None:
            shown.length = max(total, 1)
            shown.update(done - shown.pos)

        yield tell


def clock(seconds: float | None) -> str:
    """``seconds`` for people: ``1:02:03``, ``2:03``; ``?`` if unknown."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
