"""Chains with layer gates, channel gates and dense layers: how they are wired, and what they compute."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import dynrt.runtime
from dynrt.errors import ExportError
from dynrt.exporters import Gate, GatedUnit, NetworkSpec, gated_chain, lower, prove
from dynrt.ir.cost import Budget
from dynrt.ir.graph import ComputeNode, PortRef, TensorType
from dynrt.runtime.network import Mode
from tests.exporters.networks import bright_images, images, pooled_head, seeded

IMAGE = TensorType(dtype="float32", shape=(3, 8, 8))
GROWTH, LAYERS, STEM = 4, 5, 8


class Layer(nn.Module):
    """New features from all before; a dropped channel is that of the layer before."""

    def __init__(self, channels: int, *, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, GROWTH, 3, 1, 1)

    def new(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv(functional.relu(self.norm(x)))
        return made

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        if not self.masked:
            return self.new(x)
        previous, mask = rest
        kept = (mask >= 0.5).to(x.dtype)[:, :, None, None]
        return kept * self.new(x) + (1 - kept) * previous


class Scores(nn.Module):
    """Scores on both sides of 0.5, by linear layers of pooled features."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, count)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(4 * self.linear(x.mean((2, 3))))


def unbiased(module: nn.Module, seed: int) -> nn.Module:
    for part in seeded(module, seed).modules():
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)
    return module.eval()


def dense_units(*, masked: bool) -> list[GatedUnit]:
    torch.manual_seed(0)  # of biases
    units = [GatedUnit(name="stem", module=seeded(nn.Conv2d(3, STEM, 3, 1, 1)))]
    for i in range(LAYERS):
        channels = STEM + i * GROWTH
        with_mask = masked and i > 0
        units.append(
            GatedUnit(
                name=f"dense{i + 1}",
                module=seeded(Layer(channels, masked=with_mask), i).eval(),
                gate=Gate(module=unbiased(Scores(channels, 1), 10 + i)) if i else None,
                channel_gate=unbiased(Scores(channels, GROWTH), 20 + i) if with_mask else None,
                dense=True,
                repeats=with_mask,
            )
        )
    return units


def dense(*, masked: bool) -> NetworkSpec:
    head = pooled_head(STEM + LAYERS * GROWTH)
    units = dense_units(masked=masked)
    return gated_chain("dense", IMAGE, units, {f"dense{LAYERS}": seeded(head, 3)}).build()


def by_hand(units: list[GatedUnit], x: Tensor) -> tuple[Tensor, list[bool], list[int]]:
    """Features, which layers ran, and how many channels of each that ran were kept."""
    runs, kept = [], []
    previous = None
    x = units[0].module(x)
    for unit in units[1:]:
        gate = unit.gate.module if isinstance(unit.gate, Gate) else None
        on = gate is None or bool(gate(x) >= 0.5)
        runs.append(on)
        if not on:
            assert previous is not None
            new = previous
        elif unit.channel_gate is not None:
            mask = unit.channel_gate(x)
            kept.append(int((mask >= 0.5).sum()))
            new = unit.module(x, previous, mask)
        else:
            new = unit.module(x)
        previous = new
        x = torch.cat([x, new], 1)
    return x, runs, kept


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("mode", ["portable", "compiled"])
def test_a_skipped_dense_layer_repeats_the_one_before(masked: bool, mode: Mode) -> None:
    spec = dense(masked=masked)
    bundle = lower(spec)
    units = dense_units(masked=masked)
    head = spec.modules["final"]
    network = dynrt.runtime.load(bundle, mode=mode)
    each = {
        n.name: n.mask.group_macs
        for n in bundle.graph.nodes
        if isinstance(n, ComputeNode) and n.mask is not None
    }
    paths, in_a_row = set(), 0
    for image in bright_images(16):
        with torch.no_grad():
            x, runs, kept = by_hand(units, torch.from_numpy(image[None]))
            want = head(x).numpy()[0]
        result = network.run(image)
        assert [f"dense{i + 1}" in result.path for i in range(LAYERS)] == runs
        np.testing.assert_allclose(result.answer, want, atol=1e-4)
        # channel gates run only where their layer does
        names = [f"dense{i + 1}" for i, on in enumerate(runs) if on and i]
        assert [n for n in result.path if n.endswith("_mask")] == [
            f"{n}_mask" for n in names if masked
        ]
        full = sum(getattr(bundle.graph.by_name[n], "cost").macs for n in result.path)  # noqa: B009
        dropped = sum((GROWTH - k) * each[n] for n, k in zip(names, kept, strict=False))
        assert result.macs == full - dropped
        paths.add(tuple(runs))
        in_a_row += any(not a and not b for a, b in pairwise(runs))
    assert len(paths) >= 3
    assert in_a_row  # two skipped layers: the features of the last one that ran, twice


