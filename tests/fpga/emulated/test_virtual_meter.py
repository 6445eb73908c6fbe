"""The meter in virtual time: what a window looks like follows from ticks and seed alone."""

from __future__ import annotations

import os
import threading
import time
import tty
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.errors import MeterError
from dynrt.fpga.decoders.ina_line import InaLineDecoder
from dynrt.fpga.emulated.bench import EmulatedBench
from dynrt.fpga.emulated.virtual_meter import (
    VirtualMeter,
    VirtualPower,
    WindowSamples,
    window_samples,
)
from dynrt.fpga.links import Link, open_serial
from dynrt.fpga.samples import DecodeCounts, Samples
from dynrt.fpga.wire import MarkerLine, encode_marker
from tests.fpga.conftest import NewBench
from tests.fpga.emulated.board_runs import run, small_network

HZ = 100_000_000


def start(ticks: int = 0, run_id: int = 1, kind: str = "run") -> MarkerLine:
    return MarkerLine(starts=True, run_id=run_id, kind=kind, ticks=ticks, mac_ticks=None)


def end(ticks: int, macs: int = 0, run_id: int = 1, kind: str = "run") -> MarkerLine:
    return MarkerLine(starts=False, run_id=run_id, kind=kind, ticks=ticks, mac_ticks=macs)


def window(power: VirtualPower, seconds: float, share: float = 0.5) -> WindowSamples:
    ticks = round(seconds * HZ)
    return window_samples(
        power, start(), end(ticks, round(share * ticks)), ticks_per_s=HZ, earlier_s=0.0
    )


QUIET = VirtualPower(noise_w=0.0)


def test_the_power_is_the_model_s() -> None:
    # 2.56 idle, 0.24 for running, 0.25 for half of the ticks in multiplications
    assert window(QUIET, 10).watts == pytest.approx(2.56 + 0.24 + 0.125)
    idle = window_samples(
        QUIET, start(kind="idle"), end(10 * HZ, kind="idle"), ticks_per_s=HZ, earlier_s=0.0
    )
    assert idle.watts == pytest.approx(2.56)


@given(st.integers(0, 100), st.floats(0.5, 20), st.floats(0, 1), st.integers(1, 1000))
def test_the_same_ticks_and_seed_give_the_same_samples(
    seed: int, seconds: float, share: float, rate: int
) -> None:
    power = VirtualPower(
        seed=seed, rate_hz=rate, jitter_us=50, gap=0.01, drift=1e-3, ramp_w_per_s=1e-3, lag_s=0.05
    )
    one, two = (window(power, seconds, share) for _ in range(2))
    assert one.us.tobytes() == two.us.tobytes()
    assert one.watts.tobytes() == two.watts.tobytes()
    assert (np.diff(one.us) > 0).all()
    assert one.periods == pytest.approx(seconds * rate * (1 + 1e-3), abs=1)


def test_noise_has_the_deviation_asked_for_and_changes_with_run_and_seed() -> None:
    noisy = window(VirtualPower(noise_w=0.03, rate_hz=1000), 20)
    assert noisy.watts.std() == pytest.approx(0.03, rel=0.03)
    assert noisy.watts.mean() == pytest.approx(2.925, abs=0.001)
    other = window(VirtualPower(noise_w=0.03, rate_hz=1000, seed=1), 20)
    assert not np.array_equal(other.watts, noisy.watts)
    again = window_samples(
        VirtualPower(noise_w=0.03, rate_hz=1000),
        start(run_id=2),
        end(20 * HZ, 10 * HZ, run_id=2),
        ticks_per_s=HZ,
        earlier_s=0.0,
    )
    assert not np.array_equal(again.watts, noisy.watts)


