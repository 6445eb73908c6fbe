"""What every meter offers, and the settings they share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, Self

from dynrt.errors import MeterError
from dynrt.fpga.samples import DecodeCounts, Samples

Source = Literal["emulated", "hardware"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSettings:
    """What is fixed before a session; each meter uses what concerns it and refuses what it lacks.

    Attributes:
        baud: speed of the serial line; ``None`` is the meter's usual one.
        parity: of the serial line; ``None`` is the meter's usual one, even and odd go with 7 bits.
        shunt_ohm: the resistor whose voltage a bench meter sees; 10 mOhm at the ZedBoard's J21.
        supply_volts: the board's supply, metered beforehand: for meters that see only the current.
        range_volts: full scale of a bench meter; ranging by itself is switched off.
        range_amperes: full scale of a power meter's current input.
        speed: integration time of a bench meter.
        rate_hz: samples per second, where the meter lets one choose.
        source_volts: a PPK2 supplies the device with this; ``None``: it meters what flows through.
        marker_input: logic input of a PPK2 that carries the marker line.
        root: the folder that stands for ``/sys``.
        domain: name of the powercap zone, or of the hwmon sensor.
        channel: number of the hwmon sensor's channel.
    """

    baud: int | None = None
    parity: Literal["none", "even", "odd"] | None = None
    shunt_ohm: float = 0.010
    supply_volts: float | None = None
    range_volts: float = 0.1
    range_amperes: float = 1.0
    speed: Literal["fast", "medium", "slow"] = "medium"
    rate_hz: float | None = None
    source_volts: float | None = None
    marker_input: int | None = 0
    root: str = "/sys"
    domain: str | None = None
    channel: int = 1

    def __post_init__(self) -> None:
        for name in ("shunt_ohm", "supply_volts", "range_volts", "range_amperes", "rate_hz"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise MeterError(f"meter setting {name} is {value}; it must be above zero")
        if self.marker_input is not None and self.marker_input not in range(8):
            raise MeterError(f"meter setting marker_input is {self.marker_input}; 0 to 7 exist")
        if self.parity not in (None, "none", "even", "odd"):
            raise MeterError(f"meter setting parity is {self.parity!r}; none, even or odd")
        if self.speed not in ("fast", "medium", "slow"):
            raise MeterError(f"meter setting speed is {self.speed!r}; fast, medium or slow")

    def as_json(self) -> dict[str, object]:
        """Plain values, for a session's manifest."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Self:
        """The settings of a manifest.

        Raises:
            MeterError: a name that no setting has, or a value that it cannot have.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := values.keys() - known:
            raise MeterError(f"no such meter setting: {', '.join(sorted(unknown))}")
        try:
            return cls(**values)  # type: ignore[arg-type]
        except TypeError as exc:
            raise MeterError(f"a meter setting is of the wrong kind: {exc}") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterIdentity:
    """Who answered.

    Attributes:
        maker: as the instrument says it.
        model: likewise.
        serial: its number; empty if it does not tell.
        checksummed: whether damage in transit shows; if not, every sample is ``UNCHECKED``.
        rate_hz: samples per second to expect; NaN until it is known.
        has_marker: whether samples carry the marker line's state.
        lag_s: by how much a sample's time is later than the middle of what it averages over.
        source: ``emulated`` unless a real device is at the other end.
    """

    maker: str
    model: str
    serial: str
    checksummed: bool
    rate_hz: float
    has_marker: bool
    lag_s: float
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossCheck:
    """A run's sums by the meter itself beside ours, for formats without checksum.

    Attributes:
        agrees: whether count and mean are the same within the meter's resolution.
        text: one line that says both.
    """

    agrees: bool
    text: str


class Meter(Protocol):
    """A power meter; the order of calls is that of the methods. Errors: ``MeterError``, ``LinkError``."""

    def open(self) -> None:
        """Wake the instrument: clear its input, set it to remote control."""
        ...

    def identify(self) -> MeterIdentity:
        """Ask who it is, and check that it is what was asked for."""
        ...

    def configure(self, settings: MeterSettings) -> None:
        """Fix function, range and speed."""
        ...

    def start(self) -> None:
        """Begin to sample."""
        ...

    def read(self, timeout_s: float) -> Samples:
        """What was sampled since the last call; empty if nothing comes within ``timeout_s``."""
        ...

    def stop(self) -> None:
        """End sampling."""
        ...

    def close(self) -> None:
        """Set the instrument back to local control and close the link."""
        ...

    @property
    def counts(self) -> DecodeCounts:
        """What its decoder has met."""
        ...

    @property
    def cross_check(self) -> CrossCheck | None:
        """After ``stop``: the meter's own sums beside ours; ``None`` if it keeps none."""
        ...


def source_of(emulated: bool) -> Source:
    """The word that goes into every record."""
    return "emulated" if emulated else "hardware"