@pytest.mark.parametrize("masked", [False, True])
def test_every_gate_comes_to_both_its_values(masked: bool) -> None:
    spec = dense(masked=masked)
    report = prove(spec, lower(spec), [{"image": x} for x in images(4, 3, 8, 8)])
    assert len(report.covered) == 1 + 2 * (LAYERS - 1)


def test_how_dense_layers_are_wired() -> None:
    graph = lower(dense(masked=True)).graph
    into = {str(e.target): e for e in graph.data}
    assert into["dense1_join.new"].default is None
    assert into["dense3_join.new"].source == PortRef("dense3", "y")
    assert into["dense3_join.new"].default == PortRef("dense2_join", "new")
    assert into["dense3.previous"].source == PortRef("dense2", "y")
    assert into["dense3.previous"].default == PortRef("dense1_join", "new")
    assert into["dense3.mask"].source == PortRef("dense3_mask", "kept")
    switched = {e.target for e in graph.control if e.control == "dense3_gate_control"}
    assert switched == {"dense3", "dense3_mask"}
    assert graph.by_name["dense3_join"].outputs[0].type.shape == (STEM + 3 * GROWTH, 8, 8)


def test_a_budget_skips_layers_and_their_channel_gates() -> None:
    bundle = lower(dense(masked=True))
    cheapest = bundle.certificate.cheapest_macs
    network = dynrt.runtime.load(bundle)
    for extra in (0, 40_000, 200_000):
        result = network.run(images(1, 3, 8, 8)[0], budget=Budget(macs=cheapest + extra))
        assert cheapest <= result.macs <= cheapest + extra
        assert all(n.removesuffix("_mask") in result.path for n in result.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gate": Scores(STEM, 1)}, "'dense1' would repeat"),
        ({"repeats": True}, "'dense1' would repeat"),
        ({"dense": False, "repeats": True}, "'dense1' would repeat"),
    ],
)
def test_the_first_dense_layer_has_nothing_to_repeat(
    change: dict[str, object], message: str
) -> None:
    units = dense_units(masked=False)[:2]
    first = {"name": "dense1", "module": units[1].module, "dense": True}
    units[1] = GatedUnit(**{**first, **change})  # type: ignore[arg-type]
    with pytest.raises(ExportError, match=message):
        gated_chain("n", IMAGE, units, {"dense1": pooled_head(STEM + GROWTH)})


def test_what_is_between_two_dense_blocks_is_not_repeated() -> None:
    units = dense_units(masked=False)[:3]
    units.append(GatedUnit(name="transition", module=nn.Conv2d(STEM + 2 * GROWTH, STEM, 1)))
    units.append(
        GatedUnit(name="late", module=Layer(STEM, masked=False), gate=Scores(STEM, 1), dense=True)
    )
    with pytest.raises(ExportError, match="'late' would repeat"):
        gated_chain("n", IMAGE, units, {"late": pooled_head(STEM + GROWTH)})


@pytest.mark.parametrize(
    ("names", "exit_after", "message"),
    [
        (["stem", "stem"], "stem", "two segments are called 'stem'"),
        (["stem", "block"], "blok", r"exit after 'blok': no such segment; did you mean 'block'\?"),
        (["stem", "block"], "stem", "no exit after the last segment"),
        ([], "", "no such segment"),
    ],
)
def test_segments_and_exits_must_fit(names: list[str], exit_after: str, message: str) -> None:
    units = [GatedUnit(name=n, module=nn.Identity()) for n in names]
    with pytest.raises(ExportError, match=message):
        gated_chain("n", IMAGE, units, {exit_after: pooled_head(3)})
