from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.fpga.estimate import Interval, estimate, interval, runs_needed, t_quantile
from dynrt.fpga.rules import Rules
from dynrt.fpga.samples import Flag, Samples
from dynrt.fpga.simulate import Truth, runs_of, simulate
from dynrt.fpga.windows import Cut, cut
from tests import soak_sessions

RULES = Rules(edge_s=0.0)


def window(
    *,
    rate: float = 100.0,
    inside_s: float = 11.0,
    power_w: float = 3.0,
    idle_w: float = 2.0,
    clock: float = 1.0,
) -> Samples:
    """A second of idle, the window, a second of idle."""
    n = round((inside_s + 2) * rate)
    at = np.arange(n) / rate
    marked = (at >= 1) & (at < 1 + inside_s)
    return Samples.of(
        host_s=at,
        meter_s=at * clock,
        volts=np.full(n, 10.0),
        amperes=np.where(marked, power_w, idle_w) / 10,
        marker=marked.astype(np.int8),
        sequence=np.arange(n),
    )


def taken(samples: Samples, board_s: float = 11.0, rules: Rules = RULES) -> Cut:
    return cut(samples, board_s=board_s, end_host_s=1 + board_s, rules=rules)


def test_students_t_is_the_tables() -> None:
    # two-sided 95 %: Student's table has 2.776 for 4 degrees of freedom, 1.960 in the limit
    assert t_quantile(4) == pytest.approx(2.776, abs=5e-4)
    assert t_quantile(10**8) == pytest.approx(1.960, abs=5e-4)


def test_steins_interval_by_hand() -> None:
    # first stage 1, 2, 3: s = 1; t(2) = 4.3027; all: mean 3, n = 5
    found = interval([1, 2, 3, 4, 5], first=3)
    assert found is not None
    assert found.mean == 3
    assert found.half_width == pytest.approx(4.3027 / math.sqrt(5), abs=1e-4)
    assert found.standard_error == pytest.approx(1 / math.sqrt(5))
    assert interval([1, 2], first=3) is None


def test_runs_needed_by_hand() -> None:
    rules = Rules(first_runs=3, most_runs=30)
    assert runs_needed([1.0], rules) == 3
    assert runs_needed([1.0, 1.0, 1.0], rules) == 3
    assert runs_needed([1.0, 2.0, 3.0], rules) == 30
    # s = 0.01, mean 1: (4.3027 * 0.01 / (0.95 * 0.01))^2 = 20.51
    assert runs_needed([0.99, 1.0, 1.01], rules) == 21
    assert runs_needed([0.99, 1.0, 1.01, 7.0, 8.0], rules) == 21  # later runs decide nothing


@given(st.lists(st.floats(-10, 10), min_size=5, max_size=30))
def test_an_interval_holds_its_mean_and_nothing_is_clamped(values: list[float]) -> None:
    found = interval(values, first=5)
    assert found is not None
    assert found.low <= found.mean <= found.high
    assert found.mean == pytest.approx(np.mean(values))
    turned = interval([-v for v in values], first=5)
    assert turned is not None
    assert turned.low == pytest.approx(-found.high)


def test_scaling_an_interval() -> None:
    assert Interval(mean=2, low=1, high=3, n=5).scaled(2) == Interval(mean=4, low=2, high=6, n=5)
    assert Interval(mean=2, low=-1, high=5, n=5).holds_zero


def test_a_clean_window() -> None:
    found = taken(window(clock=1.003))
    assert found.faults == ()
    assert found.shortfalls == ()
    assert found.whole.mean_w == pytest.approx(3.0)
    assert found.clock_ratio == pytest.approx(1.003, abs=1e-6)
    assert found.missing == 0
    # 1,100 samples, one cut off at each edge
    assert found.samples == 1098
    assert found.whole.at_s == pytest.approx(5.5, abs=0.02)
    assert found.halves[0].at_s == pytest.approx(2.75, abs=0.02)
    assert found.halves[1].at_s == pytest.approx(8.25, abs=0.02)


@given(st.integers(3, 9))
def test_a_lagging_meter_is_cut_where_it_is_wrong(periods: int) -> None:
    samples = window()
    lagging = np.convolve(samples.watts, np.ones(periods) / periods)[: len(samples)]
    late = Samples.of(
        host_s=samples.host_s, meter_s=samples.meter_s, watts=lagging,
        marker=samples.marker, sequence=samples.sequence,
    )  # fmt: skip
    rules = Rules(edge_s=0.0, lag_s=periods / 100)
    assert taken(late, rules=rules).whole.mean_w == pytest.approx(3.0, abs=1e-9)
    assert taken(late).whole.mean_w < 3.0 - 1e-6


