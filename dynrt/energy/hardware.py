"""Hardware: the array, its buffers and its memory; read from TOML, from a bundle, or packaged.

Sizes are bytes. SCALE-Sim counts words and takes bytes for words, so an array for it is made per
number format (:meth:`Hardware.array`). A ``kB`` is 1,024 bytes, as it is there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

from dynrt.energy.array import Dataflow, SystolicArray
from dynrt.energy.toml_fields import Fields, find_file, packaged_names, read_document
from dynrt.errors import HardwareError
from dynrt.ir.layers import WORD_BITS

FORMAT = 1
DATAFLOWS: tuple[Dataflow, ...] = get_args(Dataflow)
Operand = Literal["ifmap", "filter", "ofmap"]
OPERANDS: tuple[Operand, ...] = get_args(Operand)

#: An array of this many rows or columns at most; a buffer of this many bytes at most.
MOST_LINES = 4096
MOST_SRAM_BYTES = 1 << 30
MOST_CLOCK_HZ = 10**11
#: Of a name with its changes: what a bundle's fields hold.
MOST_NAME_CHARS = 128

BYTE_UNITS: Mapping[str, int] = {
    "B": 1,
    "kB": 1 << 10,
    "KiB": 1 << 10,
    "MB": 1 << 20,
    "MiB": 1 << 20,
}
CLOCK_UNITS: Mapping[str, int] = {"Hz": 1, "kHz": 10**3, "MHz": 10**6, "GHz": 10**9}

_FOLDER = Path(__file__).parent / "data" / "hardware"
_PLAIN_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}"
_NAME = rf"({_PLAIN_NAME})(?:\[([a-z_]+=[A-Za-z0-9._-]+(?:,[a-z_]+=[A-Za-z0-9._-]+)*)\])?"
_KIND = r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}"
#: How a change shows in the name of a hardware that ``with_`` made.
_SHORT = {
    "rows": "rows",
    "cols": "cols",
    "dataflow": "dataflow",
    "ifmap_sram_bytes": "ifmap_sram",
    "filter_sram_bytes": "filter_sram",
    "ofmap_sram_bytes": "ofmap_sram",
    "clock_hz": "clock_hz",
    "dram": "dram",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A systolic array with three buffers in front of a main memory.

    Attributes:
        name: of the description; every result names it.
        rows, cols: of the array; one multiply-accumulate per element and cycle.
        dataflow: what stays in the array: ``ws`` weights, ``os`` outputs, ``is`` inputs.
        ifmap_sram_bytes, filter_sram_bytes, ofmap_sram_bytes: of the on-chip buffers.
        clock_hz: of the array; ``None`` where the description has none.
        dram: kind of the main memory, such as ``DDR3``; ``None``: any, the table's general figure.
        source: where the figures come from.
        notes: what a person should know before believing results.
    """

    name: str
    rows: int
    cols: int
    dataflow: Dataflow
    ifmap_sram_bytes: int
    filter_sram_bytes: int
    ofmap_sram_bytes: int
    clock_hz: int | None
    dram: str | None
    source: str
    notes: str

    def __post_init__(self) -> None:
        _check(self)

    @property
    def elements(self) -> int:
        """Processing elements."""
        return self.rows * self.cols

    def sram_bytes(self, operand: Operand) -> int:
        """Size of the buffer of ``operand``."""
        sizes = {
            "ifmap": self.ifmap_sram_bytes,
            "filter": self.filter_sram_bytes,
            "ofmap": self.ofmap_sram_bytes,
        }
        return sizes[operand]

    def array(self, dtype: str) -> SystolicArray:
        """The array as SCALE-Sim sees it, with words of ``dtype``.

        Raises:
            HardwareError: no such number format, or a buffer holds not one word of it.
        """
        bits = word_bits(dtype)
        words = {operand: self.sram_bytes(operand) * 8 // bits for operand in OPERANDS}
        for operand, count in words.items():
            if not count:
                raise HardwareError(
                    f"hardware {self.name}: {operand}_sram_bytes = {self.sram_bytes(operand)}: "
                    f"not one {dtype} word of {bits} bits"
                )
        return SystolicArray(
            rows=self.rows,
            cols=self.cols,
            dataflow=self.dataflow,
            ifmap_words=words["ifmap"],
            filter_words=words["filter"],
            ofmap_words=words["ofmap"],
        )

    def with_(self, **changes: object) -> Hardware:
        """The same with other values; the name says so, unless it is given: ``eyeriss[rows=16]``.

        Args:
            changes: fields of this class; ``sram_bytes`` sets all three buffers.

        Raises:
            HardwareError: no such field, or a value out of range.
        """
        if "sram_bytes" in changes:
            size = changes.pop("sram_bytes")
            for operand in OPERANDS:
                changes.setdefault(f"{operand}_sram_bytes", size)
        if unknown := changes.keys() - set(_NAMES):
            raise HardwareError(
                f"hardware {self.name}: no field {sorted(unknown)[0]!r}; {', '.join(_NAMES)} are"
            )
        changed = replace(self, **changes)  # type: ignore[arg-type]  # _check looks at each value
        if "name" in changes:
            return changed
        return replace(changed, name=_changed_name(self, changed))

    def to_json(self) -> dict[str, object]:
        """Plain JSON values by field; :meth:`from_json` takes them back."""
        return {name: getattr(self, name) for name in _NAMES}

    @classmethod
    def from_json(cls, value: object, *, place: str = "hardware") -> Hardware:
        """The hardware that :meth:`to_json` gave.

        Raises:
            HardwareError: not such an object; names the field.
        """
        if not isinstance(value, Mapping):
            raise HardwareError(f"{place} is {type(value).__name__}, not an object")
        if missing := [name for name in _NAMES if name not in value]:
            raise HardwareError(f"{place}: field {missing[0]} is missing")
        if unknown := [name for name in value if name not in _NAMES]:
            raise HardwareError(f"{place}: no field {str(unknown[0])[:80]!r}")
        try:
            return cls(**{name: value[name] for name in _NAMES})
        except HardwareError as exc:
            raise HardwareError(f"{place}: {exc}") from exc


_NAMES: tuple[str, ...] = tuple(f.name for f in fields(Hardware))


def word_bits(dtype: str) -> int:
    """Bits of a word of ``dtype``.

    Raises:
        HardwareError: no such number format.
    """
    if dtype not in WORD_BITS:
        raise HardwareError(f"{dtype!r} is no number format; {', '.join(WORD_BITS)} are")
    return WORD_BITS[dtype]


def packaged_hardware() -> tuple[str, ...]:
    """Names of the hardware descriptions that come with dynrt."""
    return packaged_names(_FOLDER)


def load_hardware(name_or_path: str | Path) -> Hardware:
    """Read a hardware description.

    Args:
        name_or_path: a name that :func:`packaged_hardware` lists, or a TOML file.

    Raises:
        HardwareError: neither; or a field is missing, unknown, given twice, of the wrong type or
            unit, or out of range; the message names file, line, field, value and what is allowed.
    """
    path = find_file(name_or_path, _FOLDER, error=HardwareError)
    hardware = _hardware(read_document(path, what="hardware", error=HardwareError))
    is_free = path.parent == _FOLDER or hardware.name not in packaged_hardware()
    if not is_free and hardware != load_hardware(hardware.name):
        raise HardwareError(
            f"{path.name}: name {hardware.name!r} is dynrt's own, with other values: "
            "results name their hardware, so give yours another name"
        )
    return hardware


def _hardware(top: Fields) -> Hardware:
    top.integer("format", low=FORMAT, high=FORMAT)
    name = top.matching("name", _PLAIN_NAME, allowed="1 to 64 letters, digits and . _ + -")
    source, notes = top.text("source"), top.text("notes", longest=4000)
    clock_hz = None
    if top.has("clock"):
        clock_hz = top.amount("clock", CLOCK_UNITS, low=1, high=MOST_CLOCK_HZ)
    dram = None
    if top.has("dram"):
        dram = top.matching("dram", _KIND, allowed="1 to 32 letters, digits and . _ -")
    array, sram = top.table("array"), top.table("sram")
    rows = array.integer("rows", low=1, high=MOST_LINES)
    cols = array.integer("cols", low=1, high=MOST_LINES)
    dataflow = array.choice("dataflow", DATAFLOWS)
    sizes = {
        operand: sram.amount(operand, BYTE_UNITS, low=1, high=MOST_SRAM_BYTES)
        for operand in OPERANDS
    }
    for table in (array, sram, top):
        table.done()
    return Hardware(
        name=name,
        rows=rows,
        cols=cols,
        dataflow=dataflow,
        ifmap_sram_bytes=sizes["ifmap"],
        filter_sram_bytes=sizes["filter"],
        ofmap_sram_bytes=sizes["ofmap"],
        clock_hz=clock_hz,
        dram=dram,
        source=source,
        notes=notes,
    )


def _check(hardware: Hardware) -> None:
    """Every value is of its type and in its range.

    Raises:
        HardwareError: one is not.
    """
    ranges = {"rows": MOST_LINES, "cols": MOST_LINES}
    ranges |= {f"{operand}_sram_bytes": MOST_SRAM_BYTES for operand in OPERANDS}
    if hardware.clock_hz is not None:
        ranges["clock_hz"] = MOST_CLOCK_HZ
    for field, high in ranges.items():
        number: object = getattr(hardware, field)
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= high:
            raise _refuse(field, number, f"a whole number from 1 to {high}")
    if hardware.dataflow not in DATAFLOWS:
        raise _refuse("dataflow", hardware.dataflow, " or ".join(map(repr, DATAFLOWS)))
    if not _is_text(hardware.name, MOST_NAME_CHARS) or not re.fullmatch(_NAME, hardware.name):
        raise _refuse("name", hardware.name, "1 to 64 letters, digits and . _ + -, then [changes],")
    if hardware.dram is not None and not (
        _is_text(hardware.dram, 32) and re.fullmatch(_KIND, hardware.dram)
    ):
        raise _refuse("dram", hardware.dram, "1 to 32 letters, digits and . _ -")
    for field in ("source", "notes"):
        if not _is_text(getattr(hardware, field), 4000):
            raise _refuse(field, getattr(hardware, field), "a text of one line")


def _is_text(value: object, longest: int) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= longest and value.isprintable()


def _refuse(field: str, value: object, allowed: str) -> HardwareError:
    return HardwareError(f"hardware field {field} = {repr(value)[:80]}: {allowed} is allowed")


def _changed_name(before: Hardware, after: Hardware) -> str:
    match = re.fullmatch(_NAME, before.name)
    base, old = (match[1], match[2]) if match else (before.name, None)
    parts = dict(part.split("=", 1) for part in old.split(",")) if old else {}
    is_hashed = parts.pop("changes", None) is not None
    for field, short in _SHORT.items():
        value = getattr(after, field)
        if value != getattr(before, field):
            parts[short] = _shown(field, value)
    if "sram" in parts:
        shared = parts.pop("sram")
        parts = {f"{operand}_sram": shared for operand in OPERANDS} | parts
    sizes = [parts[f"{operand}_sram"] for operand in OPERANDS if f"{operand}_sram" in parts]
    if len(sizes) == len(OPERANDS) and len(set(sizes)) == 1:
        for operand in OPERANDS:
            del parts[f"{operand}_sram"]
        parts["sram"] = sizes[0]
    changes = ",".join(f"{name}={value}" for name, value in parts.items())
    name = f"{base}[{changes}]" if changes else base
    if len(name) <= MOST_NAME_CHARS and not is_hashed:
        return name
    values = json.dumps(replace(after, name=base).to_json(), sort_keys=True)
    return f"{base}[changes={hashlib.sha256(values.encode()).hexdigest()[:12]}]"


def _shown(field: str, value: object) -> str:
    if field.endswith("_bytes") and isinstance(value, int):
        return f"{value // 1024}kB" if value % 1024 == 0 else f"{value}B"
    return re.sub(r"[^A-Za-z0-9._-]", "", str(value))
