"""Frames, blocks and marker lines: what goes in comes out, and what is damaged does not."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.errors import BoardError
from dynrt.fpga import cobs
from dynrt.fpga.wire import (
    BoardInfo,
    FrameReader,
    MarkerLine,
    RunDone,
    State,
    decode_body,
    encode_frame,
    encode_marker,
    parse_marker,
)

# From the paper's definition: a code is one more than the run it precedes; 254 others make 255.
KNOWN = [
    (b"", b"\x01"),
    (b"\0", b"\x01\x01"),
    (b"\0\0", b"\x01\x01\x01"),
    (b"\x11\x22\0\x33", b"\x03\x11\x22\x02\x33"),
    (b"\x11\0\0\0", b"\x02\x11\x01\x01\x01"),
    (bytes(range(1, 255)), b"\xff" + bytes(range(1, 255)) + b"\x01"),
    (bytes(range(1, 256)), b"\xff" + bytes(range(1, 255)) + b"\x02\xff"),
]


@pytest.mark.parametrize(("data", "block"), KNOWN)
def test_cobs_known_blocks(data: bytes, block: bytes) -> None:
    assert cobs.encode(data) == block
    assert cobs.decode(block) == data


def test_cobs_takes_a_full_run_without_what_follows() -> None:
    # Encoders may leave out the last code byte after a full run, as the agent does.
    assert cobs.decode(b"\xff" + bytes(range(1, 255))) == bytes(range(1, 255))


@given(st.lists(st.one_of(st.just(b"\0"), st.binary(max_size=300), st.just(b"x" * 254))))
def test_cobs_round_trip(parts: list[bytes]) -> None:
    data = b"".join(parts)
    block = cobs.encode(data)
    assert 0 not in block
    assert len(block) <= len(data) + len(data) // 254 + 1
    assert cobs.decode(block) == data


@pytest.mark.parametrize("block", [b"", b"\x00", b"\x05abc", b"\x03a\x00", b"\x02a\x00"])
def test_cobs_refuses(block: bytes) -> None:
    with pytest.raises(BoardError, match="COBS"):
        cobs.decode(block)


@given(
    st.integers(0, 255), st.integers(0, 255), st.binary(max_size=600), st.data(), st.integers(1, 7)
)
def test_frames_in_any_pieces(
    kind: int, sequence: int, payload: bytes, data: st.DataObject, pieces: int
) -> None:
    raw = b"noise\0" + 2 * encode_frame(kind, sequence, payload)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), min_size=pieces, max_size=pieces)))
    reader = FrameReader()
    frames = []
    for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        frames += reader.feed(raw[a:b])
    assert [(f.kind, f.sequence, f.payload) for f in frames] == 2 * [(kind, sequence, payload)]
    assert reader.damaged == 1


@given(st.binary(min_size=1, max_size=200), st.data())
def test_no_flipped_bit_goes_unseen(payload: bytes, data: st.DataObject) -> None:
    block = bytearray(encode_frame(0x11, 7, payload)[1:-1])
    at = data.draw(st.integers(0, len(block) - 1))
    block[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BoardError):
        decode_body(bytes(block))


def test_short_bodies_and_wrong_sums_are_refused() -> None:
    with pytest.raises(BoardError, match="5 bytes; the least is 6"):
        decode_body(cobs.encode(b"12345"))
    with pytest.raises(BoardError, match="wrong CRC-32"):
        decode_body(cobs.encode(b"\x01\x02\x03\x04\x05\x06\x07"))


def test_noise_without_end_is_dropped_and_a_frame_after_it_read() -> None:
    reader = FrameReader()
    for _ in range(40):
        assert reader.feed(b"\x55" * 1000) == []
    frames = reader.feed(encode_frame(2, 3, b"after"))
    assert [f.payload for f in frames] == [b"after"]
    assert reader.damaged == 1


def test_hello_is_read_by_name() -> None:
    words = (1, 2, 3, 0x2372_7093, 5, 6, 7, 8, 9, 10, 11, 12, 13)
    info = BoardInfo.unpack(struct.pack("<13I16s", *words, b"0.1 abc") + b"later")
    assert (info.protocol, info.table_version, info.ticks_per_s) == (1, 2, 5)
    assert (info.max_payload, info.session, info.reset_reason, info.log_cap) == (10, 11, 12, 13)
    assert info.build == "0.1 abc"
    assert info.is_zynq_7020
    with pytest.raises(BoardError, match="67 bytes, not 68"):
        BoardInfo.unpack(bytes(67))
    other = BoardInfo.unpack(struct.pack("<13I16s", *([0] * 13), b""))
    assert not other.is_zynq_7020


def test_done_round_trip_and_refusals() -> None:
    done = RunDone(
        run_id=3,
        state=State.DONE,
        start_ticks=1 << 40,
        end_ticks=(1 << 40) + 5,
        mac_ticks=4,
        samples=2,
        crc=9,
        fault_op=None,
    )
    assert RunDone.unpack(done.pack()) == done
    assert done.ticks == 5
    with pytest.raises(BoardError, match="43 bytes, not 44"):
        RunDone.unpack(done.pack()[:-1])
    with pytest.raises(BoardError, match="state 9"):
        RunDone.unpack(done.pack()[:4] + struct.pack("<I", 9) + done.pack()[8:])


markers = st.builds(
    lambda starts, run_id, kind, ticks, macs: MarkerLine(
        starts=starts, run_id=run_id, kind=kind, ticks=ticks, mac_ticks=None if starts else macs
    ),
    st.booleans(),
    st.integers(1, 2**32 - 1),
    st.sampled_from(["run", "idle"]),
    st.integers(0, 2**63),
    st.integers(0, 2**63),
)


@given(markers)
def test_marker_round_trip(marker: MarkerLine) -> None:
    line = encode_marker(marker)
    assert line.endswith(b"\r\n")
    assert parse_marker(line[:-2]) == marker


def test_marker_as_written_by_hand() -> None:
    # CRC-16/CCITT-FALSE of "123456789" is 29B1 (its published check value).
    assert encode_marker(
        MarkerLine(starts=True, run_id=7, kind="run", ticks=12, mac_ticks=None)
    ).startswith(b"M1,7,run,12*")
    assert parse_marker(b"123456789*29B1") is None


@given(markers, st.data())
def test_damaged_markers_are_none(marker: MarkerLine, data: st.DataObject) -> None:
    line = bytearray(encode_marker(marker)[:-2])
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] ^= 1 << data.draw(st.integers(0, 7))
    assert parse_marker(bytes(line)) is None
