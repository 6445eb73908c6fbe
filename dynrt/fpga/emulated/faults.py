"""What lines do to bytes and instruments to readings, on purpose and repeatably: for tests and soaks."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

ByteFault = Literal["flip", "drop", "double", "garble", "swallow", "repeat"]
BYTE_FAULTS: tuple[ByteFault, ...] = ("flip", "drop", "double", "garble", "swallow", "repeat")
LINE_ENDS = (b"\r\n", b"\n", b"\r", b"\r\r\n")

#: What a microcontroller says when it starts, and the end of a line whose start nobody heard.
BOOT_GARBAGE = b"\x00\xff\xfe\x00rst:0x1 (POWERON)\r\nboot: 0x13\r\n\x00\x00,12.01,0.2"


def damage(message: bytes, fault: ByteFault, rng: random.Random) -> bytes:
    """``message`` after one fault.

    A flipped bit, a dropped byte, a doubled byte, a random byte in place of one, nothing at all,
    or the whole message twice.
    """
    if not message:
        return message
    at = rng.randrange(len(message))
    table: dict[ByteFault, Callable[[], bytes]] = {
        "flip": lambda: _replaced(message, at, message[at] ^ 1 << rng.randrange(8)),
        "drop": lambda: message[:at] + message[at + 1 :],
        "double": lambda: message[: at + 1] + message[at:],
        "garble": lambda: _replaced(message, at, rng.randrange(256)),
        "swallow": lambda: b"",
        "repeat": lambda: message * 2,
    }
    return table[fault]()


def _replaced(message: bytes, at: int, byte: int) -> bytes:
    return message[:at] + bytes((byte,)) + message[at + 1 :]


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFaults:
    """Chances per message, and what the instrument itself does wrong.

    Attributes:
        flip, drop, double, garble, swallow, repeat: chance of each ``ByteFault`` per message.
        ends: chance that a message ends in something else than CRLF.
        nan, overload: chance that a reading is "not a number", or over the range.
        stall: chance that the instrument is silent for ``stall_s`` before a message.
        stall_s: see ``stall``.
        boot_garbage: whether it starts with noise and half a line.
        drift: by how much its clock is fast, as a share.
        start_us: where its clock starts, to see it wrap; ``clock_bits`` wide.
        clock_bits: 64, or 32 for a clock that wraps after 71.6 minutes.
        backward_at: number of the reading at which its clock goes back by a second.
        reset_at: number of the reading at which it starts anew.
        local_at: number of the reading at which somebody presses its Local key.
        unplug_at: number of the reading at which its plug is pulled.
    """

    flip: float = 0.0
    drop: float = 0.0
    double: float = 0.0
    garble: float = 0.0
    swallow: float = 0.0
    repeat: float = 0.0
    ends: float = 0.0
    nan: float = 0.0
    overload: float = 0.0
    stall: float = 0.0
    stall_s: float = 0.15
    boot_garbage: bool = False
    drift: float = 0.0
    start_us: int = 0
    clock_bits: int = 64
    backward_at: int | None = None
    reset_at: int | None = None
    local_at: int | None = None
    unplug_at: int | None = None


class FaultyLine:
    """Sends messages through the faults, always the same way for the same seed."""

    def __init__(self, faults: LineFaults, seed: int) -> None:
        self.faults = faults
        self._rng = random.Random(seed)  # noqa: S311  (repeatable, not secret)

    def happens(self, chance: float) -> bool:
        """Whether something of this chance happens now."""
        return chance > 0 and self._rng.random() < chance

    def send(self, message: bytes) -> bytes:
        """What arrives of ``message``, which has no line end yet."""
        end = self._rng.choice(LINE_ENDS) if self.happens(self.faults.ends) else b"\r\n"
        return self.damaged(message + end)

    def damaged(self, message: bytes) -> bytes:
        """What arrives of a binary ``message``."""
        for fault in BYTE_FAULTS:
            if self.happens(getattr(self.faults, fault)):
                message = damage(message, fault, self._rng)
        return message
