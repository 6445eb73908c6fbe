"""Yokogawa WT310: volts, amperes and watts ten times a second, and its own watt-hours beside them.

From the communication manual IM WT310-17EN: the event filter falls when a reading is complete, and
``:COMMunicate:WAIT 1`` holds the answer back until then, so that no reading is taken twice.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress

from dynrt.errors import LinkError, MeasureError, MeterError
from dynrt.fpga.decoders.wt310 import Wt310Decoder
from dynrt.fpga.links import Link
from dynrt.fpga.meters.asking import Conversation
from dynrt.fpga.meters.protocol import CrossCheck, MeterIdentity, MeterSettings, source_of
from dynrt.fpga.samples import DecodeCounts, Samples

_IDENTITY = r"YOKOGAWA,WT3[13]0.*"
_READING = ":STAT:EESR?;:COMM:WAIT 1;:NUM:NORM:VAL?"
_UPDATE_S = 0.1
_RANGES_VOLTS = (15, 30, 60, 150, 300, 600)
_RANGES_AMPERES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
#: Sums agree if they differ by less: two readings at the edges, and digits shown.
_SUM_TOLERANCE = 0.01


class Wt310Meter:
    """The power meter on its RS-232 or USB line, set to direct current.

    Args:
        link: its line.
        settings: see ``MeterSettings``; ``range_amperes``, and ``supply_volts`` for its range.
        patience_s: how long an answer may take.
    """

    def __init__(self, link: Link, settings: MeterSettings, *, patience_s: float = 2.0) -> None:
        self._settings = settings
        self._decoder = Wt310Decoder()
        self._talk = Conversation(link, self._decoder, patience_s=patience_s)
        self._running = False
        self._asked_s = -math.inf
        self._heard_s = -math.inf
        self._refused = 0
        self._watts = [0.0, 0]
        self._cross_check: CrossCheck | None = None

    @property
    def counts(self) -> DecodeCounts:
        """What the decoder has met."""
        return self._decoder.counts

    @property
    def cross_check(self) -> CrossCheck | None:
        """After ``stop``: its integrated energy beside the sum of the readings."""
        return self._cross_check

    def open(self) -> None:
        """Drop what it still says, and take it from its front panel."""
        self._talk.drain(quiet_s=0.1, most_s=self._talk.patience_s)
        self._talk.say(":COMM:REM ON", ":COMM:HEAD OFF")

    def identify(self) -> MeterIdentity:
        """Ask ``*IDN?``. Raises ``MeterError`` if it is no WT310 or WT330."""
        reply = self._talk.ask("*IDN?", like=r"[^,]+,[^,]+,[^,]*,.*")
        if re.fullmatch(_IDENTITY, reply, re.IGNORECASE) is None:
            raise MeterError(f"{self._talk.link.name}: this is {reply!r}, no WT310")
        maker, model, serial, _ = (part.strip() for part in reply.split(",", 3))
        return MeterIdentity(
            maker=maker,
            model=model,
            serial=serial,
            checksummed=False,
            rate_hz=1 / _UPDATE_S,
            has_marker=False,
            lag_s=_UPDATE_S / 2 + 450 / (self._settings.baud or 9600),
            source=source_of(self._talk.link.emulated),
        )

    def configure(self, settings: MeterSettings) -> None:
        """Direct current, fixed ranges, an update each 100 ms, four numbers.

        Raises:
            MeterError: no such range, or the meter reports an error.
        """
        self._settings = settings
        volts = _range_for(settings.supply_volts or 12.0, _RANGES_VOLTS, "supply_volts", "V")
        amperes = _range_for(settings.range_amperes, _RANGES_AMPERES, "range_amperes", "A")
        self._talk.say(
            "*CLS",
            ":INPUT:MODE DC",
            ":INPUT:VOLTAGE:AUTO OFF",
            f":INPUT:VOLTAGE:RANGE {volts:g}V",
            ":INPUT:CURRENT:AUTO OFF",
            f":INPUT:CURRENT:RANGE {amperes:g}A",
            ":RATE 100MS",
            ":NUM:FORM ASC",
            ":NUM:NORM:NUM 4",
            ":NUM:NORM:ITEM1 U,1;ITEM2 I,1;ITEM3 P,1;ITEM4 WH,1",
            ":STAT:FILT1 FALL",
        )
        reply = self._talk.ask(":STAT:ERR?", like=r'[+-]?\d+,".*"')
        if int(reply.split(",", 1)[0]) != 0:
            raise MeterError(f"{self._talk.link.name}: WT310: {reply}")

    def start(self) -> None:
        """Reset and start its integration, and ask for the first reading."""
        self._talk.say(":INTEG:MODE NORM", ":INTEG:RES", ":INTEG:STAR")
        self._talk.drain(quiet_s=0.05, most_s=self._talk.patience_s)
        self._watts, self._cross_check = [0.0, 0], None
        self._refused = self._decoder.counts.damaged
        self._heard_s = self._talk.clock()
        self._running = True
        self._ask_reading()

    def read(self, timeout_s: float) -> Samples:
        """The readings that came.

        Raises:
            MeterError: it has been silent for longer than patience allows.
        """
        clock = self._talk.clock
        deadline_s = clock() + timeout_s
        while True:
            block = self._talk.take_ahead()
            if not self._running:
                return block
            overdue_s = self._asked_s + self._talk.patience_s
            if not len(block):
                block = self._talk.hear(min(deadline_s, overdue_s) - clock())
            refused = self._decoder.counts.damaged
            if len(block) or refused != self._refused:
                self._refused = refused
                self._heard_s = clock()
                self._ask_reading()
            elif clock() >= overdue_s:
                if clock() - self._heard_s > 4 * self._talk.patience_s:
                    raise MeterError(
                        f"{self._talk.link.name}: WT310 has been silent for "
                        f"{clock() - self._heard_s:.1f} s"
                    )
                self._talk.say(":COMM:REM ON")
                self._ask_reading()
            if len(block):
                self._sum(block)
            if len(block) or clock() >= deadline_s:
                return block

    def stop(self) -> None:
        """Stop its integration and compare its watt-hours with the readings."""
        if not self._running:
            return
        self._talk.drain(quiet_s=3 * _UPDATE_S, most_s=self._talk.patience_s)
        self._running = False
        for block in self._talk.ahead:
            self._sum(block)
        self._talk.say(":INTEG:STOP")
        total_ws, count = self._watts
        ours_j, told_j = total_ws * _UPDATE_S, self._decoder.watt_hours * 3600
        room_j = _SUM_TOLERANCE * abs(told_j) + 2 * abs(total_ws) / max(count, 1) * _UPDATE_S
        self._cross_check = CrossCheck(
            agrees=abs(ours_j - told_j) <= room_j,
            text=f"the meter has integrated {told_j:.4f} J; {int(count)} readings make "
            f"{ours_j:.4f} J",
        )

    def close(self) -> None:
        """Give it back to its front panel, if it still listens, and close the link."""
        with suppress(MeasureError):
            self._talk.say(":COMM:REM OFF")
        with suppress(LinkError):
            self._talk.link.close()

    def _ask_reading(self) -> None:
        self._asked_s = self._talk.clock()
        self._talk.say(_READING)

    def _sum(self, block: Samples) -> None:
        good = block.watts == block.watts
        self._watts[0] += float(block.watts[good].sum())
        self._watts[1] += int(good.sum())


def _range_for(value: float, ranges: tuple[float, ...], name: str, unit: str) -> float:
    for full in ranges:
        if value <= full:
            return full
    raise MeterError(f"WT310: {name} is {value:g} {unit}; its largest range is {ranges[-1]} {unit}")