def test_faults_do_what_they_say() -> None:
    fast = window(VirtualPower(drift=0.01), 10)
    assert (fast.us[-1] - fast.us[0] + 5000) * 1e-6 == pytest.approx(10.1, abs=0.005)
    gaps = window(VirtualPower(gap=0.1, rate_hz=1000), 10)
    assert gaps.periods - len(gaps.steps) == pytest.approx(1000, abs=100)
    jitter = window(VirtualPower(jitter_us=100), 50)
    off = jitter.us - (jitter.steps + 0.5) * 5000
    assert off.std() == pytest.approx(100, rel=0.05)
    ramp = window(VirtualPower(noise_w=0, ramp_w_per_s=0.01), 10)
    assert ramp.watts[-1] - ramp.watts[0] == pytest.approx(0.1, abs=1e-3)
    lag = window(VirtualPower(noise_w=0, lag_s=1.0), 10)
    # a trailing mean over 1 s: at 0.5 s half of the step has come
    assert lag.watts[100] == pytest.approx(2.56 + 0.365 * 0.5025)
    assert lag.watts[200:] == pytest.approx(2.925)


@pytest.mark.parametrize(
    "wrong", [{"rate_hz": 0.0}, {"volts": 0.0}, {"gap": 1.0}, {"drift": 0.6}, {"lag_s": -1.0}]
)
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(MeterError, match="virtual meter"):
        VirtualPower(**wrong)  # type: ignore[arg-type]


class Board:
    """The marker line's far end."""

    def __init__(self, power: VirtualPower) -> None:
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        self.meter = VirtualMeter(os.ttyname(self.slave), power, HZ)

    def say(self, data: bytes) -> None:
        os.write(self.master, data)

    def close(self) -> None:
        self.meter.close()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board(VirtualPower(gap=0.01, jitter_us=20))
    yield made
    made.close()


