"""Errors of other libraries, in one line."""

from __future__ import annotations

_LINE_CHARS = 300


def brief(exc: Exception) -> str:
    """The kind of a foreign error and the first line of its text."""
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[0][:_LINE_CHARS]}" if lines else type(exc).__name__
