"""Byte streams to boards and meters: serial ports, replayed captures, and a tap for the journal.

Every failure of a port is a ``LinkError`` of one line: missing, no permission, taken by another
program, unplugged.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, Self, runtime_checkable

from dynrt.errors import LinkError, MissingExtraError, first_line

if TYPE_CHECKING:
    import serial

Parity = Literal["N", "E", "O"]
Clock = Callable[[], float]
#: Called with (host seconds, bytes).
Tap = Callable[[float, bytes], None]

#: A pseudo-terminal is no hardware: whatever speaks there is a program.
_PTY_FOLDER = Path("/dev/pts")
_READ_BYTES = 65536


class Link(Protocol):
    """A byte stream in both directions."""

    @property
    def name(self) -> str:
        """What people call it: the port's path."""
        ...

    @property
    def emulated(self) -> bool:
        """Whether a program, not a device, is at the other end."""
        ...

    def read(self, timeout_s: float) -> bytes:
        """What has come, at once if anything has; ``b""`` if nothing comes within ``timeout_s``.

        Raises:
            LinkError: the port was unplugged or closed.
        """
        ...

    def write(self, data: bytes) -> None:
        """Send all of ``data``.

        Raises:
            LinkError: the port was unplugged or closed, or does not take the bytes.
        """
        ...

    def close(self) -> None:
        """Give the port back; a second call does nothing."""
        ...


@runtime_checkable
class TimedLink(Protocol):
    """A link that knows when its last bytes came; what is journalled and what is decoded agree."""

    @property
    def heard_s(self) -> float:
        """Host seconds at the end of the last read that gave bytes."""
        ...


def heard_s(link: Link) -> float:
    """When the bytes of the last read came: the link's own word, or now."""
    return link.heard_s if isinstance(link, TimedLink) else time.monotonic()


class SerialLink:
    """A serial port, opened for this program alone."""

    def __init__(self, port: serial.Serial, *, clock: Clock = time.monotonic) -> None:
        self._port = port
        self._clock = clock
        self._heard_s = clock()
        self.name = str(port.port)
        self.emulated = is_pseudo_terminal(self.name)

    @property
    def heard_s(self) -> float:
        """Host seconds at the end of the last read that gave bytes."""
        return self._heard_s

    def read(self, timeout_s: float) -> bytes:
        """What has come; ``b""`` on timeout. Raises ``LinkError`` if the port is gone."""
        try:
            # One byte is waited for, the rest is what stands in the buffer: no wait for a full one.
            if self._port.timeout != timeout_s:
                self._port.timeout = timeout_s
            data: bytes = self._port.read(1)
            if data and (waiting := self._port.in_waiting):
                data += self._port.read(min(waiting, _READ_BYTES))
        except (OSError, TypeError, ValueError) as exc:  # TypeError: closed by another thread
            raise self._gone(exc) from exc
        if data:
            self._heard_s = self._clock()
        return data

    def write(self, data: bytes) -> None:
        """Send all of ``data``. Raises ``LinkError`` if the port is gone or takes no bytes."""
        try:
            self._port.write(data)
            self._port.flush()
        except Exception as exc:
            if not _is_port_failure(exc):
                raise
            raise self._gone(exc) from exc

    def close(self) -> None:
        """Give the port back."""
        with suppress(OSError):
            self._port.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _gone(self, exc: Exception) -> LinkError:
        import serial

        if isinstance(exc, serial.SerialTimeoutException):
            return LinkError(f"{self.name}: takes no bytes (is flow control wired?)")
        if not self._port.is_open:
            return LinkError(f"{self.name}: closed")
        return LinkError(f"{self.name}: unplugged, or its far end closed ({first_line(exc)})")


def _is_port_failure(exc: Exception) -> bool:
    # termios.error is no OSError, and termios does not exist everywhere.
    return isinstance(exc, OSError | TypeError | ValueError) or type(exc).__module__ == "termios"


def is_pseudo_terminal(port: str | Path) -> bool:
    """Whether ``port`` is (or points to) a pseudo-terminal."""
    return _PTY_FOLDER in Path(port).resolve().parents


