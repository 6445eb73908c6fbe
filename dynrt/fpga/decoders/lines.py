"""Lines out of a byte stream: any of CR, LF, CRLF, CRCRLF ends one, empty ones are nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator

_END = re.compile(rb"[\r\n]")


class LineSplitter:
    """Cuts a stream into lines, however it comes in pieces; memory is bounded.

    Args:
        most_bytes: a line longer than this is given as ``None`` and its length counted as
            ``overlong_bytes``.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._rest = b""
        self._dropped = 0
        self.overlong_bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """The lines that ``data`` completes, without their ends; ``None`` for each overlong one."""
        *lines, rest = _END.split(self._rest + data)
        if lines:
            head = lines[0]
            if self._dropped or len(head) > self._most:
                self.overlong_bytes += self._dropped + len(head)
                self._dropped = 0
                lines[0] = b""
                yield None
            for line in lines:
                if len(line) > self._most:
                    self.overlong_bytes += len(line)
                    yield None
                elif line:
                    yield line
        if self._dropped or len(rest) > self._most:
            self._dropped += len(rest)
            rest = b""
        self._rest = rest
