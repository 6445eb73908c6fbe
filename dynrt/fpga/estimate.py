"""From windows to energies with 95 % intervals that hold what they say.

Repeating "until the interval is narrow enough" and then printing that interval covers the truth too
rarely: one stops where the scatter happens to look small. So the number of runs is fixed by the
scatter of a first stage alone, and the interval is made of that scatter and the mean of all runs
(C. Stein, "A two-sample test for a linear hypothesis whose power is independent of the variance",
Annals of Mathematical Statistics 16, 1945): the mean does not depend on the scatter, so the interval
covers at exactly its level however many runs there come to be. ``python -m tests.soak sessions``
shows both.

Idle power is read before and after each run and interpolated to its middle, which takes out any
straight drift. An idle window between two runs is halved: its first half serves the run before it,
its second the run after it. No sample serves two runs, so runs are independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dynrt.errors import MissingExtraError
from dynrt.fpga.rules import Rules
from dynrt.fpga.windows import Cut

LEVEL = 0.95

#: ``resolved``: the interval is as narrow as was aimed at. ``wide``: it is not, but holds no zero.
#: ``unresolved``: it holds zero, or windows are too short or thin for any. ``invalid``: too few good runs.
Verdict = Literal["resolved", "wide", "unresolved", "invalid"]

#: The first stage aims a little below, since its mean is not yet that of all runs.
_RESERVE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its 95 % interval; nothing is clamped.

    Attributes:
        mean: of all runs.
        low, high: the interval.
        n: runs.
        degrees: of freedom of the scatter that the interval is made of; 0 where it is derived.
    """

    mean: float
    low: float
    high: float
    n: int
    degrees: int = 0

    @property
    def half_width(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2

    @property
    def standard_error(self) -> float:
        """Of the mean; needs the degrees of freedom."""
        return self.half_width / t_quantile(self.degrees)

    @property
    def holds_zero(self) -> bool:
        """Whether zero cannot be excluded."""
        return self.low <= 0 <= self.high

    def scaled(self, factor: float) -> Interval:
        """The same of ``factor`` (above zero) times the quantity."""
        return Interval(
            mean=self.mean * factor,
            low=self.low * factor,
            high=self.high * factor,
            n=self.n,
            degrees=self.degrees,
        )

    def to_json(self) -> dict[str, float | int]:
        """``mean``, ``low``, ``high``, ``n``."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWindows:
    """A run's window and the idle windows around it; ``None`` where there is none.

    Attributes:
        before, run, after: the windows.
        before_end_s: board seconds from the end of ``before`` to the start of ``run``.
        after_start_s: board seconds from the end of ``run`` to the start of ``after``.
    """

    before: Cut | None
    run: Cut
    after: Cut | None
    before_end_s: float = 0.0
    after_start_s: float = 0.0

    @property
    def faults(self) -> tuple[str, ...]:
        """Why the run is invalid; empty if it is not."""
        out = list(self.run.faults)
        for idle, place in ((self.before, "before"), (self.after, "after")):
            if idle is None:
                out.append(f"no idle window {place} the run")
            else:
                out += [f"idle window {place} the run: {fault}" for fault in idle.faults]
        if not out and not all(map(math.isfinite, (self.gross_w, self.idle_w))):
            out.append("no samples to take a mean of")
        return tuple(out)

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """Why nothing can be resolved; empty if it can."""
        idle = [w for w in (self.before, self.after) if w is not None]
        return tuple(dict.fromkeys(s for w in (self.run, *idle) for s in w.shortfalls))

    @property
    def gross_w(self) -> float:
        """Mean power of the run."""
        return self.run.whole.mean_w

    @property
    def idle_w(self) -> float:
        """Idle power at the middle of the run; NaN without both idle windows."""
        if self.before is None or self.after is None:
            return math.nan
        early, late = self.before.halves[1], self.after.halves[0]
        early_s = early.at_s - self.before.board_s - self.before_end_s
        late_s = self.run.board_s + self.after_start_s + late.at_s
        share = (self.run.whole.at_s - early_s) / (late_s - early_s)
        return early.mean_w + (late.mean_w - early.mean_w) * share


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What one inference takes, of all good runs of one case.

    Attributes:
        inferences: per run.
        runs: good ones.
        invalid_runs: others, left out.
        seconds: per inference, by the board's clock.
        gross_j: per inference, the whole board; ``None`` with fewer good runs than the first stage.
        idle_w: of the board at rest, at the time of the runs.
        dynamic_j: per inference, what running adds to resting; may be negative.
        clock_ratio: meter clock over board clock; ``None`` where it cannot be told.
        verdict: what the figures are worth.
        reasons: for the verdict; empty where it is ``resolved``.
    """

    inferences: int
    runs: int
    invalid_runs: int
    seconds: float | None
    gross_j: Interval | None
    idle_w: Interval | None
    dynamic_j: Interval | None
    clock_ratio: Interval | None
    verdict: Verdict
    reasons: tuple[str, ...]


def t_quantile(degrees: int, level: float = LEVEL) -> float:
    """Student's t that ``level`` of the distribution does not exceed in size.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    try:
        from scipy.special import stdtrit
    except ModuleNotFoundError as exc:
        raise MissingExtraError("scipy", "fpga") from exc
    return float(stdtrit(degrees, (1 + level) / 2))


def interval(values: Sequence[float], *, first: int) -> Interval | None:
    """Stein's two-stage interval; ``None`` with fewer values than the first stage has.

    Args:
        values: of all runs, in their order.
        first: how many are the first stage.
    """
    if len(values) < first or first < 2:
        return None
    own = np.asarray(values, np.float64)
    mean = float(own.mean())
    spread = float(own[:first].std(ddof=1))
    half = t_quantile(first - 1) * spread / math.sqrt(len(own))
    return Interval(mean=mean, low=mean - half, high=mean + half, n=len(own), degrees=first - 1)


def runs_needed(values: Sequence[float], rules: Rules) -> int:
    """How many runs there shall be in all, by those of the first stage.

    With fewer values than the first stage: as many as it has.
    """
    first = rules.first_runs
    if len(values) < first:
        return first
    own = np.asarray(values[:first], np.float64)
    wanted = rules.aim * _RESERVE * abs(float(own.mean()))
    half = t_quantile(first - 1) * float(own.std(ddof=1))  # of a single run
    if half <= wanted * math.sqrt(first):
        return first
    if half >= wanted * math.sqrt(rules.most_runs):
        return rules.most_runs
    return math.ceil((half / wanted) ** 2)


def estimate(runs: Sequence[RunWindows], *, inferences: int, rules: Rules) -> Estimate:
    """The energies of one case.

    Args:
        runs: in their order, invalid ones too.
        inferences: in each run.
        rules: what is demanded.
    """
    good = [run for run in runs if not run.faults]
    seconds = [run.run.board_s for run in good]
    first = rules.first_runs
    gross = [r.gross_w * s / inferences for r, s in zip(good, seconds, strict=True)]
    idle = [r.idle_w for r in good]
    dynamic = [(r.gross_w - r.idle_w) * s / inferences for r, s in zip(good, seconds, strict=True)]
    dynamic_j = interval(dynamic, first=first)
    verdict, reasons = _verdict(runs, good, dynamic_j, rules)
    return Estimate(
        inferences=inferences,
        runs=len(good),
        invalid_runs=len(runs) - len(good),
        seconds=float(np.mean(seconds)) / inferences if good else None,
        gross_j=interval(gross, first=first),
        idle_w=interval(idle, first=first),
        dynamic_j=dynamic_j,
        clock_ratio=_clock(good, first),
        verdict=verdict,
        reasons=reasons,
    )


def _verdict(
    runs: Sequence[RunWindows],
    good: Sequence[RunWindows],
    dynamic_j: Interval | None,
    rules: Rules,
) -> tuple[Verdict, tuple[str, ...]]:
    if dynamic_j is None:
        bad = list(dict.fromkeys(fault for run in runs for fault in run.faults))
        told = f"{len(good)} good runs; an interval takes {rules.first_runs}"
        return "invalid", (told, *bad)
    short = tuple(dict.fromkeys(s for run in good for s in run.shortfalls))
    if short:
        return "unresolved", short
    if dynamic_j.holds_zero:
        low, high = dynamic_j.low, dynamic_j.high
        return "unresolved", (
            f"the interval of the dynamic energy, {low:.3g} to {high:.3g} J, holds zero",
        )
    share = dynamic_j.half_width / abs(dynamic_j.mean)
    if share > rules.aim:
        return "wide", (
            f"the interval's half-width is {100 * share:.3g} % of the mean after {dynamic_j.n} "
            f"runs; the aim is {100 * rules.aim:g} %",
        )
    return "resolved", ()


def _clock(good: Sequence[RunWindows], first: int) -> Interval | None:
    """The mean ratio; its interval holds what the meter's period leaves open too."""
    ratios = [r.run.clock_ratio for r in good if r.run.clock_ratio is not None]
    if len(ratios) != len(good):
        return None
    found = interval(ratios, first=first)
    if found is None:
        return None
    # Each of two edges is anywhere within one period: together a variance of a sixth of its square.
    steps = [r.run.period_s / r.run.board_s for r in good]
    open_ = 1.96 * float(np.mean(steps)) / math.sqrt(6 * len(good))
    half = math.hypot(found.half_width, open_)
    return Interval(mean=found.mean, low=found.mean - half, high=found.mean + half, n=found.n)
