"""The agent's real firmware in QEMU: same outcomes and ticks every time, and what it survives."""

from __future__ import annotations

import dataclasses
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dynrt.errors import BoardError, LinkError, MeasureError
from dynrt.fpga.board import Board
from dynrt.fpga.emulated import qemu as qemu_module
from dynrt.fpga.emulated.bench import EmulatedBench
from dynrt.fpga.emulated.qemu import Qemu
from dynrt.fpga.exchange import RefusedError
from dynrt.fpga.links import Link, open_serial
from dynrt.fpga.wire import Frame, FrameReader, Kind, RunDone, encode_frame
from tests.fpga.conftest import NewBench
from tests.fpga.emulated.board_runs import (
    BAD_LINE,
    Network,
    differences,
    packaged_network,
    run,
    session,
    small_network,
)

#: Soon, in a test that must not wait for a board that is gone.
SOON_S, FEW = 0.3, 3


@pytest.fixture(scope="module")
def small() -> Network:
    return small_network()


def test_the_board_says_who_it_is(bench: EmulatedBench) -> None:
    info = bench.info
    assert info.midr == 0x413F_C090  # a Cortex-A9 r3p0, as QEMU has it
    assert not info.is_zynq_7020
    assert info.log_cap >= 20  # an acceptance run's records
    with bench.board() as board:
        assert board.temperature_c() is None
        before = board.ticks()
        assert board.echo(bytes(range(256)) * 15) == bytes(range(256)) * 15
        assert board.ticks() > before


def test_sessions_come_out_the_same_over_good_and_bad_lines(
    bench: EmulatedBench, small: Network
) -> None:
    first = session(bench, small)
    verified = small.verify(first)
    assert verified.holds, verified.differences
    assert len({r.decisions for r in first}) > 2
    assert len({r.ticks for r in first}) > 1
    assert differences(session(bench, small), first) == []
    with bench.board(damage=BAD_LINE, timeout_s=SOON_S, retries=40) as board:
        assert differences(run(board, small, expect_s=0.0), first) == []
        counts = board.counts
    assert counts.repeated > 0
    assert counts.damaged_here + counts.damaged_there > 0


def test_the_packaged_network_decides_as_onnxruntime(bench: EmulatedBench) -> None:
    net = packaged_network()
    # Easy ones and a harder one: several exits.
    net = dataclasses.replace(net, inputs=net.inputs[:3])
    with bench.board() as board:
        first = run(board, net)
        verified = net.verify(first)
        assert verified.holds, verified.differences
        assert len({r.exit for r in first}) > 1
        board.run(0, 1, expect_s=60)
        assert differences(board.records(), first[:1]) == []
        _forced_exit(board, net)


def _forced_exit(board: Board, net: Network) -> None:
    """The first exit is made to accept: fewer operators run, the rest spend no ticks."""
    names = net.program.decisions
    board.force({names.index("exit1"): 1})
    done = board.run(0, 1, op_ticks=True, expect_s=60)
    (record,) = board.records()
    assert record.exit == names.index("exit1")
    spent = dict.fromkeys(net.program.op_nodes, 0)
    for node, ticks in zip(net.program.op_nodes, board.op_ticks(), strict=True):
        spent[node] += ticks
    assert spent["stem"] > 0
    assert spent["block18"] == 0
    assert sum(spent.values()) <= done.ticks
    assert 0 < done.mac_ticks <= done.ticks


def test_idle_lasts_as_long_as_asked_and_costs_no_time(
    bench: EmulatedBench, small: Network
) -> None:
    with bench.board() as board:
        run(board, small)
        began = time.monotonic()
        done = board.idle(60.0, expect_s=30)
        assert done.ticks == pytest.approx(60 * bench.info.ticks_per_s, rel=1e-5)
        assert done.samples == done.mac_ticks == 0
        assert time.monotonic() - began < 30


def test_a_repeated_run_is_not_run_again(bench: EmulatedBench, small: Network) -> None:
    with bench.board() as board:
        run(board, small)
        number = board.session
    link = open_serial(bench.board_port)
    try:
        request = struct.pack("<6I", number, 500, 0, 1, 1, 0)
        ends = [_raw_run(link, request, sequence) for sequence in (1, 2)]
        assert ends[0] == ends[1]
        assert ends[0].start_ticks < ends[0].end_ticks
        other = struct.pack("<6I", number, 500, 0, 2, 1, 0)
        link.write(encode_frame(Kind.RUN, 3, other))
        reader = FrameReader()
        frames: list[Frame] = []
        while not frames:
            frames = reader.feed(link.read(5.0))
        assert (frames[0].kind, frames[0].payload[0]) == (0xFF, 11)
    finally:
        link.close()


def _raw_run(link: Link, request: bytes, sequence: int) -> RunDone:
    link.write(encode_frame(Kind.RUN, sequence, request))
    reader, end = FrameReader(), time.monotonic() + 20
    while time.monotonic() < end:
        for frame in reader.feed(link.read(1.0)):
            if frame.kind == 0xA1 and frame.sequence == sequence:
                return RunDone.unpack(frame.payload)
    raise AssertionError("no DONE")


