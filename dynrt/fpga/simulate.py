"""Simulated measurements with a known truth: what shows that the estimator can be trusted.

Power is a board at rest, a slow warming, a wandering of minutes and noise, plus what running adds.
The meter averages over its lag, has a clock of its own, jitters, misplaces marker edges and loses
samples. Deterministic by seed. What comes of it is labelled emulated.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from dynrt.fpga.estimate import Estimate, RunWindows, estimate, runs_needed
from dynrt.fpga.rules import Rules
from dynrt.fpga.samples import F64, Samples
from dynrt.fpga.windows import Cut, cut

_MARGIN_S = 0.5
_VOLTS = 12.0
#: Nodes of the wandering's random walk, in seconds.
_WANDER_STEP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is simulated.

    Attributes:
        idle_w, dynamic_w: at rest, and what running adds.
        ramp_w_per_s: a straight drift of the idle power.
        warming_w, warming_s: an exponential approach, and its time constant.
        wander_w, wander_s: standard deviation and memory of a slow wandering.
        noise_w: standard deviation of each sample.
        scatter: standard deviation of a run's dynamic power, as a share of it.
        rate_hz: of the meter.
        clock: meter clock over board clock.
        jitter_s: standard deviation of a sample's time.
        edge_s: a marker edge comes so late at most.
        lag_s: the meter's averaging time.
        lost: probability of each sample to be lost.
        window_s: duration of a window by the board's clock.
        pause_s: board seconds between windows.
        inferences: in a run.
    """

    idle_w: float = 2.56
    dynamic_w: float = 0.39
    ramp_w_per_s: float = 0.0
    warming_w: float = 0.0
    warming_s: float = 300.0
    wander_w: float = 0.0
    wander_s: float = 60.0
    noise_w: float = 0.03
    scatter: float = 0.0
    rate_hz: float = 500.0
    clock: float = 1.0
    jitter_s: float = 0.0
    edge_s: float = 0.0
    lag_s: float = 0.0
    lost: float = 0.0
    window_s: float = 10.5
    pause_s: float = 1.5
    inferences: int = 300

    @property
    def dynamic_j(self) -> float:
        """What one inference adds."""
        return self.dynamic_w * self.window_s / self.inferences


class Simulated:
    """A board and a meter that go through windows, one after another."""

    def __init__(self, truth: Truth, seed: int) -> None:
        self._truth = truth
        self._rng = np.random.default_rng(seed)
        self._now_s = 1.0  # board time
        self._sequence = 0
        self._walk = np.zeros(1)

    @property
    def now_s(self) -> float:
        """Board seconds."""
        return self._now_s

    def window(self, *, running: bool) -> tuple[Samples, float]:
        """The meter's samples around the next window, and board seconds at its end."""
        truth, rng = self._truth, self._rng
        begin = self._now_s + truth.pause_s
        end = begin + truth.window_s
        times = np.arange(
            math.ceil((begin - _MARGIN_S) * truth.rate_hz),
            math.floor((end + _MARGIN_S) * truth.rate_hz),
        )
        at_s: F64 = times / truth.rate_hz
        dynamic_w = truth.dynamic_w * (1 + truth.scatter * rng.standard_normal()) if running else 0
        share = _averaged(at_s, begin, end, truth.lag_s)
        watts = (
            self._idle(at_s) + dynamic_w * share + truth.noise_w * rng.standard_normal(len(at_s))
        )
        on, off = (edge + truth.edge_s * rng.random() for edge in (begin, end))
        marker = ((at_s >= on) & (at_s < off)).astype(np.int8)
        meter_s = (at_s + truth.jitter_s * rng.standard_normal(len(at_s))) * truth.clock
        kept = rng.random(len(at_s)) >= truth.lost
        self._now_s = end
        found = Samples.of(
            host_s=at_s,
            meter_s=np.maximum.accumulate(meter_s),
            volts=np.full(len(at_s), _VOLTS),
            amperes=watts / _VOLTS,
            marker=marker,
            sequence=self._sequence + np.arange(len(at_s)),
        ).take(kept)
        self._sequence += len(at_s)
        return found, end

    def _idle(self, at_s: F64) -> F64:
        truth = self._truth
        warming = truth.warming_w * -np.expm1(-at_s / truth.warming_s)
        idle: F64 = truth.idle_w + truth.ramp_w_per_s * at_s + warming + self._wander(at_s)
        return idle

    def _wander(self, at_s: F64) -> F64:
        """A first-order autoregression on nodes of time, straight between them."""
        truth = self._truth
        keep = math.exp(-_WANDER_STEP_S / truth.wander_s)
        wanted = int(at_s[-1] / _WANDER_STEP_S) + 2
        grown = list(self._walk)
        while len(grown) < wanted:
            step = math.sqrt(1 - keep**2) * self._rng.standard_normal()
            grown.append(keep * grown[-1] + step)
        self._walk = np.array(grown)
        nodes = np.arange(len(grown)) * _WANDER_STEP_S
        out: F64 = truth.wander_w * np.interp(at_s, nodes, self._walk)
        return out


