"""Meters that are programs on pseudo-terminals: the streaming ones, and what all have in common.

They keep real time. Their records say ``source: emulated``: a pseudo-terminal never counts as
hardware (``links.is_pseudo_terminal``).
"""

from __future__ import annotations

import os
import pty
import select
import threading
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dynrt.fpga.decoders.ina_line import encode_line
from dynrt.fpga.decoders.ppk2 import Calibration
from dynrt.fpga.emulated.faults import BOOT_GARBAGE, FaultyLine, LineFaults


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What a meter sees at one moment: volts, amperes, and the marker line."""

    volts: float = 12.0
    amperes: float = 0.2133
    marker: int = 0


Circuit = Callable[[float], Supply]

#: A host that takes nothing for so long loses what is sent to it.
_OVERRUN_S = 0.5


def steady(seconds: float) -> Supply:
    """A board at rest: 2.56 W from 12 V."""
    del seconds
    return Supply()


class PtyInstrument:
    """A thread behind a pseudo-terminal; ``port`` is its path. Use it as a context manager."""

    def __init__(self, faults: LineFaults, seed: int) -> None:
        self._controller, self._device = pty.openpty()
        tty.setraw(self._device)
        os.set_blocking(self._controller, False)
        self.port = os.ttyname(self._device)
        self.line = FaultyLine(faults, seed)
        self.faults = faults
        self.overrun_bytes = 0
        self.number = 0  # of readings sent so far
        self._alive = True
        self._began_s = time.monotonic()
        self._plug = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._began_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._alive = False
        self._thread.join()
        self.unplug()

    def unplug(self) -> None:
        """Pull the plug: the far end sees its port vanish."""
        self._alive = False
        with self._plug:
            for number in (self._device, self._controller):
                if number >= 0:
                    os.close(number)
            self._device = self._controller = -1

    @property
    def seconds(self) -> float:
        """Time since it was switched on."""
        return time.monotonic() - self._began_s

    def serve(self) -> None:
        """What the instrument does once; called until it is unplugged."""
        raise NotImplementedError

    def receive(self, timeout_s: float) -> bytes:
        """What the host has sent; empty after ``timeout_s``."""
        with self._plug:
            if self._controller < 0:
                return b""
            ready, _, _ = select.select([self._controller], [], [], timeout_s)
            if not ready:
                return b""
            with suppress(OSError):
                return os.read(self._controller, 4096)
        return b""

    def transmit(self, data: bytes) -> None:
        """Send; what the host does not take in time is lost, as on a real line."""
        with self._plug:
            while data and self._controller >= 0:
                _, ready, _ = select.select([], [self._controller], [], _OVERRUN_S)
                try:
                    sent = os.write(self._controller, data) if ready else 0
                except OSError:
                    sent = 0
                if not sent:
                    self.overrun_bytes += len(data)
                    return
                data = data[sent:]

    def due(self) -> bool:
        """Note one more reading; whether the plug is still in."""
        self.number += 1
        if self.faults.unplug_at is not None and self.number > self.faults.unplug_at:
            self.unplug()
            return False
        if self.line.happens(self.faults.stall):
            time.sleep(self.faults.stall_s)
        return True

    def _run(self) -> None:
        if self.faults.boot_garbage:
            self.transmit(BOOT_GARBAGE)
        while self._alive:
            self.serve()


class InaInstrument(PtyInstrument):
    """The reference current sensor with its microcontroller.

    Args:
        circuit: what it sees, by seconds since it was switched on.
        rate_hz: lines per second.
        faults: see ``LineFaults``.
        seed: of the faults.
    """

    def __init__(
        self,
        circuit: Circuit = steady,
        *,
        rate_hz: float = 500.0,
        faults: LineFaults | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(faults or LineFaults(), seed)
        self._circuit, self._rate_hz = circuit, rate_hz
        self._sequence = 0
        self._zero = 0  # number of the reading at its last reset

    def serve(self) -> None:
        """Wait for the next sample and send its line."""
        wait_s = self.number / self._rate_hz - self.seconds
        if wait_s > 0:
            time.sleep(min(wait_s, 0.05))
            return
        at_s = self.number / self._rate_hz
        if self.number == self.faults.reset_at:
            self._sequence, self._zero = 0, self.number
            self.transmit(BOOT_GARBAGE + b"\r\n")
        line = self._line(at_s)
        if self.due():
            self.transmit(line)

    def _line(self, at_s: float) -> bytes:
        faults, seen = self.faults, self._circuit(at_s)
        since_us = (self.number - self._zero) / self._rate_hz * 1e6 * (1 + faults.drift)
        us = round(since_us) + (0 if self._zero else faults.start_us)
        if faults.backward_at is not None and self.number >= faults.backward_at:
            us -= 1_000_000
        us %= 1 << faults.clock_bits
        amperes = seen.amperes
        if self.line.happens(faults.nan):
            amperes = float("nan")
        elif self.line.happens(faults.overload):
            amperes = 9.9e37
        line = (
            encode_line(self._sequence, us, seen.volts, amperes, seen.marker)
            if amperes != 9.9e37
            else overload_line(self._sequence, us, seen)
        )
        self._sequence += 1
        return self.line.send(line.removesuffix(b"\r\n"))


def overload_line(sequence: int, us: int, seen: Supply) -> bytes:
    """A line of the reference sensor whose current was over its range."""
    import binascii

    body = f"{sequence},{us},{seen.volts:.4f},9.9E37,{seen.marker}".encode("ascii")
    return body + b"*%04X\r\n" % binascii.crc_hqx(body, 0xFFFF)


def encode_words(
    counts: NDArray[np.int64], *, at_range: int, first_counter: int, logic: int
) -> bytes:
    """PPK2 words of converter ``counts`` in one range, counted from ``first_counter``."""
    counters = (first_counter + np.arange(len(counts))) % 64
    words = counts & 0x3FFF | at_range << 14 | counters << 18 | logic << 24
    return words.astype("<u4").tobytes()


def calibration_text(kit: Calibration) -> bytes:
    """How a kit tells its calibration."""
    lines = [f"Calibrated: {int(kit.calibrated)}"]
    for name, values in (
        ("R", kit.ohm),
        ("GS", kit.gain_square),
        ("GI", kit.gain),
        ("O", kit.zero_count),
    ):
        lines += [f"{name}{i}: {value:.6f}" for i, value in enumerate(values)]
    lines += [f"VDD: {kit.supply_volts * 1000:.0f}", f"HW: {kit.hardware}", "mode: 2"]
    for name, values in (("S", kit.per_volt), ("I", kit.offset), ("UG", kit.user_gain)):
        lines += [f"{name}{i}: {value:.9f}" for i, value in enumerate(values)]
    return "\n".join([*lines, "IA: 56", "END\n"]).encode("ascii")


class Ppk2Instrument(PtyInstrument):
    """A Power Profiler Kit II; its faults hit 64-byte packets, as USB's do, or bytes.

    Args:
        counts: converter count in range 4, by number of the word.
        kit: its calibration.
        words_per_s: 100,000 of a real one; fewer for slow machines.
        faults, seed: see ``LineFaults``.
    """

    def __init__(
        self,
        counts: Callable[[NDArray[np.int64]], NDArray[np.int64]],
        *,
        kit: Calibration,
        words_per_s: int = 100_000,
        faults: LineFaults | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(faults or LineFaults(), seed)
        self._counts, self._kit, self._words_per_s = counts, kit, words_per_s
        self._streaming_s: float | None = None
        self.commands: list[bytes] = []
        self.logic = 0

    def serve(self) -> None:
        """Obey what came, then send the words that are due, packet by packet."""
        for command in _split_commands(self.receive(0.002)):
            self.commands.append(command)
            if command[0] == 0x19:
                self.transmit(calibration_text(self._kit))
            elif command[0] == 0x06:
                self._streaming_s = self.seconds - self.number / self._words_per_s
            elif command[0] == 0x07:
                self._streaming_s = None
        if self._streaming_s is None:
            return
        due = int((self.seconds - self._streaming_s) * self._words_per_s)
        while self.number + 16 <= due and self._alive:
            which = np.arange(self.number, self.number + 16)
            packet = encode_words(
                self._counts(which), at_range=4, first_counter=self.number % 64, logic=self.logic
            )
            self.number += 15
            if self.due():
                self.transmit(self.line.damaged(packet))


_ARGUMENTS = {0x0C: 1, 0x0D: 2, 0x11: 1}


def _split_commands(data: bytes) -> list[bytes]:
    commands, at = [], 0
    while at < len(data):
        n = 1 + _ARGUMENTS.get(data[at], 0)
        commands.append(data[at : at + n])
        at += n
    return commands
