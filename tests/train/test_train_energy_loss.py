"""Expected energies: by hand, against every outcome of every decision, against finite differences."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynrt.energy.costing import priced
from dynrt.energy.counting import count_nodes
from dynrt.energy.hardware import load_hardware
from dynrt.energy.model import price
from dynrt.energy.tables import load_table
from dynrt.errors import EnergyError
from dynrt.ir.certificate import certify
from dynrt.ir.cost import Cost
from dynrt.ir.graph import (
    Accept,
    Argmax,
    ComputeNode,
    ControlEdge,
    ControlNode,
    DataEdge,
    Exit,
    Graph,
    InputNode,
    Port,
    PortRef,
)
from dynrt.ir.layers import GemmLayer
from dynrt.train.energy_loss import PathEnergy, Stage, chain_energy, energy_loss
from tests.cli.colours import BLOCK_MACS, HEAD_MACS, STEM_MACS, colour_bundle, gated_bundle
from tests.train.chains import VECTOR, chain, energies


def test_one_gate_and_one_exit_by_hand() -> None:
    # gate1 (1) always; block1 (10) with 0.25; exit1's head (2) always; it accepts with 0.4, so all
    # that follows counts 0.6: gate2 (1), block2 (20) with 0.5, the last head (3)
    graph = chain(2, exits=(1,))
    taken = {"gate1": 1.0, "block1": 10, "exit1": 2, "gate2": 1, "block2": 20, "exit2": 3}
    energy = PathEnergy(graph, taken)
    got = energy(torch.tensor([[0.25, 0.5]]), exits=torch.tensor([0.4]))
    assert got.tolist() == pytest.approx([1 + 2.5 + 2 + 0.6 * (1 + 10 + 3)])
    assert energy.full == 37
    assert energy.actions == (("keep1", 0), ("keep2", 0))
    assert energy.exits == ("exit1",)
    shares = energy({"keep1": 1.0, "keep2": 1.0}, exits={"exit1": 0.0}, share=True)
    assert shares.tolist() == [1.0]


def test_certain_decisions_give_the_paths_energy_and_skipping_saves_exactly_the_block() -> None:
    graph = chain(3)
    rng = np.random.default_rng(0)
    taken = energies(graph, rng)
    energy = PathEnergy(graph, taken)
    keep = torch.ones(4, 3, dtype=torch.float64)
    keep[1, 0] = keep[2, 1] = keep[3, 2] = 0
    got = energy(keep).tolist()
    assert got[0] == pytest.approx(sum(taken.values()), rel=1e-14)
    for row, block in enumerate(("block1", "block2", "block3"), 1):
        assert got[0] - got[row] == pytest.approx(taken[block], rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 8),
    seed=st.integers(0, 10**6),
)
def test_all_two_to_the_n_decisions_of_achain(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = chain(n)
    taken = energies(graph, rng)
    keep = rng.uniform(0, 1, n)
    wanted = 0.0
    for on in itertools.product((0, 1), repeat=n):
        chance = np.prod([p if b else 1 - p for p, b in zip(keep, on, strict=True)])
        path = sum(taken[f"gate{i}"] + b * taken[f"block{i}"] for i, b in enumerate(on, 1))
        wanted += float(chance) * (path + taken[f"exit{n}"])
    got = PathEnergy(graph, taken)(torch.from_numpy(keep)[None])
    assert got.item() == pytest.approx(wanted, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 9), batch=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_the_closed_form_of_a_chain_equals_the_graphs(n: int, batch: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    heads = tuple(sorted({int(i) for i in rng.integers(1, n + 1, 3)} - {n}))
    graph = chain(n, exits=heads)
    taken = energies(graph, rng)
    stages = [
        Stage(
            energy=taken[f"block{i}"],
            gate_energy=taken[f"gate{i}"],
            head_energy=taken.get(f"exit{i}"),
        )
        for i in range(1, n + 1)
    ]
    keep = torch.from_numpy(rng.uniform(0, 1, (batch, n)))
    accept = torch.from_numpy(rng.uniform(0, 1, (batch, len(heads))))
    ours = PathEnergy(graph, taken)(keep, exits=accept)
    assert torch.allclose(ours, chain_energy(stages, keep=keep, accept=accept), rtol=1e-12)


def test_stages_without_gates_always_run() -> None:
    # 5 + head 1, accepted with 0.25: 0.75 * (gate 2 + 0.5 * 8 + last head 4)
    stages = [Stage(energy=5, head_energy=1), Stage(energy=8, gate_energy=2, head_energy=4)]
    got = chain_energy(stages, keep=torch.tensor([0.5]), accept=torch.tensor([0.25]))
    assert got.tolist() == [5 + 1 + 0.75 * (2 + 4 + 4)]
    assert chain_energy([Stage(energy=5), Stage(energy=1)]).tolist() == [6]


def test_gradients_match_finite_differences() -> None:
    rng = np.random.default_rng(3)
    graph = chain(4, exits=(1, 3))
    masked = {"block2": (1.0, 1.5, 4.0, 4.25), "block4": (0.0, 7.0)}
    energy = PathEnergy(graph, energies(graph, rng), kept_energies=masked)
    sizes = ((3, 4), (3, 2), (3, 3), (3, 1))
    points = [torch.from_numpy(rng.uniform(0.1, 0.9, s)).requires_grad_() for s in sizes]

    def whole(*p: torch.Tensor) -> torch.Tensor:
        return energy(p[0], exits=p[1], masks={"block2": p[2], "block4": p[3]})

    assert torch.autograd.gradcheck(whole, points)
    assert torch.autograd.gradgradcheck(whole, points)
    step = 1e-6  # and once without torch's own differences
    base = [p.detach() for p in points]
    gradient = torch.autograd.grad(whole(*points).sum(), points[0])[0]
    for i, j in itertools.product(range(3), range(4)):
        up, down = base[0].clone(), base[0].clone()
        up[i, j] += step
        down[i, j] -= step
        slope = (whole(up, *base[1:]) - whole(down, *base[1:])).sum() / (2 * step)
        assert gradient[i, j].item() == pytest.approx(slope.item(), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(groups=st.integers(1, 7), seed=st.integers(0, 10**6))
def test_masks_match_every_subset_of_groups(groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = chain(1)
    taken, kept = energies(graph, rng), tuple(rng.uniform(0, 9, groups + 1).tolist())
    p, keep = rng.uniform(0, 1, groups), 0.7
    block = 0.0
    for on in itertools.product((0, 1), repeat=groups):
        block += (
            float(np.prod([q if b else 1 - q for q, b in zip(p, on, strict=True)])) * kept[sum(on)]
        )
    energy = PathEnergy(graph, taken, kept_energies={"block1": kept})
    got = energy({"keep1": keep}, masks={"block1": torch.from_numpy(p)[None]})
    wanted = taken["gate1"] + keep * block + taken["exit1"]
    assert got.item() == pytest.approx(wanted, rel=1e-12)
    assert energy.full == pytest.approx(taken["gate1"] + max(kept) + taken["exit1"])


def test_argmax_chooses_one_of_its_branches() -> None:
    # a router that is the input itself; two branches of 3 and 5 that meet in one exit
    x, y = Port(name="x", type=VECTOR), Port(name="y", type=VECTOR)
    nodes = (
        InputNode(name="x", type=VECTOR),
        ControlNode(name="route", actions=2, rule=Argmax()),
        ComputeNode(name="a", inputs=(x,), outputs=(y,), cost=Cost(macs=3)),
        ComputeNode(name="b", inputs=(x,), outputs=(y,), cost=Cost(macs=5)),
        Exit(
            name="end",
            inputs=(x,),
            outputs=(y,),
            answer="y",
            accept=Accept(kind="always"),
            cost=Cost(macs=1),
        ),
    )
    graph = Graph(
        nodes=nodes,
        data=(
            DataEdge(source=PortRef("x", "x"), target=PortRef("route", "scores")),
            DataEdge(source=PortRef("x", "x"), target=PortRef("a", "x")),
            DataEdge(source=PortRef("x", "x"), target=PortRef("b", "x")),
            DataEdge(
                source=PortRef("a", "y"), target=PortRef("end", "x"), default=PortRef("b", "y")
            ),
        ),
        control=(
            ControlEdge(control="route", target="a", action=0),
            ControlEdge(control="route", target="b", action=1),
        ),
        exits=("end",),
    )
    energy = PathEnergy(graph, {"a": 3, "b": 5, "end": 1})
    scores = torch.tensor([[0.0, 0.0], [9.0, -9.0]], dtype=torch.float64)
    got = energy({"route": scores.softmax(1)})
    assert got.tolist() == pytest.approx([1 + 4, 1 + 3], rel=1e-6)
    assert energy.full == 6


def test_energies_of_a_bundle() -> None:
    energy = PathEnergy.from_bundle(colour_bundle(energy=True))  # one picojoule per MAC
    assert energy.unit == "J"
    macs = STEM_MACS + HEAD_MACS + 0.25 * (BLOCK_MACS + HEAD_MACS)
    assert energy(exits={"exit1": 0.75}).item() == pytest.approx(macs * 1e-12, rel=1e-12)
    bound = certify(colour_bundle(energy=True).graph).full_femtojoules
    assert bound is not None
    assert energy.full == pytest.approx(bound * 1e-15, rel=1e-12)


def test_energies_of_a_report_are_those_of_the_bundle_that_carries_them() -> None:
    made = colour_bundle()
    kinds = {"stem": 1, "exit1": 2, "block1": 3, "final": 4}
    layers = {
        name: (GemmLayer(name="g", op="Gemm", dtype="float32", m=n, k=5, n=7),)
        for name, n in kinds.items()
    }
    counts = count_nodes(layers, load_hardware("square8"))
    report = price(counts, load_table("eyeriss-normalised"))
    for table in ("eyeriss-normalised", "horowitz-45nm"):
        report = price(counts, load_table(table))
        energy = PathEnergy.from_report(report, made.graph)
        carried = PathEnergy.from_bundle(priced(made, counts, load_table(table)))
        assert energy.unit == carried.unit == report.unit
        at = {"exit1": 0.25}
        assert energy(exits=at).item() == carried(exits=at).item()
        assert energy.full == pytest.approx(report.in_unit(report.total.value), rel=1e-12)
    with pytest.raises(EnergyError, match="no node 'gate'"):
        PathEnergy.from_report(report, gated_bundle().graph)


def test_a_bundle_without_energies_says_how_to_get_them() -> None:
    with pytest.raises(
        EnergyError, match=r"gated: the energy of node 'gate' .*dynrt energy --write"
    ):
        PathEnergy.from_bundle(gated_bundle())


def test_float32_in_float32_out_and_half_is_widened() -> None:
    energy = PathEnergy(chain(2), energies(chain(2), np.random.default_rng(0)))
    keep = torch.full((3, 2), 0.5)
    assert energy(keep).dtype == torch.float32
    assert energy(keep.double()).dtype == torch.float64
    assert energy(keep.bfloat16()).dtype == torch.float32
    assert energy({"keep1": keep[:, 0], "keep2": keep[:, 1].double()}).dtype == torch.float64
    assert torch.allclose(energy(keep.double()).float(), energy(keep), rtol=1e-6)


def test_each_sample_is_by_itself() -> None:
    energy = PathEnergy(chain(3), energies(chain(3), np.random.default_rng(0)))
    keep = torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([energy(row[None]) for row in keep])
    assert torch.equal(energy(keep), alone)


def test_training_on_the_loss_closes_the_dear_gate_first() -> None:
    graph = chain(2)
    taken = {"gate1": 0.1, "block1": 9.0, "gate2": 0.1, "block2": 1.0, "exit2": 0.5}
    energy = PathEnergy(graph, taken)
    logits = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.SGD([logits], lr=1.0)
    losses = []
    for _ in range(60):
        descent.zero_grad()
        loss = energy_loss(energy(logits.sigmoid(), share=True), target=0.2)
        loss.backward()
        descent.step()
        losses.append(loss.item())
    keep = logits.sigmoid()[0].tolist()
    assert keep[0] < 0.2 < 0.4 < keep[1]
    assert losses[0] > 0 == losses[-1]


def test_loss_by_hand() -> None:
    expected = torch.tensor([1.0, 3.0])
    assert energy_loss(expected).item() == 2
    assert energy_loss(expected, weight=0.5, target=0.5).item() == 0.75
    assert energy_loss(expected, target=2.5).item() == 0


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda e: e(), "gate 'keep1' has no probability"),
        (lambda e: e(torch.zeros(1, 3)), r"gates: probabilities \(1, 3\), not \(batch, 2\)"),
        (lambda e: e(torch.zeros(0, 2)), r"gates: probabilities \(0, 2\)"),
        (lambda e: e(torch.full((1, 2), 1.1)), "gates: a probability is outside 0..1"),
        (lambda e: e(torch.full((1, 2), float("nan"))), "gates: a probability is outside"),
        (lambda e: e(torch.ones(1, 2, dtype=torch.int64)), "int64, not floating point"),
        (lambda e: e({"keep1": 0.5, "keep2": 0.5, "keep3": 1.0}), "no gate 'keep3' .*keep1, keep2"),
        (lambda e: e(torch.zeros(1, 2)), "exit 'exit1' has no probability"),
        (
            lambda e: e(torch.zeros(2, 2), exits=torch.zeros(3, 1)),
            "probabilities of 2 and 3 samples",
        ),
        (lambda e: e(torch.zeros(1, 2), exits={"exit1": 1.0}), "'block1' has a channel mask"),
        (
            lambda e: e(
                torch.zeros(2, 2), exits={"exit1": 1.0}, masks={"block1": torch.zeros(3, 2)}
            ),
            "mask of 'block1': 3 samples beside 2",
        ),
        (
            lambda e: e(
                torch.zeros(1, 2), exits={"exit1": 1.0}, masks={"block1": 1.0, "block2": 1.0}
            ),
            "no mask of 'block2' changes an energy; these do: block1",
        ),
    ],
)
def test_probabilities_that_do_not_fit_are_refused(
    ask: Callable[[PathEnergy], torch.Tensor], message: str
) -> None:
    graph = chain(2, exits=(1,))
    taken = energies(graph, np.random.default_rng(0))
    energy = PathEnergy(graph, taken, kept_energies={"block1": (0, 1, 2)})
    with pytest.raises(EnergyError, match=message):
        ask(energy)


def test_energies_that_cannot_be_are_refused() -> None:
    graph = chain(1)
    taken = energies(graph, np.random.default_rng(0))
    with pytest.raises(EnergyError, match="energy of node 'block1' is not known"):
        PathEnergy(graph, {k: v for k, v in taken.items() if k != "block1"})
    for bad in (-1.0, float("inf"), float("nan")):
        with pytest.raises(EnergyError, match="energy of node 'block1' is"):
            PathEnergy(graph, taken | {"block1": bad})
    with pytest.raises(EnergyError, match="'block1': 1 energies by kept groups"):
        PathEnergy(graph, taken, kept_energies={"block1": (1.0,)})
    with pytest.raises(EnergyError, match="stage 0"):
        chain_energy([Stage(energy=-1)])
    with pytest.raises(EnergyError, match="no stages"):
        chain_energy([])


def test_too_many_states_are_refused() -> None:
    with pytest.raises(EnergyError, match="over 20 states"):
        PathEnergy(chain(9), energies(chain(9), np.random.default_rng(0)), limit=20)


def test_a_head_that_cannot_accept_runs_only_at_the_end() -> None:
    graph = chain(2, exits=(1,))
    nodes = tuple(
        replace(n, accept=replace(n.accept, threshold=2.0))
        if isinstance(n, Exit) and n.name == "exit1"
        else n
        for n in graph.nodes
    )
    shut = replace(graph, nodes=nodes)
    taken = energies(shut, np.random.default_rng(0))
    energy = PathEnergy(shut, taken)
    assert energy.exits == ()
    wanted = sum(taken.values()) - taken["exit1"]
    assert energy({"keep1": 1.0, "keep2": 1.0}).item() == pytest.approx(wanted)
    assert energy.running({"keep1": 1.0, "keep2": 1.0})["exit1"].item() == 0


def test_a_mac_equivalent_bundle_keeps_its_unit() -> None:
    made = colour_bundle()
    nodes = tuple(
        replace(n, cost=Cost(macs=n.cost.macs, milli_mac_equivalents=2500))
        if isinstance(n, ComputeNode | Exit)
        else n
        for n in made.graph.nodes
    )
    energy = PathEnergy.from_bundle(replace(made, graph=replace(made.graph, nodes=nodes)))
    assert energy.unit == "MACeq"
    assert energy(exits={"exit1": 0.0}).item() == pytest.approx(10.0)
