"""A power meter in virtual time: its samples of a window follow from the board's own ticks.

It listens to the marker line, as the pin at a real meter would. Outside windows it sends the idle
power, paced by the host's clock. A window's samples are made when its end is known, from the ticks
between its edges and the seed alone: the same run gives the same energy on every machine. The power
is a model and is never called measured.
"""

from __future__ import annotations

import os
import select
import threading
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynrt.errors import MeterError
from dynrt.fpga.decoders.ina_line import encode_line
from dynrt.fpga.wire import MarkerLine, parse_marker

F64 = npt.NDArray[np.float64]

_TICK_S = 0.02
#: A reader that takes nothing for so long has gone; what it does not take is lost, as on any line.
_STALL_S = 5.0
_LONGEST_LINE = 128
#: Idle samples before each window at the least: between two windows an emulated board's host may take
#: no time at all, and then no edge could be seen.
_LEAST_BETWEEN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualPower:
    """The power of the emulated board, and how its meter errs.

    Attributes:
        idle_w: while the board waits.
        active_w: more than that while it runs samples.
        mac_w: more than that while it multiplies: the share of ticks within such operators.
        volts: supply.
        rate_hz: samples per second of the meter's clock.
        noise_w: standard deviation of a sample.
        drift: by how much the meter's clock runs fast, as a share.
        ramp_w_per_s: warming up: idle power per second of all windows so far.
        jitter_us: standard deviation of a sample's time.
        gap: share of samples that are lost, with their numbers.
        lag_s: each sample is the mean over so long before it.
        seed: of noise, jitter and gaps.
    """

    idle_w: float = 2.56
    active_w: float = 0.24
    mac_w: float = 0.25
    volts: float = 12.0
    rate_hz: float = 200.0
    noise_w: float = 0.03
    drift: float = 0.0
    ramp_w_per_s: float = 0.0
    jitter_us: float = 0.0
    gap: float = 0.0
    lag_s: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (1 <= self.rate_hz <= 100_000 and self.volts > 0 and 0 <= self.gap < 1):
            raise MeterError(
                f"virtual meter: {self.rate_hz} Hz, {self.volts} V, gaps {self.gap}: 1 to 100,000 Hz,"
                " above 0 V, a share below 1"
            )
        if not (abs(self.drift) < 0.5 and self.lag_s >= 0 and self.jitter_us >= 0):
            raise MeterError(
                f"virtual meter: drift {self.drift}, lag {self.lag_s} s, jitter {self.jitter_us} us:"
                " drift within a half, the others from 0 on"
            )

    def window_w(self, kind: str, ticks: int, mac_ticks: int) -> float:
        """True power of a window, before ramp, lag and noise."""
        if kind != "run" or ticks <= 0:
            return self.idle_w
        return self.idle_w + self.active_w + self.mac_w * mac_ticks / ticks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowSamples:
    """A window as the meter sees it: ``us`` counts from the sample period that begins with it."""

    steps: npt.NDArray[np.int64]
    us: F64
    watts: F64
    periods: int


def window_samples(
    power: VirtualPower, start: MarkerLine, end: MarkerLine, *, ticks_per_s: int, earlier_s: float
) -> WindowSamples:
    """The samples between two edges.

    Args:
        power: the model.
        start: the marker line at the window's start.
        end: that at its end.
        ticks_per_s: the board's clock.
        earlier_s: seconds of all windows before this one, for the ramp.

    Returns:
        ``steps`` numbers the periods that were not lost, of ``periods`` in all.
    """
    length_s = end.ticks / ticks_per_s
    period_s = 1.0 / power.rate_hz / (1.0 + power.drift)  # by the board's clock
    periods = max(0, int(np.ceil(length_s / period_s - 0.5)))
    rng = np.random.default_rng([power.seed, start.run_id, start.kind == "run"])
    noise, jitter, lost = (
        rng.standard_normal(periods),
        rng.standard_normal(periods),
        rng.random(periods) < power.gap,
    )
    steps = np.flatnonzero(~lost)
    at_s = (steps + 0.5) * period_s
    extra_w = power.window_w(start.kind, end.ticks, end.mac_ticks or 0) - power.idle_w
    reached = np.minimum(at_s / power.lag_s, 1.0) if power.lag_s > 0 else np.ones(len(at_s))
    period_us = 1e6 / power.rate_hz
    moved = np.clip(jitter * power.jitter_us, -0.45 * period_us, 0.45 * period_us)
    watts = (
        power.idle_w
        + extra_w * reached
        + power.ramp_w_per_s * (earlier_s + at_s)
        + power.noise_w * noise[steps]
    )
    return WindowSamples(
        steps=steps, us=(steps + 0.5) * period_us + moved[steps], watts=watts, periods=periods
    )


