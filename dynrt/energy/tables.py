"""Energy tables: what one access or one multiply-accumulate takes, with bounds and a source each.

A table is in picojoules, by number format and memory size, or *normalised*: in the energy of one of
its multiply-accumulates (``MACeq``), where the ratios are taken to hold at every width. A level that
a table does not have is not modelled: it is listed by name, never taken as zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

from dynrt.energy.hardware import Hardware, Operand, word_bits
from dynrt.energy.toml_fields import Fields, find_file, packaged_names, read_document
from dynrt.errors import EnergyTableError
from dynrt.ir.layers import WORD_BITS

FORMAT = 1
TableUnit = Literal["pJ", "MACeq"]
Level = Literal["mac", "register_file", "hop", "buffer", "dram", "operation"]
Access = Literal["read", "write"]
Basis = Literal["published", "derived", "interpolated", "extrapolated", "assumed"]

LEVELS: tuple[Level, ...] = get_args(Level)
#: Thousandths of the table's unit: femtojoules, or thousandths of a MAC-equivalent.
THOUSANDTHS = 1000

_FOLDER = Path(__file__).parent / "data" / "tables"
_LEAST, _MOST = "1e-12", "1e12"
_CONTEXT = Context(prec=34)
_PER_BIT_DECIMALS = Decimal("1e-9")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of a table: an access of ``bits``, or one operation.

    Attributes:
        level: of the memory hierarchy, ``mac`` or ``operation`` (one scalar addition or the like).
        value, low, high: in the table's unit; ``low <= value <= high``.
        basis: how the value came about; ``published`` is as the source prints it.
        source: where it comes from.
        note: how it was derived and what bounds it; may be empty.
        dtype: of a multiplication or operation, in a table in pJ.
        access: ``read`` or ``write``; ``None``: both.
        kind: of DRAM; ``None``: any.
        size_bytes: of the buffer; ``None``: any.
        bits: of the access; ``None`` in a normalised table: a word of any width.
    """

    level: Level
    value: Fraction
    low: Fraction
    high: Fraction
    basis: Basis
    source: str
    note: str = ""
    dtype: str | None = None
    access: Access | None = None
    kind: str | None = None
    size_bytes: int | None = None
    bits: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What one word takes, in thousandths of the table's unit (fJ, or MACeq / 1000), exactly.

    Attributes:
        value, low, high: per word, or per multiply-accumulate.
        basis: ``interpolated`` or ``extrapolated`` where the hardware's buffer has another size
            than those of the table.
        sources: of the rows that it rests on.
    """

    value: Fraction
    low: Fraction
    high: Fraction
    basis: Basis
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyTable:
    """A checked table.

    Attributes:
        name: every result names it.
        unit: ``pJ``, or ``MACeq`` for a normalised table.
        technology: node and word width of the figures.
        summary: what a person should know before believing results.
        entries: the rows.
    """

    name: str
    unit: TableUnit
    technology: str
    summary: str
    entries: tuple[Entry, ...]

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels that it has."""
        return tuple(level for level in LEVELS if any(e.level == level for e in self.entries))

    @property
    def missing(self) -> tuple[Level, ...]:
        """The levels that it does not model."""
        return tuple(level for level in LEVELS if level not in self.levels)

    def action(
        self,
        level: Level,
        *,
        dtype: str,
        hardware: Hardware,
        operand: Operand | None = None,
        access: Access | None = None,
    ) -> Action | None:
        """What one word of ``dtype`` takes at ``level`` of ``hardware``; ``None``: not modelled.

        Args:
            level: of the hierarchy.
            dtype: number format of the word.
            hardware: gives the size of the buffer of ``operand`` and the kind of DRAM.
            operand: whose buffer; needed for ``buffer``.
            access: ``read`` or ``write``; ``None`` for ``mac``, ``hop`` and ``operation``.

        Raises:
            EnergyTableError: the table has the level, but not for this number format or DRAM.
            HardwareError: no such number format.
        """
        bits = word_bits(dtype)
        rows = [e for e in self.entries if e.level == level]
        rows = [e for e in rows if access is None or e.access in (None, access)]
        if not rows:
            return None
        if level in ("mac", "operation"):
            rows = self._of_dtype(level, rows, dtype)
        elif level == "dram":
            rows = self._of_kind(rows, hardware)
        if rows[0].size_bytes is not None:
            if operand is None:
                raise EnergyTableError(f"table {self.name}: {level} goes by size: whose buffer?")
            return _by_size(rows, hardware.sram_bytes(operand), bits)
        row = rows[0]
        return Action(
            value=_per_word(row, row.value, bits),
            low=_per_word(row, row.low, bits),
            high=_per_word(row, row.high, bits),
            basis=row.basis,
            sources=(row.source,),
        )

    def _of_dtype(self, level: Level, rows: list[Entry], dtype: str) -> list[Entry]:
        if rows[0].dtype is None:
            return rows
        found = [e for e in rows if e.dtype == same_width_format(dtype)]
        if not found:
            known = ", ".join(str(e.dtype) for e in rows)
            raise EnergyTableError(
                f"table {self.name}: no {level} of {dtype}; it has {known} (signed or not)"
            )
        return found

    def _of_kind(self, rows: list[Entry], hardware: Hardware) -> list[Entry]:
        if all(e.kind is None for e in rows):
            return rows
        found = [e for e in rows if e.kind == hardware.dram]
        if not found:
            known = ", ".join(sorted({e.kind for e in rows if e.kind is not None}))
            asked = f"no DRAM of kind {hardware.dram}" if hardware.dram else "no general DRAM"
            raise EnergyTableError(
                f"table {self.name}: {asked} (hardware {hardware.name}); it has {known}"
            )
        return found


