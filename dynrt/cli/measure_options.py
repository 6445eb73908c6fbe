"""Options of the measuring commands: where board and meter are, and the meter's settings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import click

from dynrt.cli.options import Decorated
from dynrt.fpga.conduct import Ports, emulated_ports, hardware_ports
from dynrt.fpga.meters import MeterSettings, meter_kind

Speed = Literal["fast", "medium", "slow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a person said of board and meter."""

    emulated: bool
    board: str | None
    meter: str | None
    meter_port: str
    settings: MeterSettings

    def open(self) -> AbstractContextManager[Ports]:
        """The ports.

        Raises:
            UsageError: too little or too much was said.
            LinkError, MeterError, MeasureError: a port or a program is missing.
        """
        if self.emulated:
            if self.board is not None or self.meter is not None or self.meter_port:
                raise click.UsageError("--emulated brings its own board and meter")
            return emulated_ports()
        if self.board is None or self.meter is None:
            raise click.UsageError(
                "give --emulated, or --board PORT and --meter KIND (see dynrt measure ports)"
            )
        if meter_kind(self.meter).needs_port and not self.meter_port:
            raise click.UsageError(f"meter {self.meter} needs --meter-port PORT")
        return hardware_ports(self.board, self.meter, self.meter_port, self.settings)


def bench_options(decorated: Decorated) -> Decorated:
    """``--emulated``, ``--board``, ``--meter`` and the meter's settings; :func:`bench_of` reads them."""
    options: tuple[Callable[[Any], Any], ...] = (
        click.option("--emulated", is_flag=True, help="A board in QEMU and a virtual meter."),
        click.option("--board", metavar="PORT", help="The board's USB-UART, such as /dev/ttyACM0."),
        click.option(
            "--meter", metavar="KIND", help="Kind of the meter (see dynrt measure ports)."
        ),
        click.option("--meter-port", default="", metavar="PORT", help="The meter's port."),
        click.option("--baud", type=click.IntRange(300), metavar="N", help="Of the meter's line."),
        click.option(
            "--shunt",
            "shunt_ohm",
            type=float,
            default=0.010,
            show_default=True,
            metavar="OHM",
            help="Resistor that a bench meter sees (J21: 10 mOhm).",
        ),
        click.option(
            "--supply",
            "supply_volts",
            type=float,
            metavar="V",
            help="The board's supply voltage, metered beforehand; for meters of the current alone.",
        ),
        click.option(
            "--range",
            "range_volts",
            type=float,
            default=0.1,
            show_default=True,
            metavar="V",
            help="Fixed range of a bench meter.",
        ),
        click.option(
            "--range-amperes",
            type=float,
            default=1.0,
            show_default=True,
            metavar="A",
            help="Fixed current range of a power meter.",
        ),
        click.option(
            "--speed",
            type=click.Choice(["fast", "medium", "slow"]),
            default="medium",
            show_default=True,
            help="Integration time of a bench meter.",
        ),
        click.option("--rate", "rate_hz", type=float, metavar="HZ", help="Samples per second."),
        click.option("--domain", metavar="NAME", help="Of powercap or hwmon: which sensor."),
    )
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def bench_of(given: dict[str, Any]) -> Bench:
    """Take the options of :func:`bench_options` out of a command's arguments."""
    names = (
        "baud",
        "shunt_ohm",
        "supply_volts",
        "range_volts",
        "range_amperes",
        "speed",
        "rate_hz",
        "domain",
    )
    settings = MeterSettings(**{name: given.pop(name) for name in names})
    return Bench(
        emulated=given.pop("emulated"),
        board=given.pop("board"),
        meter=given.pop("meter"),
        meter_port=given.pop("meter_port"),
        settings=settings,
    )
