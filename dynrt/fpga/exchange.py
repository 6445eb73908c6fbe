"""Requests and replies over a link that may lose and damage bytes.

Every request may be sent again: writes carry their offset, and a run its id. A reply counts if its
type and sequence number are the request's, so one that comes late is told apart.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from dynrt.errors import BoardError
from dynrt.fpga.links import Link
from dynrt.fpga.wire import (
    DAMAGED,
    NAK,
    REPLY,
    Frame,
    FrameReader,
    Kind,
    Refusal,
    encode_frame,
)

_NAK = struct.Struct("<BBI")
#: After a NAK for damage (perhaps of noise before the request) the reply may still be on its way.
_AFTER_DAMAGE_S = 0.02
_MOST_SILENCE_S = 5.0
#: A busy board is asked again so often within one request, each time after ``timeout_s / 4``.
_MOST_BUSY = 40

_WHY = {
    Refusal.TYPE: "it does not know this request (older firmware?)",
    Refusal.LENGTH: "the request has a wrong length",
    Refusal.BOUNDS: "offset or length is out of bounds",
    Refusal.NO_SESSION: "it has no such session: the board was reset, or another host took it",
    Refusal.TABLE: "the op table is invalid",
    Refusal.BUSY: "it is busy",
    Refusal.NOT_COMMITTED: "no network is committed",
    Refusal.FAULT: "the run failed",
    Refusal.RUN_ID: "this run id was used for another request",
}


class SilenceError(BoardError):
    """No answer came, however often it was asked."""


class RefusedError(BoardError):
    """The board said no; ``code`` and ``detail`` are its own words."""

    def __init__(self, message: str, *, code: int, detail: int) -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCounts:
    """How the link did: frames sent, those sent again, damaged ones in each direction, late ones."""

    sent: int
    repeated: int
    damaged_here: int
    damaged_there: int
    late: int


@dataclass(slots=True)
class _Tally:
    sent: int = 0
    repeated: int = 0
    damaged_there: int = 0
    late: int = 0


class Exchange:
    """One host's talk with one board.

    Args:
        link: the byte stream; owned by the caller.
        timeout_s: the wait for an answer, beyond the time its bytes take.
        retries: how often a request is sent again.
        bytes_per_s: speed of the line, for that time.
        clock: host seconds.
    """

    def __init__(
        self,
        link: Link,
        *,
        timeout_s: float,
        retries: int,
        bytes_per_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.link = link
        self.timeout_s = timeout_s
        self.retries = retries
        self.clock = clock
        self._bytes_per_s = bytes_per_s
        self._reader = FrameReader()
        self._sequence = 0
        self._tally = _Tally()

    @property
    def counts(self) -> LinkCounts:
        """What was sent and what went wrong so far."""
        t = self._tally
        return LinkCounts(
            sent=t.sent,
            repeated=t.repeated,
            damaged_here=self._reader.damaged,
            damaged_there=t.damaged_there,
            late=t.late,
        )

    def wire_s(self, payload_bytes: int) -> float:
        """Seconds that a frame with this payload takes on the line."""
        return (payload_bytes + 32) / self._bytes_per_s

    def next_sequence(self) -> int:
        """A sequence number for a new request."""
        self._sequence = (self._sequence + 1) & 0xFF
        return self._sequence

    def send(self, kind: Kind, sequence: int, payload: bytes, *, again: bool = False) -> None:
        """Send one frame. Raises ``LinkError`` if the link is gone."""
        self._tally.sent += 1
        self._tally.repeated += again
        self.link.write(encode_frame(kind, sequence, payload))

    def receive(self, timeout_s: float) -> list[Frame]:
        """The frames that come in the next bytes; none on timeout or if no frame ended."""
        return self._reader.feed(self.link.read(max(timeout_s, 0.0)))

    def request(
        self, kind: Kind, payload: bytes = b"", *, reply_bytes: int = 64, retries: int | None = None
    ) -> bytes:
        """Ask until the answer comes; its payload.

        Raises:
            SilenceError: none came.
            RefusedError: the board refused.
            LinkError: the link is gone.
        """
        sequence = self.next_sequence()
        attempts = 1 + (self.retries if retries is None else retries)
        wait_s = self.timeout_s + self.wire_s(len(payload)) + self.wire_s(reply_bytes)
        sent = busy = 0
        while sent < attempts:
            self.send(kind, sequence, payload, again=sent + busy > 0)
            sent += 1
            deadline = self.clock() + wait_s
            while (left_s := deadline - self.clock()) > 0:
                for frame in self.receive(left_s):
                    if frame.kind == kind | REPLY and frame.sequence == sequence:
                        return frame.payload
                    code = self.refusal(frame, kind, sequence)
                    if code == Refusal.BUSY and busy < _MOST_BUSY:
                        busy, sent = busy + 1, sent - 1
                        deadline = self.clock() + self.timeout_s / 4
                    elif code is not None:
                        self.raise_refused(frame, kind)
                    elif self.is_damage(frame):
                        soon_s = _AFTER_DAMAGE_S + self.wire_s(reply_bytes)
                        deadline = min(deadline, self.clock() + soon_s)
        raise SilenceError(
            f"{self.link.name}: no answer to {kind.name} after {attempts} tries of {wait_s:.2g} s"
            f" ({self._reader.damaged} damaged frames came); is it the board's port, and the agent"
            " running?"
        )

    def is_damage(self, frame: Frame) -> bool:
        """Whether the board says that something reached it damaged; counted."""
        if frame.kind == NAK and frame.payload[:1] and frame.payload[0] in DAMAGED:
            self._tally.damaged_there += 1
            return True
        self._tally.late += frame.kind != NAK
        return False

    def refusal(self, frame: Frame, kind: Kind, sequence: int) -> int | None:
        """The code, if ``frame`` refuses this very request for another reason than damage."""
        if frame.kind != NAK or frame.sequence != sequence or len(frame.payload) != _NAK.size:
            return None
        code, refused, _ = _NAK.unpack(frame.payload)
        return None if refused != kind or code in DAMAGED else int(code)

    def raise_refused(self, frame: Frame, kind: Kind) -> None:
        """Raise ``RefusedError`` with the words of a NAK."""
        number, _, detail = _NAK.unpack(frame.payload)
        code = next((c for c in _WHY if c == number), None)
        why = f"code {number}, detail {detail}" if code is None else _WHY[code]
        if code is Refusal.TABLE:
            why += f" (at {detail})"
        elif code is Refusal.FAULT:
            why += f" (at operator {detail})"
        raise RefusedError(
            f"{self.link.name}: the board refuses {kind.name}: {why}", code=number, detail=detail
        )

    def longer(self, wait_s: float) -> float:
        """The next wait after one in vain."""
        return min(2 * wait_s, max(_MOST_SILENCE_S, self.timeout_s))