def test_an_invalid_table_is_refused_and_the_board_lives(
    bench: EmulatedBench, small: Network
) -> None:
    table = bytearray(small.program.table_bytes)
    table[-24 * 4] = 0xEE  # the last operator's kind
    with bench.board() as board:
        with pytest.raises(RefusedError, match="the op table is invalid"):
            board.download(bytes(table), small.program.weights, small.blocks)
        assert small.verify(run(board, small)).holds


def test_a_second_opener_is_told(bench: EmulatedBench) -> None:
    with bench.board() as board:
        with pytest.raises(LinkError, match="taken by another program"):
            bench.board_link()
        assert board.echo(b"still mine") == b"still mine"
    link = bench.meter_link()
    with pytest.raises(LinkError, match="taken by another program"):
        bench.meter_link()
    link.close()


def test_unplugged_and_plugged_in_again(bench: EmulatedBench, small: Network) -> None:
    with bench.board() as board:
        first = run(board, small)
        number = board.session
        bench_link = board
    with pytest.raises(LinkError, match="closed"):
        bench_link.echo(b"gone")
    with bench.board() as again:
        assert again.hello().session == number
        with pytest.raises(BoardError, match="no network is on the board: download"):
            again.run()
        assert differences(run(again, small), first) == []


def test_a_killed_board_is_told_and_a_new_one_does_the_same(
    new_bench: NewBench, small: Network
) -> None:
    one = new_bench()
    with one.board(timeout_s=SOON_S, retries=FEW) as board:
        first = run(board, small)
        one.qemu.kill()
        assert not one.qemu.alive
        with pytest.raises(LinkError, match="unplugged, or its far end closed"):
            board.run()
    with pytest.raises(LinkError, match="no longer runs"):
        one.qemu.reset()
    with pytest.raises(LinkError, match=r"no such port|gone|cannot be opened"):
        one.board_link()
    assert differences(session(new_bench(), small), first) == []


def test_reset_in_mid_frame_and_in_mid_run(new_bench: NewBench, small: Network) -> None:
    started = new_bench()
    with started.board(timeout_s=SOON_S, retries=30) as board:
        first = run(board, small)
        half = encode_frame(Kind.ECHO, 1, b"x" * 300)[:150]
        link = board._exchange.link
        link.write(half)
        started.qemu.reset()
        assert board.hello().session == 0
        with pytest.raises(BoardError, match="it was reset"):
            board.require_same_board()
        with pytest.raises(RefusedError, match="refuses RUN: it has no such session"):
            board.run()
        assert differences(run(board, small), first) == []
        # In mid-run: a request that the board will be at for long, then the button.
        link.write(encode_frame(Kind.RUN, 9, struct.pack("<6I", board.session, 77, 0, 6, 400, 0)))
        time.sleep(0.2)
        started.qemu.reset()
        with pytest.raises(BoardError, match="it was reset"):
            board.require_same_board()
        assert differences(run(board, small), first) == []


def test_a_killed_host_leaves_no_board_behind(agent_elf: Path, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    code = (
        "import sys, time; from pathlib import Path;"
        "from dynrt.fpga.emulated.qemu import Qemu;"
        "q = Qemu(Path(sys.argv[1]), shift=7);"
        "Path(sys.argv[2]).write_text(str(q.pid)); time.sleep(60)"
    )
    host = subprocess.Popen([sys.executable, "-c", code, str(agent_elf), str(told)])
    try:
        assert _soon(lambda: told.is_file() and told.read_text() != "")
        pid = int(told.read_text())
        assert Path("/proc", str(pid)).exists()
    finally:
        host.send_signal(signal.SIGKILL)
        host.wait()
    assert _soon(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        state = Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def _soon(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return False


def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, agent_elf: Path
) -> None:
    with pytest.raises(MeasureError, match=r"does not start: .*nowhere"):
        Qemu(tmp_path / "nowhere.elf", shift=7)
    with pytest.raises(MeasureError, match=r"2\*\*11 ns; 0 to 10"):
        Qemu(agent_elf, shift=11)
    with pytest.raises(MeasureError, match="not running: enter it first"):
        EmulatedBench(firmware=agent_elf).info  # noqa: B018
    monkeypatch.setattr(qemu_module, "QEMU", "qemu-system-nothing")
    with pytest.raises(MeasureError, match="qemu-system-nothing is not installed: apt-get install"):
        Qemu(agent_elf, shift=7)


def test_no_qemu_outlives_its_bench(agent_elf: Path) -> None:
    with EmulatedBench(firmware=agent_elf) as running:
        pid = running.qemu.pid
        os.kill(pid, 0)
    assert not _runs(pid)


def test_answers_are_floats_within_rounding(bench: EmulatedBench, small: Network) -> None:
    records = session(bench, small)
    wanted = small.verify(records)
    assert 0 <= wanted.max_abs_error < 1e-4
    assert all(r.answer.dtype == np.float32 and np.isfinite(r.answer).all() for r in records)
