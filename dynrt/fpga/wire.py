"""The wire between host and board: frames, the layouts of their payloads, and marker lines.

A frame is a zero, COBS(body), a zero; a body is type, sequence number, payload and the CRC-32 of
what stands before it. A reply has its request's sequence number and its type with the top bit set.
All numbers are little endian. The C side is ``firmware/protocol.c``.
"""

from __future__ import annotations

import binascii
import re
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

from dynrt.errors import BoardError
from dynrt.fpga import cobs

PROTOCOL = 1
REPLY = 0x80
NAK = 0xFF
NONE = 0xFFFF_FFFF
#: type, sequence number and CRC-32.
BODY_OVERHEAD = 6
#: session, region with three bytes of padding, offset.
WRITE_HEAD_BYTES = 12
#: A longer frame is noise: the largest payload, COBS's overhead, and room.
_MOST_FRAME_BYTES = 16_384


class Kind(IntEnum):
    """Types of requests."""

    HELLO = 0x01
    ECHO = 0x02
    TIME = 0x03
    XADC = 0x04
    BEGIN = 0x10
    WRITE = 0x11
    CRC = 0x12
    COMMIT = 0x13
    READ = 0x14
    RUN = 0x20
    STATUS = 0x21
    IDLE = 0x22


#: RUN and IDLE are answered at once; this comes when they are over.
DONE = 0xA1
STARTED = 0xA0


class Region(IntEnum):
    """What WRITE, CRC and READ reach."""

    TABLE = 0
    WEIGHTS = 1
    INPUTS = 2
    FORCE = 3
    THRESHOLDS = 4
    LOG = 5
    OPTICKS = 6
    ANSWERS = 7


class Refusal(IntEnum):
    """Codes of a NAK."""

    COBS = 1
    CRC = 2
    TYPE = 3
    LENGTH = 4
    BOUNDS = 5
    NO_SESSION = 6
    TABLE = 7
    BUSY = 8
    NOT_COMMITTED = 9
    FAULT = 10
    RUN_ID = 11


#: The frame was hurt on its way; it is sent again.
DAMAGED = frozenset({Refusal.COBS, Refusal.CRC})


class State(IntEnum):
    """States of a run."""

    UNKNOWN = 0
    RUNNING = 1
    DONE = 2
    FAULT = 3


