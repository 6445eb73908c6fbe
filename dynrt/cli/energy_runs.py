"""A network's energy on one hardware, as ``dynrt energy`` asks for it; and on several."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dynrt.bundle import Bundle
from dynrt.bundle.held import Held
from dynrt.cli.progress import bar
from dynrt.energy.backend import backend_named
from dynrt.energy.costing import count_bundle, priced
from dynrt.energy.hardware import Hardware, load_hardware
from dynrt.energy.model import EnergyReport, price
from dynrt.energy.policy import DEFAULT_POLICY
from dynrt.energy.tables import EnergyTable, load_table, packaged_tables
from dynrt.errors import EnergyError, HardwareError
from dynrt.ir.counts import CountTable

#: What is modelled where neither the person nor the bundle says it.
DEFAULT_HARDWARE, DEFAULT_TABLE = "eyeriss", "eyeriss-normalised"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a person asked for; what is empty or ``None`` is left to the bundle, then to defaults.

    Attributes:
        hardware: names or files.
        table: name or file.
        policy, backend: names.
        dataflows: instead of the hardware's.
        rows, cols: of the array, instead of the hardware's.
        sram_kb: size of each of the three buffers, instead of the hardware's.
        hops: whether forwarding between processing elements is priced.
        workers: processes of the simulator.
    """

    hardware: tuple[str, ...] = ()
    table: str | None = None
    policy: str | None = None
    backend: str | None = None
    dataflows: tuple[str, ...] = ()
    rows: int | None = None
    cols: int | None = None
    sram_kb: int | None = None
    hops: bool = False
    workers: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a network is modelled on.

    Attributes:
        row: name of the hardware before its dataflow was changed.
        hardware: the hardware itself.
    """

    row: str
    hardware: Hardware


@dataclass(frozen=True, kw_only=True)
class Run:
    """One network on one hardware.

    Attributes:
        bundle: the network, with a layer table where counts were not stored.
        row: name of the hardware before its dataflow was changed.
        hardware, table: what was asked for.
        counts: of each node.
        stored: the counts are the bundle's own.
        report: counts times table.
        hops: whether forwarding is priced.
    """

    bundle: Bundle
    row: str
    hardware: Hardware
    table: EnergyTable
    counts: CountTable
    stored: bool
    report: EnergyReport
    hops: bool

    def priced(self) -> Bundle:
        """The bundle with these counts and energies, and with its layer table."""
        return priced(self.bundle, self.counts, self.table, hops=self.hops)


def run(bundle: Bundle, asked: Asked) -> Run:
    """Count, where the bundle does not carry the counts, and price.

    Raises:
        EnergyError: the bundle has no layer table, or a layer cannot be counted.
        HardwareError, EnergyTableError: a name or file is wrong.
        MissingExtraError: the simulator was asked for and is not there.
    """
    return runs(bundle, asked)[0]


def runs(bundle: Bundle, asked: Asked) -> list[Run]:
    """The same on each hardware with each dataflow.

    Raises:
        DynrtError: as for :func:`run`.
    """
    table = table_of(bundle, asked)
    return [_run(bundle, asked, place, table) for place in places_of(bundle, asked)]


def places_of(bundle: Bundle, asked: Asked) -> list[Place]:
    """What to model on: each hardware, with each dataflow that was asked for.

    Raises:
        HardwareError: no such hardware, a value out of range, or one hardware twice.
    """
    stored = bundle.counts
    found = [load_hardware(name) for name in asked.hardware]
    if not found and stored is not None:
        place = f"{bundle.name}: counts: hardware"
        found = [Hardware.from_json(stored.hardware, place=place)]
    changes: dict[str, object] = {"rows": asked.rows, "cols": asked.cols}
    changes["sram_bytes"] = None if asked.sram_kb is None else asked.sram_kb * 1024
    given = {name: value for name, value in changes.items() if value is not None}
    out: list[Place] = []
    for item in found or [load_hardware(DEFAULT_HARDWARE)]:
        base = item.with_(**given)
        if base.name in [place.row for place in out]:
            raise HardwareError(f"hardware {base.name} is given twice")
        for flow in asked.dataflows or (base.dataflow,):
            out.append(Place(row=base.name, hardware=base.with_(dataflow=flow)))
    return out


def table_of(bundle: Bundle, asked: Asked) -> EnergyTable:
    """The table that was asked for; else the bundle's, if it comes with dynrt; else the default."""
    if asked.table is not None:
        return load_table(asked.table)
    stored = bundle.energy.table if bundle.energy is not None else DEFAULT_TABLE
    return load_table(stored if stored in packaged_tables() else DEFAULT_TABLE)


def with_layers(bundle: Bundle) -> Bundle:
    """The bundle, with the layer table that its ONNX says if it carries none.

    Raises:
        EnergyError: it carries none, and the exporters are not installed.
    """
    if bundle.held_layers is not None:
        return bundle
    try:
        from dynrt.exporters.layers import layer_table
    except ModuleNotFoundError as exc:
        if exc.name not in ("onnx", "torch"):
            raise
        raise EnergyError(
            f"{bundle.name} has no layer table: export it again with this dynrt, or "
            f"pip install 'dynrt[export]', which reads it from the bundle's ONNX "
            f"({exc.name} is missing)"
        ) from exc
    return replace(bundle, held_layers=Held.of(layer_table(bundle.models, bundle.graph)))


def _run(bundle: Bundle, asked: Asked, place: Place, table: EnergyTable) -> Run:
    hardware = place.hardware
    counts = _stored(bundle, asked, hardware)
    stored = counts is not None
    if counts is None:
        bundle = with_layers(bundle)
        with bar("layers") as tell:
            name = asked.backend or "analytic"
            backend = backend_named(name, workers=asked.workers, progress=tell)
            counts = count_bundle(bundle, hardware, policy=_policy(bundle, asked), backend=backend)
    return Run(
        bundle=bundle,
        row=place.row,
        hardware=hardware,
        table=table,
        counts=counts,
        stored=stored,
        report=price(counts, table, hops=asked.hops),
        hops=asked.hops,
    )


def _policy(bundle: Bundle, asked: Asked) -> str:
    stored = bundle.counts
    return asked.policy or (DEFAULT_POLICY if stored is None else stored.policy)


def _stored(bundle: Bundle, asked: Asked, hardware: Hardware) -> CountTable | None:
    """The bundle's counts, if they are of what was asked for."""
    counts = bundle.counts
    if counts is None or counts.policy != _policy(bundle, asked):
        return None
    if asked.backend is not None and counts.backend.split()[0] != asked.backend:
        return None
    return counts if counts.hardware == hardware.to_json() else None
