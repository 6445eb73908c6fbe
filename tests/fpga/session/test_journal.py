from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.errors import SessionError
from dynrt.fpga.journal import MAGIC, SYNC, Journal, Kind, Record, encode, read_journal, scan

PAYLOADS = st.lists(
    st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=40) | st.just(SYNC * 3)), max_size=6
)


def file_of(payloads: list[tuple[Kind, bytes]]) -> tuple[bytes, list[int]]:
    """The bytes of a file, and where each record ends."""
    data, ends = MAGIC, []
    for number, (kind, payload) in enumerate(payloads):
        record = Record(kind=kind, source="emulated", host_s=1.5, payload=payload, number=number)
        data += encode(record)
        ends.append(len(data))
    return data, ends


@given(PAYLOADS)
def test_every_prefix_holds_the_whole_records_before_it(
    payloads: list[tuple[Kind, bytes]],
) -> None:
    data, ends = file_of(payloads)
    for cut in range(len(data) + 1):
        found = scan(data[:cut])
        whole = sum(end <= cut for end in ends)
        assert [(r.kind, r.payload) for r in found.records] == payloads[:whole]
        began = ends[whole - 1] if whole else (len(MAGIC) if cut >= len(MAGIC) else 0)
        assert found.torn_bytes == cut - began


@given(PAYLOADS.filter(lambda p: len(p) > 1), st.data())
def test_a_flipped_bit_before_the_last_record_is_refused(
    payloads: list[tuple[Kind, bytes]], data: st.DataObject
) -> None:
    raw, ends = file_of(payloads)
    at = data.draw(st.integers(len(MAGIC), ends[-2] - 1))
    bit = data.draw(st.integers(0, 7))
    hurt = bytearray(raw)
    hurt[at] ^= 1 << bit
    with pytest.raises(SessionError, match="damaged at byte"):
        scan(bytes(hurt))


@given(PAYLOADS.filter(bool), st.data())
def test_a_flipped_bit_in_the_last_record_is_a_torn_tail(
    payloads: list[tuple[Kind, bytes]], data: st.DataObject
) -> None:
    raw, ends = file_of(payloads)
    began = ends[-2] if len(ends) > 1 else len(MAGIC)
    hurt = bytearray(raw)
    hurt[data.draw(st.integers(began, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    found = scan(bytes(hurt))
    assert len(found.records) == len(payloads) - 1
    assert found.torn_bytes == len(raw) - began


def test_a_record_out_of_its_turn_is_refused() -> None:
    twice = MAGIC + 2 * encode(
        Record(kind=Kind.EVENT, source="emulated", host_s=0, payload=b"", number=0)
    )
    with pytest.raises(SessionError, match="damaged"):
        scan(twice + encode(Record(kind=Kind.EVENT, source="emulated", host_s=0, payload=b"")))


def test_other_files_are_no_journal(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(SessionError, match="no journal"):
        read_journal(tmp_path / "x")
    with pytest.raises(SessionError, match="No such file"):
        read_journal(tmp_path / "y")


def test_written_records_come_back(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, source="hardware") as journal:
        journal.event("start", {"n": 1}, host_s=2.0)
        journal.append(Kind.METER_IN, b"\x00\xff", host_s=2.5)
    first, second = read_journal(path).records
    assert first.event == {"event": "start", "n": 1}
    assert (first.source, first.host_s, first.number) == ("hardware", 2.0, 0)
    assert (second.kind, second.payload, second.number) == (Kind.METER_IN, b"\x00\xff", 1)
    with pytest.raises(SessionError, match="no JSON"):
        _ = second.event
    with pytest.raises(SessionError, match="closed"):
        journal.append(Kind.METER_IN, b"", host_s=3.0)


def test_a_journal_is_never_opened_over_another(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b"")
    with pytest.raises(SessionError, match="exists"):
        Journal(tmp_path / "j", source="emulated")


def test_a_payload_without_event_is_refused() -> None:
    record = Record(kind=Kind.EVENT, source="emulated", host_s=0, payload=b"[1]")
    with pytest.raises(SessionError, match="no event"):
        _ = record.event


WRITER = """
import sys
from pathlib import Path
from dynrt.fpga.journal import Journal, Kind
journal = Journal(Path(sys.argv[1]), source="emulated")
for i in range(10**9):
    journal.append(Kind.METER_IN, b"%d" % i * 20, host_s=float(i))
    if i == 100:
        print("going", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_killed_writer_leaves_whole_records(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=Path.cwd()
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
    found = read_journal(path)
    assert len(found.records) > 100
    for i, record in enumerate(found.records):
        assert record.payload == b"%d" % i * 20
