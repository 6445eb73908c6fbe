"""What a sweep found, as JSON lines that survive being killed at any byte.

The first line says what was swept: network, table, policy, backend. Each further line is one point
on its own, written when the point is done. A last line without its end was being written when the
sweep was killed: it is cut off and its point is counted again. A line that is whole but wrong is an
error, never skipped.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dynrt.energy.hardware import Hardware
from dynrt.energy.tables import EnergyTable
from dynrt.errors import EnergyError, HardwareError
from dynrt.ir.layers import LayerTable

_FORMAT = "dynrt energy sweep 1"
_LIMIT_BYTES = 1 << 28
_MOST = 2**200
_OPEN = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_COUNTS = ("energy", "low", "high", "macs", "cycles", "pe_cycles", "unmodelled_macs")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """A network on one hardware of a sweep.

    Attributes:
        hardware: with the point's changes.
        energy, low, high: of all nodes together, in thousandths of the table's unit of which
            ``unit`` is the larger name: femtojoules for ``J``, thousandths of a multiply-accumulate
            for ``MACeq``; the value and the bounds that the table gives.
        unit: ``J`` or ``MACeq``.
        macs, cycles, pe_cycles: of all nodes together.
        unmodelled_macs: of operators that have no model; not in ``energy``.
        missing: levels that the table does not have; not in ``energy``.
        front: no other point of the sweep takes at most its energy and at most its cycles, and
            less of one of them.
    """

    hardware: Hardware
    energy: int
    low: int
    high: int
    unit: str
    macs: int
    cycles: int
    pe_cycles: int
    unmodelled_macs: int = 0
    missing: tuple[str, ...] = ()
    front: bool = False

    @property
    def utilisation(self) -> float | None:
        """Share of the processing elements' cycles that multiply; ``None`` without cycles."""
        return self.macs / self.pe_cycles if self.pe_cycles else None

    def to_json(self) -> dict[str, object]:
        """As plain JSON; ``front`` is left out, because it is of a sweep and not of a point."""
        return {
            "hardware": self.hardware.to_json(),
            "unit": self.unit,
            **{name: getattr(self, name) for name in _COUNTS},
            "missing": list(self.missing),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a record is of; two records of the same may be continued, others not.

    Attributes:
        network: hash of the layer table.
        table: name of the energy table.
        table_sha256: hash of the energy table.
        policy: of the counts.
        backend: what counts, with its version.
    """

    network: str
    table: str
    table_sha256: str
    policy: str
    backend: str


def layers_sha256(layers: LayerTable) -> str:
    """Hash of all that counts see of a network, 64 hexadecimal digits."""
    plain = {
        name: [[type(layer).__name__, asdict(layer)] for layer in of_node]
        for name, of_node in layers.items()
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def table_sha256(table: EnergyTable) -> str:
    """Hash of all values of an energy table, 64 hexadecimal digits."""
    return hashlib.sha256(repr(table).encode()).hexdigest()


def point_key(hardware: Hardware) -> str:
    """What tells points of a sweep apart."""
    return json.dumps(hardware.to_json(), sort_keys=True)


def marked(found: Sequence[SweepPoint]) -> list[SweepPoint]:
    """The same points, in order, with the Pareto front of energy against cycles marked."""
    best: dict[int, int] = {}
    least: int | None = None
    for point in sorted(found, key=lambda p: (p.cycles, p.energy)):
        if least is None or point.energy < least:
            least = best[point.cycles] = point.energy
    return [replace(point, front=best.get(point.cycles) == point.energy) for point in found]


def read_points(path: Path) -> tuple[Swept, list[SweepPoint]]:
    """A record and its points in the order of the file, the front marked; the file stays as it is.

    Raises:
        EnergyError: it is missing, or is no such record; the message names the line.
    """
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise EnergyError(f"{path}: a record is a plain file")
        if info.st_size > _LIMIT_BYTES:
            raise EnergyError(f"{path}: over {_LIMIT_BYTES} bytes; this is no record of a sweep")
        raw = path.read_bytes()
    except OSError as exc:
        raise EnergyError(f"{path}: it cannot be read ({exc.strerror or exc})") from None
    swept, found, _ = _parse(raw, str(path))
    if swept is None:
        raise EnergyError(f"{path}: this is no record of a sweep: the first line is not whole")
    return swept, marked(list(found.values()))


class SweepRecord:
    """An open record; a context manager. Nobody else can write it meanwhile.

    Args:
        path: made if it is not there.
        swept: what is being swept.

    Attributes:
        done: points that are in it, by :func:`point_key`.

    Raises:
        EnergyError: it cannot be opened, another sweep is writing it, it is damaged, or it is of
            another network, table, policy or backend.
    """

    def __init__(self, path: Path, swept: Swept) -> None:
        self.path = path
        self.done: dict[str, SweepPoint] = {}
        self._file: io.FileIO | None = None
        try:
            self._file = io.FileIO(os.open(path, _OPEN, 0o666), "r+")
            self._begin(self._file, swept)
        except OSError as exc:
            self.close()
            raise EnergyError(f"{path}: it cannot be written ({exc.strerror or exc})") from None
        except BaseException:
            self.close()
            raise

    def _begin(self, file: io.FileIO, swept: Swept) -> None:
        if not _locked(file.fileno()):
            raise EnergyError(f"{self.path}: another sweep is writing it")
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise EnergyError(f"{self.path}: a record is a plain file")
        if info.st_size > _LIMIT_BYTES:
            raise EnergyError(f"{self.path}: over {_LIMIT_BYTES} bytes; no record of a sweep")
        before, self.done, length = _parse(file.readall(), str(self.path))
        if before is not None and before != swept:
            raise EnergyError(f"{self.path}: {_difference(before, swept)}; take another file")
        file.truncate(length)
        file.seek(length)
        if before is None:
            self._write({"format": _FORMAT, **asdict(swept)})

    def add(self, point: SweepPoint) -> None:
        """Write a point that is done.

        Raises:
            EnergyError: it cannot be written.
        """
        try:
            self._write(point.to_json())
        except OSError as exc:
            raise EnergyError(
                f"{self.path}: it cannot be written ({exc.strerror or exc})"
            ) from None
        self.done[point_key(point.hardware)] = point

    def _write(self, value: Mapping[str, object]) -> None:
        if self._file is None:
            raise EnergyError(f"{self.path}: the record is closed")
        line = memoryview(json.dumps(value, allow_nan=False).encode() + b"\n")
        while line:
            line = line[self._file.write(line) :]

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def _parse(raw: bytes, place: str) -> tuple[Swept | None, dict[str, SweepPoint], int]:
    """What was swept, the points, and how many bytes of ``raw`` are whole lines."""
    length = raw.rfind(b"\n") + 1
    torn = raw[length:]
    if length == 0:
        opening = b'{"format": "' + _FORMAT.encode() + b'"'
        if not (torn.startswith(opening) or opening.startswith(torn)):
            raise EnergyError(f"{place}:1: this is no record of a sweep")
        return None, {}, 0
    lines = raw[:length].split(b"\n")[:-1]
    swept = _swept(_object(lines[0], f"{place}:1"), f"{place}:1")
    found: dict[str, SweepPoint] = {}
    for number, line in enumerate(lines[1:], start=2):
        point = _point(_object(line, f"{place}:{number}"), f"{place}:{number}")
        found[point_key(point.hardware)] = point
    return swept, found, length


def _object(line: bytes, place: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise EnergyError(f"{place}: this is no JSON; the record of the sweep is damaged") from None
    if not isinstance(value, dict):
        raise EnergyError(f"{place}: an object is needed; the record of the sweep is damaged")
    return value


def _swept(value: dict[str, Any], place: str) -> Swept:
    names = [field.name for field in fields(Swept)]
    if value.pop("format", None) != _FORMAT:
        raise EnergyError(f"{place}: this is no record of a sweep ({_FORMAT!r})")
    if sorted(value) != sorted(names) or not all(isinstance(v, str) for v in value.values()):
        raise EnergyError(f"{place}: a record needs {', '.join(names)}, all of them texts")
    return Swept(**value)


def _point(value: dict[str, Any], place: str) -> SweepPoint:
    names = ("hardware", "unit", *_COUNTS, "missing")
    if sorted(value) != sorted(names):
        raise EnergyError(f"{place}: a point needs {', '.join(names)}, and nothing else")
    for name in _COUNTS:
        number = value[name]
        if type(number) is not int or not 0 <= number < _MOST:
            raise EnergyError(f"{place}: {name} is {str(number)[:40]}; a count is needed")
    missing = value["missing"]
    if not isinstance(missing, list) or not all(isinstance(m, str) for m in missing):
        raise EnergyError(f"{place}: missing is no list of levels")
    if value["unit"] not in ("J", "MACeq"):
        raise EnergyError(f"{place}: unit is {str(value['unit'])[:40]!r}; J or MACeq is needed")
    if not value["low"] <= value["energy"] <= value["high"]:
        raise EnergyError(f"{place}: energy is not between low and high")
    try:
        hardware = Hardware.from_json(value["hardware"], place=f"{place}: hardware")
    except HardwareError as exc:
        raise EnergyError(str(exc)) from None
    return SweepPoint(
        hardware=hardware,
        unit=value["unit"],
        missing=tuple(missing),
        **{name: value[name] for name in _COUNTS},
    )


def _difference(before: Swept, now: Swept) -> str:
    if before.network != now.network:
        return "it is of another network"
    for name in ("table", "policy", "backend"):
        was, is_now = getattr(before, name), getattr(now, name)
        if was != is_now:
            return f"it is of {name} {was[:80]!r}, not {is_now!r}"
    return f"it is of a table {before.table[:80]!r} with other values"


def _locked(handle: int) -> bool:
    """Lock a file without waiting; where files cannot be locked, nothing is in the way."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
