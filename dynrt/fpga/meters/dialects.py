"""How three bench meters are told the same: a fixed range and speed, then reading by reading.

From the makers' programming guides: Agilent 34401A (chapter 4), Keithley 2000 (SCPI reference),
Rigol DM3058 (its own command set).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dynrt.errors import MeterError
from dynrt.fpga.meters.protocol import MeterSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What differs between bench meters.

    Attributes:
        maker, model: for reports.
        identity: regular expression of the answer to ``*IDN?``.
        baud, stop_bits: of its serial line as delivered.
        clear: bytes that end whatever it is doing.
        remote, local: commands that take it from and give it back to its front panel.
        error_query: asks for the oldest error; empty if it has none.
        read_query: one reading, please.
        configure: commands that fix range and speed, by settings.
        check: questions that follow, and the answers that must come.
        start: commands before the first reading.
        sums_query: its own mean and count of the readings since ``start``; empty if it has none.
        rates_hz: readings per second by speed, over its serial line.
        averaging_s: integration time by speed.
        ranges_volts: ranges that it has.
        paced: whether it answers at once with the last reading: then questions are spaced.
    """

    maker: str
    model: str
    identity: str
    baud: int
    stop_bits: int
    clear: bytes
    remote: str
    local: str
    error_query: str
    read_query: str
    configure: Callable[[MeterSettings, float], tuple[str, ...]]
    check: Callable[[MeterSettings], Mapping[str, str]]
    start: tuple[str, ...]
    sums_query: str
    rates_hz: Mapping[str, float]
    averaging_s: Mapping[str, float]
    ranges_volts: tuple[float, ...]
    paced: bool

    def range_for(self, volts: float) -> float:
        """The smallest range that holds ``volts``.

        Raises:
            MeterError: none does.
        """
        for full in self.ranges_volts:
            if volts <= full * (1 + 1e-9):
                return full
        raise MeterError(
            f"{self.model}: range_volts is {volts:g} V; its largest range is "
            f"{self.ranges_volts[-1]:g} V"
        )


_CYCLES = {"fast": 0.2, "medium": 1.0, "slow": 10.0}
_CYCLE_S = 0.02  # 50 Hz mains


def _no_check(settings: MeterSettings) -> Mapping[str, str]:
    del settings
    return {}


def _configure_34401a(settings: MeterSettings, full: float) -> tuple[str, ...]:
    return (
        "*RST",
        "*CLS",
        f"CONF:VOLT:DC {full:g}",
        f"VOLT:DC:NPLC {_CYCLES[settings.speed]:g}",
        "ZERO:AUTO ON",
        "TRIG:SOUR IMM",
        "TRIG:DEL 0",
        "CALC:FUNC AVER",
    )


def _configure_2000(settings: MeterSettings, full: float) -> tuple[str, ...]:
    return (
        "*RST",
        "*CLS",
        ":INIT:CONT OFF",
        ":FUNC 'VOLT:DC'",
        f":VOLT:DC:RANG {full:g}",
        f":VOLT:DC:NPLC {_CYCLES[settings.speed] / (2 if settings.speed == 'fast' else 1):g}",
        ":VOLT:DC:AVER:STAT OFF",
        ":FORM:ELEM READ",
        ":TRIG:SOUR IMM",
        ":TRIG:COUN 1",
    )


_RIGOL_SPEED = {"fast": "F", "medium": "M", "slow": "S"}
_RIGOL_RANGES = (0.2, 2.0, 20.0, 200.0, 1000.0)


def _configure_dm3058(settings: MeterSettings, full: float) -> tuple[str, ...]:
    return (
        "CMDSET RIGOL",
        ":FUNC:VOLT:DC",
        f":MEAS:VOLT:DC {_RIGOL_RANGES.index(full)}",
        f":RATE:VOLT:DC {_RIGOL_SPEED[settings.speed]}",
    )


def _check_dm3058(settings: MeterSettings) -> Mapping[str, str]:
    return {":FUNC?": "DCV", ":RATE:VOLT:DC?": _RIGOL_SPEED[settings.speed]}


AGILENT_34401A = Dialect(
    maker="Agilent",
    model="34401A",
    identity=r"(HEWLETT-PACKARD|AGILENT[^,]*|KEYSIGHT[^,]*),34401A,.*",
    baud=9600,
    stop_bits=2,
    clear=b"\x03",
    remote="SYST:REM",
    local="SYST:LOC",
    error_query="SYST:ERR?",
    read_query="READ?",
    configure=_configure_34401a,
    check=_no_check,
    start=("CALC:STAT ON",),
    sums_query="CALC:AVER:AVER?;COUN?",
    rates_hz={"fast": 28.0, "medium": 14.0, "slow": 2.3},
    averaging_s={k: v * _CYCLE_S for k, v in _CYCLES.items()},
    ranges_volts=(0.1, 1.0, 10.0, 100.0, 1000.0),
    paced=False,
)

KEITHLEY_2000 = Dialect(
    maker="Keithley",
    model="2000",
    identity=r"KEITHLEY[^,]*,MODEL 2000\b[^,]*,.*",
    baud=9600,
    stop_bits=1,
    clear=b"\x18",
    remote=":SYST:REM",
    local=":SYST:LOC",
    error_query=":SYST:ERR?",
    read_query=":READ?",
    configure=_configure_2000,
    check=_no_check,
    start=(),
    sums_query="",
    rates_hz={"fast": 25.0, "medium": 15.0, "slow": 2.4},
    averaging_s={"fast": 0.1 * _CYCLE_S, "medium": _CYCLE_S, "slow": 10 * _CYCLE_S},
    ranges_volts=(0.1, 1.0, 10.0, 100.0, 1000.0),
    paced=False,
)

RIGOL_DM3058 = Dialect(
    maker="Rigol",
    model="DM3058",
    identity=r"RIGOL TECHNOLOGIES,\s*DM3058E?,.*",
    baud=9600,
    stop_bits=1,
    clear=b"",
    remote="",
    local="",
    error_query="",
    read_query=":MEAS:VOLT:DC?",
    configure=_configure_dm3058,
    check=_check_dm3058,
    start=(),
    sums_query="",
    # At "fast" it measures 123 times a second and shows 50 of them.
    rates_hz={"fast": 25.0, "medium": 20.0, "slow": 2.5},
    averaging_s={"fast": 0.008, "medium": 0.05, "slow": 0.4},
    ranges_volts=_RIGOL_RANGES,
    paced=True,
)
