"""``dynrt measure ports``: which serial ports there are, and which meters dynrt knows."""

from __future__ import annotations

import shutil
from typing import Any

import click

from dynrt.cli import options
from dynrt.cli.text import table, to_json
from dynrt.errors import MissingExtraError
from dynrt.fpga.emulated.qemu import QEMU
from dynrt.fpga.firmware_build import CROSS_COMPILER, CROSS_PACKAGE
from dynrt.fpga.meters import meter_kind, meter_names


@click.command()
@options.json_option
def command(as_json: bool) -> None:
    """List serial ports, kinds of meters, and whether the emulated bench can start."""
    ports = serial_ports()
    meters = [
        {"name": kind.name, "title": kind.title, "needs_port": kind.needs_port}
        for kind in map(meter_kind, meter_names())
    ]
    emulation = [
        {"program": program, "found": shutil.which(program) is not None, "package": package}
        for program, package in ((QEMU, QEMU), (CROSS_COMPILER, CROSS_PACKAGE))
    ]
    record = {"ports": ports, "meters": meters, "emulation": emulation}
    click.echo(to_json(record) if as_json else _page(record))


def serial_ports() -> list[dict[str, str]]:
    """The system's serial ports.

    Raises:
        MissingExtraError: pyserial is not installed.
    """
    try:
        from serial.tools.list_ports import comports
    except ModuleNotFoundError as exc:
        raise MissingExtraError("serial", "fpga") from exc
    return [
        {
            "port": port.device,
            "description": port.description or "",
            "usb": "" if port.vid is None else f"{port.vid:04x}:{port.pid:04x}",
            "serial": port.serial_number or "",
        }
        for port in sorted(comports(), key=lambda p: p.device)
    ]


def _page(record: dict[str, Any]) -> str:
    ports = [[p["port"], p["usb"], p["serial"], p["description"]] for p in record["ports"]]
    meters = [[m["name"], m["title"]] for m in record["meters"]]
    missing = [e["package"] for e in record["emulation"] if not e["found"]]
    can = f"needs apt-get install {' '.join(missing)}" if missing else "can start"
    return "\n".join(
        [
            table(["port", "USB", "serial", "description"], ports, elastic=3)
            if ports
            else "no serial ports",
            "",
            table(["meter", "what it is"], meters, elastic=1),
            "",
            f"the emulated bench (--emulated) {can}",
        ]
    )
