"""PPK2 words: calibration, step, and what lost bytes do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.fpga.decoders.ppk2 import Calibration, Ppk2Decoder, amperes_of, parse_calibration
from dynrt.fpga.emulated.instruments import calibration_text, encode_words
from dynrt.fpga.samples import COLUMNS, Flag, Samples
from tests.soak_ppk2 import ppk2_chunk

KIT = Calibration(
    ohm=(1003.35, 101.58, 10.25, 0.95, 0.044),
    gain_square=(1.0, 1.0, 1.0, 1.01, 1.13),
    gain=(1.0, 0.96, 0.99, 0.98, 0.94),
    zero_count=(117.0, 74.9, 33.2, 62.1, 6.1),
    per_volt=(1e-8, 5e-8, 1e-6, 1e-5, 1e-4),
    offset=(-1e-7, -2e-8, -1e-6, -1e-5, -1e-4),
    user_gain=(1.0, 1.0, 1.0, 1.0, 1.02),
    supply_volts=3.3,
    hardware="9173",
    calibrated=True,
)


def decoder(**changes: object) -> Ppk2Decoder:
    options: dict[str, object] = {"volts": 3.3, "marker_input": 0, "calibration": KIT}
    return Ppk2Decoder(**(options | changes))  # type: ignore[arg-type]


def words(n: int, *, first: int = 0, at_range: int = 2, logic: int = 1) -> bytes:
    counts = 1000 + (first + np.arange(n)) % 13
    return encode_words(counts, at_range=at_range, first_counter=first % 64, logic=logic)


def test_calibration_is_read_as_the_kit_tells_it() -> None:
    assert parse_calibration(calibration_text(KIT)) == KIT


def test_a_value_that_is_missing_nan_or_zero_is_the_usual_one() -> None:
    kit = parse_calibration(b"Calibrated: 0\nR0: nan\nR1: 0.0\nGI2: 1.5\nVDD: 3000\nEND")
    assert kit.ohm == Calibration().ohm
    assert kit.gain == (1.0, 1.0, 1.5, 1.0, 1.0)
    assert (kit.supply_volts, kit.calibrated) == (3.0, False)


def test_amperes_by_hand() -> None:
    # range 3, count 500: 2000 quarters, less 62.1 of zero, times 1.8 / 163840 / 0.95
    raw = (2000 - 62.1) * 1.8 / 163_840 / 0.95
    expected = 1.0 * (raw * (1.01 * raw + 0.98) + (1e-5 * 3.3 - 1e-5))
    word = np.frombuffer(encode_words(np.array([500]), at_range=3, first_counter=9, logic=0), "<u4")
    assert amperes_of(word, KIT, 3.3)[0] == pytest.approx(expected, rel=1e-12)


def test_a_stream_in_step() -> None:
    unit = decoder(calibration=None)
    got = Samples.join(
        [unit.feed(b"\x01\x02junk" + calibration_text(KIT), 0.0), unit.feed(words(500), 1.0)]
    )
    assert unit.calibration == KIT
    assert len(got) == 496  # the last four wait for their successors
    assert (np.diff(got.sequence) == 1).all()
    assert np.allclose(np.diff(got.meter_s), 1e-5)
    assert (got.marker == 1).all()
    assert (got.flags == int(Flag.UNCHECKED | Flag.ASSUMED_VOLTS)).all()
    assert np.allclose(got.watts, got.amperes * 3.3)


@given(st.lists(st.integers(1, 40), max_size=80), st.integers(0, 1500))
def test_how_the_bytes_are_cut_changes_nothing(cuts: list[int], hole: int) -> None:
    stream = words(400)
    stream = stream[:hole] + stream[hole + 1 :]
    whole = decoder()
    expected = whole.feed(stream, 0.0)
    unit, blocks, at = decoder(), [], 0
    for n in [*cuts, len(stream)]:
        blocks.append(unit.feed(stream[at : at + n], 0.0))
        at += n
    got = Samples.join(blocks)
    assert unit.counts == whole.counts
    for column in COLUMNS:
        assert np.array_equal(getattr(got, column), getattr(expected, column), equal_nan=True)


@given(st.integers(100, 1500), st.integers(1, 252))
def test_any_loss_of_up_to_63_words_is_noticed_and_placed(at: int, n: int) -> None:
    stream = words(500)
    got = decoder().feed(stream[:at] + stream[at + n :], 0.0)
    noted = np.flatnonzero(got.flagged(Flag.GAP_BEFORE))
    assert len(noted) == 1
    assert (got.sequence[noted[0]] - -(-(at + n) // 4)) <= 64
    true = np.frombuffer(stream, "<u4")[got.sequence]
    assert np.array_equal(got.amperes, amperes_of(true, KIT, 3.3))


def test_a_flipped_counter_bit_loses_a_few_words_and_no_more() -> None:
    stream = bytearray(words(200))
    stream[4 * 100 + 2] ^= 0x10
    unit = decoder()
    got = unit.feed(bytes(stream), 0.0)
    assert 1 <= unit.counts.missing <= 16
    assert 100 not in got.sequence
    assert got.sequence[-1] == 195


def test_a_range_that_does_not_exist_is_no_sample() -> None:
    got = decoder().feed(words(50) + words(1, first=50, at_range=6) + words(50, first=51), 0.0)
    assert 50 not in got.sequence
    assert np.isfinite(got.amperes).all()


def test_a_saturated_converter_is_an_overload() -> None:
    full = encode_words(np.full(20, 0x3FFF), at_range=4, first_counter=0, logic=0)
    got = decoder().feed(full, 0.0)
    assert got.flagged(Flag.OVERLOAD).all()
    assert np.isnan(got.watts).all()


def test_volts_are_missing_if_nobody_stated_them_and_so_is_the_marker() -> None:
    got = decoder(volts=None, marker_input=None).feed(words(20), 0.0)
    assert np.isnan(got.volts).all()
    assert np.isfinite(got.amperes).all()
    assert (got.marker == -1).all()


@given(st.binary(max_size=3000))
def test_no_bytes_make_it_fail(noise: bytes) -> None:
    unit = decoder(calibration=None)
    unit.feed(noise, 0.0)
    unit.feed(calibration_text(KIT) + noise, 0.0)
    assert unit.calibration is not None
    got = unit.feed(words(200), 0.0)
    assert len(got) >= 150


@pytest.mark.parametrize("seed", range(3))
def test_lost_bytes_all_over_a_stream(seed: int) -> None:
    tally = ppk2_chunk(seed, 20_000)
    assert not tally.findings
    assert tally.drops > 40
    assert tally.drops_detected == tally.drops
    assert tally.worst_words <= 64
