"""Gated networks and backbones with d-gates as bundles: the same answers, decisions and costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dynrt.runtime
from dynrt.bundle import Bundle, Preprocessing
from dynrt.energy.costing import count_bundle, priced
from dynrt.energy.hardware import load_hardware
from dynrt.energy.tables import load_table
from dynrt.errors import RecipeError
from dynrt.exporters import lower, prove
from dynrt.exporters.plain import Weights
from dynrt.ir.cost import Budget
from dynrt.ir.graph import Accept, ComputeNode, Exit
from dynrt.train.energy_loss import PathEnergy
from dynrt.train.package_gated import gated_bundle, gated_spec
from dynrt.zoo import DenseNet, ExitGates, GatedNetwork, ResNet
from dynrt.zoo.exits import ExitNetwork
from dynrt.zoo.parts import GatedParts

SIDE = 12
SMALL = Preprocessing(height=SIDE, width=SIDE, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet layer": {"channel": "none"},
    "resnet output": {"channel": "output"},
    "resnet inner": {"channel": "inner", "group_channels": 8},
    "resnet channels only": {"channel": "output", "layer": False},
    "densenet layer": {"channel": "none"},
    "densenet output": {"channel": "output"},
    "densenet inner": {"channel": "inner", "group_channels": 8},
    "plain densenet output": {"channel": "output", "branches": False},
}


def pictures(count: int) -> Tensor:
    """Noise from dark to bright, so that decisions differ."""
    noise = torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return noise + torch.linspace(-2, 2, count)[:, None, None, None]


def network(kind: str) -> GatedNetwork:
    """Random weights with statistics of its features, and gates on both sides of 0.5."""
    torch.manual_seed(3)
    backbone: ResNet | DenseNet
    if kind.startswith("resnet"):
        backbone = ResNet(20, width=8)
    elif kind.startswith("plain"):
        backbone = DenseNet(13, growth=4, bottleneck=False, compression=1.0)
    else:
        backbone = DenseNet(22, growth=4)
    net = GatedNetwork(backbone, **{"branches": True, **NETWORKS[kind]})
    for part in net.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = None
    with torch.no_grad():
        net(pictures(32))
    net.eval()
    for name, weight in net.named_parameters():
        if name.startswith("channel_gates") and name.endswith("linear.weight"):
            nn.init.normal_(weight, std=2.0)
        if name.startswith("channel_gates") and name.endswith("linear.bias"):
            nn.init.zeros_(weight)
    if net.layer_gates is not None:
        nn.init.normal_(net.layer_gates.score.weight, std=8.0)
        nn.init.zeros_(net.layer_gates.score.bias)
        for linear in net.layer_gates.projections:
            assert isinstance(linear, nn.Linear)
            nn.init.normal_(linear.weight, std=0.7)
    return net


def exported(net: GatedNetwork | ExitNetwork, **more: Any) -> Bundle:
    return lower(gated_spec(net, name="net", preprocessing=SMALL, **more))


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_bundle_decides_and_answers_as_the_network_does(kind: str) -> None:
    net = network(kind)
    bundle = exported(net)
    x = pictures(10)
    with torch.no_grad():
        want = net(x)
    masked = {
        n.name: n.mask
        for n in bundle.graph.nodes
        if isinstance(n, ComputeNode) and n.mask is not None
    }
    assert tuple(masked) == net.channelled
    decisions = set()
    for mode in ("portable", "compiled"):
        results = dynrt.runtime.load(bundle, mode=mode).run_batch(x.numpy())
        for i, result in enumerate(results):
            np.testing.assert_allclose(result.answer, want.logits[-1][i].numpy(), atol=2e-4)
            runs = {u: bool(r) for u, r in zip(net.gated, want.layer[i], strict=True)}
            assert {u: u in result.path for u in net.gated} == runs
            skipped = {f"{u}_mask" for u, on in runs.items() if not on}
            assert skipped.isdisjoint(result.path)
            nodes = [bundle.graph.by_name[n] for n in result.path]
            full = sum(n.cost.macs for n in nodes if isinstance(n, ComputeNode | Exit))
            dropped = 0
            for unit, kept in zip(net.channelled, want.channel, strict=True):
                if unit in result.path:
                    lost = kept.shape[1] - int(kept[i].sum())
                    dropped += lost * masked[unit].group_macs
            assert result.macs == full - dropped
            decisions.add((*runs.values(), dropped))
    assert len(decisions) >= 3


@pytest.mark.parametrize(
    ("kind", "precision"), [("resnet output", "float16"), ("densenet inner", "float32")]
)
def test_every_gate_and_exit_is_proven(kind: str, precision: Weights) -> None:
    net = network(kind)
    spec = gated_spec(net, name="net", preprocessing=SMALL)
    bundle = gated_bundle(net, name="net", preprocessing=SMALL, precision=precision)
    samples = [{"image": x} for x in pictures(3).numpy()]
    report = prove(spec, bundle, samples, forced_inputs=2)
    assert len(report.covered) == len(net.exit_names) + 2 * len(net.gated)


def test_branches_answer_when_a_budget_stops_there() -> None:
    net = network("resnet output")
    bundle = exported(net)
    rules = {n.name: n.accept.kind for n in bundle.graph.nodes if isinstance(n, Exit)}
    assert rules == {**dict.fromkeys(net.exit_names[:-1], "never"), "final": "always"}
    x = pictures(1)
    with torch.no_grad():
        want = dict(zip(net.exit_names, net(x).logits, strict=True))
    loaded = dynrt.runtime.load(bundle)
    ends = set()
    full = bundle.certificate.full_macs
    for share in (0.15, 0.3, 0.5, 0.7, 1.0):
        macs = max(bundle.certificate.cheapest_macs, int(full * share))
        result = loaded.run(x[0].numpy(), budget=Budget(macs=macs))
        assert result.macs <= macs
        ends.add(result.exit)
        if result.exit == "final" or not result.forced:
            np.testing.assert_allclose(result.answer, want[result.exit][0].numpy(), atol=2e-4)
    assert len(ends) >= 3


def gates_for(sizes: tuple[int, ...], *, baseline: bool) -> ExitGates:
    torch.manual_seed(5)
    gates = ExitGates(sizes, 10, baseline=baseline)
    for layer in (m for group in gates.layers() for m in group):
        nn.init.normal_(layer.weight, std=0.3)  # no softmax of 1
    return gates


def test_a_branch_shares_its_vector_with_a_d_gate() -> None:
    net = network("resnet layer")
    sizes = tuple(net.branch(i).feature_size for i in range(len(net.exit_names) - 1))
    gates = gates_for(sizes, baseline=False)
    bundle = exported(net, gates=gates, thresholds={"exit2": 0.25})
    exits = {n.name: n for n in bundle.graph.nodes if isinstance(n, Exit)}
    assert exits["exit2"].accept == Accept(kind="hinge", port="distances", threshold=0.25)
    assert exits["exit1"].accept.threshold == 1.0
    assert [p.name for p in exits["exit1"].outputs] == ["logits", "distances"]
    assert exits["exit1"].answer == "logits"


@pytest.mark.parametrize("rule", ["hinge", "softmax"])
@pytest.mark.parametrize("backbone", ["resnet", "densenet"])
def test_d_gates_on_a_frozen_backbone(backbone: str, rule: str) -> None:
    torch.manual_seed(2)
    grid = 2 if rule == "softmax" else 1
    net = ExitNetwork(
        ResNet(20, width=8) if backbone == "resnet" else DenseNet(22, growth=4), grid=grid
    )
    net.eval()
    gates = gates_for(net.feature_sizes, baseline=True)
    x = pictures(24)
    with torch.no_grad():
        vectors, logits = net(x)
        chosen = gates.layers()[0 if rule == "hinge" else 1]
        scores = [gate(v) for gate, v in zip(chosen, vectors, strict=True)]
        if rule == "softmax":
            ranks = [torch.softmax(s, 1).amax(1) for s in scores]
        else:
            ranks = [s.amax(1) for s in scores]
    halves = [r.sort().values[11:13].mean() for r in ranks]  # between two samples: no tie
    limits = {f"exit{i + 1}": float(half) for i, half in enumerate(halves)}
    bundle = exported(net, gates=gates, thresholds=limits, rule=rule)
    assert [n for n in bundle.models if n not in bundle.graph.exits] == [
        name for name, _ in net.stretches()
    ]
    ends = set()
    for i, result in enumerate(dynrt.runtime.load(bundle).run_batch(x.numpy())):
        early = [n for n, r in zip(limits, ranks, strict=True) if r[i] >= limits[n]]
        end = early[0] if early else "final"
        assert result.exit == end
        want = logits[i] if end == "final" else scores[list(limits).index(end)][i]
        np.testing.assert_allclose(result.answer, want.numpy(), atol=1e-3)
        ends.add(end)
    assert ends == {*limits, "final"}


def test_kept_channels_have_energies_that_the_energy_loss_takes() -> None:
    net = network("resnet output")
    bundle = exported(net)
    counts = count_bundle(bundle, load_hardware("tpu-like"))
    costed = priced(bundle, counts, load_table("horowitz-45nm"))
    for node in costed.graph.nodes:
        if isinstance(node, ComputeNode) and node.mask is not None:
            kept = node.mask.kept_femtojoules
            assert len(kept) == node.mask.groups + 1
            assert list(kept) == sorted(kept)
            assert kept[0] < kept[-1]
    assert set(PathEnergy.from_bundle(costed).groups) == set(net.channelled)


class Headless(nn.Module):
    """Parts with an exit that nothing answers at."""

    def __init__(self, net: ExitNetwork) -> None:
        super().__init__()
        self.net = net

    def export_parts(self) -> GatedParts:
        return self.net.export_parts()


def test_what_does_not_fit_is_refused() -> None:
    net = ExitNetwork(ResNet(20, width=8)).eval()
    gates = gates_for(net.feature_sizes, baseline=False)
    with pytest.raises(RecipeError, match="exit1: no classifier and no d-gate"):
        gated_spec(Headless(net), name="net", preprocessing=SMALL)
    with pytest.raises(
        RecipeError, match="threshold for 'exit3'; the early exits are exit1, exit2"
    ):
        gated_spec(net, gates, {"exit3": 1.0}, name="net", preprocessing=SMALL)
    with pytest.raises(RecipeError, match="0 softmax d-gates for 2 early exits"):
        gated_spec(net, gates, name="net", rule="softmax", preprocessing=SMALL)
    with pytest.raises(RecipeError, match="3 labels for 10 classes"):
        gated_spec(net, gates, name="net", labels=["a", "b", "c"], preprocessing=SMALL)
    branched = network("resnet layer")
    with pytest.raises(RecipeError, match="threshold for 'exit1', and the network has no d-gates"):
        gated_spec(branched, None, {"exit1": 1.0}, name="net", preprocessing=SMALL)
