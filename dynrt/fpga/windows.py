"""One window of power: found by its marker, its edges cut off, its gaps counted, its mean taken.

Times inside a window are by the meter's clock, only to weigh samples; the duration that energy is
reckoned with is the board's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynrt.fpga.rules import Rules
from dynrt.fpga.samples import F64, INVALIDATING, Flag, Samples

#: An interval longer than so many usual ones holds a gap.
_GAP = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The mean power of a stretch of a window.

    Attributes:
        mean_w: trapezoid over meter time, gaps left out; NaN if there is nothing to take it of.
        at_s: the stretch's middle, in board seconds from the window's start.
    """

    mean_w: float
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What a window came to.

    Attributes:
        board_s: its duration by the board's clock.
        whole: all of it, edges cut off.
        halves: its two halves (an idle window serves the run before it and the run after it).
        samples: how many are in it, edges cut off.
        missing: how many are missing between its edges.
        period_s: the usual time between two samples.
        clock_ratio: its duration by the meter's clock over that by the board's; ``None`` where the
            meter has no clock or no marker.
        faults: why it is invalid; each makes it so.
        shortfalls: why it cannot resolve anything (too short, too few samples).
    """

    board_s: float
    whole: Part
    halves: tuple[Part, Part]
    samples: int
    missing: int
    period_s: float
    clock_ratio: float | None
    faults: tuple[str, ...] = ()
    shortfalls: tuple[str, ...] = ()


def cut(samples: Samples, *, board_s: float, end_host_s: float, rules: Rules) -> Cut:
    """Find the window in ``samples`` and take its mean power.

    Args:
        samples: all that the meter gave around the window, both its edges included.
        board_s: the window's duration by the board's clock.
        end_host_s: host seconds at which the board said that it was over; places the window where
            the meter has no marker.
        rules: what is demanded.
    """
    found = _spoiled(samples)
    marked = len(samples) > 0 and bool((samples.marker >= 0).all())
    times = _times(samples)
    if marked:
        spans = _stretches(samples.marker == 1)
        if len(spans) != 1:
            found.append(f"the meter saw {len(spans)} marked stretches instead of 1")
            return _nothing(board_s, found)
        begin, end = spans[0]
        if begin == 0 or end == len(samples):
            found.append("an edge of the window is not in the meter's samples")
            return _nothing(board_s, found)
    else:
        begin_s = end_host_s - board_s
        inside = (samples.host_s >= begin_s) & (samples.host_s < end_host_s)
        spans = _stretches(inside)
        if len(spans) != 1:
            found.append("the meter gave no samples while the board ran")
            return _nothing(board_s, found)
        begin, end = spans[0]
    period = _period(times[begin:end])
    ratio = None
    if marked and np.isfinite(samples.meter_s).all():
        ratio = float(times[end - 1] - times[begin] + period) / board_s
        if abs(ratio - 1) > rules.clock + 2 * period / board_s:
            found.append(f"meter clock over board clock is {ratio:.4f}")
    within = slice(begin, end)
    missing = _missing(samples.take(within), times[within], period)
    if marked:
        missing += _missing_at_edges(samples, times, (begin, end), missing, period, board_s)
    if missing > rules.missing * (end - begin + missing):
        share = 100 * missing / (end - begin + missing)
        found.append(f"{missing} samples ({share:.2g} %) are missing")
    edge_s = rules.lag_s + (rules.edge_s if marked else rules.host_edge_s)
    edge = 1 + math.ceil(edge_s / period) if period > 0 else 1
    first, last = begin + edge, end - edge
    inner = times[first:last]
    watts = samples.watts[first:last]
    origin = float(times[begin])
    scale = 1.0 if ratio is None else ratio
    used = int(np.isfinite(watts).sum())
    return Cut(
        board_s=board_s,
        whole=_part(inner, watts, period, origin, scale),
        halves=_halves(inner, watts, period, origin, scale),
        samples=used,
        missing=missing,
        period_s=period,
        clock_ratio=ratio,
        faults=tuple(found),
        shortfalls=_shortfalls(board_s, used, rules),
    )


def _shortfalls(board_s: float, samples: int, rules: Rules) -> tuple[str, ...]:
    out = []
    if board_s < rules.window_s:
        out.append(f"a window lasts {board_s:.3g} s; it takes {rules.window_s:g} s")
    if samples < rules.window_samples:
        out.append(f"a window has {samples} samples; it takes {rules.window_samples}")
    return tuple(out)


def _spoiled(samples: Samples) -> list[str]:
    """What the samples around a window say against it."""
    texts = {
        Flag.OVERLOAD: "the meter was overloaded",
        Flag.RESET: "the meter was reset",
        Flag.BACKWARD: "the meter's clock went back",
        Flag.CLOCK_JUMP: "the meter's clock leapt",
        Flag.LOCAL_MODE: "the meter was switched to local",
    }
    known = Flag(0)
    for bit in texts:
        known |= bit
    found = [text for bit, text in texts.items() if samples.flagged(bit).any()]
    if samples.flagged(INVALIDATING & ~known).any():
        found.append("the meter's samples are flagged invalid")
    return found


def _nothing(board_s: float, faults: list[str]) -> Cut:
    none = Part(mean_w=math.nan, at_s=math.nan)
    return Cut(
        board_s=board_s,
        whole=none,
        halves=(none, none),
        samples=0,
        missing=0,
        period_s=math.nan,
        clock_ratio=None,
        faults=tuple(faults),
    )


def _times(samples: Samples) -> F64:
    """The meter's clock, or the host's where the meter has none."""
    has_clock = len(samples) > 0 and bool(np.isfinite(samples.meter_s).all())
    return samples.meter_s if has_clock else samples.host_s


def _stretches(inside: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Begin and end of each run of ``True``."""
    steps = np.flatnonzero(np.diff(np.concatenate(([False], inside, [False])).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(steps[::2], steps[1::2], strict=True)]


def _period(times: F64) -> float:
    return float(np.median(np.diff(times))) if len(times) > 1 else math.nan


def _missing(samples: Samples, times: F64, period: float) -> int:
    """Samples that are not there, by number or else by time, and those without a value."""
    absent = int((~np.isfinite(samples.watts)).sum())
    if len(samples) < 2:
        return absent
    if (samples.sequence >= 0).all():
        return absent + int((np.diff(samples.sequence) - 1).clip(min=0).sum())
    if not period > 0:
        return absent
    steps = np.diff(times)
    return absent + int(np.rint(steps[steps > _GAP * period] / period - 1).sum())


def _missing_at_edges(
    samples: Samples,
    times: F64,
    span: tuple[int, int],
    missing: int,
    period: float,
    board_s: float,
) -> int:
    """Of the samples lost just at the edges, those that the board's clock places inside.

    A meter sends all the time; what is lost outside of the window takes nothing from it.
    """
    begin, end = span
    edges = [slice(begin - 1, begin + 1), slice(end - 1, end + 1)]
    lost = sum(_missing(samples.take(e), times[e], period) for e in edges)
    return min(lost, max(0, round(board_s / period) - (end - begin + missing)))


def _part(times: F64, watts: F64, period: float, origin: float, scale: float) -> Part:
    """Trapezoid over time; an interval with a gap or a missing value at an end does not count."""
    if len(times) < 2:
        return Part(mean_w=math.nan, at_s=math.nan)
    steps, pairs = np.diff(times), (watts[1:] + watts[:-1]) / 2
    good = np.isfinite(pairs) & (steps > 0) & (steps <= _GAP * period)
    if not good.any():
        return Part(mean_w=math.nan, at_s=math.nan)
    weights = steps[good]
    middles = (times[1:] + times[:-1])[good] / 2
    total = float(weights.sum())
    return Part(
        mean_w=float((pairs[good] * weights).sum()) / total,
        at_s=(float((middles * weights).sum()) / total - origin) / scale,
    )


def _halves(
    times: F64, watts: F64, period: float, origin: float, scale: float
) -> tuple[Part, Part]:
    """The same of each half; no sample is in both."""
    middle = int(np.searchsorted(times, (times[0] + times[-1]) / 2)) if len(times) else 0
    return (
        _part(times[:middle], watts[:middle], period, origin, scale),
        _part(times[middle:], watts[middle:], period, origin, scale),
    )
