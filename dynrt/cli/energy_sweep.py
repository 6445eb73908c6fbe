"""``dynrt energy --sweep``: energy against cycles over arrays, dataflows and buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynrt.bundle import Bundle
from dynrt.cli.energy_page import digits, percent, scale_of
from dynrt.cli.energy_runs import Asked, places_of, table_of, with_layers
from dynrt.cli.progress import bar
from dynrt.cli.text import table
from dynrt.energy.backend import backend_named
from dynrt.energy.policy import DEFAULT_POLICY
from dynrt.energy.sweep import points, sweep
from dynrt.energy.sweep_record import SweepPoint
from dynrt.energy.tables import THOUSANDTHS, EnergyTable
from dynrt.units import FEMTO_PER_UNIT


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A swept network.

    Attributes:
        bundle: the network.
        table: its prices.
        policy, backend: of the counts; the backend with its version.
        points: in the order in which they were asked for.
    """

    bundle: Bundle
    table: EnergyTable
    policy: str
    backend: str
    points: Sequence[SweepPoint]

    @property
    def unit(self) -> str:
        """``J`` or ``MACeq``."""
        return self.points[0].unit

    def in_unit(self, amount: int) -> float:
        """An exact amount of a point in :attr:`unit`."""
        return amount / (FEMTO_PER_UNIT if self.unit == "J" else THOUSANDTHS)

    def to_json(self) -> dict[str, Any]:
        """The object of ``energy --sweep --json``."""
        exact = "femtojoules" if self.unit == "J" else "milli_mac_equivalents"
        return {
            "bundle": {"name": self.bundle.name, "sha256": self.bundle.sha256},
            "table": self.table.name,
            "policy": self.policy,
            "backend": self.backend,
            "unit": self.unit,
            "missing": list(self.points[0].missing),
            "points": [
                {
                    "hardware": p.hardware.name,
                    "details": p.hardware.to_json(),
                    "energy": self.in_unit(p.energy),
                    "low": self.in_unit(p.low),
                    "high": self.in_unit(p.high),
                    exact: p.energy,
                    "macs": p.macs,
                    "cycles": p.cycles,
                    "utilisation": p.utilisation,
                    "unmodelled_macs": p.unmodelled_macs,
                    "front": p.front,
                }
                for p in self.points
            ],
        }


def swept(
    bundle: Bundle, asked: Asked, texts: Sequence[str], *, ray: str | None, record: Path | None
) -> Sweep:
    """Sweep one hardware over all combinations of ``texts``.

    Raises:
        DynrtError: a text, a name or a file is wrong, or a layer cannot be counted.
    """
    (place,) = places_of(bundle, asked)
    prices, asked_points = table_of(bundle, asked), points(texts)
    policy, backend = asked.policy or DEFAULT_POLICY, asked.backend or "analytic"
    with bar("points") as tell:
        found = sweep(
            with_layers(bundle).layers or {},
            place.hardware,
            prices,
            asked_points,
            policy=policy,
            backend=backend,
            hops=asked.hops,
            workers=asked.workers,
            ray=ray,
            record=record,
            progress=tell,
        )
    version = backend_named(backend).version
    return Sweep(bundle=bundle, table=prices, policy=policy, backend=version, points=found)


def page(found: Sweep) -> str:
    """A row for each point; a star on the front."""
    amounts = [found.in_unit(p.energy) for p in found.points]
    unit, factor = scale_of(found.unit, amounts)
    rows = []
    for p, energy in zip(found.points, amounts, strict=True):
        h = p.hardware
        sizes = (h.ifmap_sram_bytes, h.filter_sram_bytes, h.ofmap_sram_bytes)
        rows.append(
            [
                "*" if p.front else "",
                f"{h.rows}x{h.cols}",
                h.dataflow,
                "/".join(f"{size / 1024:g}" for size in sizes),
                digits(energy / factor),
                f"{digits(found.in_unit(p.low) / factor)} .. "
                f"{digits(found.in_unit(p.high) / factor)}",
                digits(p.cycles / 1e3),
                percent(p.utilisation),
            ]
        )
    titles = ["", "array", "flow", "buffers kB", unit, "low .. high", "kcycles", "used"]
    lines = [
        f"{found.bundle.name}, all nodes, {len(rows)} points; * nothing else takes less of both",
        "",
        table(titles, rows, right=(4, 5, 6, 7)),
        "",
    ]
    if found.points[0].missing:
        missing = ", ".join(found.points[0].missing)
        lines.append(f"not in the table, so not in the energy: {missing}")
    if unmodelled := max(p.unmodelled_macs for p in found.points):
        share = unmodelled / max(p.macs + p.unmodelled_macs for p in found.points)
        lines.append(f"NOT modelled: operators with {percent(share)} of the MACs")
    lines.append(
        f"counts: {found.backend}, policy {found.policy}; prices: {found.table.name} "
        f"({found.table.technology})"
    )
    return "\n".join(lines)
