"""Nordic PPK2: 100,000 currents a second, as a source of 0.8 to 5 V or within somebody else's supply.

Its supply ends at 5 V: it cannot meter the 12 V input of a ZedBoard, but a board on one of its
rails, or any small device.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum

from dynrt.errors import LinkError, MeasureError, MeterError
from dynrt.fpga.decoders.ppk2 import WORDS_PER_S, Ppk2Decoder
from dynrt.fpga.links import Link, heard_s
from dynrt.fpga.meters.protocol import CrossCheck, MeterIdentity, MeterSettings, source_of
from dynrt.fpga.samples import DecodeCounts, Samples

_LEAST_VOLTS, _MOST_VOLTS = 0.8, 5.0


class Command(IntEnum):
    """The first byte of a command; the rest are its arguments."""

    AVERAGE_START = 0x06
    AVERAGE_STOP = 0x07
    DEVICE_RUNNING = 0x0C
    REGULATOR = 0x0D
    POWER_MODE = 0x11
    GET_METADATA = 0x19


_AMPERE_METER, _SOURCE_METER = 1, 2


def ppk2_decoder(settings: MeterSettings) -> Ppk2Decoder:
    """The decoder of what a kit sends under ``settings``."""
    volts = settings.source_volts if settings.source_volts is not None else settings.supply_volts
    return Ppk2Decoder(volts=volts, marker_input=settings.marker_input)


class Ppk2Meter:
    """The kit on its USB serial line.

    Args:
        link: its line.
        settings: ``source_volts`` makes it the supply; else ``supply_volts`` is what flows through.
        patience_s: how long its calibration may take to come.
    """

    def __init__(
        self,
        link: Link,
        settings: MeterSettings,
        *,
        patience_s: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link, self._settings = link, settings
        self._decoder = ppk2_decoder(settings)
        self._patience_s, self._clock = patience_s, clock
        self._ahead: list[Samples] = []

    @property
    def counts(self) -> DecodeCounts:
        """What the decoder has met."""
        return self._decoder.counts

    @property
    def cross_check(self) -> CrossCheck | None:
        """``None``: it keeps no sums."""
        return None

    def open(self) -> None:
        """End a stream that somebody left running, and let the line run dry."""
        self._send(Command.AVERAGE_STOP)
        deadline_s = self._clock() + self._patience_s
        while self._clock() < deadline_s and (data := self._link.read(0.1)):
            self._take(data)

    def identify(self) -> MeterIdentity:
        """Ask for its calibration.

        Raises:
            MeterError: it does not come.
        """
        for _ in range(2):
            self._send(Command.GET_METADATA)
            deadline_s = self._clock() + self._patience_s / 2
            while self._decoder.calibration is None and self._clock() < deadline_s:
                if data := self._link.read(0.1):
                    self._take(data)
            if self._decoder.calibration is not None:
                break
        kit = self._decoder.calibration
        if kit is None:
            raise MeterError(
                f"{self._link.name}: no PPK2 (no calibration in {self._patience_s:g} s)"
            )
        return MeterIdentity(
            maker="Nordic Semiconductor",
            model=f"PPK2 (hardware {kit.hardware or 'unknown'}"
            f"{'' if kit.calibrated else ', not calibrated'})",
            serial="",
            checksummed=False,
            rate_hz=float(WORDS_PER_S),
            has_marker=self._settings.marker_input is not None,
            lag_s=0.5 / WORDS_PER_S,
            source=source_of(self._link.emulated),
        )

    def configure(self, settings: MeterSettings) -> None:
        """Source or ampere meter, and the voltage.

        Raises:
            MeterError: no voltage is stated, or none that it can have.
        """
        volts = (
            settings.source_volts if settings.source_volts is not None else settings.supply_volts
        )
        if volts is None:
            raise MeterError(
                "PPK2 meters only the current: state source_volts (it supplies) or supply_volts"
            )
        if not _LEAST_VOLTS <= volts <= _MOST_VOLTS:
            raise MeterError(f"PPK2: {volts:g} V; it takes {_LEAST_VOLTS} to {_MOST_VOLTS:g} V")
        if (volts, settings.marker_input) != (
            self._settings.source_volts
            if self._settings.source_volts is not None
            else self._settings.supply_volts,
            self._settings.marker_input,
        ):
            raise MeterError("PPK2: voltage and marker_input are fixed when the meter is made")
        self._settings = settings
        source = settings.source_volts is not None
        self._send(Command.POWER_MODE, _SOURCE_METER if source else _AMPERE_METER)
        self._send(Command.REGULATOR, *divmod(round(volts * 1000), 256))
        self._send(Command.DEVICE_RUNNING, 1)

    def start(self) -> None:
        """Begin the stream."""
        self._send(Command.AVERAGE_START)

    def read(self, timeout_s: float) -> Samples:
        """What came; see ``Meter``."""
        if not self._ahead and (data := self._link.read(timeout_s)):
            self._take(data)
        block, self._ahead = Samples.join(self._ahead), []
        return block

    def stop(self) -> None:
        """End the stream."""
        self._send(Command.AVERAGE_STOP)

    def close(self) -> None:
        """End the stream, if it still listens, and close the link; the device stays powered."""
        with suppress(MeasureError):
            self._send(Command.AVERAGE_STOP)
        with suppress(LinkError):
            self._link.close()

    def _send(self, command: Command, *arguments: int) -> None:
        self._link.write(bytes((command, *arguments)))

    def _take(self, data: bytes) -> None:
        block = self._decoder.feed(data, heard_s(self._link))
        if len(block):
            self._ahead.append(block)
