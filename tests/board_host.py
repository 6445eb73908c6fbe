"""The board's agent, built for this machine, at the other end of a pair of pipes."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dynrt.errors import LinkError, MeasureError
from dynrt.fpga.board import Board
from dynrt.fpga.firmware_build import build


class PipeLink:
    """The standard input and output of a running agent."""

    name = "host agent"
    emulated = True

    def __init__(self, agent: subprocess.Popen[bytes]) -> None:
        self._agent = agent
        assert agent.stdin is not None
        assert agent.stdout is not None
        self._to, self._from = agent.stdin.fileno(), agent.stdout.fileno()

    def read(self, timeout_s: float) -> bytes:
        """What has come, or nothing after ``timeout_s``."""
        if not select.select([self._from], [], [], timeout_s)[0]:
            return b""
        data = os.read(self._from, 1 << 16)
        if not data:
            raise LinkError("the agent has ended")
        return data

    def write(self, data: bytes) -> None:
        """Send all of it."""
        while data:
            data = data[os.write(self._to, data) :]

    def close(self) -> None:
        """End the agent."""
        self._agent.kill()


@contextmanager
def host_board() -> Iterator[Board]:
    """A board whose agent runs on this machine; skips without a C compiler, and fails so in CI."""
    try:
        program = build("host")
    except MeasureError as exc:
        if os.environ.get("CI"):
            pytest.fail(str(exc))
        pytest.skip(str(exc))
    agent = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with agent, Board(PipeLink(agent), timeout_s=10.0, bytes_per_s=1e7) as board:
        yield board
