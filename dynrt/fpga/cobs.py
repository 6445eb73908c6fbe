"""Consistent overhead byte stuffing: bytes without zeros, so that a zero can end a frame.

S. Cheshire, M. Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Trans. Networking 7(2), 1999.
"""

from __future__ import annotations

from dynrt.errors import BoardError

#: The longest run that one code byte stands for; a full run carries no zero after it.
_RUN = 254
_FULL = 255


def encode(data: bytes) -> bytes:
    """``data`` without a zero byte, at most one byte in 254 (and one) longer."""
    out = bytearray()
    for run in data.split(b"\0"):
        at = 0
        while len(run) - at >= _RUN:
            out.append(_FULL)
            out += run[at : at + _RUN]
            at += _RUN
        out.append(len(run) - at + 1)
        out += run[at:]
    return bytes(out)


def decode(data: bytes) -> bytes:
    """What ``encode`` was given.

    Raises:
        BoardError: ``data`` is empty, holds a zero, or ends inside a run.
    """
    if not data:
        raise BoardError("COBS: an empty block")
    out = bytearray()
    at = 0
    while at < len(data):
        code = data[at]
        end = at + code
        if code == 0 or end > len(data) or data.find(0, at, end) >= 0:
            raise BoardError(f"COBS: a wrong block at byte {at} of {len(data)}")
        out += data[at + 1 : end]
        at = end
        if code != _FULL and at < len(data):
            out.append(0)
    return bytes(out)
