"""Energies as costs: what a run is charged is what its nodes cost, and a block is exactly its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import dynrt
from dynrt.bundle import Bundle, read_bundle, resolve
from dynrt.energy.costing import count_bundle, priced, repriced, with_energies
from dynrt.energy.hardware import load_hardware
from dynrt.energy.model import price
from dynrt.energy.tables import load_table
from dynrt.errors import BudgetRefusedError, EnergyError
from dynrt.ir.certificate import exit_bounds
from dynrt.ir.check import check
from dynrt.ir.cost import Budget
from dynrt.ir.counts import AccessCounts, CountTable, NodeCounts, TypedCounts
from dynrt.ir.graph import ChannelMask, ComputeNode, Exit
from dynrt.ir.masks import cost_of_kept
from tests.soak_joules import random_prices, run_priced

JOULES = load_table("horowitz-45nm")
NORMALISED = load_table("eyeriss-normalised")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(resolve("resnet38-ddi"))


@pytest.fixture(scope="module")
def counts(bundle: Bundle) -> CountTable:
    return count_bundle(bundle, load_hardware("tpu-like"))


def test_costs_are_the_report(bundle: Bundle, counts: CountTable) -> None:
    report = price(counts, JOULES)
    costs = {
        n.name: n.cost for n in priced(bundle, counts, JOULES).graph.nodes if hasattr(n, "cost")
    }
    assert {n: c.femtojoules for n, c in costs.items()} == {
        n: r.amount.value for n, r in report.nodes.items()
    }
    assert all(c.milli_mac_equivalents is None for c in costs.values())
    before = {n.name: n.cost.macs for n in bundle.graph.nodes if hasattr(n, "cost")}
    assert {n: c.macs for n, c in costs.items()} == before


def test_another_table_replaces_the_energies(bundle: Bundle, counts: CountTable) -> None:
    first = priced(bundle, counts, JOULES)
    second = repriced(first, NORMALISED)
    assert first.certificate.full_femtojoules is not None
    assert second.certificate.full_femtojoules is None
    assert second.certificate.full_milli_mac_equivalents is not None
    assert str(second.energy) == "modelled:eyeriss-normalised@tpu-like/corrected/analytic"
    assert repriced(second, JOULES) == first
    assert second.sha256 == bundle.sha256  # the same network: compiled once


def test_a_block_is_exactly_its_own_energy(bundle: Bundle, counts: CountTable) -> None:
    report = price(counts, JOULES)
    blocks = [n for n in report.nodes if n.startswith("block")]
    whole = report.of_path(report.nodes).amount
    for block in blocks:
        rest = report.of_path(n for n in report.nodes if n != block).amount
        assert whole.value - rest.value == report.node(block).amount.value
        assert whole.low - rest.low == report.node(block).amount.low
        assert whole.high - rest.high == report.node(block).amount.high


@pytest.mark.parametrize("table", [JOULES, NORMALISED], ids=lambda t: t.name)
def test_a_run_is_charged_its_path(bundle: Bundle, counts: CountTable, table: object) -> None:
    own = priced(bundle, counts, JOULES if table is JOULES else NORMALISED)
    report = price(counts, JOULES if table is JOULES else NORMALISED)
    x = np.random.default_rng(3).normal(size=(3, 32, 32)).astype(np.float32)
    seen = set()
    with dynrt.load(own, mode="portable") as network:
        for bounds in exit_bounds(own.graph, _resource(own)):
            budget = (
                Budget(joules=bounds.full / 1e15)
                if report.unit == "J"
                else Budget(mac_equivalents=bounds.full / 1e3)
            )
            result = network.run(x, budget=budget)
            spent = result.femtojoules if report.unit == "J" else result.milli_mac_equivalents
            assert spent == report.of_path(result.path).amount.value
            assert spent <= bounds.full
            assert result.energy_source == str(report.source)
            seen.add(result.exit)
        least = (
            own.certificate.cheapest_femtojoules or own.certificate.cheapest_milli_mac_equivalents
        )
        assert least is not None
        below = (
            Budget(joules=(least - 1) / 1e15)
            if report.unit == "J"
            else Budget(mac_equivalents=(least - 1) / 1e3)
        )
        with pytest.raises(BudgetRefusedError, match="J" if report.unit == "J" else "MACeq"):
            network.run(x, budget=below)
    assert len(seen) > 2


def _resource(bundle: Bundle) -> str:
    joules = bundle.certificate.full_femtojoules is not None
    return "femtojoules" if joules else "milli_mac_equivalents"


@pytest.mark.parametrize("seed", range(4))
def test_no_energy_budget_is_broken(seed: int) -> None:
    own, prices = random_prices(np.random.default_rng(seed))
    with dynrt.load(own, mode="portable") as network:
        tally = run_priced(network, own, prices, seed)
    assert tally.findings == []
    assert tally.runs > tally.refused


def test_a_masked_node_costs_its_dearest_and_is_charged_its_kept(bundle: Bundle) -> None:
    # energies by kept groups need not rise: 1 group may fall into a worse fold than 2
    def typed(macs: int) -> tuple[TypedCounts, ...]:
        return (TypedCounts(dtype="float32", counts=AccessCounts(macs=macs)),)

    graph = bundle.graph
    table = CountTable(
        hardware=load_hardware("square8").to_json(),
        policy="corrected",
        backend="analytic 1",
        nodes={
            n.name: NodeCounts(
                typed=typed(30),
                kept=(typed(2), typed(50), typed(30)) if n.name == "block1" else (),
            )
            for n in graph.nodes
            if isinstance(n, ComputeNode | Exit)
        },
    )
    mask = ChannelMask(port="x", groups=2, group_macs=1)
    graph = replace(
        graph,
        nodes=tuple(
            replace(n, mask=mask) if isinstance(n, ComputeNode) and n.name == "block1" else n
            for n in graph.nodes
        ),
    )
    report = price(table, JOULES)
    block = with_energies(graph, report).by_name["block1"]
    assert isinstance(block, ComputeNode)
    assert block.mask is not None
    each = report.node("stem").amount.value // 30
    assert block.mask.kept_femtojoules == (2 * each, 50 * each, 30 * each)
    assert block.cost.femtojoules == 50 * each
    charged = [cost_of_kept(block.cost, block.mask, kept).femtojoules for kept in range(3)]
    assert charged == [2 * each, 50 * each, 30 * each]


def test_kept_energies_that_make_no_sense_are_refused() -> None:
    node = ComputeNode(
        name="n",
        inputs=(),
        outputs=(),
        cost=replace(_cost(), femtojoules=10),
        mask=ChannelMask(port="m", groups=2, group_macs=0, kept_femtojoules=(1, 2, 11)),
    )
    from dynrt.ir.graph import Combine, Graph

    def codes(own: ComputeNode) -> list[str]:
        graph = Graph(nodes=(own,), data=(), control=(), exits=(), combine=Combine())
        return [v.message for v in check(graph) if "kept_femtojoules" in v.message]

    assert "3 values from 1 to 11 for 2 groups in a node of 10" in codes(node)[0]
    assert node.mask is not None
    short = replace(node, mask=replace(node.mask, kept_femtojoules=(1, 2)))
    assert "2 values" in codes(short)[0]
    good = replace(node, mask=replace(node.mask, kept_femtojoules=(1, 2, 10)))
    assert codes(good) == []


def _cost() -> dynrt.ir.cost.Cost:
    return dynrt.ir.cost.Cost(macs=0)


def test_what_cannot_be_priced(bundle: Bundle, counts: CountTable) -> None:
    with pytest.raises(EnergyError, match="has no layer table"):
        count_bundle(replace(bundle, held_layers=None), load_hardware("square8"))
    with pytest.raises(EnergyError, match="dynrt energy BUNDLE --write"):
        repriced(replace(bundle, held_counts=None), JOULES)
    nodes = dict(counts.nodes)
    del nodes["stem"]
    with pytest.raises(EnergyError, match="of another network: node 'stem'"):
        priced(bundle, replace(counts, nodes=nodes), JOULES)
