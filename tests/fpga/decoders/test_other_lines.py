"""Readings of bench meters, of the WT310, and lines of polled files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.fpga.decoders.polled import HwmonDecoder, PowercapDecoder, encode_poll
from dynrt.fpga.decoders.scpi import ScpiDecoder
from dynrt.fpga.decoders.wt310 import Wt310Decoder
from dynrt.fpga.samples import Decoder, Flag, Samples

ASSUMED = Flag.UNCHECKED | Flag.ASSUMED_VOLTS


def scpi(supply_volts: float | None = 12.0) -> ScpiDecoder:
    return ScpiDecoder(shunt_ohm=0.01, supply_volts=supply_volts, range_volts=0.1)


def one(decoder: Decoder, text: bytes) -> Samples:
    return decoder.feed(text, 1.0)


def test_a_reading_over_ten_milliohms() -> None:
    got = one(scpi(), b"+2.13300000E-03\r\n")
    assert got.amperes[0] == pytest.approx(0.2133)
    assert got.watts[0] == pytest.approx(2.5596)
    assert Flag(int(got.flags[0])) == ASSUMED
    unknown = one(scpi(None), b"+2.13300000E-03\r\n")
    assert np.isnan(unknown.watts[0])
    assert Flag(int(unknown.flags[0])) == Flag.UNCHECKED


def test_several_readings_in_one_line() -> None:
    got = one(scpi(), b"+1.00000000E-03,+2.00000000E-03,-3.00000000E-03\n")
    assert np.allclose(got.amperes, [0.1, 0.2, -0.3])


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        (b"+9.90000000E+37", Flag.OVERLOAD),
        (b"-9.90000000E+37", Flag.OVERLOAD),
        (b"+9.91000000E+37", Flag.NAN),
    ],
)
def test_overload_and_nan(text: bytes, flag: Flag) -> None:
    got = one(scpi(), text + b"\r\n")
    assert Flag(int(got.flags[0])) & flag
    assert np.isnan([got.volts[0], got.amperes[0], got.watts[0]]).all()


@pytest.mark.parametrize(
    "text",
    [
        b"+2.1330000E-03",  # a digit less than the others
        b"+2.133000000E-03",
        b"+2.13300000E+03",  # beyond the range that is set
        b"+2.13300000E-0",
        b"+2.13300000-03",
        b"2+.13300000E-03",
        b"+2.13300000E-03,",
        b"\xab2.13300000E-03",
    ],
)
def test_what_cannot_be_a_reading_is_refused(text: bytes) -> None:
    decoder = scpi()
    one(decoder, b"+2.13300000E-03\r\n")
    assert len(one(decoder, text + b"\r\n")) == 0
    assert decoder.counts.damaged == 1
    after = one(decoder, b"+2.13300000E-03\r\n")
    assert after.flagged(Flag.MALFORMED_BEFORE)[0]
    assert after.flagged(Flag.GAP_BEFORE)[0]


def test_another_width_is_taken_once_it_stays() -> None:
    decoder = scpi()
    one(decoder, b"+2.13300000E-03\n")
    assert len(one(decoder, b"+2.133000E-03\n" * 5)) == 3
    assert len(one(decoder, b"+2.13300000E-03\n")) == 0


@pytest.mark.parametrize(
    "reply",
    [
        b"HEWLETT-PACKARD,34401A,0,11-5-2",
        b"KEITHLEY INSTRUMENTS INC.,MODEL 2000,1090321,A20 /A02",
        b'+0,"No error"',
        b"+2.13300000E-03;+1.20000000E+01",
        b"DCV",
    ],
)
def test_answers_are_no_readings_and_no_damage(reply: bytes) -> None:
    decoder = scpi()
    assert len(one(decoder, reply + b"\r\n")) == 0
    assert list(decoder.replies) == [reply.decode()]
    assert (decoder.counts.damaged, decoder.counts.replies) == (0, 1)


def test_local_mode_flags_the_next_reading() -> None:
    decoder = scpi()
    one(decoder, b'+550,"Command not allowed in local"\r\n')
    got = one(decoder, b"+2.13300000E-03\r\n+2.13300000E-03\r\n")
    assert list(got.flagged(Flag.LOCAL_MODE)) == [True, False]


def test_wt310_values_hang_together() -> None:
    decoder = Wt310Decoder()
    good = one(decoder, b"1;12.000E+00,213.30E-03,2.5596E+00,0.7110E-03\r\n")
    assert Flag(int(good.flags[0])) == Flag.UNCHECKED
    assert good.watts[0] == pytest.approx(2.5596)
    assert decoder.watt_hours == pytest.approx(0.711e-3)
    odd = one(decoder, b"1;12.000E+00,313.30E-03,2.5596E+00,0.7110E-03\r\n")
    assert odd.flagged(Flag.ODD)[0]
    short = one(decoder, b"1;12.00E+00,213.30E-03,2.5596E+00,0.7110E-03\r\n")
    assert short.flagged(Flag.ODD)[0]


def test_wt310_over_range_and_nothing() -> None:
    decoder = Wt310Decoder()
    got = one(decoder, b"1;12.000E+00,INF,INF,NAN\r\n1;NAN,NAN,NAN,NAN\r\n")
    assert got.flagged(Flag.OVERLOAD)[0]
    assert got.flagged(Flag.NAN)[1]
    assert np.isnan(got.watts).all()
    assert np.isnan(decoder.watt_hours)


def test_rapl_counter_wraps() -> None:
    top = 262_143_328_850
    decoder = PowercapDecoder()
    text = b"".join(
        encode_poll(10**9 + i * 10**7, [(top - 250_000 + i * 100_000) % top, top]) for i in range(6)
    )
    got = one(decoder, text)
    assert np.allclose(got.watts, 10.0)  # 100 mJ in 10 ms
    assert not got.flags.any()
    assert got.meter_s[0] == pytest.approx(1.01)


def test_rapl_reset_gap_and_unread_counter() -> None:
    top = 262_143_328_850
    decoder = PowercapDecoder()
    got = one(decoder, encode_poll(0, [10**9, top]) + encode_poll(10**7, [0, top]))
    assert got.flagged(Flag.RESET)[0]
    assert np.isnan(got.watts[0])
    got = one(decoder, encode_poll(10**12, [5, top]))
    assert got.flagged(Flag.GAP_BEFORE)[0]  # in 1,000 s it may have wrapped twice
    assert np.isnan(got.watts[0])
    assert len(one(decoder, encode_poll(10**12 + 10**7, [None, top]))) == 0
    got = one(decoder, encode_poll(10**12 + 2 * 10**7, [200_005, top]))
    assert got.watts[0] == pytest.approx(10.0)
    assert got.flagged(Flag.NAN | Flag.GAP_BEFORE)[0]


def test_hwmon_missing_values_are_nan() -> None:
    decoder = HwmonDecoder()
    got = one(
        decoder,
        encode_poll(1, [12_000, 213, 2_560_000])
        + encode_poll(2, [12_000, 213, None])
        + encode_poll(3, [None, 213, None])
        + encode_poll(3, [12_000, -213, None]),
    )
    assert np.allclose(got.watts, [2.56, 2.556, np.nan, -2.556], equal_nan=True)
    assert list(got.flagged(Flag.NAN)) == [False, False, True, False]
    assert list(got.flagged(Flag.BACKWARD)) == [False, False, False, True]


@given(
    st.binary(max_size=1000), st.sampled_from([scpi, Wt310Decoder, PowercapDecoder, HwmonDecoder])
)
def test_no_bytes_make_any_fail(noise: bytes, make: type[Decoder]) -> None:
    decoder = make()
    one(decoder, noise)
    one(decoder, b"\r\n" + noise + b"\n")
    assert decoder.counts.discarded_bytes <= 2 * len(noise)
