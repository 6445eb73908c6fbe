"""Ranges of stored integers, and weights as int8."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dynrt.errors import ExportError
from dynrt.exporters.int8_emit import quantised_weight
from dynrt.exporters.int8_ranges import Affine, ValueHistogram
from dynrt.ir.graph import PortRef

finite = st.floats(-1e6, 1e6, width=32)


def back(affine: Affine, stored: np.ndarray) -> np.ndarray:
    return affine.scale * (stored.astype(np.float64) - affine.zero)


@given(low=finite, high=finite, share=st.floats(0, 1))
def test_within_the_range_the_error_is_about_half_a_step(
    low: float, high: float, share: float
) -> None:
    low, high = min(low, high), max(low, high)
    affine = Affine.covering(low, high)
    value = np.float32(low + share * (high - low))
    off = abs(float(back(affine, affine.store(np.array([value])))[0]) - float(value))
    # Half a step of rounding, and up to half a step at an end by the rounding of the zero point.
    assert off <= affine.scale * 1.001 + 1e-37 or affine == Affine(scale=1.0, zero=0)


@given(low=finite, high=finite)
def test_zero_is_exact(low: float, high: float) -> None:
    affine = Affine.covering(min(low, high), max(low, high))
    assert back(affine, affine.store(np.zeros(1, np.float32)))[0] == 0


def test_what_never_goes_below_zero_has_its_zero_point_at_zero() -> None:
    histogram = ValueHistogram()
    histogram.add(np.linspace(0, 5, 1000), place="t")
    assert histogram.affine().zero == 0


def test_a_lone_far_value_is_clipped_and_an_honest_range_is_not() -> None:
    values = np.random.default_rng(0).uniform(0, 1, 200_000)
    even, spoilt = ValueHistogram(), ValueHistogram()
    even.add(values, place="t")
    spoilt.add(np.append(values, 3.0), place="t")
    assert even.affine().scale == pytest.approx(1 / 255, rel=0.03)
    # One value of 3 clipped to c costs (3 - c)^2; 2e5 values' steps cost 2e5 (c / 255)^2 / 12.
    costs = {c: (3 - c) ** 2 + 2e5 * (c / 255) ** 2 / 12 for c in np.linspace(1, 3, 201)}
    best = min(costs, key=lambda c: costs[c])
    assert spoilt.affine().scale == pytest.approx(best / 255, rel=0.03)
    assert best < 2.8


@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=finite),
    hnp.arrays(np.float32, st.integers(1, 60), elements=finite),
)
def test_the_order_of_what_comes_does_not_matter(a: np.ndarray, b: np.ndarray) -> None:
    one, other = ValueHistogram(), ValueHistogram()
    for part in (a, b):
        one.add(part, place="t")
    for part in (b, a):
        other.add(part, place="t")
    assert one.affine() == other.affine()


def test_nothing_but_zeros_is_stored_one_to_one() -> None:
    histogram = ValueHistogram()
    histogram.add(np.zeros(5), place="t")
    assert histogram.empty
    assert histogram.affine() == Affine(scale=1.0, zero=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_by_name(bad: float) -> None:
    with pytest.raises(ExportError, match=r"tensor block\.y: a value is not finite"):
        ValueHistogram().add(np.array([1, bad]), place=f"tensor {PortRef('block', 'y')}")


@given(
    hnp.arrays(np.float32, (4, 3, 2), elements=st.floats(-100, 100, width=32)),
    hnp.arrays(np.float32, 4, elements=finite),
    st.sampled_from([1e-12, 1e-3, 1.0]),
)
def test_weights_are_half_a_step_off_and_biases_fit(
    weight: np.ndarray, bias: np.ndarray, input_scale: float
) -> None:
    whole, scales = quantised_weight(weight, 0, bias, input_scale)
    assert whole.dtype == np.int8
    assert whole.min() >= -127
    off = np.abs(whole * scales[:, None, None].astype(np.float64) - weight)
    assert (off <= 0.5001 * scales[:, None, None] + 1e-37).all()
    counts = np.abs(bias.astype(np.float64)) / (scales.astype(np.float64) * input_scale)
    assert (counts <= 2**31 - 1).all()


def test_a_channel_has_the_scale_of_its_own_largest_weight() -> None:
    weight = np.array([[1.0, -127.0], [0.5, 0.25]], np.float32)
    whole, scales = quantised_weight(weight, 0, None, 1.0)
    assert whole.tolist() == [[1, -127], [127, 64]]
    assert scales.tolist() == pytest.approx([1.0, 0.5 / 127])
    columns, scales = quantised_weight(weight, 1, None, 1.0)
    assert columns.tolist() == [[127, -127], [64, 0]]
    assert scales.tolist() == pytest.approx([1 / 127, 1.0])


def test_seven_bits_leave_headroom() -> None:
    weight = np.array([[1.0, -0.25], [0.25, 0.0625]], np.float32)
    whole, scales = quantised_weight(weight, 0, None, 1.0, weight_bits=7)
    assert whole.tolist() == [[63, -16], [63, 16]]
    assert scales.tolist() == pytest.approx([1 / 63, 0.25 / 63])