class Listener:
    """Decodes a meter's line in a thread, as a session does."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._decoder = InaLineDecoder()
        self._blocks: list[Samples] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._stop.is_set():
            if data := self._link.read(0.05):
                self._blocks.append(self._decoder.feed(data, time.monotonic()))

    def wait_for_samples(self) -> None:
        """Until the meter has been heard, so that an edge can be seen."""
        deadline = time.monotonic() + 20
        while not self._blocks and time.monotonic() < deadline:
            time.sleep(0.02)

    def windows(self) -> list[Samples]:
        """Marked stretches that both edges are known of."""
        samples = Samples.join(list(self._blocks))
        edges = np.flatnonzero(np.diff(samples.marker)) + 1
        return [samples.take(slice(a, b)) for a, b in zip(edges[::2], edges[1::2], strict=False)]

    def wait(self, count: int) -> list[Samples]:
        """The first ``count`` windows."""
        deadline = time.monotonic() + 20
        while len(self.windows()) < count and time.monotonic() < deadline:
            time.sleep(0.1)
        found = self.windows()
        assert len(found) >= count
        return found

    @property
    def counts(self) -> DecodeCounts:
        return self._decoder.counts

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._link.close()


def test_windows_come_between_idle_samples(board: Board) -> None:
    listener = Listener(open_serial(board.meter.port))
    try:
        listener.wait_for_samples()
        board.say(b"boot garbage\r\n" + encode_marker(start(5 * HZ)))
        time.sleep(0.2)
        board.say(encode_marker(end(10 * HZ, 5 * HZ)))
        listener.wait(1)
        board.say(
            encode_marker(start(16 * HZ, 2, "idle")) + encode_marker(end(11 * HZ, 0, 2, "idle"))
        )
        run_, idle = listener.wait(2)
        assert len(run_) == pytest.approx(2000, rel=0.02)
        assert run_.watts.mean() == pytest.approx(2.925, abs=0.003)
        assert len(idle) == pytest.approx(2200, rel=0.02)
        assert idle.watts.mean() == pytest.approx(2.56, abs=0.003)
        # the meter lost a hundredth of them, and says so by their numbers
        lost = int((np.diff(run_.sequence) - 1).sum())
        assert 5 <= lost <= 45
        span_s = float(run_.meter_s[-1] - run_.meter_s[0])
        assert span_s == pytest.approx(10, abs=0.02)
        assert listener.counts.resets == 0
    finally:
        listener.close()


def test_windows_without_a_pause_between_are_two(board: Board) -> None:
    listener = Listener(open_serial(board.meter.port))
    try:
        listener.wait_for_samples()
        board.say(b"".join(encode_marker(m) for m in (start(), end(2 * HZ), start(2 * HZ, 2))))
        board.say(encode_marker(end(3 * HZ, 0, 2)))
        one, two = listener.wait(2)
        assert len(one) == pytest.approx(400, rel=0.05)
        assert len(two) == pytest.approx(600, rel=0.05)
    finally:
        listener.close()


def test_damaged_and_foreign_marks_open_no_window(board: Board) -> None:
    listener = Listener(open_serial(board.meter.port))
    try:
        listener.wait_for_samples()
        board.say(encode_marker(start())[:-3] + b"0\r\n")
        board.say(encode_marker(end(10 * HZ)))
        board.say(encode_marker(start(11 * HZ, 3)) + encode_marker(end(12 * HZ, 0, 4)))
        board.say(encode_marker(start(20 * HZ, 5)) + encode_marker(end(2 * HZ, 0, 5)))
        (only,) = listener.wait(1)
        assert len(only) == pytest.approx(400, rel=0.05)
        assert board.meter.windows == 1
    finally:
        listener.close()


def test_nobody_listens_and_the_meter_lives(board: Board) -> None:
    board.say(encode_marker(start()) + encode_marker(end(HZ * 2)))
    time.sleep(0.5)
    listener = Listener(open_serial(board.meter.port))
    try:
        listener.wait_for_samples()
        board.say(encode_marker(start(HZ * 3, 2)) + encode_marker(end(HZ * 5, 0, 2)))
        assert len(listener.wait(1)) >= 1
    finally:
        listener.close()
    board.meter.close()
    board.meter.close()


def test_a_slow_reader_loses_whole_lines_only() -> None:
    board, decoder = Board(VirtualPower(rate_hz=5000)), InaLineDecoder()
    reader = os.open(board.meter.port, os.O_RDONLY | os.O_NOCTTY)
    try:
        time.sleep(1.5)  # more than the line holds
        for _ in range(100):
            decoder.feed(os.read(reader, 1000), time.monotonic())
            time.sleep(0.005)
        for _ in range(40):
            decoder.feed(os.read(reader, 4096), time.monotonic())
    finally:
        os.close(reader)
        board.close()
    assert decoder.counts.missing > 0
    assert decoder.counts.damaged == decoder.counts.discarded_bytes == 0


def _energies(bench: EmulatedBench, passes: int) -> list[tuple[int, float]]:
    """Ticks and mean power of an idle window and of a run."""
    net = small_network(2)
    listener = Listener(bench.meter_link())
    try:
        with bench.board() as client:
            run(client, net)
            ticks = [client.idle(10.5, expect_s=30).ticks]
            done = client.run(passes=passes, mark=True, expect_s=60)
            ticks.append(done.ticks)
            share = done.mac_ticks / done.ticks
        windows = listener.wait(2)[-2:]
    finally:
        listener.close()
    means = [float(w.watts.mean()) for w in windows]
    assert means[0] == pytest.approx(2.56, abs=0.003)
    assert means[1] == pytest.approx(2.80 + 0.25 * share, abs=0.003)
    assert len(windows[1]) * 0.005 == pytest.approx(done.ticks / bench.info.ticks_per_s, abs=0.02)
    return list(zip(ticks, means, strict=True))


def test_energies_of_an_emulated_board_are_the_same_every_time(new_bench: NewBench) -> None:
    one, two = (_energies(new_bench(), passes=12) for _ in range(2))
    assert one == two
