"""A board agent in Python, for what the real one does only when things go wrong."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from dynrt.errors import LinkError
from dynrt.fpga.wire import (
    DONE,
    NAK,
    NONE,
    REPLY,
    STARTED,
    Frame,
    FrameReader,
    Kind,
    Refusal,
    Region,
    RunDone,
    State,
    encode_frame,
)

N_OPS, N_DECISIONS, N_THRESHOLDS = 5, 3, 2
INPUT_BYTES = ANSWER_BYTES = 16
LOG_CAP = 8


def table(extra_words: int = 10) -> bytes:
    """An op table of which only the header means anything to the fake."""
    words = [0] * 24
    words[0] = int.from_bytes(b"DRBT", "little")
    words[1], words[2], words[5], words[7] = 1, 24 + extra_words, N_OPS, N_THRESHOLDS
    words[10], words[11], words[12] = INPUT_BYTES, ANSWER_BYTES, N_DECISIONS
    return struct.pack(f"<{24 + extra_words}I", *words, *range(1, extra_words + 1))


def answer_of(data: bytes) -> bytes:
    """What the fake network makes of one sample: four floats doubled."""
    return struct.pack("<4f", *(2 * v for v in struct.unpack("<4f", data)))


@dataclass(slots=True)
class FakeAgent:
    """A link with an agent behind it, on a clock that only waiting moves.

    ``mutate`` may replace (or drop, with None) any frame before it reaches the host, ``unheard``
    drops requests before they reach the agent.
    """

    name: str = "fake"
    emulated: bool = True
    protocol: int = 1
    max_payload: int = 256
    run_s: float = 0.0
    busy_answers: int = 0
    mutate: Callable[[Frame], Frame | None] = lambda frame: frame
    unheard: Callable[[Frame], bool] = lambda frame: False
    now_s: float = 0.0
    session: int = 0
    closed: bool = False
    executions: list[int] = field(default_factory=list)
    begins: int = 0
    requests: list[Kind] = field(default_factory=list)
    memory: dict[Region, bytearray] = field(default_factory=dict)
    committed: bool = False
    table_fault: int | None = None
    fault_op: int | None = None
    xadc: int = 0
    _reader: FrameReader = field(default_factory=FrameReader)
    _out: bytearray = field(default_factory=bytearray)
    _due: list[tuple[float, Frame]] = field(default_factory=list)
    _done: dict[int, tuple[bytes, RunDone]] = field(default_factory=dict)
    _until_s: float = 0.0

    def clock(self) -> float:
        """For the client under test."""
        return self.now_s

    def read(self, timeout_s: float) -> bytes:
        """What the agent has sent; otherwise time passes."""
        self._require_open()
        if not self._out:
            end = self.now_s + timeout_s
            ready = [at for at, _ in self._due if at <= end]
            self.now_s = max(self.now_s, min(ready)) if ready else end
            for entry in [e for e in self._due if e[0] <= self.now_s]:
                self._due.remove(entry)
                self._send(entry[1])
        data = bytes(self._out)
        self._out.clear()
        return data

    def write(self, data: bytes) -> None:
        """Bytes for the agent."""
        self._require_open()
        before = self._reader.damaged
        for frame in self._reader.feed(data):
            if not self.unheard(frame):
                self._take(frame)
        for _ in range(self._reader.damaged - before):
            self._send(Frame(kind=NAK, sequence=0, payload=struct.pack("<BBI", Refusal.CRC, 0, 0)))

    def close(self) -> None:
        """Unplug."""
        self.closed = True

    def reset(self) -> None:
        """Forget everything, as a board does."""
        self.session, self.committed = 0, False
        self.memory.clear()
        self._done.clear()
        self._due.clear()

    def noise(self, data: bytes) -> None:
        """Bytes that nobody sent."""
        self._out += data

    def _require_open(self) -> None:
        if self.closed:
            raise LinkError("fake: unplugged")

    def _send(self, frame: Frame) -> None:
        sent = self.mutate(frame)
        if sent is not None:
            self._out += encode_frame(sent.kind, sent.sequence, sent.payload)

    def _refuse(self, frame: Frame, code: Refusal, detail: int = 0) -> None:
        payload = struct.pack("<BBI", code, frame.kind, detail)
        self._send(Frame(kind=NAK, sequence=frame.sequence, payload=payload))

    def _reply(self, frame: Frame, payload: bytes) -> None:
        self._send(Frame(kind=frame.kind | REPLY, sequence=frame.sequence, payload=payload))

    def _take(self, frame: Frame) -> None:
        kind = Kind(frame.kind)
        self.requests.append(kind)
        body = frame.payload
        if self.busy_answers and kind is not Kind.HELLO:
            self.busy_answers -= 1
            self._refuse(frame, Refusal.BUSY)
        elif kind is Kind.HELLO:
            caps = (4096, 8192, 65536, 4096)
            words = (
                self.protocol,
                1,
                0,
                0,
                1000,
                *caps,
                self.max_payload,
                self.session,
                0,
                LOG_CAP,
            )
            self._reply(frame, struct.pack("<13I16s", *words, b"fake"))
        elif kind is Kind.ECHO:
            self._reply(frame, body)
        elif kind is Kind.TIME:
            self._reply(frame, struct.pack("<Q", int(self.now_s * 1000)))
        elif kind is Kind.XADC:
            self._reply(frame, body + struct.pack("<I", self.xadc))
        elif kind is Kind.BEGIN:
            self._begin(frame)
        elif struct.unpack_from("<I", body)[0] != self.session or not self.session:
            self._refuse(frame, Refusal.NO_SESSION)
        elif kind in (Kind.WRITE, Kind.READ, Kind.CRC):
            self._memory(frame, kind)
        elif kind is Kind.COMMIT:
            self._commit(frame)
        elif kind is Kind.STATUS:
            self._status(frame)
        else:
            self._run(frame, kind)

    def _begin(self, frame: Frame) -> None:
        self.reset()
        self.begins += 1
        self.session, n_table, n_weights, n, size = struct.unpack("<5I", frame.payload)
        sizes = {
            Region.TABLE: n_table,
            Region.WEIGHTS: n_weights,
            Region.INPUTS: n * size,
            Region.THRESHOLDS: 8 * N_THRESHOLDS,
            Region.LOG: LOG_CAP * 4 * (5 + N_DECISIONS),
            Region.OPTICKS: 8 * N_OPS,
            Region.ANSWERS: LOG_CAP * ANSWER_BYTES,
        }
        self.memory = {region: bytearray(count) for region, count in sizes.items()}
        self.memory[Region.FORCE] = bytearray(b"\xff" * 4 * N_DECISIONS)
        self._reply(frame, struct.pack("<I", self.session))

    def _memory(self, frame: Frame, kind: Kind) -> None:
        _, code, offset = struct.unpack_from("<IB3xI", frame.payload)
        area = self.memory[Region(code)]
        if kind is Kind.WRITE:
            data = frame.payload[12:]
            if offset + len(data) > len(area):
                self._refuse(frame, Refusal.BOUNDS, offset)
                return
            area[offset : offset + len(data)] = data
            self._reply(frame, struct.pack("<2I", offset, len(data)))
            return
        length = struct.unpack_from("<I", frame.payload, 12)[0]
        if offset + length > len(area):
            self._refuse(frame, Refusal.BOUNDS, offset)
            return
        part = bytes(area[offset : offset + length])
        self._reply(frame, part if kind is Kind.READ else struct.pack("<I", zlib.crc32(part)))

    def _commit(self, frame: Frame) -> None:
        _, table_crc, weights_crc = struct.unpack("<3I", frame.payload)
        if self.table_fault is not None:
            self._refuse(frame, Refusal.TABLE, self.table_fault)
            return
        assert table_crc == zlib.crc32(self.memory[Region.TABLE])
        assert weights_crc == zlib.crc32(self.memory[Region.WEIGHTS])
        self.committed = True
        self._reply(frame, struct.pack("<I", 1))

    def _status(self, frame: Frame) -> None:
        run_id = struct.unpack_from("<I", frame.payload, 4)[0]
        if run_id not in self._done:
            state, done = State.UNKNOWN, None
        else:
            done = self._done[run_id][1]
            state = State.RUNNING if self.now_s < self._until_s else done.state
        blank = RunDone(
            run_id=run_id,
            state=state,
            start_ticks=0,
            end_ticks=0,
            mac_ticks=0,
            samples=0,
            crc=0,
            fault_op=None,
        )
        shown = done if done is not None and state in (State.DONE, State.FAULT) else blank
        self._reply(frame, shown.pack())

    def _run(self, frame: Frame, kind: Kind) -> None:
        if not self.committed:
            self._refuse(frame, Refusal.NOT_COMMITTED)
            return
        run_id = struct.unpack_from("<I", frame.payload, 4)[0]
        if run_id in self._done:
            request, done = self._done[run_id]
            if request != frame.payload:
                self._refuse(frame, Refusal.RUN_ID, run_id)
                return
        else:
            done = self._execute(run_id, frame.payload, kind)
            self._done[run_id] = (frame.payload, done)
            self._until_s = self.now_s + self.run_s
        self._send(Frame(kind=STARTED, sequence=frame.sequence, payload=struct.pack("<I", run_id)))
        over = Frame(kind=DONE, sequence=frame.sequence, payload=done.pack())
        self._due.append((max(self._until_s, self.now_s), over))

    def _execute(self, run_id: int, payload: bytes, kind: Kind) -> RunDone:
        self.executions.append(run_id)
        start = int(self.now_s * 1000)
        if kind is Kind.IDLE:
            ticks, samples, crc = struct.unpack_from("<Q", payload, 8)[0], 0, 0
        else:
            first, count, passes, _ = struct.unpack_from("<4I", payload, 8)
            crc = 0
            for i in range(count * passes):
                crc = self._sample(i, first + i % count, crc)
            ticks, samples = 10 * count * passes, count * passes
        return RunDone(
            run_id=run_id,
            state=State.DONE if self.fault_op is None else State.FAULT,
            start_ticks=start,
            end_ticks=start + ticks,
            mac_ticks=ticks // 2,
            samples=samples,
            crc=crc,
            fault_op=self.fault_op,
        )

    def _sample(self, i: int, index: int, crc: int) -> int:
        inputs = self.memory[Region.INPUTS]
        data = bytes(inputs[index * INPUT_BYTES : (index + 1) * INPUT_BYTES])
        answer = answer_of(data)
        forced = struct.unpack(f"<{N_DECISIONS}I", self.memory[Region.FORCE])
        own = (index & 1, 1, NONE)
        decisions = [o if f == NONE else f for o, f in zip(own, forced, strict=True)]
        record = struct.pack("<3IQ3I", index, 1, len(answer), 10 + i, *decisions)
        slot = i % LOG_CAP
        self.memory[Region.LOG][slot * 32 : (slot + 1) * 32] = record
        self.memory[Region.ANSWERS][slot * ANSWER_BYTES : (slot + 1) * ANSWER_BYTES] = answer
        return zlib.crc32(answer, zlib.crc32(record[:12] + record[20:], crc))
