"""What a Linux board carries itself: RAPL counters (powercap) and INA sensors (hwmon).

Nothing of it is wired: the folder ``/sys`` is read at a fixed rate, each reading becomes a line,
and from there on it is a meter like any other. A folder that is not ``/sys`` is emulated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dynrt.errors import LinkError, MeterError, first_line
from dynrt.fpga.decoders.polled import HwmonDecoder, PowercapDecoder, encode_poll
from dynrt.fpga.links import Link
from dynrt.fpga.meters.protocol import MeterSettings
from dynrt.fpga.meters.stream import StreamMeter

_REAL_ROOT = Path("/sys")
_RAPL_RATE_HZ = 100.0
_HWMON_RATE_HZ = 50.0
#: Driver names of current sensors with a bus voltage.
_SENSORS = (
    "ina209",
    "ina219",
    "ina220",
    "ina226",
    "ina230",
    "ina231",
    "ina238",
    "ina260",
    "ina3221",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Files that are read together, and how often."""

    title: str
    files: tuple[Path | None, ...]
    fixed: tuple[int | None, ...] = ()


class PollLink:
    """Reads files of ``/sys`` at a fixed rate; each reading is one line.

    Args:
        source: the files.
        rate_hz: readings per second.
        emulated: whether the files are somebody's copy.
        clock_ns, sleep: for tests.
    """

    def __init__(
        self,
        source: _Source,
        *,
        rate_hz: float,
        emulated: bool,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = source.title
        self.emulated = emulated
        self.rate_hz = rate_hz
        self._source = source
        self._clock_ns, self._sleep = clock_ns, sleep
        self._due_ns = clock_ns()
        self._heard_s = self._due_ns / 1e9
        self._closed = False

    @property
    def heard_s(self) -> float:
        """When the last reading was taken."""
        return self._heard_s

    def read(self, timeout_s: float) -> bytes:
        """The next reading when it is due; ``b""`` if that is later than ``timeout_s``.

        Raises:
            LinkError: the files are gone, or may not be read.
        """
        if self._closed:
            raise LinkError(f"{self.name}: closed")
        wait_s = (self._due_ns - self._clock_ns()) / 1e9
        if wait_s > timeout_s:
            self._sleep(max(0.0, timeout_s))
            return b""
        if wait_s > 0:
            self._sleep(wait_s)
        before_ns = self._clock_ns()
        values = [self._value(file) for file in self._source.files]
        now_ns = (before_ns + self._clock_ns()) // 2
        period_ns = round(1e9 / self.rate_hz)
        # A reading that is late does not make the next ones come in a burst.
        self._due_ns = max(self._due_ns + period_ns, now_ns)
        self._heard_s = now_ns / 1e9
        return encode_poll(now_ns, [*values, *self._source.fixed])

    def write(self, data: bytes) -> None:
        """Nothing can be written: ``LinkError``."""
        raise LinkError(f"{self.name}: takes no commands ({len(data)} bytes)")

    def close(self) -> None:
        """End it."""
        self._closed = True

    def _value(self, file: Path | None) -> int | None:
        if file is None:
            return None
        try:
            return int(file.read_text(encoding="ascii"))
        except FileNotFoundError as exc:
            raise LinkError(f"{file}: gone") from exc
        except PermissionError as exc:
            raise LinkError(f"{file}: no permission (its owner may read it: often root)") from exc
        except (OSError, ValueError):
            return None  # a sensor on a bus that did not answer this once


def open_powercap(
    settings: MeterSettings,
    *,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> PollLink:
    """The energy counter of ``settings.domain`` (``package-0`` if none is named) under its root.

    ``clock_ns`` and ``sleep`` are for tests.

    Raises:
        MeterError: there is no such zone.
        LinkError: it may not be read.
    """
    root = Path(settings.root)
    zones: dict[str, Path] = {}
    for file in sorted((root / "class" / "powercap").glob("*/energy_uj")):
        zones.setdefault(_text(file.parent / "name") or file.parent.name, file.parent)
    wanted = settings.domain or "package-0"
    if wanted not in zones:
        told = ", ".join(zones) or "none"
        raise MeterError(f"{root}/class/powercap has no zone {wanted!r}; zones: {told}")
    zone = zones[wanted]
    text = _text(zone / "max_energy_range_uj")
    if text is None or not text.isdigit() or int(text) <= 0:
        raise MeterError(f"{zone}/max_energy_range_uj: no range of the counter")
    source = _Source(title=f"powercap {wanted}", files=(zone / "energy_uj",), fixed=(int(text),))
    return _poll(source, settings, _RAPL_RATE_HZ, clock_ns, sleep)


def open_hwmon(settings: MeterSettings) -> PollLink:
    """The channel of the INA sensor ``settings.domain`` (the first one if none is named).

    Raises:
        MeterError: there is no such sensor or channel.
        LinkError: it may not be read.
    """
    root = Path(settings.root)
    found: dict[str, Path] = {}
    for file in sorted((root / "class" / "hwmon").glob("*/name")):
        name = _text(file) or ""
        if name.startswith(_SENSORS):
            found[name if name not in found else file.parent.name] = file.parent
            found.setdefault(file.parent.name, file.parent)
    if not found:
        raise MeterError(f"{root}/class/hwmon has no INA current sensor")
    wanted = settings.domain or next(iter(found))
    if wanted not in found:
        raise MeterError(f"{root}/class/hwmon has no sensor {wanted!r}; it has {', '.join(found)}")
    folder, n = found[wanted], settings.channel
    files: list[Path | None] = [
        file if file.exists() else None
        for file in (folder / f"in{n}_input", folder / f"curr{n}_input", folder / f"power{n}_input")
    ]
    if files[2] is None and None in files[:2]:
        raise MeterError(f"{folder}: channel {n} has neither power nor volts and amperes")
    title = f"hwmon {wanted} channel {n}"
    source = _Source(title=title, files=tuple(files))
    return _poll(source, settings, _HWMON_RATE_HZ, time.monotonic_ns, time.sleep)


def _poll(
    source: _Source,
    settings: MeterSettings,
    usual_hz: float,
    clock_ns: Callable[[], int],
    sleep: Callable[[float], None],
) -> PollLink:
    link = PollLink(
        source,
        rate_hz=settings.rate_hz or usual_hz,
        emulated=Path(settings.root).resolve() != _REAL_ROOT,
        clock_ns=clock_ns,
        sleep=sleep,
    )
    link.read(1.0)  # permission is asked for now, not in the middle of a session
    return link


def powercap_meter(link: Link, settings: MeterSettings) -> StreamMeter:
    """A meter of the mean power between two readings of a RAPL counter."""
    rate_hz = settings.rate_hz or _RAPL_RATE_HZ
    return StreamMeter(
        link,
        PowercapDecoder(),
        maker="Linux",
        model=f"powercap {settings.domain or 'package-0'}",
        checksummed=True,
        has_marker=False,
        lag_s=0.5 / rate_hz,
    )


def hwmon_meter(link: Link, settings: MeterSettings) -> StreamMeter:
    """A meter of a current sensor that the kernel drives."""
    return StreamMeter(
        link,
        HwmonDecoder(),
        maker="Linux",
        model=f"hwmon {settings.domain or 'INA sensor'}",
        checksummed=True,
        has_marker=False,
        lag_s=0.5 / (settings.rate_hz or _HWMON_RATE_HZ),
    )


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except PermissionError as exc:
        raise LinkError(f"{file}: no permission ({first_line(exc)})") from exc
    except (OSError, ValueError):
        return None
