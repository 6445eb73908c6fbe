"""Bench meters that answer questions, on pseudo-terminals: 34401A, Keithley 2000, DM3058, WT310.

What they understand is written after the makers' guides, not after our drivers: a command that is
not in the guide is an error in their queue.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from dynrt.fpga.emulated.faults import LineFaults
from dynrt.fpga.emulated.instruments import Circuit, PtyInstrument, steady

_NO_ERROR = '+0,"No error"'
_UNDEFINED = '-113,"Undefined header"'
_LOCAL = '+550,"Command not allowed in local"'


class _AskedInstrument(PtyInstrument):
    """Reads commands by lines; subclasses know them."""

    #: Commands that are taken and change nothing here.
    known: tuple[str, ...] = ()

    def __init__(
        self,
        circuit: Circuit = steady,
        *,
        faults: LineFaults | None = None,
        seed: int = 0,
        shunt_ohm: float = 0.010,
        reading_s: float = 0.01,
    ) -> None:
        super().__init__(faults or LineFaults(), seed)
        self._circuit, self._shunt_ohm, self._reading_s = circuit, shunt_ohm, reading_s
        self._input = b""
        self.remote = False
        self.errors: list[str] = []
        self.heard: list[str] = []

    def serve(self) -> None:
        """Obey the commands that have come whole."""
        self._input += self.receive(0.005)
        for byte in (b"\x03", b"\x18"):
            if byte in self._input:
                self._input = self._input.rpartition(byte)[2]
        *lines, self._input = self._input.split(b"\n")
        for line in lines:
            command = line.strip().decode("ascii", "replace")
            if command:
                self.heard.append(command)
                self.obey(command.upper())

    def obey(self, command: str) -> None:
        """Do what ``command`` (in capitals) says."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """Answer, through the faults of the line."""
        self.transmit(self.line.send(text.encode("ascii")))

    def takes(self, command: str) -> bool:
        """Whether ``command`` is one that changes nothing here."""
        return any(re.fullmatch(pattern, command) for pattern in self.known)

    def next_error(self) -> str:
        """The oldest error, which is then forgotten."""
        return self.errors.pop(0) if self.errors else _NO_ERROR

    def measured_volts(self, range_volts: float) -> float:
        """One reading over the shunt, with what the faults make of it; 9.9E37 over the range."""
        time.sleep(self._reading_s)
        if self.line.happens(self.faults.nan):
            return 9.91e37
        volts = self._circuit(self.seconds).amperes * self._shunt_ohm
        over = abs(volts) > 1.2 * range_volts or self.line.happens(self.faults.overload)
        return 9.9e37 if over else volts


class Dmm34401a(_AskedInstrument):
    """An Agilent 34401A on its RS-232 port: nothing but ``SYST:REM`` works while it is local."""

    identity = "HEWLETT-PACKARD,34401A,0,11-5-2"
    places = 8
    known: tuple[str, ...] = (
        r"\*RST",
        r"\*CLS",
        r"VOLT(AGE)?:DC:NPLC (0\.02|0\.2|1|10|100)",
        r"ZERO:AUTO (ON|OFF|ONCE)",
        r"TRIG:SOUR (IMM|BUS|EXT)",
        r"TRIG:DEL [\d.]+",
        r"CALC:FUNC AVER",
    )
    range_command = r"CONF:VOLT:DC ([\d.]+)"
    read_command = "READ?"
    local_matters = True

    def __init__(self, circuit: Circuit = steady, **options: object) -> None:
        super().__init__(circuit, **options)  # type: ignore[arg-type]
        self.range_volts = 1000.0
        self.sums: list[float] | None = None

    def obey(self, command: str) -> None:
        """Do what ``command`` says."""
        plain = command.lstrip(":")
        if plain in ("SYST:REM", "SYSTEM:REMOTE"):
            self.remote = True
        elif plain in ("SYST:LOC", "SYSTEM:LOCAL"):
            self.remote = False
        elif plain == "*IDN?":
            self.say(self.identity)
        elif plain == "SYST:ERR?":
            self.say(self.next_error())
        elif self.local_matters and not self.remote:
            self.errors.append(_LOCAL)
        elif match := re.fullmatch(self.range_command, plain):
            self.range_volts = float(match[1])
        elif plain == self.read_command:
            self.reading()
        elif not self.takes(plain) and not self.own(plain):
            self.errors.append(_UNDEFINED)

    def own(self, command: str) -> bool:
        """Commands of this model alone; whether ``command`` is one."""
        if command == "CALC:STAT ON":
            self.sums = []
        elif command == "CALC:AVER:AVER?;COUN?" and self.sums is not None:
            n = len(self.sums)
            mean = sum(self.sums) / n if n else 0.0
            self.say(f"{mean:+.8E};{n:+.8E}")
        else:
            return False
        return True

    def reading(self) -> None:
        """Measure once and send it."""
        volts = self.measured_volts(self.range_volts)
        if self.sums is not None and volts < 1e37:
            self.sums.append(float(f"{volts:+.8E}"))
        if not self.due():
            return
        if self.number == self.faults.local_at:
            self.remote = False
            self.errors.append(_LOCAL)
            return
        self.say(f"{volts:+.{self.places}E}")


class Keithley2000(Dmm34401a):
    """A Keithley 2000: six decimal places, colons before its commands, no sums without a buffer."""

    identity = "KEITHLEY INSTRUMENTS INC.,MODEL 2000,1090321,A20 /A02"
    places = 6
    known = (
        r"\*RST",
        r"\*CLS",
        r"INIT:CONT (ON|OFF)",
        r"FUNC 'VOLT:DC'",
        r"VOLT:DC:NPLC (0\.0[1-9]|0\.\d+|[1-9]|10)",
        r"VOLT:DC:AVER:STAT (ON|OFF)",
        r"FORM:ELEM READ",
        r"TRIG:SOUR IMM",
        r"TRIG:COUN \d+",
    )
    range_command = r"VOLT:DC:RANG ([\d.]+)"

    def own(self, command: str) -> bool:
        """None."""
        del command
        return False


class RigolDm3058(_AskedInstrument):
    """A Rigol DM3058 in its own command set: it always answers with its latest reading."""

    ranges_volts: Mapping[str, float] = {"0": 0.2, "1": 2.0, "2": 20.0, "3": 200.0, "4": 1000.0}
    known = (r"CMDSET RIGOL", r":FUNC(TION)?:VOLT(AGE)?:DC")

    def __init__(self, circuit: Circuit = steady, **options: object) -> None:
        super().__init__(circuit, **options)  # type: ignore[arg-type]
        self.range_volts, self.rate = 1000.0, "S"

    def obey(self, command: str) -> None:
        """Do what ``command`` says."""
        if command == "*IDN?":
            self.say("Rigol Technologies,DM3058,DM3A131500042,01.01.00.02.02.00")
        elif match := re.fullmatch(r":MEAS:VOLT:DC ([0-4])", command):
            self.range_volts = self.ranges_volts[match[1]]
        elif match := re.fullmatch(r":RATE:VOLT:DC ([FMS])", command):
            self.rate = match[1]
        elif command == ":RATE:VOLT:DC?":
            self.say(self.rate)
        elif command == ":FUNC?":
            self.say("DCV")
        elif command == ":MEAS:VOLT:DC?":
            volts = self.measured_volts(self.range_volts)
            if self.due():
                self.say(f"{volts:+.8e}")
        elif not self.takes(command):
            self.errors.append(_UNDEFINED)


class Wt310Instrument(_AskedInstrument):
    """A Yokogawa WT310 that updates each 0.1 s and integrates energy."""

    known = (
        r"\*CLS",
        r":COMM:HEAD OFF",
        r":INPUT:MODE DC",
        r":INPUT:(VOLTAGE|CURRENT):AUTO OFF",
        r":INPUT:VOLTAGE:RANGE (15|30|60|150|300|600)V",
        r":RATE (100MS|250MS|500MS|1S|2S|5S)",
        r":NUM:FORM ASC",
        r":NUM:NORM:NUM \d+",
        r":NUM:NORM:ITEM1 U,1;ITEM2 I,1;ITEM3 P,1;ITEM4 WH,1",
        r":STAT:FILT1 FALL",
        r":INTEG:MODE NORM",
    )

    def __init__(self, circuit: Circuit = steady, **options: object) -> None:
        super().__init__(circuit, **options)  # type: ignore[arg-type]
        self.range_amperes = 20.0
        self.watt_hours: float | None = None
        self._update = 0

    def obey(self, command: str) -> None:
        """Do what ``command`` says."""
        if command in (":COMM:REM ON", ":COMM:REM OFF"):
            self.remote = command.endswith("ON")
        elif command == "*IDN?":
            self.say("YOKOGAWA,WT310,91N812345,F1.04")
        elif command == ":STAT:ERR?":
            self.say(self.errors.pop(0) if self.errors else '0,"No error"')
        elif match := re.fullmatch(r":INPUT:CURRENT:RANGE ([\d.]+)A", command):
            self.range_amperes = float(match[1])
        elif command in (":INTEG:RES", ":INTEG:STOP"):
            self.watt_hours = None if command.endswith("STOP") else 0.0
        elif command == ":INTEG:STAR":
            self.watt_hours = 0.0
        elif command == ":STAT:EESR?;:COMM:WAIT 1;:NUM:NORM:VAL?":
            self.reading()
        elif not self.takes(command):
            self.errors.append(_UNDEFINED.replace("+", ""))

    def reading(self) -> None:
        """Wait for the next update; send the numbers."""
        before = self._update
        self._update = max(before + 1, int(self.seconds / 0.1) + 1)
        time.sleep(max(0.0, self._update * 0.1 - self.seconds))
        seen = self._circuit(self.seconds)
        watts = seen.volts * seen.amperes
        if self.watt_hours is not None:
            self.watt_hours += watts * 0.1 / 3600 * (self._update - before)
        amperes = yokogawa(seen.amperes)
        if abs(seen.amperes) > self.range_amperes or self.line.happens(self.faults.overload):
            amperes = "INF"
        elif self.line.happens(self.faults.nan):
            amperes = "NAN"
        energy = "NAN" if self.watt_hours is None else yokogawa(self.watt_hours)
        power = amperes if amperes in ("INF", "NAN") else yokogawa(watts)
        if self.due():
            self.say(f"1;{yokogawa(seen.volts)},{amperes},{power},{energy}")


def yokogawa(value: float) -> str:
    """Five digits and an exponent that is a multiple of three: ``213.31E-03``."""
    exponent = 0
    while value and abs(value) < 1 and exponent > -9:
        value, exponent = value * 1000, exponent - 3
    places = 4 if abs(value) < 10 else 3 if abs(value) < 100 else 2
    return f"{value:.{places}f}E{exponent:+03d}"
