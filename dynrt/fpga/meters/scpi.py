"""A bench meter over a shunt, by SCPI over a serial line; ``dialects`` says what differs."""

from __future__ import annotations

import math
import re
from contextlib import suppress

from dynrt.errors import LinkError, MeasureError, MeterError
from dynrt.fpga.decoders.scpi import ScpiDecoder
from dynrt.fpga.links import Link
from dynrt.fpga.meters.asking import Conversation
from dynrt.fpga.meters.dialects import Dialect
from dynrt.fpga.meters.protocol import CrossCheck, MeterIdentity, MeterSettings, source_of
from dynrt.fpga.samples import DecodeCounts, Samples

_PATIENCE_S = 2.0
_LOCAL_ERROR = "550"
_MOST_ERRORS = 20
#: The meter's sums are of single precision at worst: so much may differ.
_SUM_TOLERANCE = 1e-6


def scpi_decoder(dialect: Dialect, settings: MeterSettings) -> ScpiDecoder:
    """The decoder of what such a meter sends under ``settings``."""
    return ScpiDecoder(
        shunt_ohm=settings.shunt_ohm,
        supply_volts=settings.supply_volts,
        range_volts=dialect.range_for(settings.range_volts),
    )


class ScpiMeter:
    """Reading by reading: the next one is asked for as soon as one has come.

    Args:
        link: its serial line.
        dialect: which meter it is.
        settings: see ``MeterSettings``; ``supply_volts`` is needed.
        patience_s: how long an answer may take beyond the meter's integration time.
    """

    def __init__(
        self,
        link: Link,
        dialect: Dialect,
        settings: MeterSettings,
        *,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._dialect, self._settings = dialect, settings
        self._decoder = scpi_decoder(dialect, settings)
        self._talk = Conversation(link, self._decoder, patience_s=patience_s)
        self._asked_s = -math.inf
        self._waiting = False
        self._silent_since_s = math.inf
        self._refused = 0
        self._running = False
        self._sums_at_start = (0.0, 0)
        self._cross_check: CrossCheck | None = None

    @property
    def counts(self) -> DecodeCounts:
        """What the decoder has met."""
        return self._decoder.counts

    @property
    def cross_check(self) -> CrossCheck | None:
        """After ``stop``: the meter's own mean and count beside ours."""
        return self._cross_check

    def open(self) -> None:
        """End what it is doing, drop what it still says, take it from its front panel."""
        if self._dialect.clear:
            self._talk.link.write(self._dialect.clear)
        self._talk.drain(quiet_s=0.1, most_s=self._talk.patience_s)
        if self._dialect.remote:
            self._talk.say(self._dialect.remote)

    def identify(self) -> MeterIdentity:
        """Ask ``*IDN?``.

        Raises:
            MeterError: no answer, or another instrument's.
        """
        reply = self._talk.ask("*IDN?", like=r"[^,]+,[^,]+,[^,]*,.*")
        if re.fullmatch(self._dialect.identity, reply, re.IGNORECASE) is None:
            raise MeterError(f"{self._talk.link.name}: this is {reply!r}, no {self._dialect.model}")
        maker, model, serial, _ = (part.strip() for part in reply.split(",", 3))
        speed = self._settings.speed
        return MeterIdentity(
            maker=maker,
            model=model,
            serial="" if serial == "0" else serial,
            checksummed=False,
            rate_hz=self._dialect.rates_hz[speed],
            has_marker=False,
            # A sample is timed when its line has come: 17 characters later, and its mean before.
            lag_s=self._dialect.averaging_s[speed] / 2 + 170 / (self._settings.baud or 9600),
            source=source_of(self._talk.link.emulated),
        )

    def configure(self, settings: MeterSettings) -> None:
        """Fix function, range and speed, and see that it took them.

        Raises:
            MeterError: it reports an error, or ``supply_volts`` or the range is missing.
        """
        if settings.supply_volts is None:
            raise MeterError(
                f"{self._dialect.model} sees only the current: meter the supply first and state "
                "it as supply_volts"
            )
        if scpi_key(settings) != scpi_key(self._settings):
            raise MeterError(
                f"{self._dialect.model}: shunt_ohm, supply_volts and range_volts are fixed when "
                "the meter is made"
            )
        self._settings = settings
        full = self._dialect.range_for(settings.range_volts)
        for attempt in range(2):
            self._talk.say(*self._dialect.configure(settings, full))
            errors = self._errors()
            local = [e for e in errors if e.lstrip("+").startswith(_LOCAL_ERROR)]
            if not errors:
                break
            if not local or attempt:
                raise MeterError(f"{self._talk.link.name}: {self._dialect.model}: {errors[0]}")
            self._talk.say(self._dialect.remote)
        for question, answer in self._dialect.check(settings).items():
            self._talk.ask(question, like=answer)

    def start(self) -> None:
        """Reset its sums and ask for the first reading."""
        if self._dialect.start:
            self._talk.say(*self._dialect.start)
        self._talk.drain(quiet_s=0.05, most_s=self._talk.patience_s)
        self._sums_at_start = (self._decoder.sum_volts, self._decoder.sum_count)
        self._refused = self._decoder.counts.damaged
        self._cross_check = None
        self._running = True
        self._ask_reading()

    def read(self, timeout_s: float) -> Samples:
        """The readings that came; one that stays out is asked for again.

        Raises:
            MeterError: it has been silent for longer than patience allows.
        """
        if not self._running:
            return self._talk.take_ahead()
        clock = self._talk.clock
        deadline_s = clock() + timeout_s
        while True:
            block = self._talk.take_ahead()
            if not len(block):
                wait_s = min(deadline_s - clock(), self._overdue_s() - clock())
                block = self._talk.hear(wait_s)
            refused = self._decoder.counts.damaged
            if len(block) or refused != self._refused:
                self._refused = refused
                self._waiting = False
                self._silent_since_s = math.inf
                self._ask_reading()
            elif clock() >= self._overdue_s():
                self._revive()
            if len(block) or clock() >= deadline_s:
                return block

    def stop(self) -> None:
        """Take the reading that is under way, then the meter's own sums."""
        if self._waiting:
            self._talk.drain(quiet_s=self._reading_s() + 0.1, most_s=self._talk.patience_s)
        self._waiting = self._running = False
        if not self._dialect.sums_query:
            return
        reply = self._talk.ask(self._dialect.sums_query, like=r"[^;]+;[^;]+")
        mean_volts, told = (float(part) for part in reply.split(";"))
        count = self._decoder.sum_count - self._sums_at_start[1]
        total_volts = self._decoder.sum_volts - self._sums_at_start[0]
        ours_volts = total_volts / count if count else math.nan
        tolerance = abs(mean_volts) * _SUM_TOLERANCE + 1e-9
        self._cross_check = CrossCheck(
            agrees=round(told) == count and abs(ours_volts - mean_volts) <= tolerance,
            text=f"the meter says {told:.0f} readings of {mean_volts * 1e3:.6f} mV on average; "
            f"{count} of {ours_volts * 1e3:.6f} mV came",
        )

    def close(self) -> None:
        """Give it back to its front panel, if it still listens, and close the link."""
        with suppress(MeasureError):
            if self._dialect.local:
                self._talk.say(self._dialect.local)
        with suppress(LinkError):
            self._talk.link.close()

    def _errors(self) -> list[str]:
        """All errors that the meter has stored, oldest first."""
        found: list[str] = []
        if not self._dialect.error_query:
            return found
        while len(found) < _MOST_ERRORS:
            reply = self._talk.ask(self._dialect.error_query, like=r'[+-]?\d+,".*"')
            if int(reply.split(",", 1)[0]) == 0:
                break
            found.append(reply)
        return found

    def _ask_reading(self) -> None:
        if self._dialect.paced:
            rest_s = self._asked_s + self._reading_s() - self._talk.clock()
            if rest_s > 0:
                block = self._talk.hear(rest_s)
                if len(block):
                    self._talk.ahead.append(block)
        self._asked_s = self._talk.clock()
        self._waiting = True
        self._talk.say(self._dialect.read_query)

    def _reading_s(self) -> float:
        return 1.0 / self._dialect.rates_hz[self._settings.speed]

    def _overdue_s(self) -> float:
        """When a reading that was asked for should have come."""
        return self._asked_s + self._talk.patience_s + 2 * self._reading_s()

    def _revive(self) -> None:
        """A reading stayed out: lost on the line, or somebody touched the front panel."""
        self._silent_since_s = min(self._silent_since_s, self._asked_s)
        if self._talk.clock() - self._silent_since_s > 3 * self._talk.patience_s + 1:
            raise MeterError(
                f"{self._talk.link.name}: {self._dialect.model} has been silent for "
                f"{self._talk.clock() - self._silent_since_s:.1f} s"
            )
        with suppress(MeterError):
            self._errors()
        if self._dialect.remote:
            self._talk.say(self._dialect.remote)
        self._ask_reading()


def scpi_key(settings: MeterSettings) -> tuple[float, float | None, float]:
    """What a decoder depends on."""
    return settings.shunt_ohm, settings.supply_volts, settings.range_volts
