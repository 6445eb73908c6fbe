"""What others publish beside what we count: DDI's authors' block energies, Eyeriss on AlexNet.

Only figures that their sources print (or that follow from printed ones by a division, then said) are
quoted; where a source only says which part is largest, so do we. ``docs/energy-model.md`` has the
table, the differences and the references.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from dynrt.energy.array import Dataflow
from dynrt.energy.backend import AnalyticBackend, Backend
from dynrt.energy.counting import count_nodes
from dynrt.energy.hardware import DATAFLOWS, Hardware, load_hardware
from dynrt.energy.model import EnergyReport, price
from dynrt.energy.policy import DEFAULT_POLICY
from dynrt.energy.published_networks import alexnet_conv, alexnet_fc, resnet50_blocks
from dynrt.energy.tables import EnergyTable, Level, load_table
from dynrt.ir.counts import AccessCounts, CountTable, NodeCounts
from dynrt.ir.layers import ConvLayer, LayerTable, weight_words

HARDWARE = "eyeriss"
TABLE = "eyeriss-normalised"
#: The weight of an L2 access in the formula of DDI's authors.
_AUTHORS_L2 = 6
#: Register-file accesses of a multiply-accumulate: see ``dynrt.energy.model``.
_AUTHORS_L1_PER_MAC = 4
#: Pictures that share one reading of the fully connected weights.
FC_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure.

    Attributes:
        quantity: what it is.
        unit: ``x`` (a ratio), ``%`` or ``accesses/MAC``.
        published: as printed; ``None`` where the source has words or nothing.
        words: what the source says in words; empty where it prints a figure.
        ours: by dataflow.
    """

    quantity: str
    unit: str
    published: float | None
    words: str
    ours: Mapping[Dataflow, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Figures of one source.

    Attributes:
        title: what is compared.
        source: where the published figures stand.
        basis: what ours rest on: hardware, table, policy, backend.
        rows: the figures.
        differences: why they differ, for people.
    """

    title: str
    source: str
    basis: str
    rows: tuple[Row, ...]
    differences: tuple[str, ...]


def published_comparisons(
    *, policy: str = DEFAULT_POLICY, backend: Backend | None = None
) -> tuple[Comparison, ...]:
    """Count the published networks on ``HARDWARE`` and set the results beside the printed figures.

    Args:
        policy: of the counts.
        backend: our closed forms by default.

    Raises:
        EnergyError: there is no such policy.
    """
    bench = _Bench(load_hardware(HARDWARE), load_table(TABLE), policy, backend or AnalyticBackend())
    return (_block_energies(bench), _eyeriss_traffic(bench), _eyeriss_shares(bench))


@dataclass(frozen=True, slots=True)
class _Bench:
    """Counts a network under every dataflow."""

    hardware: Hardware
    table: EnergyTable
    policy: str
    backend: Backend

    def count(self, layers: LayerTable) -> dict[Dataflow, CountTable]:
        return {
            dataflow: count_nodes(
                layers,
                self.hardware.with_(dataflow=dataflow, name=self.hardware.name),
                policy=self.policy,
                backend=self.backend,
            )
            for dataflow in DATAFLOWS
        }

    def priced(self, counted: Mapping[Dataflow, CountTable]) -> dict[Dataflow, EnergyReport]:
        return {dataflow: price(counts, self.table) for dataflow, counts in counted.items()}

    def basis(self) -> str:
        return (
            f"hardware {self.hardware.name}, table {self.table.name}, policy {self.policy}, "
            f"backend {self.backend.version}, 16-bit words, one picture"
        )


# --- DDI's authors: block energies


def _block_energies(bench: _Bench) -> Comparison:
    counted = bench.count(resnet50_blocks())
    reports = bench.priced(counted)
    macs = {name: _of(node).macs for name, node in counted["ws"].nodes.items()}
    formula = {d: _authors_energy(table.nodes) for d, table in counted.items()}
    energies = {
        d: {name: node.amount.value for name, node in report.nodes.items()}
        for d, report in reports.items()
    }
    equal = [name for name in macs if not name.endswith("_block1")]
    return Comparison(
        title="ResNet-50's blocks: dearest over cheapest",
        source=(
            "DDI's authors' public code (SkipNet_energy): E = MACs + L1 reads + L1 writes "
            "+ 6 (L2 reads + L2 writes), no DRAM term, counts by MAESTRO"
        ),
        basis=bench.basis(),
        rows=(
            _row(
                "multiply-accumulates, all blocks",
                "x",
                1.5,
                _spreads(dict.fromkeys(DATAFLOWS, macs)),
            ),
            _row("their formula, all blocks", "x", 8.7, _spreads(formula)),
            _row("their formula, blocks of equal MACs", "x", 5.7, _spreads(formula, equal)),
            _row("equation (6) with DRAM, all blocks", "x", None, _spreads(energies)),
            _row(
                "equation (6) with DRAM, blocks of equal MACs", "x", None, _spreads(energies, equal)
            ),
        ),
        differences=(
            "Their L2 counts are those of one MAESTRO mapping of image rows onto 64 elements, which "
            "reads 2.4 words per MAC from L2 at 56 x 56 and 20 at 7 x 7; a systolic array of 12 x 14 "
            "reads 0.16 to 0.25 at every size. The formula's spread is the mapping's.",
            "Their log has layers that ResNet-50 does not have (a 3 x 3 convolution of 128 to 512 "
            "channels); their block table is not public as text, so MACs differ too. 5.7 is worked "
            "out from their logged counts of the blocks whose shapes are right.",
            "With DRAM, blocks of equal MACs do differ: late blocks have 64 times the weights of early "
            "ones. MACs are a poor proxy for energy, but by less than that code says.",
        ),
    )


def _authors_energy(nodes: Mapping[str, NodeCounts]) -> dict[str, int]:
    """Their formula on our counts: register files as L1, on-chip buffers as L2."""
    energies = {}
    for name, node in nodes.items():
        one = _of(node)
        energies[name] = (
            one.macs + _AUTHORS_L1_PER_MAC * one.macs + _AUTHORS_L2 * _buffer_accesses(one)
        )
    return energies


def _spreads(
    energies: Mapping[Dataflow, Mapping[str, int]], names: Iterable[str] | None = None
) -> dict[Dataflow, float]:
    chosen = None if names is None else set(names)
    out: dict[Dataflow, float] = {}
    for dataflow, by_name in energies.items():
        values = [value for name, value in by_name.items() if chosen is None or name in chosen]
        out[dataflow] = max(values) / min(values)
    return out


# --- Eyeriss: measured traffic


def _eyeriss_traffic(bench: _Bench) -> Comparison:
    layers = alexnet_conv()
    wholes = {d: _whole(table) for d, table in bench.count(layers).items()}
    macs = wholes["ws"].macs
    least = _words_once(layers) / macs
    return Comparison(
        title="AlexNet's convolutions: accesses per multiply-accumulate",
        source=(
            "Chen et al., Eyeriss, IEEE JSSC 52(1), 2017, table V: 4 pictures, 2.66 GMACs, 15.4 MB of "
            "DRAM and 208.5 MB of buffer accesses at 2 bytes (0.0029 is printed, 0.039 divided)"
        ),
        basis=bench.basis(),
        rows=(
            _row("DRAM", "accesses/MAC", 0.0029, {d: _dram(w) / macs for d, w in wholes.items()}),
            _row("DRAM, every word once", "accesses/MAC", None, dict.fromkeys(DATAFLOWS, least)),
            _row(
                "on-chip buffer",
                "accesses/MAC",
                0.039,
                {d: _buffer_accesses(w) / macs for d, w in wholes.items()},
            ),
        ),
        differences=(
            "Eyeriss keeps rows of pictures and weights in 0.5 kB of registers per element and shares "
            "weights between 4 pictures; a systolic array reads its buffer for every tile again.",
            "Its feature maps travel compressed; ours do not. Even every word once, at one picture, is "
            "more than what Eyeriss reads.",
            "SCALE-Sim drops a read buffer whole when it is full; its DRAM reads are those of a buffer "
            "without any replacement policy, and three fixed parts of 36 kB replace a shared 108 kB.",
        ),
    )


# --- Eyeriss: shares per level


def _eyeriss_shares(bench: _Bench) -> Comparison:
    conv = _energies(bench, alexnet_conv())
    one = _energies(bench, alexnet_fc(batch=1))
    many = _energies(bench, alexnet_fc(batch=FC_BATCH))
    on_chip: dict[Dataflow, dict[Level, int]] = {
        d: {level: e for level, e in levels.items() if level != "dram"}
        for d, levels in conv.items()
    }
    totals = {d: sum(levels.values()) for d, levels in conv.items()}
    return Comparison(
        title="AlexNet: shares of energy",
        source=(
            "Sze, Chen, Yang, Emer: Efficient Processing of DNNs, Proc. IEEE 105(12), 2017, energy "
            "breakdown across layers of AlexNet (after Chen et al., ISCA 2016); on-chip power: Chen et "
            "al., JSSC 52(1), 2017, section VI"
        ),
        basis=bench.basis(),
        rows=(
            _words(
                "convolutions: register files", "the largest share", _shares(conv, "register_file")
            ),
            _words("convolutions: DRAM", "less than register files", _shares(conv, "dram")),
            _words(
                "convolutions, on chip: register files",
                "the largest share but for the clock",
                _shares(on_chip, "register_file"),
            ),
            _words("convolutions, on chip: MACs", "less than 10 %", _shares(on_chip, "mac")),
            _words("fully connected, one picture: DRAM", "the largest share", _shares(one, "dram")),
            _words(
                f"fully connected, {FC_BATCH} pictures: DRAM",
                "the largest share",
                _shares(many, "dram"),
            ),
            _row(
                "convolutions in the whole, one picture",
                "%",
                80,
                {d: 100 * t / (t + sum(one[d].values())) for d, t in totals.items()},
            ),
            _row(
                f"convolutions in the whole, {FC_BATCH} pictures",
                "%",
                80,
                {d: 100 * t / (t + sum(many[d].values()) / FC_BATCH) for d, t in totals.items()},
            ),
        ),
        differences=(
            "The published shares are for Eyeriss' row-stationary dataflow with large registers, which "
            "exists to avoid DRAM; on a plain systolic array with the same storage DRAM comes first in "
            "convolutions too, as the accesses above say.",
            "On chip the order is theirs: registers first. Their power has clocks and control, which "
            "are not modelled here, so the share of MACs is smaller there.",
            "A batch shares the fully connected weights: the whole depends on it. The published "
            "estimate is for a batch, whose size is not in the text that we quote.",
        ),
    )


def _energies(bench: _Bench, layers: LayerTable) -> dict[Dataflow, dict[Level, int]]:
    reports = bench.priced(bench.count(layers))
    return {
        d: {level: a.value for level, a in report.of_path(report.nodes).by_level.items()}
        for d, report in reports.items()
    }


def _shares(
    energies: Mapping[Dataflow, Mapping[Level, int]], level: Level
) -> dict[Dataflow, float]:
    return {d: 100 * levels[level] / sum(levels.values()) for d, levels in energies.items()}


# --- counts


def _of(node: NodeCounts) -> AccessCounts:
    return sum((own.counts for own in node.typed), start=AccessCounts())


def _whole(counts: CountTable) -> AccessCounts:
    return sum((_of(node) for node in counts.nodes.values()), start=AccessCounts())


def _dram(counts: AccessCounts) -> int:
    return _accesses(counts, "dram_")


def _buffer_accesses(counts: AccessCounts) -> int:
    return _accesses(counts, "sram_")


def _accesses(counts: AccessCounts, prefix: str) -> int:
    names = [f.name for f in fields(counts) if f.name.startswith(prefix)]
    return sum(int(getattr(counts, name)) for name in names)


def _words_once(layers: LayerTable) -> int:
    """Words of all inputs, weights and outputs of convolutions."""
    convs = [own for of_node in layers.values() for own in of_node if isinstance(own, ConvLayer)]
    return sum(
        math.prod((c.in_h, c.in_w, c.channels))
        + weight_words(c)
        + math.prod((c.out_h, c.out_w, c.filters))
        for c in convs
    )


def _row(quantity: str, unit: str, published: float | None, ours: Mapping[Dataflow, float]) -> Row:
    return Row(quantity=quantity, unit=unit, published=published, words="", ours=ours)


def _words(quantity: str, words: str, ours: Mapping[Dataflow, float]) -> Row:
    return Row(quantity=quantity, unit="%", published=None, words=words, ours=ours)
