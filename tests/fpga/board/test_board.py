"""The client against an agent that does what a real one does only when things go wrong."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynrt.errors import BoardError, LinkError
from dynrt.fpga.board import Board
from dynrt.fpga.emulated.damage import Damage, DamagedLink
from dynrt.fpga.exchange import RefusedError
from dynrt.fpga.links import Link
from dynrt.fpga.wire import (
    DONE,
    NAK,
    REPLY,
    STARTED,
    Frame,
    Kind,
    Refusal,
    Region,
    State,
    encode_frame,
)
from tests.fpga.board import fake_agent
from tests.fpga.board.fake_agent import FakeAgent, answer_of, table

WEIGHTS = bytes(range(256)) * 5
INPUTS = [struct.pack("<4f", i, -i, i / 2, 1) for i in range(4)]


def client(agent: FakeAgent, link: Link | None = None, *, retries: int = 8) -> Board:
    return Board(link or agent, timeout_s=0.5, retries=retries, clock=agent.clock)


def loaded(agent: FakeAgent, link: Link | None = None, *, retries: int = 8) -> Board:
    board = client(agent, link, retries=retries)
    board.download(table(), WEIGHTS, INPUTS)
    return board


def lose(kind: int, times: int) -> Callable[[Frame], Frame | None]:
    """Replies of ``kind`` vanish ``times`` times."""
    left = [times]

    def mutate(frame: Frame) -> Frame | None:
        if frame.kind == kind and left[0]:
            left[0] -= 1
            return None
        return frame

    return mutate


def deafen(kind: int, times: int) -> Callable[[Frame], bool]:
    """Requests of ``kind`` never arrive ``times`` times."""
    mutate = lose(kind, times)
    return lambda frame: mutate(frame) is None


def test_a_network_is_downloaded_run_and_read_back() -> None:
    agent, seen = FakeAgent(), []
    board = Board(agent, clock=agent.clock, progress=lambda done, total: seen.append((done, total)))
    number = board.download(table(), WEIGHTS, INPUTS, session=77)
    total = len(table()) + len(WEIGHTS) + len(b"".join(INPUTS))
    assert number == board.session == agent.session == 77
    assert seen[-1] == (total, total)
    assert sorted(seen) == seen
    done = board.run(1, 2)
    assert (done.samples, done.ticks, done.state) == (2, 20, State.DONE)
    records = board.records()
    assert [r.input for r in records] == [1, 2]
    assert [r.decisions for r in records] == [(1, 1, None), (0, 1, None)]
    for record in records:
        assert record.answer.tobytes() == answer_of(INPUTS[record.input])
        assert record.exit == 1
    assert board.counts.repeated == 0


def test_passes_wrap_the_ring_of_records() -> None:
    board = loaded(FakeAgent())
    board.run(0, 4, 3)
    last = board.records(fake_agent.LOG_CAP)
    assert [r.ticks for r in last] == [10 + i for i in range(4, 12)]
    assert [r.input for r in last] == [i % 4 for i in range(4, 12)]
    with pytest.raises(BoardError, match="12 records of a run of 12; the board keeps the last 8"):
        board.records()


def test_forced_decisions_thresholds_and_parameters_reach_the_board() -> None:
    agent = FakeAgent()
    board = loaded(agent)
    board.force({0: 3, 2: 1})
    board.run(0, 1)
    assert board.records()[0].decisions == (3, 1, 1)
    board.force({0: None, 2: None})
    board.run(0, 1)
    assert board.records()[0].decisions == (0, 1, None)
    board.thresholds([0.25, -1.0])
    assert agent.memory[Region.THRESHOLDS] == struct.pack("<2d", 0.25, -1.0)
    board.write_parameter(8, b"\xaa\xbb\xcc\xdd")
    assert agent.memory[Region.WEIGHTS][6:13] == b"\x06\x07\xaa\xbb\xcc\xdd\x0c"
    fresh = struct.pack("<4f", 9, 9, 9, 9)
    board.write_inputs([fresh], first=3)
    board.run(3, 1)
    assert np.array_equal(board.records()[0].answer, np.full(4, 18, np.float32))
    assert board.op_ticks() == (0,) * fake_agent.N_OPS


def test_the_other_questions() -> None:
    agent = FakeAgent()
    board = client(agent)
    assert board.temperature_c() is None
    agent.xadc = 2637 << 4  # 2637 * 503.975 / 4096 - 273.15
    assert board.temperature_c() == pytest.approx(51.31, abs=0.01)
    agent.now_s = 12.5
    assert board.ticks() == 12_500
    assert board.echo(b"\0abc") == b"\0abc"


@pytest.mark.parametrize("kind", [Kind.HELLO, Kind.BEGIN, Kind.WRITE, Kind.CRC, Kind.COMMIT])
@pytest.mark.parametrize("lost", ["request", "reply"])
def test_one_lost_frame_of_each_kind_is_made_up_for(kind: Kind, lost: str) -> None:
    agent = FakeAgent()
    if lost == "reply":
        agent.mutate = lose(kind | REPLY, 1)
    else:
        agent.unheard = deafen(kind, 1)
    board = loaded(agent)
    board.run()
    assert len(board.records()) == len(INPUTS)
    assert board.counts.repeated == 1


@pytest.mark.parametrize("lost", [STARTED, DONE])
def test_a_run_whose_answer_is_lost_runs_once(lost: int) -> None:
    agent = FakeAgent(mutate=lose(lost, 1))
    board = loaded(agent)
    assert board.run().samples == len(INPUTS)
    assert board.idle(3.0, expect_s=0.0).ticks == 3000
    assert agent.executions == [1, 2]


def test_a_run_that_never_arrived_is_sent_again() -> None:
    agent = FakeAgent(unheard=deafen(Kind.RUN, 2))
    board = loaded(agent)
    assert board.run().samples == len(INPUTS)
    assert agent.executions == [1]


def test_the_line_is_silent_while_a_run_is_expected_to_last() -> None:
    agent = FakeAgent(run_s=30.0)
    board = loaded(agent)
    before = len(agent.requests)
    board.run(expect_s=40.0)
    assert agent.requests[before:] == [Kind.RUN]
    before = len(agent.requests)
    board.run(expect_s=5.0)  # longer than expected: asked after
    assert agent.requests[before] is Kind.RUN
    assert set(agent.requests[before + 1 :]) == {Kind.STATUS}
    assert agent.executions == [1, 2]


def test_a_run_without_end_is_given_up() -> None:
    agent = FakeAgent(run_s=1e6)
    board = loaded(agent)
    began = agent.now_s
    with pytest.raises(BoardError, match=r"RUN 1 has no end after .* it was seen to start"):
        board.run(expect_s=10.0)
    assert 60 < agent.now_s - began < 120


def test_a_failed_run_names_its_operator() -> None:
    agent = FakeAgent(fault_op=3)
    board = loaded(agent)
    with pytest.raises(BoardError, match="run 1 failed on the board at operator 3 of 5"):
        board.run()


def test_a_reset_between_is_told() -> None:
    agent = FakeAgent()
    board = loaded(agent)
    board.require_same_board()
    agent.reset()
    with pytest.raises(BoardError, match="is gone, the board has none: it was reset"):
        board.require_same_board()
    with pytest.raises(RefusedError, match="refuses RUN: it has no such session") as caught:
        board.run()
    assert caught.value.code == Refusal.NO_SESSION
    loaded(agent).run()


def test_a_reset_while_it_runs_is_told() -> None:
    agent = FakeAgent(run_s=5.0)
    board = loaded(agent)

    def reset_at_start(frame: Frame) -> Frame:
        if frame.kind == STARTED:
            agent.reset()
            agent.run_s = 0.0
        return frame

    agent.mutate = reset_at_start
    with pytest.raises(BoardError, match=r"refuses STATUS: .*the board was reset"):
        board.run()


def test_another_host_that_took_the_board_is_told() -> None:
    agent = FakeAgent()
    mine = loaded(agent)
    loaded(agent)
    with pytest.raises(BoardError, match="another host took it"):
        mine.require_same_board()


def test_a_busy_board_is_asked_again() -> None:
    agent = FakeAgent(busy_answers=5)
    board = client(agent)
    assert board.echo(b"x") == b"x"
    agent.busy_answers = 1000
    with pytest.raises(RefusedError, match="it is busy"):
        board.echo(b"x")


def test_silence_is_told_with_what_came() -> None:
    agent = FakeAgent(mutate=lambda frame: None)
    agent.noise(b"\xff\xfe\0boot garbage\0")
    with pytest.raises(BoardError, match=r"fake: no answer to HELLO after 9 tries .*2 damaged"):
        client(agent).hello()
    assert agent.requests == [Kind.HELLO] * 9


def test_an_unplugged_link_is_a_link_error() -> None:
    agent = FakeAgent()
    board = loaded(agent)
    with board:
        pass
    with pytest.raises(LinkError, match="unplugged"):
        board.run()


def test_late_answers_are_not_taken_for_others() -> None:
    agent = FakeAgent()
    board = client(agent)
    agent.noise(encode_frame(Kind.ECHO | REPLY, 200, b"stale"))
    assert board.echo(b"fresh") == b"fresh"
    assert board.counts.late == 1


def test_versions_must_match() -> None:
    agent = FakeAgent(protocol=2)
    with pytest.raises(BoardError, match=r"speaks protocol 2 .* install the firmware"):
        client(agent).hello()


@pytest.mark.parametrize(
    ("raw", "weights", "inputs", "message"),
    [
        (table(2000), b"", INPUTS, "the op table take 8096 bytes; the board takes 4096"),
        (table(), bytes(9000), INPUTS, "the weights take 9000 bytes; the board takes 8192"),
        (table(), b"", INPUTS * 100, "the 400 inputs take 6400 bytes; the board takes 4096"),
        (table(), b"", [b"short"], "input 0 has 5 bytes; the network takes 16"),
        (b"DRBT", b"", INPUTS, "4 bytes that begin with b'DRBT' are no op table"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_sent(
    raw: bytes, weights: bytes, inputs: list[bytes], message: str
) -> None:
    agent = FakeAgent()
    with pytest.raises(BoardError, match=message):
        client(agent).download(raw, weights, inputs)
    assert agent.begins == 0


def test_wrong_requests_are_refused_here() -> None:
    agent = FakeAgent()
    with pytest.raises(BoardError, match="no network is on the board"):
        client(agent).run()
    board = loaded(agent)
    for wrong, message in (
        (lambda: board.run(3, 2), "samples 3 to 5"),
        (lambda: board.run(0, 0), "samples 0 to 0"),
        (lambda: board.run(0, 1, 0), "0 passes"),
        (lambda: board.force({3: 1}), "decision 3; the network has 3"),
        (lambda: board.thresholds([1.0]), "1 thresholds; the network has 2"),
        (lambda: board.write_inputs(INPUTS, first=1), "inputs 1 to 5; the session has room for 4"),
        (lambda: board.records(), "nothing has run"),
    ):
        with pytest.raises(BoardError, match=message):
            wrong()
    assert agent.executions == []


def test_an_invalid_table_is_told_with_its_place() -> None:
    agent = FakeAgent(table_fault=12)
    with pytest.raises(BoardError, match=r"refuses COMMIT: the op table is invalid \(at 12\)"):
        loaded(agent)


def test_memory_that_does_not_keep_what_it_is_given_is_told() -> None:
    agent = FakeAgent()

    def forgetful(frame: Frame) -> Frame:
        if frame.kind == Kind.CRC | REPLY:
            return dataclasses.replace(frame, payload=bytes(4))
        return frame

    agent.mutate = forgetful
    with pytest.raises(BoardError, match="TABLE on the board has CRC-32 00000000"):
        loaded(agent)


def test_records_that_are_not_those_of_the_run_are_refused() -> None:
    agent = FakeAgent()
    board = loaded(agent)
    board.run()
    agent.memory[Region.ANSWERS][5] ^= 1
    with pytest.raises(BoardError, match="run 1: the records' CRC-32"):
        board.records()


def test_an_unknown_refusal_is_told_by_its_number() -> None:
    agent = FakeAgent()

    def strange(frame: Frame) -> Frame:
        return Frame(kind=NAK, sequence=frame.sequence, payload=struct.pack("<BBI", 99, 2, 5))

    agent.mutate = strange
    with pytest.raises(RefusedError, match="refuses ECHO: code 99, detail 5"):
        client(agent).echo(b"")


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(0, 2e-3), st.floats(0, 2e-3), st.floats(0, 1e-3))
def test_a_bad_line_changes_nothing(seed: int, flip: float, drop: float, insert: float) -> None:
    agent = FakeAgent(max_payload=512)
    damage = Damage(flip=flip, drop=drop, insert=insert, double=drop / 2, seed=seed)
    link = DamagedLink(agent, damage)
    board = loaded(agent, link, retries=40)
    assert agent.memory[Region.WEIGHTS] == WEIGHTS
    for _ in range(3):
        board.run()
        assert [r.answer.tobytes() for r in board.records()] == [answer_of(x) for x in INPUTS]
    assert agent.executions == [1, 2, 3]


def test_a_throttled_line_takes_its_time_and_damage_is_counted() -> None:
    agent, slept = FakeAgent(), list[float]()
    damage = Damage(flip=0.01, drop=0.01, double=0.01, insert=0.01, bytes_per_s=1000, seed=3)
    link = DamagedLink(agent, damage, sleep=slept.append)
    link.write(bytes(2000))
    assert sum(slept) == pytest.approx(2.0)
    counts = link.counts
    assert min(counts.flipped, counts.dropped, counts.doubled, counts.inserted) > 5
    assert counts.total == counts.flipped + counts.dropped + counts.doubled + counts.inserted


def test_the_same_seed_damages_the_same_bytes() -> None:
    class Sink:
        name, emulated = "sink", True

        def __init__(self) -> None:
            self.got = b""

        def read(self, timeout_s: float) -> bytes:
            return b""

        def write(self, data: bytes) -> None:
            self.got += data

        def close(self) -> None:
            pass

    outcomes = []
    for seed in (1, 1, 2):
        sink = Sink()
        link = DamagedLink(sink, Damage(flip=0.05, drop=0.05, insert=0.02, seed=seed))
        link.write(bytes(range(256)))
        outcomes.append(sink.got)
    assert outcomes[0] == outcomes[1] != outcomes[2]
    assert outcomes[0] != bytes(range(256))


@pytest.mark.parametrize("wrong", [{"flip": 1.0}, {"drop": -0.1}, {"bytes_per_s": -1.0}])
def test_damage_is_checked(wrong: dict[str, float]) -> None:
    from dynrt.errors import MeasureError

    with pytest.raises(MeasureError, match="damage:"):
        Damage(**wrong)  # type: ignore[arg-type]
