"""Which meters there are, by name; more come from other packages by an entry point.

A package adds a meter by an entry point of the group ``dynrt.meters`` that names a ``MeterKind``::

    [project.entry-points."dynrt.meters"]
    my-meter = "my_package.meter:KIND"
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Literal

from dynrt.errors import MeterError, first_line
from dynrt.fpga.decoders.ina_line import InaLineDecoder
from dynrt.fpga.decoders.polled import HwmonDecoder, PowercapDecoder
from dynrt.fpga.decoders.wt310 import Wt310Decoder
from dynrt.fpga.links import Link, Parity, open_serial
from dynrt.fpga.meters.dialects import AGILENT_34401A, KEITHLEY_2000, RIGOL_DM3058, Dialect
from dynrt.fpga.meters.polled import hwmon_meter, open_hwmon, open_powercap, powercap_meter
from dynrt.fpga.meters.ppk2 import Ppk2Meter, ppk2_decoder
from dynrt.fpga.meters.protocol import Meter, MeterSettings
from dynrt.fpga.meters.scpi import ScpiMeter, scpi_decoder
from dynrt.fpga.meters.stream import StreamMeter
from dynrt.fpga.meters.wt310 import Wt310Meter
from dynrt.fpga.samples import Decoder

GROUP = "dynrt.meters"
_PARITY: dict[str, Parity] = {"none": "N", "even": "E", "odd": "O"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterKind:
    """One kind of meter.

    Attributes:
        name: what people type.
        title: maker and model, for lists.
        make: a driver on a link.
        decoder: what turns a stored link of it into samples.
        open_link: opens its port (a path; for meters in ``/sys`` it is ignored).
        needs_port: whether a port must be named.
    """

    name: str
    title: str
    make: Callable[[Link, MeterSettings], Meter]
    decoder: Callable[[MeterSettings], Decoder]
    open_link: Callable[[str, MeterSettings], Link]
    needs_port: bool = True


def _serial(baud: int, *, stop_bits: Literal[1, 2] = 1) -> Callable[[str, MeterSettings], Link]:
    def open_link(port: str, settings: MeterSettings) -> Link:
        parity = settings.parity or "none"
        return open_serial(
            port,
            baud=settings.baud or baud,
            parity=_PARITY[parity],
            bits=8 if parity == "none" else 7,
            stop_bits=stop_bits,
        )

    return open_link


def _ina_line(link: Link, settings: MeterSettings) -> Meter:
    return StreamMeter(
        link,
        InaLineDecoder(),
        maker="dynrt",
        model="current sensor with microcontroller",
        checksummed=True,
        has_marker=True,
    )


def _bench(name: str, dialect: Dialect) -> MeterKind:
    return MeterKind(
        name=name,
        title=f"{dialect.maker} {dialect.model} over a shunt",
        make=lambda link, settings: ScpiMeter(link, dialect, settings),
        decoder=lambda settings: scpi_decoder(dialect, settings),
        open_link=_serial(dialect.baud, stop_bits=2 if dialect.stop_bits == 2 else 1),
    )


BUILT_IN = (
    MeterKind(
        name="ina-line",
        title="INA226 or the like behind a microcontroller",
        make=_ina_line,
        decoder=lambda settings: InaLineDecoder(),
        open_link=_serial(115_200),
    ),
    _bench("34401a", AGILENT_34401A),
    _bench("keithley-2000", KEITHLEY_2000),
    _bench("dm3058", RIGOL_DM3058),
    MeterKind(
        name="wt310",
        title="Yokogawa WT310",
        make=Wt310Meter,
        decoder=lambda settings: Wt310Decoder(),
        open_link=_serial(9600),
    ),
    MeterKind(
        name="ppk2",
        title="Nordic Power Profiler Kit II, 0.8 to 5 V",
        make=Ppk2Meter,
        decoder=ppk2_decoder,
        open_link=_serial(115_200),
    ),
    MeterKind(
        name="powercap",
        title="RAPL counters of this computer",
        make=powercap_meter,
        decoder=lambda settings: PowercapDecoder(),
        open_link=lambda port, settings: open_powercap(settings),
        needs_port=False,
    ),
    MeterKind(
        name="hwmon",
        title="INA current sensor of this computer",
        make=hwmon_meter,
        decoder=lambda settings: HwmonDecoder(),
        open_link=lambda port, settings: open_hwmon(settings),
        needs_port=False,
    ),
)


def meter_names() -> tuple[str, ...]:
    """All names that ``meter`` takes, in order; plug-ins are named but not loaded."""
    return tuple(sorted({k.name for k in BUILT_IN} | {p.name for p in _plug_ins()}))


def meter_kind(name: str) -> MeterKind:
    """The kind of that name.

    Raises:
        MeterError: no such kind, or its plug-in cannot be loaded.
    """
    for kind in BUILT_IN:
        if kind.name == name:
            return kind
    for point in _plug_ins():
        if point.name == name:
            return _load(point)
    raise MeterError(f"no meter named {name!r}; there are {', '.join(meter_names())}")


def meter(name: str, link: Link, settings: MeterSettings | None = None, **changes: object) -> Meter:
    """A driver of the kind ``name`` on ``link``; ``changes`` are single settings.

    Raises:
        MeterError: no such kind or setting.
    """
    return meter_kind(name).make(link, _settle(settings, changes))


def decoder_for(name: str, settings: MeterSettings | None = None) -> Decoder:
    """A decoder for the stored bytes of the meter ``name``, read with ``settings``.

    Raises:
        MeterError: no such kind.
    """
    return meter_kind(name).decoder(settings or MeterSettings())


def open_meter_link(name: str, port: str, settings: MeterSettings | None = None) -> Link:
    """The link of the meter ``name`` at ``port``, with the line settings that this kind uses.

    Raises:
        MeterError: no such kind, or the port is missing though it needs one.
        LinkError: the port cannot be opened.
    """
    kind = meter_kind(name)
    if kind.needs_port and not port:
        raise MeterError(f"meter {name} needs a port (dynrt measure ports lists what there is)")
    return kind.open_link(port, settings or MeterSettings())


def _settle(settings: MeterSettings | None, changes: dict[str, object]) -> MeterSettings:
    base = settings or MeterSettings()
    return MeterSettings.from_json(base.as_json() | changes) if changes else base


@cache
def _plug_ins() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def _load(point: EntryPoint) -> MeterKind:
    try:
        kind = point.load()
    except Exception as exc:  # whatever a foreign module raises on import
        raise MeterError(f"plug-in {point.name} ({point.value}): {first_line(exc)}") from exc
    if not isinstance(kind, MeterKind):
        raise MeterError(f"plug-in {point.name} ({point.value}) is no MeterKind")
    return replace(kind, name=point.name)
