"""Questions and answers over a line on which readings come too, whatever damage it does."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from dynrt.errors import MeterError
from dynrt.fpga.links import Link, heard_s
from dynrt.fpga.samples import Decoder, Samples

Clock = Callable[[], float]


class ReplyDecoder(Decoder, Protocol):
    """A decoder that keeps the answers which are no readings."""

    replies: deque[str]


class Conversation:
    """Commands out, answers and readings in; every byte goes through the one decoder.

    Attributes:
        ahead: readings that came while an answer was waited for.
    """

    def __init__(
        self, link: Link, decoder: ReplyDecoder, *, patience_s: float, clock: Clock = time.monotonic
    ) -> None:
        self.link = link
        self.decoder = decoder
        self.patience_s = patience_s
        self.clock = clock
        self.ahead: list[Samples] = []

    def say(self, *commands: str) -> None:
        """Send commands, one a line."""
        self.link.write("".join(f"{c}\n" for c in commands).encode("ascii"))

    def hear(self, timeout_s: float) -> Samples:
        """The readings of what comes within ``timeout_s``; answers stay with the decoder."""
        data = self.link.read(max(0.0, timeout_s))
        return self.decoder.feed(data, heard_s(self.link)) if data else Samples.empty()

    def ask(self, question: str, *, like: str = ".*", patience_s: float | None = None) -> str:
        """The next answer that matches ``like`` (a regular expression); asked again once.

        Raises:
            MeterError: silence, or nothing of that kind.
        """
        heard: list[str] = []
        for _ in range(2):
            self.decoder.replies.clear()
            self.say(question)
            deadline_s = self.clock() + (patience_s or self.patience_s)
            while (left_s := deadline_s - self.clock()) > 0:
                block = self.hear(min(left_s, 0.25))
                if len(block):
                    self.ahead.append(block)
                while self.decoder.replies:
                    reply = self.decoder.replies.popleft()
                    if re.fullmatch(like, reply, re.IGNORECASE | re.DOTALL):
                        return reply
                    heard.append(reply)
        what = f"answered {heard[-1]!r}" if heard else "no answer"
        raise MeterError(f"{self.link.name}: {question}: {what}")

    def take_ahead(self) -> Samples:
        """The readings that came while answers were waited for."""
        block, self.ahead = Samples.join(self.ahead), []
        return block

    def drain(self, quiet_s: float, most_s: float) -> None:
        """Read until nothing has come for ``quiet_s``; readings in it are kept."""
        deadline_s = self.clock() + most_s
        while self.clock() < deadline_s:
            before = self.decoder.counts
            block = self.hear(quiet_s)
            if len(block):
                self.ahead.append(block)
            elif self.decoder.counts == before:
                return
