"""Regions of the board's memory, written and read in pieces that the line lets through."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from dynrt.errors import BoardError
from dynrt.fpga.exchange import Exchange, SilenceError
from dynrt.fpga.wire import WRITE_HEAD_BYTES, Kind, Region

_LEAST_PIECE_BYTES = 64
#: After so many pieces in a row without a repetition, pieces become longer again.
_CLEAN_PIECES = 8
_PIECE_RETRIES = 2


def exactly(reply: bytes, size: int, what: str) -> bytes:
    """``reply``, if it has ``size`` bytes. Raises ``BoardError`` if not."""
    if len(reply) != size:
        raise BoardError(f"{what} gave {len(reply)} bytes, not {size}")
    return reply


class Transfer:
    """Writes, reads and checks regions; pieces halve when the line repeats them, and grow again."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._session = 0
        self._most = self._size = _LEAST_PIECE_BYTES
        self._clean = 0

    def begin(self, session: int, *, max_payload: int) -> None:
        """Reach the regions of ``session`` from now on, on a board that takes ``max_payload``."""
        self._session = session
        self._most = self._size = max(_LEAST_PIECE_BYTES, max_payload - WRITE_HEAD_BYTES)

    def check(self, region: Region, offset: int, data: bytes) -> None:
        """Compare the board's CRC-32 of a region's part with that of ``data``."""
        span = struct.pack("<IB3x2I", self._session, region, offset, len(data))
        reply = exactly(self._exchange.request(Kind.CRC, span), 4, "CRC")
        got, want = struct.unpack("<I", reply)[0], zlib.crc32(data)
        if got != want:
            raise BoardError(
                f"{region.name} on the board has CRC-32 {got:08x}, not {want:08x}: its memory fails"
            )

    def write(
        self,
        region: Region,
        offset: int,
        data: bytes,
        tell: Callable[[int], None] | None = None,
    ) -> None:
        """Write ``data`` at ``offset``; ``tell`` hears how many of its bytes are there."""
        at = 0
        while at < len(data):
            piece = data[at : at + self._size]
            head = struct.pack("<IB3xI", self._session, region, offset + at)
            reply = self._piece(Kind.WRITE, head + piece, 8)
            if reply is None:
                continue
            if reply != struct.pack("<2I", offset + at, len(piece)):
                raise BoardError(
                    f"WRITE of {region.name} at {offset + at} was answered for another"
                )
            at += len(piece)
            if tell is not None:
                tell(at)

    def read(self, region: Region, offset: int, length: int) -> bytes:
        """``length`` bytes of a region from ``offset`` on."""
        out = bytearray()
        while len(out) < length:
            size = min(self._size, length - len(out))
            span = struct.pack("<IB3x2I", self._session, region, offset + len(out), size)
            got = self._piece(Kind.READ, span, size)
            if got is not None:
                out += exactly(got, size, f"READ of {region.name}")
        return bytes(out)

    def _piece(self, kind: Kind, payload: bytes, reply_bytes: int) -> bytes | None:
        """One piece's reply; None if the line did not let it through and pieces are now shorter."""
        before = self._exchange.counts.repeated
        last = self._size <= _LEAST_PIECE_BYTES
        try:
            reply = self._exchange.request(
                kind, payload, reply_bytes=reply_bytes, retries=None if last else _PIECE_RETRIES
            )
        except SilenceError:
            if last:
                raise
            self._shrink()
            return None
        if self._exchange.counts.repeated > before:
            self._shrink()
        else:
            self._clean += 1
            if self._clean >= _CLEAN_PIECES:
                self._size, self._clean = min(2 * self._size, self._most), 0
        return reply

    def _shrink(self) -> None:
        self._size, self._clean = max(self._size // 2 & ~3, _LEAST_PIECE_BYTES), 0
