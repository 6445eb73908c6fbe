"""Puts everything into the journal first, and then before the digest; from several threads."""

from __future__ import annotations

import struct
import threading
import time
import zlib
from collections.abc import Callable

from dynrt.errors import DynrtError, MeasureError
from dynrt.fpga.digest import Digest
from dynrt.fpga.journal import Journal, Kind
from dynrt.fpga.meters import Meter
from dynrt.fpga.samples import Samples

#: A longer write to the board is the network, which the bundle holds: only its length and CRC stay.
_LONG_BYTES = 512
_POLL_S = 0.05


class Recorder:
    """The only way into a session's journal while it runs.

    Args:
        journal: of this part.
        digest: has taken the parts before.
        clock: monotonic host seconds.
    """

    def __init__(
        self, journal: Journal, digest: Digest, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.digest = digest
        self._journal = journal
        self._clock = clock
        self._lock = threading.Lock()

    def event(self, name: str, **fields: object) -> None:
        """Note what happens."""
        with self._lock:
            self.digest.feed(self._journal.event(name, fields, host_s=self._clock()))

    def meter_in(self, host_s: float, data: bytes) -> None:
        """Bytes from the meter."""
        self._add(Kind.METER_IN, data, host_s)

    def meter_out(self, host_s: float, data: bytes) -> None:
        """Bytes to the meter."""
        self._add(Kind.METER_OUT, data, host_s)

    def board_in(self, host_s: float, data: bytes) -> None:
        """Bytes from the board."""
        self._add(Kind.BOARD_IN, data, host_s)

    def board_out(self, host_s: float, data: bytes) -> None:
        """Bytes to the board."""
        if len(data) > _LONG_BYTES:
            digest = struct.pack("<II", len(data), zlib.crc32(data))
            self._add(Kind.BOARD_OUT_DIGEST, digest, host_s)
        else:
            self._add(Kind.BOARD_OUT, data, host_s)

    def latest(self) -> Samples:
        """The meter's last block."""
        with self._lock:
            return self.digest.latest

    def wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until ``done`` holds; asked under the lock. Whether it came to hold."""
        deadline = self._clock() + timeout_s
        while True:
            with self._lock:
                if done():
                    return True
            if self._clock() >= deadline:
                return False
            time.sleep(_POLL_S / 5)

    def _add(self, kind: Kind, data: bytes, host_s: float) -> None:
        with self._lock:
            self.digest.feed(self._journal.append(kind, data, host_s=host_s))


class MeterThread:
    """Reads a meter all the time, so that no buffer overflows; its link's tap fills the journal.

    Args:
        meter: started.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> bool:
        """Whether the meter failed."""
        return self._failure is not None

    def check(self) -> None:
        """Say what became of the meter.

        Raises:
            MeasureError: it failed.
        """
        if isinstance(self._failure, DynrtError):
            raise self._failure
        if self._failure is not None:
            raise MeasureError(f"the meter failed: {self._failure}") from self._failure

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._meter.read(_POLL_S)
        except Exception as exc:  # noqa: BLE001 - told by check(), in the thread that can act on it
            self._failure = exc
