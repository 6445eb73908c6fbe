"""Modelled against measured: counts of paths, their modelled energy, and the form of DDI's table I.

Measured is what a session gave, emulated or hardware; modelled is counts times table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynrt.energy.model import EnergyReport
from dynrt.errors import SessionError
from dynrt.fpga.estimate import Interval
from dynrt.fpga.replay import CaseOutcome, Outcome
from dynrt.ir.counts import CountTable
from dynrt.ir.layers import WORD_BITS

_WORD_BITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One case, modelled and measured, per inference.

    Attributes:
        name, skipping: of the case.
        macs: mean.
        macs_saved: against the dearest case, a share.
        modelled: in the model's unit.
        modelled_saved: against the dearest case, a share.
        measured_j: dynamic energy; ``None`` where the session could not say.
        measured_saved: its saving against the dearest case, a share with its interval.
        gross_saved: the same of the whole board's energy.
        ratio: measured over modelled; ``None`` where the model is not in joules.
    """

    name: str
    skipping: float | None
    macs: float
    macs_saved: float
    modelled: float
    modelled_saved: float
    measured_j: Interval | None
    measured_saved: Interval | None
    gross_saved: Interval | None
    ratio: float | None


def compare_cases(outcome: Outcome, report: EnergyReport) -> tuple[Compared, ...]:
    """Every case of a session beside the model.

    Raises:
        SessionError: the session has no cases.
        EnergyError: the model is of another network.
    """
    if not outcome.cases:
        raise SessionError("the session has no case that was verified")
    modelled = [modelled_of(case, report) for case in outcome.cases]
    dearest = max(range(len(modelled)), key=lambda i: outcome.cases[i].macs)
    full = outcome.cases[dearest]
    rows = []
    for case, amount in zip(outcome.cases, modelled, strict=True):
        own = case.estimate.dynamic_j
        joules = report.unit == "J"
        rows.append(
            Compared(
                name=case.name,
                skipping=case.skipping,
                macs=case.macs,
                macs_saved=1 - case.macs / full.macs,
                modelled=amount,
                modelled_saved=1 - amount / modelled[dearest],
                measured_j=own,
                measured_saved=saving(own, full.estimate.dynamic_j, same=case is full),
                gross_saved=saving(case.estimate.gross_j, full.estimate.gross_j, same=case is full),
                ratio=own.mean / amount if own is not None and joules and amount else None,
            )
        )
    return tuple(rows)


def modelled_of(case: CaseOutcome, report: EnergyReport) -> float:
    """Mean modelled energy of one inference, in the report's unit."""
    amounts = [report.of_path(path).amount.value for path in case.paths]
    return sum(map(report.in_unit, amounts)) / len(amounts)


def saving(own: Interval | None, full: Interval | None, *, same: bool) -> Interval | None:
    """``1 - own / full`` with its interval (first order, the two independent)."""
    if own is None or full is None or full.mean == 0:
        return None
    if same:
        return Interval(mean=0.0, low=0.0, high=0.0, n=own.n)
    share = own.mean / full.mean
    half = ((own.half_width / full.mean) ** 2 + (share * full.half_width / full.mean) ** 2) ** 0.5
    return Interval(mean=1 - share, low=1 - share - half, high=1 - share + half, n=own.n)


def path_words(case: CaseOutcome, counts: CountTable) -> dict[str, float]:
    """Mean counts of one inference by what a table has a price for.

    ``mac DTYPE`` and ``operation DTYPE`` are operations, ``buffer`` and ``dram`` words of 32 bits.

    Raises:
        SessionError: the counts are of another network.
    """
    total: dict[str, float] = {}
    for path in case.paths:
        for node in path:
            if node not in counts.nodes:
                raise SessionError(f"the counts are of another network: no node {node!r}")
            for typed in counts.nodes[node].typed:
                own = typed.counts
                width = WORD_BITS[typed.dtype] / _WORD_BITS
                buffer = own.sram_ifmap_reads + own.sram_filter_reads + own.sram_ofmap_reads
                dram = own.dram_ifmap_reads + own.dram_filter_reads + own.dram_ofmap_reads
                for key, amount in (
                    (f"mac {typed.dtype}", float(own.macs)),
                    (f"operation {typed.dtype}", float(own.operations)),
                    ("buffer", (buffer + own.sram_ofmap_writes) * width),
                    ("dram", (dram + own.dram_ofmap_writes) * width),
                ):
                    total[key] = total.get(key, 0.0) + amount
    return {key: amount / len(case.paths) for key, amount in total.items()}


def compared_json(
    rows: Sequence[Compared], outcome: Outcome, report: EnergyReport
) -> dict[str, Any]:
    """The table as plain JSON values."""
    return {
        "source": outcome.source,
        "modelled": str(report.source),
        "unit": report.unit,
        "missing": list(report.missing),
        "rows": [_row(row, outcome.source) for row in rows],
    }


def _row(row: Compared, source: str) -> Mapping[str, Any]:
    return {
        "name": row.name,
        "source": source,
        "skipping": row.skipping,
        "macs": row.macs,
        "macs_saved": row.macs_saved,
        "modelled": row.modelled,
        "modelled_saved": row.modelled_saved,
        "measured_j": None if row.measured_j is None else row.measured_j.to_json(),
        "measured_saved": None if row.measured_saved is None else row.measured_saved.to_json(),
        "gross_saved": None if row.gross_saved is None else row.gross_saved.to_json(),
        "ratio": row.ratio,
    }