def _averaged(at_s: F64, begin: float, end: float, lag_s: float) -> F64:
    """The share of the last ``lag_s`` seconds that lies between ``begin`` and ``end``."""
    if lag_s <= 0:
        return ((at_s >= begin) & (at_s < end)).astype(np.float64)
    inside = np.minimum(at_s, end) - np.maximum(at_s - lag_s, begin)
    share: F64 = np.clip(inside / lag_s, 0, 1)
    return share


def runs_of(truth: Truth, seed: int, rules: Rules) -> Iterator[RunWindows]:
    """Runs without end, an idle window before and after each; as a session makes them."""
    bench = Simulated(truth, seed)

    def taken(*, running: bool) -> tuple[Cut, float]:
        samples, end_s = bench.window(running=running)
        return cut(samples, board_s=truth.window_s, end_host_s=end_s, rules=rules), end_s

    before, _ = taken(running=False)
    while True:
        run, _ = taken(running=True)
        after, _ = taken(running=False)
        yield RunWindows(
            before=before,
            run=run,
            after=after,
            before_end_s=truth.pause_s,
            after_start_s=truth.pause_s,
        )
        before = after


def simulate(truth: Truth, seed: int, rules: Rules, *, most_spoiled: int = 10) -> Estimate:
    """A whole session: a first stage, then as many runs as its scatter asks for."""
    runs: list[RunWindows] = []
    wanted, good = rules.first_runs, list[float]()
    for run in runs_of(truth, seed, rules):
        runs.append(run)
        if not run.faults:
            good.append((run.gross_w - run.idle_w) * run.run.board_s)
        wanted = runs_needed(good, rules)
        if len(good) >= wanted or len(runs) - len(good) >= most_spoiled:
            break
    return estimate(runs, inferences=truth.inferences, rules=rules)


def ina_lines(samples: Samples, *, digits: int = 6) -> bytes:
    """The samples as the INA line format has them, checksums and all."""
    parts = []
    for i in range(len(samples)):
        body = b"%d,%d,%.*f,%.*f,%d" % (
            samples.sequence[i],
            round(samples.meter_s[i] * 1e6),
            digits,
            samples.volts[i],
            digits,
            samples.amperes[i],
            samples.marker[i],
        )
        parts.append(b"%s*%04X\r\n" % (body, binascii.crc_hqx(body, 0xFFFF)))
    return b"".join(parts)


def naive(
    run_values: Callable[[], Iterator[float]], rules: Rules, quantile: Callable[[int], float]
) -> tuple[float, float]:
    """Mean and half-width when one stops as soon as the interval looks narrow enough.

    What is not done, so that it can be shown why.
    """
    values: list[float] = []
    mean = half = math.nan
    for value in run_values():
        values.append(value)
        if len(values) < rules.first_runs:
            continue
        own = np.array(values)
        mean = float(own.mean())
        half = quantile(len(own) - 1) * float(own.std(ddof=1)) / math.sqrt(len(own))
        if half <= rules.aim * abs(mean) or len(own) >= rules.most_runs:
            break
    return mean, half
