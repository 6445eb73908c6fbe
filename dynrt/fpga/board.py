"""The host's side of the board: download a network, run it, read back what it decided and when."""

from __future__ import annotations

import secrets
import struct
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, Self

from dynrt.errors import BoardError
from dynrt.fpga.exchange import Exchange, LinkCounts
from dynrt.fpga.links import Link
from dynrt.fpga.records import SampleRecord, TableHead, slots, unpack_record
from dynrt.fpga.runs import Runs
from dynrt.fpga.transfer import Transfer, exactly
from dynrt.fpga.wire import (
    NONE,
    PROTOCOL,
    BoardInfo,
    Kind,
    Region,
    RunDone,
    RunFlag,
    State,
)

if TYPE_CHECKING:
    from dynrt.bundle.board_table import BoardTable

#: Called with bytes that arrived and bytes in all, while a network is downloaded.
Progress = Callable[[int, int], None]

_TABLE_VERSION = 1
_XADC_TEMPERATURE = 0
_SLOW_LINE_BYTES_PER_S = 115_200 / 10


class Board:
    """A board at the other end of a link. A context manager that closes the link.

    Args:
        link: opened by the caller; taps (a journal) and damage (tests) wrap it.
        timeout_s: the wait for an answer beyond the time its bytes take on the line.
        retries: how often a request is sent again.
        progress: called while a network is downloaded.
        bytes_per_s: speed of the line; the default is 115,200 baud.
        clock: host seconds.

    Every method raises ``LinkError`` if the link is gone, and ``BoardError`` if the board is
    silent, refuses, or was reset.
    """

    def __init__(
        self,
        link: Link,
        *,
        timeout_s: float = 1.0,
        retries: int = 8,
        progress: Progress | None = None,
        bytes_per_s: float = _SLOW_LINE_BYTES_PER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exchange = Exchange(
            link, timeout_s=timeout_s, retries=retries, bytes_per_s=bytes_per_s, clock=clock
        )
        self._runs = Runs(self._exchange)
        self._transfer = Transfer(self._exchange)
        self._progress = progress
        self._info: BoardInfo | None = None
        self._session = 0
        self._head: TableHead | None = None
        self._n_inputs = 0
        self._last: tuple[RunDone, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the link; a second call does nothing."""
        self._exchange.link.close()

    @property
    def counts(self) -> LinkCounts:
        """How the link did so far."""
        return self._exchange.counts

    @property
    def session(self) -> int:
        """The number of the downloaded network; 0 before."""
        return self._session

    def hello(self) -> BoardInfo:
        """Who the board is, asked anew.

        Raises:
            BoardError: it speaks another protocol or op table version than this dynrt.
        """
        info = BoardInfo.unpack(self._exchange.request(Kind.HELLO, reply_bytes=80))
        if (info.protocol, info.table_version) != (PROTOCOL, _TABLE_VERSION):
            raise BoardError(
                f"{self._exchange.link.name}: the agent speaks protocol {info.protocol} with op"
                f" tables of version {info.table_version}; this dynrt speaks {PROTOCOL} and"
                f" {_TABLE_VERSION}: install the firmware that comes with it"
            )
        self._info = info
        return info

    def require_same_board(self) -> None:
        """Ask who is there.

        Raises:
            BoardError: the session is gone, since the board was reset or another host took it.
        """
        info = self.hello()
        if info.session != self._session:
            self._lost(info)

    def download(
        self,
        table: BoardTable | bytes,
        weights: bytes,
        inputs: Sequence[bytes],
        *,
        session: int | None = None,
    ) -> int:
        """Replace what the board has by this network and these samples, and check every byte.

        Args:
            table: the op table.
            weights: its WEIGHTS region.
            inputs: one block of bytes per sample; room for as many remains on the board.
            session: a number other than 0, or one drawn at random.

        Returns:
            The session's number.

        Raises:
            BoardError: a part is larger than the board takes, or the table is invalid.
        """
        info = self.hello()
        raw = table if isinstance(table, bytes) else _encode(table)
        head = TableHead.unpack(raw)
        number = secrets.randbelow(NONE - 1) + 1 if session is None else session
        joined = _join(inputs, head.input_bytes)
        for what, got, cap in (
            ("op table", len(raw), info.table_cap),
            ("weights", len(weights), info.weights_cap),
            (f"{len(inputs)} inputs", len(joined), info.inputs_cap),
        ):
            if got > cap:
                raise BoardError(f"the {what} take {got} bytes; the board takes {cap}")
        begin = struct.pack("<5I", number, len(raw), len(weights), len(inputs), head.input_bytes)
        self._exchange.request(Kind.BEGIN, begin)
        self._session, self._head, self._n_inputs, self._last = number, head, len(inputs), None
        self._runs.begin(number)
        self._transfer.begin(number, max_payload=info.max_payload)
        total, done = len(raw) + len(weights) + len(joined), 0
        for region, data in (
            (Region.TABLE, raw),
            (Region.WEIGHTS, weights),
            (Region.INPUTS, joined),
        ):
            self._transfer.write(region, 0, data, self._teller(done, total))
            self._transfer.check(region, 0, data)
            done += len(data)
        commit = struct.pack("<3I", number, zlib.crc32(raw), zlib.crc32(weights))
        self._exchange.request(Kind.COMMIT, commit)
        return number

    def write_inputs(self, inputs: Sequence[bytes], *, first: int = 0) -> None:
        """Replace samples from ``first`` on; checked by CRC-32.

        Raises:
            BoardError: there is no room for them.
        """
        head = self._network()
        if not 0 <= first <= first + len(inputs) <= self._n_inputs:
            raise BoardError(
                f"inputs {first} to {first + len(inputs)}; the session has room for {self._n_inputs}"
            )
        data = _join(inputs, head.input_bytes)
        self._transfer.write(Region.INPUTS, first * head.input_bytes, data)
        self._transfer.check(Region.INPUTS, first * head.input_bytes, data)

    def write_parameter(self, offset: int, data: bytes) -> None:
        """Replace bytes of WEIGHTS after COMMIT: a runtime parameter; checked by CRC-32."""
        self._network()
        self._transfer.write(Region.WEIGHTS, offset, data)
        self._transfer.check(Region.WEIGHTS, offset, data)

    def force(self, values: Mapping[int, int | None]) -> None:
        """Fix decisions by index, or let the board decide again (None).

        Of a control node the value is the bits of its active actions; an exit refuses with 0 and
        accepts with 1.

        Raises:
            BoardError: no such decision.
        """
        head = self._network()
        for index, value in sorted(values.items()):
            if not 0 <= index < head.n_decisions:
                raise BoardError(f"decision {index}; the network has {head.n_decisions}")
            data = struct.pack("<I", NONE if value is None else value)
            self._transfer.write(Region.FORCE, 4 * index, data)
            self._transfer.check(Region.FORCE, 4 * index, data)

    def thresholds(self, values: Sequence[float]) -> None:
        """Replace all thresholds, in the table's order.

        Raises:
            BoardError: too few or too many.
        """
        head = self._network()
        if len(values) != head.n_thresholds:
            raise BoardError(f"{len(values)} thresholds; the network has {head.n_thresholds}")
        data = struct.pack(f"<{len(values)}d", *values)
        self._transfer.write(Region.THRESHOLDS, 0, data)
        self._transfer.check(Region.THRESHOLDS, 0, data)

    def run(
        self,
        first: int = 0,
        count: int | None = None,
        passes: int = 1,
        *,
        mark: bool = False,
        op_ticks: bool = False,
        expect_s: float = 0.0,
    ) -> RunDone:
        """Run ``count`` samples from ``first`` on, ``passes`` times over, as one window.

        Args:
            first: index of the first sample.
            count: how many; all that follow by default.
            passes: how often.
            mark: whether the marker line is driven.
            op_ticks: whether every operator's ticks are summed.
            expect_s: about how long it takes, in host seconds; the line stays quiet so long.

        Raises:
            BoardError: out of bounds, or the run failed on the board.
        """
        head = self._network()
        n = self._n_inputs - first if count is None else count
        if not (0 <= first < first + n <= self._n_inputs and passes >= 1):
            raise BoardError(
                f"samples {first} to {first + n}, {passes} passes: the session has"
                f" {self._n_inputs} samples, and one pass is the least"
            )
        flags = RunFlag.MARKER * mark | RunFlag.OP_TICKS * op_ticks
        done = self._runs.run(first, n, passes, flags, expect_s=expect_s)
        if done.state is State.FAULT or done.fault_op is not None:
            where = f"operator {done.fault_op} of {head.n_ops}"
            raise BoardError(f"run {done.run_id} failed on the board at {where}")
        if done.samples != n * passes:
            raise BoardError(f"run {done.run_id} ran {done.samples} samples of {n * passes}")
        self._last = (done, n * passes)
        return done

    def idle(self, seconds: float, *, mark: bool = True, expect_s: float | None = None) -> RunDone:
        """Let the board wait for ``seconds`` of its own clock.

        Args:
            seconds: by the board's clock.
            mark: whether the marker line is driven, so that the meter sees a window.
            expect_s: as for ``run``; ``seconds`` by default, which an emulated board undercuts.
        """
        self._network()
        ticks = round(seconds * self._require_info().ticks_per_s)
        flags = RunFlag.MARKER * mark
        return self._runs.idle(ticks, flags, expect_s=seconds if expect_s is None else expect_s)

    def records(self, n: int | None = None) -> list[SampleRecord]:
        """The last ``n`` samples of the last run (all by default), oldest first.

        If these are all samples of the run, they are checked against the CRC-32 that it ended with.

        Raises:
            BoardError: nothing ran, or the board no longer has that many, or the CRC is wrong.
        """
        head, info = self._network(), self._require_info()
        if self._last is None:
            raise BoardError("nothing has run in this session")
        done, total = self._last
        wanted = total if n is None else n
        if not 0 < wanted <= min(total, info.log_cap):
            raise BoardError(
                f"{wanted} records of a run of {total}; the board keeps the last {info.log_cap}"
            )
        out, crc = [], 0
        for start, size in slots(total - wanted, wanted, info.log_cap):
            log = self._transfer.read(
                Region.LOG, start * head.record_bytes, size * head.record_bytes
            )
            raw = self._transfer.read(
                Region.ANSWERS, start * head.answer_bytes, size * head.answer_bytes
            )
            for i in range(size):
                record = log[i * head.record_bytes : (i + 1) * head.record_bytes]
                slot = raw[i * head.answer_bytes : (i + 1) * head.answer_bytes]
                answer = slot[: struct.unpack_from("<I", record, 8)[0]]
                crc = zlib.crc32(answer, zlib.crc32(record[:12] + record[20:], crc))
                out.append(unpack_record(record, answer))
        if wanted == total and crc != done.crc:
            raise BoardError(
                f"run {done.run_id}: the records' CRC-32 is {crc:08x}, the board said {done.crc:08x}"
            )
        return out

    def op_ticks(self) -> tuple[int, ...]:
        """Ticks per operator, summed over the last run with ``op_ticks``."""
        n = self._network().n_ops
        return struct.unpack(f"<{n}Q", self._transfer.read(Region.OPTICKS, 0, 8 * n))

    def ticks(self) -> int:
        """The board's clock, now."""
        reply = self._exchange.request(Kind.TIME)
        return int(struct.unpack("<Q", exactly(reply, 8, "TIME"))[0])

    def echo(self, data: bytes) -> bytes:
        """``data`` as the board sent it back."""
        return self._exchange.request(Kind.ECHO, data, reply_bytes=len(data))

    def temperature_c(self) -> float | None:
        """The die's temperature; None where the sensor reads zero, as in emulation."""
        request = struct.pack("<I", _XADC_TEMPERATURE)
        reply = exactly(self._exchange.request(Kind.XADC, request), 8, "XADC")
        code = struct.unpack("<2I", reply)[1] >> 4
        return code * 503.975 / 4096 - 273.15 if code else None

    def _teller(self, before: int, total: int) -> Callable[[int], None] | None:
        progress = self._progress
        return None if progress is None else lambda done: progress(before + done, total)

    def _network(self) -> TableHead:
        if self._head is None:
            raise BoardError("no network is on the board: download one first")
        return self._head

    def _require_info(self) -> BoardInfo:
        return self._info or self.hello()

    def _lost(self, info: BoardInfo) -> NoReturn:
        raise BoardError(
            f"{self._exchange.link.name}: session {self._session} is gone, the board has"
            f" {info.session or 'none'}: it was reset (reason {info.reset_reason:#x}), or another"
            " host took it"
        )


def _encode(table: BoardTable) -> bytes:
    from dynrt.bundle.board_table import encode

    return encode(table)


def _join(inputs: Sequence[bytes], size: int) -> bytes:
    for i, block in enumerate(inputs):
        if len(block) != size:
            raise BoardError(f"input {i} has {len(block)} bytes; the network takes {size}")
    return b"".join(inputs)
