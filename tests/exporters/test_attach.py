"""Exits on backbones that know nothing of them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import dynrt.runtime
from dynrt.bundle import Bundle
from dynrt.errors import ExportError
from dynrt.exporters.attach import attach_exits
from dynrt.exporters.chains import Head, d_gate
from dynrt.exporters.fx_split import split_module
from dynrt.exporters.lower import lower
from dynrt.exporters.parity import prove
from dynrt.exporters.spec import NetworkSpec
from dynrt.ir.graph import Accept, ComputeNode, Exit
from tests.exporters.networks import (
    SmallDenseNet,
    SmallResNet,
    SmallUNet,
    TwoHeads,
    images,
    pooled_head,
    seeded,
)

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def never(module: nn.Module) -> Head:
    return Head(module=module, accept=Accept(kind="never"))


def check(backbone: nn.Module, spec: NetworkSpec) -> Bundle:
    """Lower, prove, and compare the whole network with the backbone as it was."""
    bundle = lower(spec)
    name = next(n.name for n in bundle.graph.inputs())
    shape = bundle.graph.inputs()[0].type.shape
    samples = images(4, *shape)
    prove(spec, bundle, [{name: x} for x in samples])
    whole = copy.deepcopy(backbone).eval()
    with torch.no_grad():
        want = whole(torch.from_numpy(samples)).numpy()
    network = dynrt.runtime.load(bundle)
    network.set(thresholds={n: float("inf") for n in network.policy.thresholds})
    for x, row in zip(samples, want, strict=True):
        result = network.run(x)
        assert result.exit == "final"
        np.testing.assert_allclose(result.answer, row, atol=1e-4)
    return bundle


def test_resnet_with_exits_inside_nested_modules() -> None:
    net = seeded(SmallResNet())
    spec = attach_exits(
        "resnet",
        net,
        EXAMPLE,
        {
            "layer1.0": pooled_head(8),
            "layer1": d_gate(TwoHeads(8), threshold=0.5),
            "layer2.0": pooled_head(16),
        },
        final="fc",
    ).build()
    bundle = check(net, spec)
    assert bundle.graph.exits == ("exit1", "exit2", "exit3", "final")
    nodes = [n.name for n in bundle.graph.nodes if isinstance(n, ComputeNode)]
    assert nodes == ["layer1_0", "layer1", "layer2_0", "trunk"]
    # the last head is the linear layer alone
    assert bundle.graph.by_name["final"].cost.macs == 16 * 5  # type: ignore[union-attr]


def test_the_sum_of_the_parts_is_the_whole() -> None:
    net = seeded(SmallResNet())
    heads = {f"layer{i}.{j}": never(pooled_head(8 * i)) for i in (1, 2) for j in (0, 1)}
    whole = lower(attach_exits("one", net, EXAMPLE, {"layer2": never(pooled_head(16))}).build())
    parts = lower(attach_exits("all", net, EXAMPLE, heads).build())

    def trunk(bundle: Bundle) -> int:
        nodes = [n for n in bundle.graph.nodes if isinstance(n, ComputeNode)]
        final = bundle.graph.by_name["final"]
        assert isinstance(final, Exit)
        return sum(n.cost.macs for n in nodes) + final.cost.macs

    assert trunk(whole) == trunk(parts)


def test_mlp_with_numbered_layers() -> None:
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 16), nn.ReLU(inplace=True), nn.Linear(16, 8), nn.ReLU(),
        nn.Linear(8, 5),
    )  # fmt: skip
    spec = attach_exits("mlp", net, EXAMPLE, {"2": nn.Linear(16, 5)}, final="5").build()
    bundle = check(net, spec)
    assert [n.name for n in bundle.graph.nodes if isinstance(n, ComputeNode)] == ["m2", "trunk"]


def test_densenet_carries_every_live_tensor_across_its_cuts() -> None:
    net = seeded(SmallDenseNet())
    heads = {f"dense.layer{i}": never(pooled_head(4)) for i in range(3)}
    bundle = check(net, attach_exits("dense", net, EXAMPLE, heads).build())
    into = [len(bundle.graph.by_name[f"dense_layer{i}"].inputs) for i in range(3)]
    # the second layer reads the stem and the first layer, the third one more
    assert into == [1, 2, 3]
    assert len(bundle.graph.by_name["final"].inputs) == 4


def test_two_tensors_alive_at_one_cut() -> None:
    net = seeded(SmallUNet())
    spec = attach_exits("unet", net, EXAMPLE, {"middle.0": never(pooled_head(8))}).build()
    bundle = check(net, spec)
    first = bundle.graph.by_name["middle_0"]
    assert len(first.outputs) == 2
    assert {p.type.shape for p in first.outputs} == {(4, 8, 8), (8, 4, 4)}


class Sizes(nn.Module):
    """Takes a size before the cut and uses it after; has a parameter of its own and a default."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.shift = nn.Parameter(torch.ones(1, 4))

    def forward(self, x: Tensor, factor: float = 2.0) -> Tensor:
        rows, columns = x.size(0), x.shape[1]
        y = self.first(x + self.shift)
        out: Tensor = (self.second(y).view(rows, columns, 1) * factor).flatten(1) + self.shift
        return out


