"""Access counts: what an accelerator would read, write and multiply for a layer, a node, a path.

They add up; they have no joules. Joules are counts times a table (``dynrt.energy``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from dynrt.ir.graph import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessCounts:
    """Words read and written per memory and operand, multiplications and cycles.

    The operands are SCALE-Sim's: ``ifmap`` (inputs), ``filter`` (weights; the second factor of a
    product), ``ofmap`` (results and partial sums). SRAM is the on-chip buffer, DRAM the main memory.

    Attributes:
        macs: multiply-accumulates.
        operations: scalar operations of passes (additions, comparisons); no multiplications.
        cycles: of the array, stalls included; passes have none.
        stall_cycles: of these, those in which the array waits for memory.
        pe_cycles: cycles times processing elements; ``macs / pe_cycles`` is the utilisation.
        sram_ifmap_reads, sram_filter_reads, sram_ofmap_reads, sram_ofmap_writes: words.
        dram_ifmap_reads, dram_filter_reads, dram_ofmap_reads, dram_ofmap_writes: words.
        hops_ifmap, hops_filter, hops_ofmap: words handed from one processing element to the next.
    """

    macs: int = 0
    operations: int = 0
    cycles: int = 0
    stall_cycles: int = 0
    pe_cycles: int = 0
    sram_ifmap_reads: int = 0
    sram_filter_reads: int = 0
    sram_ofmap_reads: int = 0
    sram_ofmap_writes: int = 0
    dram_ifmap_reads: int = 0
    dram_filter_reads: int = 0
    dram_ofmap_reads: int = 0
    dram_ofmap_writes: int = 0
    hops_ifmap: int = 0
    hops_filter: int = 0
    hops_ofmap: int = 0

    def __add__(self, other: AccessCounts) -> AccessCounts:
        return AccessCounts(
            **{name: getattr(self, name) + getattr(other, name) for name in COUNT_NAMES}
        )

    def times(self, repeat: int) -> AccessCounts:
        """The counts of ``repeat`` such layers, one after another."""
        return AccessCounts(**{name: getattr(self, name) * repeat for name in COUNT_NAMES})

    @property
    def utilisation(self) -> float | None:
        """Share of the processing elements' cycles that multiply; ``None`` without cycles."""
        return self.macs / self.pe_cycles if self.pe_cycles else None


#: The names of all counts, in the order of the class.
COUNT_NAMES: tuple[str, ...] = tuple(f.name for f in fields(AccessCounts))


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedCounts:
    """Counts of the layers of a node whose words have one number format.

    Attributes:
        dtype: a key of ``dynrt.ir.layers.WORD_BITS``.
        counts: their sum.
    """

    dtype: str
    counts: AccessCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Operators of a node that have no model.

    Attributes:
        op: the ONNX operator.
        count: how many of them.
        macs: their multiply-accumulates.
        bytes_moved: their traffic; ``None`` where it is not known.
        reason: why, for a person.
    """

    op: str
    count: int
    macs: int
    bytes_moved: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCounts:
    """What one node takes.

    Attributes:
        typed: by number format, sorted by its name; no format twice.
        gaps: what is not in it.
        kept: for a node with a channel mask, ``typed`` for 0, 1, ... all kept groups; else empty.
    """

    typed: tuple[TypedCounts, ...]
    gaps: tuple[Gap, ...] = ()
    kept: tuple[tuple[TypedCounts, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CountTable:
    """Counts of a network on one hardware, under one policy; what a bundle carries.

    Attributes:
        hardware: the hardware as plain JSON values (``dynrt.energy.hardware``).
        policy: name of the policy (``dynrt.energy.policy``).
        backend: what counted, with its version (``analytic 1``, ``scalesim 3.0.0``).
        nodes: counts of each compute node and exit.
    """

    hardware: Mapping[str, object]
    policy: str
    backend: str
    nodes: Mapping[NodeId, NodeCounts]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergySource:
    """Where the energies in a graph's costs come from; every joule that is printed names it.

    Attributes:
        table, hardware, policy, backend: names.
        unit: ``J`` or ``MACeq`` (the energy of one multiply-accumulate of the table).
    """

    table: str
    hardware: str
    policy: str
    backend: str
    unit: str

    def __str__(self) -> str:
        return f"modelled:{self.table}@{self.hardware}/{self.policy}/{self.backend.split()[0]}"
