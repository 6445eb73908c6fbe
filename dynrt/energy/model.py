"""Counts times table: the energy of nodes and paths by level, operand and direction.

DDI's equation (6), ``E = sum_i acc_i * e_i + MAC * e_MAC`` (arXiv 1907.04523, section IV-B), over
main memory, on-chip buffers and register files. Amounts are integers: femtojoules, or thousandths of
a MAC-equivalent. Each part is rounded once, half up; a node is the sum of its parts and a path the
sum of its nodes, so that sums are exact and a skipped node takes away exactly what it costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from dynrt.energy.hardware import Hardware, Operand
from dynrt.energy.tables import THOUSANDTHS, Access, Action, EnergyTable, Level, unit_of
from dynrt.errors import EnergyError
from dynrt.ir.counts import AccessCounts, CountTable, EnergySource, Gap, NodeCounts, TypedCounts
from dynrt.ir.graph import NodeId
from dynrt.units import FEMTO_PER_UNIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """An energy with its bounds, in femtojoules or thousandths of a MAC-equivalent.

    Attributes:
        value: what the table gives.
        low, high: with the table's low and high bounds everywhere at once.
    """

    value: int = 0
    low: int = 0
    high: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            value=self.value + other.value, low=self.low + other.low, high=self.high + other.high
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One term of a node's energy.

    Attributes:
        level: ``mac``, ``register_file``, ``hop``, ``buffer``, ``dram`` or ``operation``.
        operand: ``ifmap``, ``filter``, ``ofmap``; ``None`` where there is none.
        access: ``read`` or ``write``; ``None`` where there is neither.
        count: words, or operations.
        amount: what they take.
    """

    level: Level
    operand: Operand | None
    access: Access | None
    count: int
    amount: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """The energy of one node.

    Attributes:
        parts: its terms, those without any count left out.
        amount: the sum of the parts.
        gaps: operators that are not in it.
        kept: for a node with a channel mask, its energy with 0, 1, ... groups kept; else empty.
    """

    parts: tuple[Part, ...]
    amount: Amount
    gaps: tuple[Gap, ...] = ()
    kept: tuple[Amount, ...] = ()

    @property
    def by_level(self) -> dict[Level, Amount]:
        """The sum of each level that has a part."""
        return _by_level(self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PathReport:
    """The energy of nodes that run one after another.

    Attributes:
        amount: the sum of the nodes.
        by_level: the sum of each level.
        gaps: operators that are not in it, node after node.
    """

    amount: Amount
    by_level: Mapping[Level, Amount]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyReport:
    """The energy of a network's nodes on one hardware, by one table and policy.

    Attributes:
        unit: ``J`` (amounts are femtojoules) or ``MACeq`` (amounts are thousandths of it).
        source: what it all rests on, by name.
        nodes: by name, in the order of the counts.
        missing: terms that were counted and have no row in the table: not modelled, not zero.
        left_out: optional terms that were counted and priced only on request.
        basis: how the prices that were used came about, with their sources, by term.
    """

    unit: Literal["J", "MACeq"]
    source: EnergySource
    nodes: Mapping[NodeId, NodeReport]
    missing: tuple[str, ...]
    left_out: tuple[str, ...]
    basis: Mapping[str, Action]

    def node(self, name: NodeId) -> NodeReport:
        """The energy of one node.

        Raises:
            EnergyError: there is no such node.
        """
        try:
            return self.nodes[name]
        except KeyError:
            raise EnergyError(f"no node {name[:80]!r} in the counts of {self.source}") from None

    def of_path(self, names: Iterable[NodeId]) -> PathReport:
        """The energy of the nodes of a path, each once.

        Raises:
            EnergyError: no such node, or one twice.
        """
        path = tuple(names)
        if len(set(path)) < len(path):
            twice = next(name for i, name in enumerate(path) if name in path[:i])
            raise EnergyError(f"node {twice[:80]!r} is on the path twice; a node runs once at most")
        reports = [self.node(name) for name in path]
        return PathReport(
            amount=sum((report.amount for report in reports), start=Amount()),
            by_level=_by_level([part for report in reports for part in report.parts]),
            gaps=tuple(gap for report in reports for gap in report.gaps),
        )

    @property
    def total(self) -> Amount:
        """The sum of all nodes: every exit and every branch, which no one input runs."""
        return sum((report.amount for report in self.nodes.values()), start=Amount())

    def in_unit(self, amount: int) -> float:
        """Femtojoules as joules, or thousandths of a MAC-equivalent as MAC-equivalents."""
        return amount / (FEMTO_PER_UNIT if self.unit == "J" else THOUSANDTHS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Term:
    """Which count is accesses of which kind."""

    level: Level
    count: str
    operand: Operand | None = None
    access: Access | None = None

    @property
    def name(self) -> str:
        return " ".join(p for p in (self.level, self.operand, self.access) if p is not None)


_TERMS: tuple[_Term, ...] = (
    _Term(level="mac", count="macs"),
    # An assumption, since no count of the simulator has registers: a multiply-accumulate reads its
    # input, its weight and its partial sum from register files, and writes the sum back.
    _Term(level="register_file", count="macs", operand="ifmap", access="read"),
    _Term(level="register_file", count="macs", operand="filter", access="read"),
    _Term(level="register_file", count="macs", operand="ofmap", access="read"),
    _Term(level="register_file", count="macs", operand="ofmap", access="write"),
    _Term(level="hop", count="hops_ifmap", operand="ifmap"),
    _Term(level="hop", count="hops_filter", operand="filter"),
    _Term(level="hop", count="hops_ofmap", operand="ofmap"),
    _Term(level="buffer", count="sram_ifmap_reads", operand="ifmap", access="read"),
    _Term(level="buffer", count="sram_filter_reads", operand="filter", access="read"),
    _Term(level="buffer", count="sram_ofmap_reads", operand="ofmap", access="read"),
    _Term(level="buffer", count="sram_ofmap_writes", operand="ofmap", access="write"),
    _Term(level="dram", count="dram_ifmap_reads", operand="ifmap", access="read"),
    _Term(level="dram", count="dram_filter_reads", operand="filter", access="read"),
    _Term(level="dram", count="dram_ofmap_reads", operand="ofmap", access="read"),
    _Term(level="dram", count="dram_ofmap_writes", operand="ofmap", access="write"),
    _Term(level="operation", count="operations"),
)


def price(counts: CountTable, table: EnergyTable, *, hops: bool = False) -> EnergyReport:
    """Counts times table.

    Args:
        counts: of a network on one hardware; nothing is counted again.
        table: what each access takes.
        hops: also the words handed from one processing element to the next. Equation (6) has no
            such term; without it they are named in ``left_out``.

    Raises:
        EnergyTableError: the table has a level, but not for a number format or the DRAM here.
        HardwareError: the counts' hardware is none.
    """
    pricer = _Pricer(Hardware.from_json(counts.hardware, place="counts: hardware"), table, hops)
    nodes = {name: pricer.node(node) for name, node in counts.nodes.items()}
    unit = unit_of(table)
    return EnergyReport(
        unit=unit,
        source=EnergySource(
            table=f"{table.name}+hops" if hops else table.name,
            hardware=pricer.hardware.name,
            policy=counts.policy,
            backend=counts.backend,
            unit=unit,
        ),
        nodes=nodes,
        missing=tuple(dict.fromkeys(pricer.missing)),
        left_out=tuple(dict.fromkeys(pricer.left_out)),
        basis=pricer.basis,
    )


class _Pricer:
    """Prices nodes; looks each price up once."""

    def __init__(self, hardware: Hardware, table: EnergyTable, hops: bool) -> None:
        self.hardware, self._table, self._hops = hardware, table, hops
        self._actions: dict[tuple[_Term, str], Action | None] = {}
        self.missing: list[str] = []
        self.left_out: list[str] = []
        self.basis: dict[str, Action] = {}

    def node(self, node: NodeCounts) -> NodeReport:
        parts = self._parts(node.typed)
        kept = (self._parts(typed) for typed in node.kept)
        return NodeReport(
            parts=parts,
            amount=_sum(parts),
            gaps=node.gaps,
            kept=tuple(_sum(own) for own in kept),
        )

    def _parts(self, typed: Sequence[TypedCounts]) -> tuple[Part, ...]:
        parts = (self._part(term, typed) for term in _TERMS)
        return tuple(part for part in parts if part is not None)

    def _part(self, term: _Term, typed: Sequence[TypedCounts]) -> Part | None:
        exact = [Fraction(0)] * 3
        words, priced = 0, False
        for own in typed:
            count = _count(own.counts, term)
            if not count:
                continue
            if term.level == "hop" and not self._hops:
                self.left_out.append("hop")
                continue
            action = self._action(term, own.dtype)
            if action is None:
                has_level = term.level in self._table.levels
                self.missing.append(f"{term.level} {term.access}" if has_level else term.level)
                continue
            words, priced = words + count, True
            for i, each in enumerate((action.value, action.low, action.high)):
                exact[i] += count * each
        if not priced:
            return None
        value, low, high = (_half_up(amount) for amount in exact)
        return Part(
            level=term.level,
            operand=term.operand,
            access=term.access,
            count=words,
            amount=Amount(value=value, low=low, high=high),
        )

    def _action(self, term: _Term, dtype: str) -> Action | None:
        key = (term, dtype)
        if key not in self._actions:
            action = self._table.action(
                term.level,
                dtype=dtype,
                hardware=self.hardware,
                operand=term.operand,
                access=term.access,
            )
            self._actions[key] = action
            if action is not None:
                self.basis[f"{term.name} {dtype}"] = action
        return self._actions[key]


def _count(counts: AccessCounts, term: _Term) -> int:
    count: int = getattr(counts, term.count)
    return count


def _half_up(amount: Fraction) -> int:
    """The nearest whole number; the larger of two that are as near. ``amount`` is not negative."""
    return (2 * amount.numerator + amount.denominator) // (2 * amount.denominator)


def _sum(parts: Iterable[Part]) -> Amount:
    return sum((part.amount for part in parts), start=Amount())


def _by_level(parts: Iterable[Part]) -> dict[Level, Amount]:
    sums: dict[Level, Amount] = {}
    for part in parts:
        sums[part.level] = sums.get(part.level, Amount()) + part.amount
    return sums