def test_misplaced_edges_are_cut_off() -> None:
    samples = window()
    marker = samples.marker.copy()
    marker[98:100] = 1  # two idle samples called inside
    early = Samples.of(
        host_s=samples.host_s, meter_s=samples.meter_s, watts=samples.watts,
        marker=marker, sequence=samples.sequence,
    )  # fmt: skip
    assert taken(early).whole.mean_w < 3.0 - 1e-6
    assert taken(early, rules=Rules(edge_s=0.02)).whole.mean_w == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        (Flag.OVERLOAD, "overloaded"),
        (Flag.RESET, "reset"),
        (Flag.BACKWARD, "went back"),
        (Flag.CLOCK_JUMP, "leapt"),
        (Flag.LOCAL_MODE, "local"),
    ],
)
def test_flags_that_invalidate(flag: Flag, text: str) -> None:
    samples = window()
    samples.flags[500] |= np.uint16(flag)
    assert text in taken(samples).faults[0]


def test_other_flags_do_not() -> None:
    samples = window()
    samples.flags[500] |= np.uint16(Flag.DUPLICATE | Flag.UNCHECKED | Flag.MALFORMED_BEFORE)
    assert taken(samples).faults == ()


def test_gaps_are_left_out_and_counted_and_too_many_fail() -> None:
    samples = window()
    few = samples.take(np.arange(len(samples)) != 400)
    found = taken(few)
    assert found.missing == 1
    assert found.faults == ()
    assert found.whole.mean_w == pytest.approx(3.0)
    many = samples.take((np.arange(len(samples)) < 400) | (np.arange(len(samples)) > 401))
    assert "2 samples (0.18 %) are missing" in taken(many).faults
    samples.watts[500:502] = np.nan
    assert "2 samples (0.18 %) are missing" in taken(samples).faults


def test_gaps_without_numbers_show_in_time() -> None:
    samples = window()
    kept = samples.take((np.arange(len(samples)) < 400) | (np.arange(len(samples)) > 404))
    bare = Samples.of(
        host_s=kept.host_s, meter_s=kept.meter_s, watts=kept.watts, marker=kept.marker
    )
    assert taken(bare).missing == 5


def test_samples_lost_outside_of_the_window_take_nothing_from_it() -> None:
    samples = window()
    index = np.arange(len(samples))
    outside = samples.take((index < 1200) | (index > 1250))  # the window ends before 1200
    assert taken(outside).missing == 0
    inside = samples.take((index < 1150) | (index > 1250))
    assert taken(inside).missing == 50


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s.take(s.marker == 1), "an edge of the window"),
        (lambda s: s.take(s.marker == 0), "saw 0 marked"),
        (lambda s: s.take(slice(0, 0)), "no samples"),
    ],
)
def test_windows_that_are_not_there(change: object, text: str) -> None:
    assert callable(change)
    assert text in taken(change(window())).faults[-1]


def test_two_marked_stretches_are_no_window() -> None:
    samples = window()
    samples.marker[600:610] = 0
    assert "2 marked stretches" in taken(samples).faults[0]


def test_a_wrong_clock_is_a_fault() -> None:
    assert "meter clock over board clock is 1.0500" in taken(window(clock=1.05)).faults[0]


def test_short_or_thin_windows_fall_short() -> None:
    assert "lasts 5 s" in taken(window(inside_s=5.0), board_s=5.0).shortfalls[0]
    assert "samples; it takes 200" in taken(window(rate=10.0)).shortfalls[0]


def test_a_meter_without_marker_is_placed_by_the_host_clock() -> None:
    samples = window()
    bare = Samples.of(host_s=samples.host_s, watts=samples.watts)
    found = taken(bare)
    assert found.clock_ratio is None
    assert found.whole.mean_w == pytest.approx(3.0)
    # 0.3 s (in whole periods) and one sample at each end
    assert found.samples in (1100 - 2 * 31, 1100 - 2 * 32)


def test_a_straight_drift_is_taken_out() -> None:
    truth = Truth(noise_w=0.0, ramp_w_per_s=1e-3)
    runs = runs_of(truth, 0, RULES)
    for _ in range(3):
        run = next(runs)
        assert run.gross_w - run.idle_w == pytest.approx(truth.dynamic_w, abs=1e-5)


def test_a_run_needs_its_idle_windows() -> None:
    run = next(runs_of(Truth(), 0, RULES))
    lonely = type(run)(before=None, run=run.run, after=run.after)
    assert lonely.faults == ("no idle window before the run",)
    assert math.isnan(lonely.idle_w)
    assert estimate([lonely] * 6, inferences=1, rules=RULES).verdict == "invalid"


def test_a_simulation_is_the_same_each_time() -> None:
    truth = Truth(scatter=0.01, lost=1e-4, jitter_s=1e-4)
    assert simulate(truth, 5, RULES) == simulate(truth, 5, RULES)
    assert simulate(truth, 5, RULES) != simulate(truth, 6, RULES)


def test_a_hundred_sessions_hold_what_they_say() -> None:
    tally = soak_sessions.main(100, 7)
    assert tally.findings == []
    assert 0.87 <= tally.coverage <= 1.0  # binomial: 92 of 100 less than two standard errors
    assert abs(tally.bias) < 3e-3
    assert {row.verdict for row in tally.rows if row.kind == "slow meter"} == {"unresolved"}
    assert {row.verdict for row in tally.rows if row.kind == "gaps"} == {"invalid"}
