"""The checksummed line: what it gives, and what it notices."""

from __future__ import annotations

import binascii
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.fpga.decoders.ina_line import InaLineDecoder, encode_line
from dynrt.fpga.samples import COLUMNS, Flag, Samples


def lines(first: int, last: int, *, step_us: int = 1000, start_us: int = 0) -> list[bytes]:
    return [
        encode_line(i, start_us + i * step_us, 12.0, 0.2 + i % 7 * 0.01, i % 2)
        for i in range(first, last)
    ]


def decode(*pieces: bytes) -> tuple[Samples, InaLineDecoder]:
    decoder = InaLineDecoder()
    return Samples.join([decoder.feed(p, float(i)) for i, p in enumerate(pieces)]), decoder


def flags_of(got: Samples, sequence: int) -> Flag:
    return Flag(int(got.flags[list(got.sequence).index(sequence)]))


def test_the_line_is_the_documented_one() -> None:
    body = b"7,7000,12.0000,0.213300,1"
    assert encode_line(7, 7000, 12.0, 0.2133, 1) == body + b"*%04X\r\n" % binascii.crc_hqx(
        body, 0xFFFF
    )
    got, _ = decode(encode_line(7, 7000, 12.0, 0.2133, 1))
    assert (got.sequence[0], got.meter_s[0], got.marker[0]) == (7, 0.007, 1)
    assert got.watts[0] == pytest.approx(2.5596)
    assert got.flags[0] == 0


@given(st.lists(st.integers(1, 60), max_size=60), st.binary(max_size=80))
def test_how_the_bytes_are_cut_changes_nothing(cuts: list[int], noise: bytes) -> None:
    stream = noise + b"\r\n" + b"".join(lines(0, 20)) + noise + b"".join(lines(20, 40))
    pieces, at = [], 0
    for n in cuts:
        pieces.append(stream[at : at + n])
        at += n
    whole, one = decode(stream)
    cut, other = decode(*pieces, stream[at:])
    assert one.counts == other.counts
    for column in set(COLUMNS) - {"host_s"}:
        assert np.array_equal(getattr(whole, column), getattr(cut, column), equal_nan=True)


@given(st.binary(max_size=2000))
def test_no_bytes_make_it_fail(noise: bytes) -> None:
    got, decoder = decode(noise, b"\r\n", *lines(0, 3))
    assert list(got.sequence[-3:]) == [0, 1, 2]
    assert decoder.counts.accepted == len(got)


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r", b"\r\r\n"])
def test_every_line_end(end: bytes) -> None:
    got, _ = decode(b"".join(line.strip() + end for line in lines(0, 5)))
    assert list(got.sequence) == [0, 1, 2, 3, 4]


def test_boot_text_and_half_a_line_are_no_damage() -> None:
    got, decoder = decode(b"\x00\xffrst:0x1\r\n12.0,0.2,1*ABCD\r\n", *lines(0, 3))
    assert not got.flags.any()
    assert decoder.counts.damaged == 0
    assert decoder.counts.discarded_bytes == 9 + 15


def test_a_lost_line_is_a_gap_and_a_damaged_one_is_told() -> None:
    stream = lines(0, 10)
    del stream[4]
    stream[6] = stream[6].replace(b"12.0", b"12.1")
    got, decoder = decode(*stream)
    assert flags_of(got, 5) == Flag.GAP_BEFORE
    assert flags_of(got, 8) == Flag.GAP_BEFORE | Flag.MALFORMED_BEFORE
    assert (decoder.counts.missing, decoder.counts.damaged) == (2, 1)


def test_repeated_lines_are_left_out() -> None:
    stream = lines(0, 5) + lines(2, 5) + lines(5, 8)
    got, decoder = decode(*stream)
    assert list(got.sequence) == list(range(8))
    assert flags_of(got, 5) == Flag.DUPLICATE
    assert decoder.counts.duplicates == 3


def test_reset_backward_and_leap() -> None:
    got, decoder = decode(*lines(0, 50), *lines(0, 5, start_us=7))
    assert Flag(int(got.flags[50])) == Flag.RESET
    assert decoder.counts.resets == 1
    got, _ = decode(*lines(0, 50, start_us=10**6), *lines(50, 60))
    assert flags_of(got, 50) == Flag.BACKWARD
    got, _ = decode(*lines(0, 50), *lines(50, 60, start_us=10**6))
    assert flags_of(got, 50) == Flag.CLOCK_JUMP
    assert not got.flagged(Flag.CLOCK_JUMP)[51:].any()


def test_a_reset_that_says_the_same_again_is_no_repetition() -> None:
    got, decoder = decode(*lines(0, 50), *lines(0, 50))
    assert len(got) == 100
    assert list(np.flatnonzero(got.flagged(Flag.RESET))) == [50]
    assert decoder.counts.duplicates == 0


def test_sequence_and_a_clock_of_32_bits_wrap() -> None:
    stream = [
        encode_line(2**32 - 5 + i, (2**32 - 4500 + i * 1000) % 2**32, 12.0, 0.2, 0)
        for i in range(10)
    ]
    got, decoder = decode(*stream)
    assert not got.flags.any()
    assert decoder.counts.missing == 0
    assert np.allclose(np.diff(got.meter_s), 1e-3)


@pytest.mark.parametrize(
    ("amperes", "flag"),
    [
        (b"9.9E37", Flag.OVERLOAD),
        (b"-9.9E37", Flag.OVERLOAD),
        (b"9.91E37", Flag.NAN),
        (b"nan", Flag.NAN),
    ],
)
def test_what_is_no_number_is_missing_not_zero(amperes: bytes, flag: Flag) -> None:
    body = b"0,0,12.0000," + amperes + b",0"
    got, _ = decode(body + b"*%04X\n" % binascii.crc_hqx(body, 0xFFFF))
    assert Flag(int(got.flags[0])) == flag
    assert math.isnan(got.amperes[0])
    assert math.isnan(got.watts[0])
    assert got.volts[0] == 12.0


def test_a_lost_digit_shows_although_the_checksum_were_to_agree() -> None:
    body = b"1,1000,12.0000,0.21330,0"  # one place less, with a checksum of its own
    got, _ = decode(*lines(0, 1), body + b"*%04X\n" % binascii.crc_hqx(body, 0xFFFF))
    assert Flag(int(got.flags[1])) == Flag.ODD


def test_a_gap_for_which_there_was_no_time_is_told() -> None:
    # A digit lost from the sequence, and a checksum that agrees by chance: 500 million missing.
    got, _ = decode(*lines(0, 20), encode_line(500_000_000, 20_000, 12.0, 0.2, 0))
    assert Flag(int(got.flags[-1])) == Flag.GAP_BEFORE | Flag.CLOCK_JUMP
    got, _ = decode(*lines(0, 20), encode_line(500, 500_000, 12.0, 0.2, 0))
    assert Flag(int(got.flags[-1])) == Flag.GAP_BEFORE


def test_an_endless_line_takes_no_memory() -> None:
    decoder = InaLineDecoder()
    for _ in range(100):
        decoder.feed(b"x" * 10_000, 0.0)
    assert len(decoder._lines._rest) <= 128
    got = decoder.feed(b"\n" + lines(0, 1)[0], 0.0)
    assert len(got) == 1
    assert decoder.counts.discarded_bytes == 1_000_000


def test_fast_enough_for_any_microcontroller() -> None:
    data = b"".join(lines(0, 20_000))
    began = time.process_time()
    assert len(InaLineDecoder().feed(data, 0.0)) == 20_000
    assert 20_000 / (time.process_time() - began) > 5_000  # ten times what such a meter sends