def open_serial(
    port: str | Path,
    *,
    baud: int = 115_200,
    bits: Literal[7, 8] = 8,
    parity: Parity = "N",
    stop_bits: Literal[1, 2] = 1,
    dsr_dtr: bool = False,
    rts_cts: bool = False,
    xon_xoff: bool = False,
    write_timeout_s: float = 5.0,
    clock: Clock = time.monotonic,
) -> SerialLink:
    """Open ``port`` exclusively, its input buffer emptied.

    Raises:
        LinkError: no such port, no permission, taken by another program, or not a serial port.
        MissingExtraError: pyserial is not installed.
    """
    try:
        import serial
    except ModuleNotFoundError as exc:
        raise MissingExtraError("serial", "fpga") from exc
    name = str(port)
    if os.name == "posix":  # elsewhere ports are no files
        _require_port(name)
    try:
        opened = serial.Serial(
            name,
            baudrate=baud,
            bytesize=bits,
            parity=parity,
            stopbits=stop_bits,
            timeout=0.1,
            write_timeout=write_timeout_s,
            dsrdtr=dsr_dtr,
            rtscts=rts_cts,
            xonxoff=xon_xoff,
            exclusive=True,
        )
    except (OSError, ValueError) as exc:
        raise LinkError(f"{name}: {_why_not_open(exc, baud)}") from exc
    return SerialLink(opened, clock=clock)


def _require_port(name: str) -> None:
    try:
        mode = Path(name).stat().st_mode
    except OSError as exc:
        why = "no such port" if exc.errno in (errno.ENOENT, errno.ENOTDIR) else first_line(exc)
        raise LinkError(f"{name}: {why} (dynrt measure ports lists what there is)") from exc
    if not stat.S_ISCHR(mode):
        raise LinkError(f"{name}: not a serial port")


def _why_not_open(exc: Exception, baud: int) -> str:
    number = getattr(exc, "errno", None)
    text = first_line(exc)
    if number in (errno.EAGAIN, errno.EBUSY) or "exclusively lock" in text:
        return "taken by another program (its exclusive lock stands)"
    if number in (errno.EACCES, errno.EPERM):
        return "no permission (join the group that owns it, often dialout)"
    if number in (errno.ENODEV, errno.ENXIO, errno.EIO):
        return "the device behind it is gone"
    if isinstance(exc, ValueError):
        return f"does not take these settings at {baud} baud ({text})"
    return f"cannot be opened ({text})"


class ReplayLink:
    """A capture read again: each read gives the next piece, with the time at which it came.

    What is written to it is kept in ``written`` and goes nowhere.
    """

    def __init__(
        self, pieces: Iterable[tuple[float, bytes]], *, name: str = "replay", emulated: bool = True
    ) -> None:
        self._pieces: Iterator[tuple[float, bytes]] = iter(pieces)
        self._heard_s = float("nan")
        self._closed = False
        self.name = name
        self.emulated = emulated
        self.ended = False
        self.written: list[bytes] = []

    @property
    def heard_s(self) -> float:
        """The recorded host time of the last piece."""
        return self._heard_s

    def read(self, timeout_s: float) -> bytes:
        """The next piece, at once; ``b""`` at the end (``ended`` is then true)."""
        self._require_open()
        del timeout_s
        piece = next(self._pieces, None)
        if piece is None:
            self.ended = True
            return b""
        self._heard_s, data = piece
        return data

    def write(self, data: bytes) -> None:
        """Keep ``data`` in ``written``."""
        self._require_open()
        self.written.append(data)

    def close(self) -> None:
        """End the replay."""
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise LinkError(f"{self.name}: closed")


class TapLink:
    """A link whose bytes are shown to the journal before anybody else has them.

    Args:
        link: the link itself.
        on_read: called with what was read, before ``read`` returns it.
        on_write: called with what is to be written, before it is sent.
        clock: host seconds of writes, and of reads if ``link`` does not know them.
    """

    def __init__(
        self,
        link: Link,
        on_read: Tap | None = None,
        on_write: Tap | None = None,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._link = link
        self._on_read, self._on_write = on_read, on_write
        self._clock = clock
        self._heard_s = clock()
        self.name = link.name
        self.emulated = link.emulated

    @property
    def heard_s(self) -> float:
        """Host seconds of the last piece, the same as the journal has."""
        return self._heard_s

    def read(self, timeout_s: float) -> bytes:
        """As the link; the journal has the bytes first."""
        data = self._link.read(timeout_s)
        if data:
            timed = isinstance(self._link, TimedLink)
            self._heard_s = self._link.heard_s if timed else self._clock()  # type: ignore[attr-defined]
            if self._on_read is not None:
                self._on_read(self._heard_s, data)
        return data

    def write(self, data: bytes) -> None:
        """As the link; the journal has the bytes first."""
        if self._on_write is not None:
            self._on_write(self._clock(), data)
        self._link.write(data)

    def close(self) -> None:
        """Close the link."""
        self._link.close()