def same_width_format(dtype: str) -> str:
    """The format whose figures ``dtype`` shares: ``int8`` for ``uint8`` and ``bool``."""
    if dtype == "bool":
        return "int8"
    return dtype.removeprefix("u")


def packaged_tables() -> tuple[str, ...]:
    """Names of the tables that come with dynrt."""
    return packaged_names(_FOLDER)


def load_table(name_or_path: str | Path) -> EnergyTable:
    """Read an energy table.

    Args:
        name_or_path: a name that :func:`packaged_tables` lists, or a TOML file.

    Raises:
        EnergyTableError: neither; or a field is missing, unknown, given twice, of the wrong type or
            unit, or out of range, or rows contradict each other; the message names file, line,
            field, value and what is allowed.
    """
    path = find_file(name_or_path, _FOLDER, error=EnergyTableError)
    table = _table(read_document(path, what="an energy table", error=EnergyTableError))
    is_free = path.parent == _FOLDER or table.name not in packaged_tables()
    if not is_free and table != load_table(table.name):
        raise EnergyTableError(
            f"{path.name}: name {table.name!r} is dynrt's own, with other values: "
            "results name their table, so give yours another name"
        )
    return table


def _table(top: Fields) -> EnergyTable:
    top.integer("format", low=FORMAT, high=FORMAT)
    name = top.matching(
        "name",
        r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}",
        allowed="1 to 64 letters, digits and . _ + -",
    )
    unit = top.choice("unit", get_args(TableUnit))
    technology, summary = top.text("technology"), top.text("summary", longest=4000)
    entries: list[Entry] = []
    for level in LEVELS:
        rows = top.tables(level)
        taken: list[Entry] = []
        for row in rows:
            taken.append(_entry(row, level, unit))
            _fits(row, taken)
            row.done()
        entries += taken
        if level == "mac" and not taken:
            raise top.wrong("mac is missing: at least one table [[mac]] is needed")
    top.done()
    return EnergyTable(
        name=name, unit=unit, technology=technology, summary=summary, entries=tuple(entries)
    )


def _entry(row: Fields, level: Level, unit: TableUnit) -> Entry:
    dtype, access, kind, size_bytes, bits = None, None, None, None, None
    arithmetic = level in ("mac", "operation")
    if unit == "pJ" and arithmetic:
        formats = [d for d in WORD_BITS if same_width_format(d) == d]
        dtype = row.choice("dtype", formats)
    if level in ("register_file", "buffer", "dram") and row.has("access"):
        access = row.choice("access", get_args(Access))
    if level == "dram" and row.has("kind"):
        kind = row.matching(
            "kind", r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", allowed="1 to 32 letters, digits and . _ -"
        )
    if level == "buffer" and (unit == "pJ" or row.has("bytes")):
        size_bytes = row.integer("bytes", low=1, high=1 << 40)
    if unit == "pJ" and not arithmetic:
        bits = row.integer("bits", low=1, high=4096)
    value = row.fraction("value", low=_LEAST, high=_MOST)
    low = row.fraction("low", low=_LEAST, high=_MOST)
    high = row.fraction("high", low=_LEAST, high=_MOST)
    if not low <= value <= high:
        raise row.refuse(
            "low" if low > value else "high",
            float(low if low > value else high),
            f"low <= value <= high (value = {float(value):g})",
        )
    if unit == "MACeq" and level == "mac" and not low == value == high == 1:
        raise row.refuse("value", float(value), "1 in unit MACeq, low and high too,")
    return Entry(
        level=level,
        value=value,
        low=low,
        high=high,
        basis=row.choice("basis", get_args(Basis)),
        source=row.text("source"),
        note=row.text("note", longest=4000) if row.has("note") else "",
        dtype=dtype,
        access=access,
        kind=kind,
        size_bytes=size_bytes,
        bits=bits,
    )