class RunFlag(IntEnum):
    """Bits of the flags of RUN and IDLE."""

    MARKER = 1
    OP_TICKS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A body whose CRC-32 is right."""

    kind: int
    sequence: int
    payload: bytes


def encode_frame(kind: int, sequence: int, payload: bytes) -> bytes:
    """The bytes of one frame, with a zero at both ends."""
    body = bytes((kind, sequence)) + payload
    return b"\0" + cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"


def decode_body(block: bytes) -> Frame:
    """The frame between two zeros.

    Raises:
        BoardError: the block is damaged.
    """
    body = cobs.decode(block)
    if len(body) < BODY_OVERHEAD:
        raise BoardError(f"a frame of {len(body)} bytes; the least is {BODY_OVERHEAD}")
    if zlib.crc32(body[:-4]) != struct.unpack("<I", body[-4:])[0]:
        raise BoardError(f"a frame of {len(body)} bytes with a wrong CRC-32")
    return Frame(kind=body[0], sequence=body[1], payload=body[2:-4])


class FrameReader:
    """Bytes in, frames out; what is no frame is counted in ``damaged`` and dropped."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._overlong = False
        self.damaged = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` ends."""
        *blocks, rest = data.split(b"\0")
        frames = []
        for block in blocks:
            self._extend(block)
            if self._pending or self._overlong:
                try:
                    frames.append(self._take())
                except BoardError:
                    self.damaged += 1
        self._extend(rest)
        return frames

    def _extend(self, piece: bytes) -> None:
        if self._overlong or len(self._pending) + len(piece) > _MOST_FRAME_BYTES:
            self._overlong = True
            self._pending.clear()
        else:
            self._pending += piece

    def _take(self) -> Frame:
        block, overlong = bytes(self._pending), self._overlong
        self._pending.clear()
        self._overlong = False
        if overlong:
            raise BoardError(f"a frame of more than {_MOST_FRAME_BYTES} bytes")
        return decode_body(block)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardInfo:
    """What HELLO says; bytes unless a name says otherwise."""

    protocol: int
    table_version: int
    midr: int
    idcode: int
    ticks_per_s: int
    table_cap: int
    weights_cap: int
    arena_cap: int
    inputs_cap: int
    max_payload: int
    session: int
    reset_reason: int
    log_cap: int
    build: str

    @property
    def is_zynq_7020(self) -> bool:
        """Whether the part names itself an xc7z020, in any revision."""
        return self.idcode & 0x0FFF_FFFF == 0x0372_7093

    @classmethod
    def unpack(cls, payload: bytes) -> BoardInfo:
        """Read HELLO's reply; a later protocol may add to its end.

        Raises:
            BoardError: the reply is too short.
        """
        if len(payload) < _HELLO.size:
            raise BoardError(f"HELLO's reply has {len(payload)} bytes, not {_HELLO.size}")
        *words, build = _HELLO.unpack_from(payload)
        names = [name for name in cls.__dataclass_fields__ if name != "build"]
        text = build.split(b"\0")[0].decode("ascii", "replace")
        return cls(**dict(zip(names, words, strict=True)), build=text)


_HELLO = struct.Struct("<13I16s")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDone:
    """The end of a RUN or IDLE, by the board's clock.

    ``crc`` is over each sample's record without its ticks, and its answer, in order; ``fault_op``
    is the operator at which the run failed.
    """

    run_id: int
    state: State
    start_ticks: int
    end_ticks: int
    mac_ticks: int
    samples: int
    crc: int
    fault_op: int | None

    @property
    def ticks(self) -> int:
        """Length of the window."""
        return self.end_ticks - self.start_ticks

    @classmethod
    def unpack(cls, payload: bytes) -> RunDone:
        """Read the payload of DONE or STATUS's reply.

        Raises:
            BoardError: it has another length, or an unknown state.
        """
        if len(payload) != _DONE.size:
            raise BoardError(f"DONE has {len(payload)} bytes, not {_DONE.size}")
        run_id, state, start, end, mac, samples, crc, fault = _DONE.unpack(payload)
        if state > max(State):
            raise BoardError(
                f"DONE of run {run_id} has state {state}; the last known is {max(State)}"
            )
        return cls(
            run_id=run_id,
            state=State(state),
            start_ticks=start,
            end_ticks=end,
            mac_ticks=mac,
            samples=samples,
            crc=crc,
            fault_op=None if fault == NONE else fault,
        )

    def pack(self) -> bytes:
        """The payload that ``unpack`` reads."""
        fault = NONE if self.fault_op is None else self.fault_op
        ticks = (self.start_ticks, self.end_ticks, self.mac_ticks)
        return _DONE.pack(self.run_id, self.state, *ticks, self.samples, self.crc, fault)


_DONE = struct.Struct("<2I3Q3I")


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerLine:
    """One line of UART0: that a window starts, or that it ended.

    ``kind`` is ``run`` or ``idle``. At a start, ``ticks`` is the board's clock when it wrote the line,
    shortly before the window, and ``mac_ticks`` is None; at an end, ``ticks`` is the window's length.
    """

    starts: bool
    run_id: int
    kind: str
    ticks: int
    mac_ticks: int | None


_MARKER = re.compile(
    rb"(?:M1,(\d{1,10}),(run|idle),(\d{1,20})|M0,(\d{1,10}),(run|idle),(\d{1,20}),(\d{1,20}))"
    rb"\*([0-9A-F]{4})"
)


def encode_marker(marker: MarkerLine) -> bytes:
    """The line as the board writes it."""
    body = b"M%d,%d,%s,%d" % (
        marker.starts,
        marker.run_id,
        marker.kind.encode("ascii"),
        marker.ticks,
    )
    if marker.mac_ticks is not None:
        body += b",%d" % marker.mac_ticks
    return body + b"*%04X\r\n" % binascii.crc_hqx(body, 0xFFFF)


def parse_marker(line: bytes) -> MarkerLine | None:
    """A marker line without its end; None if it is none, or damaged."""
    match = _MARKER.fullmatch(line)
    if match is None or binascii.crc_hqx(line[:-5], 0xFFFF) != int(match[8], 16):
        return None
    starts = match[1] is not None
    run_id, kind, ticks = (
        (match[1], match[2], match[3]) if starts else (match[4], match[5], match[6])
    )
    return MarkerLine(
        starts=starts,
        run_id=int(run_id),
        kind=kind.decode("ascii"),
        ticks=int(ticks),
        mac_ticks=None if starts else int(match[7]),
    )
