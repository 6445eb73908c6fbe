"""Power meters behind one interface: open, identify, configure, start, read, stop, close."""

from dynrt.fpga.meters.protocol import CrossCheck, Meter, MeterIdentity, MeterSettings
from dynrt.fpga.meters.registry import (
    MeterKind,
    decoder_for,
    meter,
    meter_kind,
    meter_names,
    open_meter_link,
)

__all__ = [
    "CrossCheck",
    "Meter",
    "MeterIdentity",
    "MeterKind",
    "MeterSettings",
    "decoder_for",
    "meter",
    "meter_kind",
    "meter_names",
    "open_meter_link",
]