def _fits(row: Fields, taken: list[Entry]) -> None:
    """The last entry says nothing that one before it says, or says otherwise.

    Raises:
        EnergyTableError: it does.
    """
    new = taken[-1]
    for old in taken[:-1]:
        overlaps = old.access is None or new.access is None or old.access == new.access
        if not overlaps:
            continue
        if (old.size_bytes is None) != (new.size_bytes is None):
            raise row.wrong("one row for every size and one for some sizes: which holds?")
        if (old.dtype, old.kind, old.size_bytes) == (new.dtype, new.kind, new.size_bytes):
            raise row.wrong("there is a row for this already (same dtype, kind, size and access)")


def _per_word(row: Entry, amount: Fraction, bits: int) -> Fraction:
    per_unit = amount if row.bits is None else amount * bits / row.bits
    return per_unit * THOUSANDTHS


def _by_size(rows: list[Entry], size_bytes: int, bits: int) -> Action:
    """Between two sizes: a straight line through the logarithms of size and of energy per bit.

    Beyond the sizes of the table the line of the nearest two goes on. One size alone holds for all.
    """
    rows = sorted(rows, key=lambda e: e.size_bytes or 0)
    sizes = [row.size_bytes or 0 for row in rows]
    if size_bytes in sizes or len(rows) == 1:
        row = rows[sizes.index(size_bytes)] if size_bytes in sizes else rows[0]
        basis: Basis = row.basis if size_bytes in sizes else "extrapolated"
        amounts = [_per_word(row, amount, bits) for amount in (row.value, row.low, row.high)]
        return Action(
            value=amounts[0], low=amounts[1], high=amounts[2], basis=basis, sources=(row.source,)
        )
    above = next((i for i, size in enumerate(sizes) if size > size_bytes), len(sizes))
    second = min(max(above, 1), len(sizes) - 1)
    ends, first_row, second_row = (sizes[second - 1], sizes[second]), rows[second - 1], rows[second]

    def between(first: Fraction, second: Fraction) -> Fraction:
        per_bit = (first / (first_row.bits or 1), second / (second_row.bits or 1))
        words_bits = bits if first_row.bits is not None else 1
        return _log_log(size_bytes, ends, per_bit) * words_bits * THOUSANDTHS

    value = between(first_row.value, second_row.value)
    low = between(first_row.low, second_row.low)
    high = between(first_row.high, second_row.high)
    return Action(
        value=value,
        low=min(low, value, high),  # beyond the sizes the three lines may cross
        high=max(low, value, high),
        basis="interpolated" if 0 < above < len(sizes) else "extrapolated",
        sources=tuple(dict.fromkeys((first_row.source, second_row.source))),
    )


def _log_log(size: int, sizes: tuple[int, int], values: tuple[Fraction, Fraction]) -> Fraction:
    """The straight line through two points in logarithms; decimal, so equal on every machine."""
    x, x0, x1 = (_CONTEXT.ln(Decimal(s)) for s in (size, *sizes))
    y0, y1 = (
        _CONTEXT.ln(_CONTEXT.divide(Decimal(v.numerator), Decimal(v.denominator))) for v in values
    )
    share = _CONTEXT.divide(_CONTEXT.subtract(x, x0), _CONTEXT.subtract(x1, x0))
    y = _CONTEXT.add(y0, _CONTEXT.multiply(share, _CONTEXT.subtract(y1, y0)))
    return Fraction(_CONTEXT.exp(y).quantize(_PER_BIT_DECIMALS, context=_CONTEXT))


def unit_of(table: EnergyTable) -> Literal["J", "MACeq"]:
    """The unit of the energies that the table gives: joules, or MAC-equivalents."""
    units: Mapping[TableUnit, Literal["J", "MACeq"]] = {"pJ": "J", "MACeq": "MACeq"}
    return units[table.unit]
