"""Drivers started on instruments, for the tests of both."""

from __future__ import annotations

import time
from collections.abc import Callable

from dynrt.fpga.decoders.ppk2 import Calibration
from dynrt.fpga.emulated.bench_instruments import (
    Dmm34401a,
    Keithley2000,
    RigolDm3058,
)
from dynrt.fpga.emulated.instruments import (
    PtyInstrument,
)
from dynrt.fpga.links import TapLink
from dynrt.fpga.meters import Meter, MeterSettings, meter, open_meter_link
from dynrt.fpga.samples import Samples

BENCH: dict[str, Callable[..., PtyInstrument]] = {
    "34401a": Dmm34401a,
    "keithley-2000": Keithley2000,
    "dm3058": RigolDm3058,
}
SETTINGS = MeterSettings(supply_volts=12.0, speed="fast")
KIT = Calibration(
    supply_volts=3.3, hardware="9173", calibrated=True, ohm=(1003, 101, 10, 0.9, 0.05)
)


def ready(name: str, instrument: PtyInstrument, settings: MeterSettings = SETTINGS) -> Meter:
    """A started driver on ``instrument``."""
    driver = meter(name, open_meter_link(name, instrument.port, settings), settings)
    driver.open()
    driver.identify()
    driver.configure(settings)
    driver.start()
    return driver


def collect(driver: Meter, n: int, within_s: float = 10.0) -> Samples:
    """At least ``n`` samples."""
    blocks: list[Samples] = []
    deadline_s = time.monotonic() + within_s
    while sum(map(len, blocks)) < n and time.monotonic() < deadline_s:
        blocks.append(driver.read(0.2))
    return Samples.join(blocks)


def open_nothing() -> TapLink:
    """A link that gives nothing."""
    from dynrt.fpga.links import ReplayLink

    return TapLink(ReplayLink([]))