class VirtualMeter:
    """The meter's line on a pseudo-terminal of its own, fed by the board's marker line.

    Args:
        marker_port: where the board writes its marker lines.
        power: the model.
        ticks_per_s: the board's clock; asked when the first window ends.
        clock: host seconds, for the pace between windows.
    """

    def __init__(
        self,
        marker_port: str,
        power: VirtualPower,
        ticks_per_s: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.power = power
        self._ticks_per_s = ticks_per_s
        self._clock = clock
        self._line_in = os.open(marker_port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._line_in)
        self._out, self._far = os.openpty()
        tty.setraw(self._far)
        os.set_blocking(self._out, False)
        self.port = os.ttyname(self._far)
        self._stop = threading.Event()
        self._partial = b""
        self._open: MarkerLine | None = None
        self._period = 0  # number of the next sample period since the meter's reset
        self._sequence = 0
        self._windows_s = 0.0
        self._after_w, self._after = 0.0, 0  # the lag's tail: extra watts, periods since the end
        self._cut = b""  # the rest of a line that the line's buffer had no place for
        self._rng = np.random.default_rng([power.seed, 0, 2])
        self.windows = 0
        self._thread = threading.Thread(target=self._serve, name="virtual meter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Unplug the meter; a second call does nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        for handle in (self._line_in, self._out, self._far):
            os.close(handle)

    def _serve(self) -> None:
        """Until ``close``: marker lines in, samples out."""
        due = self._clock()
        while not self._stop.is_set():
            with suppress(OSError):  # the board has gone: no more marks
                if select.select([self._line_in], [], [], _TICK_S)[0]:
                    self._marks(os.read(self._line_in, 4096))
            now = self._clock()
            if self._open is not None:
                due = now  # the board's clock runs, not the host's
                continue
            count = int((now - due) * self.power.rate_hz)
            if count > 0:
                due += count / self.power.rate_hz
                self._idle(min(count, int(self.power.rate_hz)))
            elif count < 0:
                due = now
            self._stop.wait(_TICK_S / 4)

    def _marks(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-_LONGEST_LINE:]
        for line in lines:
            marker = parse_marker(line.rstrip(b"\r"))
            if marker is None:
                continue
            if marker.starts:
                if self._after < _LEAST_BETWEEN:
                    self._idle(_LEAST_BETWEEN - self._after, wait=True)
                self._open = marker
            elif self._open is not None and self._open.run_id == marker.run_id:
                start, self._open = self._open, None
                self._window(start, marker)

    def _window(self, start: MarkerLine, end: MarkerLine) -> None:
        power = self.power
        made = window_samples(
            power, start, end, ticks_per_s=self._ticks_per_s, earlier_s=self._windows_s
        )
        first_us = self._period * 1e6 / power.rate_hz
        lines = [
            encode_line(
                self._sequence + step, round(first_us + us), power.volts, watts / power.volts, 1
            )
            for step, us, watts in zip(
                made.steps.tolist(), made.us.tolist(), made.watts.tolist(), strict=True
            )
        ]
        self._sequence += made.periods
        self._period += made.periods
        self._windows_s += end.ticks / self._ticks_per_s
        self._after_w = power.window_w(start.kind, end.ticks, end.mac_ticks or 0) - power.idle_w
        self._after = 0
        self._send(b"".join(lines), wait=True)
        self.windows += 1

    def _idle(self, count: int, *, wait: bool = False) -> None:
        power = self.power
        lines = []
        for noise in self._rng.standard_normal(count).tolist():
            lagged = 0.0
            if power.lag_s > 0:
                lagged = max(0.0, 1.0 - (self._after + 0.5) / power.rate_hz / power.lag_s)
            watts = power.idle_w + self._after_w * lagged + power.ramp_w_per_s * self._windows_s
            us = round((self._period + 0.5) * 1e6 / power.rate_hz)
            amperes = (watts + power.noise_w * noise) / power.volts
            lines.append(encode_line(self._sequence, us, power.volts, amperes, 0))
            self._sequence, self._period, self._after = (
                self._sequence + 1,
                self._period + 1,
                self._after + 1,
            )
        self._send(b"".join(lines), wait=wait)

    def _send(self, data: bytes, *, wait: bool) -> None:
        """Send whole lines; those that nobody takes are lost."""
        cut, data = bool(self._cut), self._cut + data
        view, stalled = memoryview(data), time.monotonic() + _STALL_S
        self._cut = b""
        while view and not self._stop.is_set():
            try:
                view = view[os.write(self._out, view) :]
                stalled = time.monotonic() + _STALL_S
            except BlockingIOError:
                if not wait or time.monotonic() > stalled:
                    sent = len(data) - len(view)
                    if data[sent - 1 : sent] != b"\n" if sent else cut:
                        self._cut = data[sent : data.index(b"\n", sent) + 1]
                    return
                select.select([], [self._out], [], _TICK_S)