def test_sizes_and_parameters_are_computed_again() -> None:
    net = Sizes()
    spec = attach_exits("sizes", net, torch.randn(2, 4), {"first": never(nn.Identity())}).build()
    check(net, spec)


class Chunks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cut, self.last = nn.Linear(4, 4), nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.chunk(x, 2, 1)
        y = self.cut(torch.cat([b, a], 1))
        out: Tensor = self.last(a) + self.last(b) + y
        return out


def test_parts_of_a_tuple_cross_as_tensors() -> None:
    net = Chunks()
    spec = attach_exits("chunks", net, torch.randn(2, 4), {"cut": never(nn.Identity())}).build()
    check(net, spec)


def test_several_inputs_and_names_that_collide() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.final, self.exit1 = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor, logits: Tensor) -> Tensor:
            out: Tensor = self.exit1(self.final(x)) + logits
            return out

    example = (torch.randn(2, 4), torch.randn(2, 4))
    exits = {"final": never(nn.Identity()), "exit1": never(nn.Identity())}
    spec = attach_exits("two", Two(), example, exits, input_names=["a", "b"]).build()
    bundle = lower(spec)
    prove(spec, bundle, [{"a": images(1, 4)[0], "b": images(1, 4, seed=1)[0]}])
    assert bundle.graph.exits == ("exit1", "exit2", "final")
    assert {"final_2", "exit1_2"} <= set(bundle.graph.by_name)


def test_the_last_module_may_be_a_cut() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 5))
    spec = attach_exits("last", net, torch.randn(2, 4), {"1": never(nn.Identity())}).build()
    check(net, spec)


class Branches(nn.Module):
    """Tests a value: no trace can follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4))
        self.other = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x) if x.sum() > 0 else self.other(x)
        return out


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branches, self.last = Branches(), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.branches(x))
        return out


class Odd(nn.Module):
    """Sub-modules that are never called, called twice, or give a tuple; a tuple across a cut."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.twice, self.cut = (nn.Linear(4, 4) for _ in range(3))
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        halves = torch.chunk(self.lstm(x[:, None])[0][:, 0], 2, 1)
        out: Tensor = torch.cat(halves, 1) + self.twice(self.twice(self.cut(x)))
        return out


class TupleAcross(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        halves = torch.chunk(x, 2, 1)
        y = self.cut(torch.cat(halves, 1))
        out: Tensor = y + torch.cat(halves, 1)
        return out


class InPlaceAcross(nn.Module):
    """Changes what a cut has given; the exit there saw it before, the sum after."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cut(x)
        out: Tensor = self.second(functional.relu(y, inplace=True)) + y
        return out


@pytest.mark.parametrize(
    ("net", "cuts", "final", "says"),
    [
        (Branches(), ["inner"], None, "Branches cannot be traced down to inner: TraceError"),
        (Outer(), ["branches.other"], None, "Outer cannot be traced down to branches.other"),
        (Outer(), ["branch"], None, "Outer has no sub-module 'branch'; did you mean 'branches'"),
        (Outer(), [""], None, "Outer has no sub-module ''"),
        (Odd(), ["unused"], None, "'unused' is called never; a cut is called once"),
        (Odd(), ["twice"], None, "'twice' is called 2 times; a cut is called once"),
        (Odd(), ["lstm"], None, "sub-module 'lstm' gives tuple, not a tensor"),
        (TupleAcross(), ["cut"], None, r"a tuple \(chunk\) crosses a cut; only tensors can"),
        (Outer(), ["last"], "branches", "'branches' is needed by the cut 'last'"),
        (Outer(), ["last"], "last", "a sub-module is named twice: last, last"),
        (Outer(), [], None, "no exits: name at least one sub-module"),
        (nn.Sequential(nn.Linear(3, 4)), ["0"], None, "the module fails on the example"),
        (nn.Sequential(nn.LSTM(4, 4)), ["0"], None, "not one tensor"),
    ],
)
def test_backbones_that_cannot_be_split(
    net: nn.Module, cuts: list[str], final: str | None, says: str
) -> None:
    with pytest.raises(ExportError, match=says) as caught:
        attach_exits("n", net, torch.ones(2, 4), {c: nn.Identity() for c in cuts}, final=final)
    assert "\n" not in str(caught.value)


def test_a_module_that_is_not_opened_need_not_be_traceable() -> None:
    net = Outer()
    split = split_module(net, [torch.ones(2, 4)], ["branches"])
    assert split.cuts == ("branches",)
    assert len(split.segments) == 2


def test_a_change_in_place_across_a_cut_is_noticed() -> None:
    net = InPlaceAcross()
    x = -torch.ones(2, 4)
    with pytest.raises(ExportError, match="changed in place after a cut"):
        attach_exits("n", net, x, {"cut": nn.Identity(), "second": nn.Identity()})


def test_as_many_names_as_inputs() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with pytest.raises(ExportError, match="2 input names for 1 inputs"):
        attach_exits("n", net, torch.ones(2, 4), {"0": nn.Identity()}, input_names=["a", "b"])
