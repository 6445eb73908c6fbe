"""Masks on what a node gives: found, counted, marked, and nothing else taken for one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import dynrt.runtime
from dynrt.bundle import Bundle
from dynrt.energy.costing import count_bundle, priced
from dynrt.energy.hardware import load_hardware
from dynrt.energy.tables import load_table
from dynrt.errors import ExportError
from dynrt.exporters import lower
from dynrt.exporters.int8 import quantise
from dynrt.exporters.layers_facts import facts_of
from dynrt.exporters.output_masks import output_mark
from dynrt.exporters.session import run_model
from dynrt.ir.graph import Array, ComputeNode
from dynrt.ir.layers import ConvLayer, UnmodelledLayer
from dynrt.ir.reference import interpret
from dynrt.runtime.network import Mode
from tests.exporters.masked_networks import one_block
from tests.exporters.networks import images, seeded

CHANNELS, SIDE = 8, 8
CONV_MACS = CHANNELS * CHANNELS * 9 * SIDE * SIDE


class Given(nn.Module):
    """A residual block of two convolutions and a mask on what it gives, in one of several forms."""

    def __init__(self, form: str, groups: int = CHANNELS) -> None:
        super().__init__()
        self.form, self.groups = form, groups
        parts = CHANNELS if form == "depthwise" else 1
        self.first = nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1, groups=parts)
        self.short = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        kept = mask if self.form == "soft" else (mask >= 0.5).to(mask.dtype)
        size = CHANNELS // self.groups
        wide = kept[:, :, None].expand(-1, -1, size).reshape(-1, CHANNELS, 1, 1)
        inner = functional.relu(self.first(x))
        deep: Tensor = self.norm(self.second(inner))
        other = self.short(x) if self.form == "two" else x
        out = functional.relu(deep + other)
        if self.form == "where":
            return torch.where(wide >= 0.5, out, x)
        if self.form == "where not":
            return torch.where(wide < 0.5, x, out)
        if self.form == "zero":
            return out * wide
        if self.form == "sum":
            return out + wide
        if self.form == "turned":
            return out * (1 - wide) + x * wide
        if self.form == "read twice":
            return out * wide + (1 - wide) * out
        if self.form == "pooled":
            part: Tensor = functional.max_pool2d(out * wide, 3, 1, 1)
            return part
        if self.form == "flipped":
            return functional.relu(deep.flip(1) + x) * wide
        if self.form == "twice":
            return (deep + x) * wide + deep * wide
        if self.form == "mean":
            return functional.relu(deep.mean(1, keepdim=True) + x) * wide
        return wide * out + (1 - wide) * x


def lowered(form: str, groups: int = CHANNELS) -> Bundle:
    block = seeded(Given(form, groups)).eval()
    return lower(one_block(block, groups, (CHANNELS, SIDE, SIDE), CHANNELS))


def masked(bundle: Bundle) -> ComputeNode:
    node = bundle.graph.by_name["block"]
    assert isinstance(node, ComputeNode)
    return node


@pytest.mark.parametrize("form", ["mix", "where", "zero"])
@pytest.mark.parametrize("groups", [CHANNELS, 2])
def test_a_dropped_channel_saves_its_filter_of_the_last_convolution(form: str, groups: int) -> None:
    node = masked(lowered(form, groups))
    assert node.mask is not None
    assert node.cost.macs == 2 * CONV_MACS
    assert node.mask.group_macs == CONV_MACS // groups


def test_every_convolution_that_only_the_channel_comes_from_is_saved() -> None:
    node = masked(lowered("two"))
    assert node.mask is not None
    shortcut = CHANNELS * CHANNELS * SIDE * SIDE
    assert node.cost.macs == 2 * CONV_MACS + shortcut
    assert node.mask.group_macs == (CONV_MACS + shortcut) // CHANNELS


@pytest.mark.parametrize(
    "form",
    ["soft", "sum", "turned", "read twice", "pooled", "depthwise", "flipped", "twice", "mean"],
)
def test_what_saves_nothing_is_an_error(form: str) -> None:
    with pytest.raises(ExportError, match=r"node 'block': mask 'mask' .* or those that the node"):
        lowered(form)


def test_the_mask_may_choose_by_its_opposite_only_where_nan_drops() -> None:
    # torch's ``mask < 0.5`` keeps what is NaN, ``mask >= 0.5`` drops it
    with pytest.raises(ExportError, match="does not multiply"):
        lowered("where not")


def test_the_layers_of_a_dropped_channel_are_marked() -> None:
    bundle = lowered("mix")
    assert bundle.layers is not None
    rows = [r for r in bundle.layers["block"] if not isinstance(r, UnmodelledLayer)]
    assert [r.masked for r in rows if isinstance(r, ConvLayer)] == [None, "filters"]
    marked = {r.op: r.masked for r in rows if r.masked is not None}
    assert marked == {"Conv": "filters", "Add": "words", "Relu": "words"}


@pytest.mark.parametrize("form", ["mix", "where"])
def test_the_energy_of_fewer_channels_is_less(form: str) -> None:
    bundle = lowered(form)
    hardware = load_hardware("tpu-like")
    costed = priced(bundle, count_bundle(bundle, hardware), load_table("horowitz-45nm"))
    node = masked(costed)
    assert node.mask is not None
    kept = node.mask.kept_femtojoules
    assert len(kept) == CHANNELS + 1
    assert list(kept) == sorted(kept)
    assert 0 < kept[0] < kept[-1]
    # the first convolution always runs, so that far more than its share is left
    assert kept[0] > kept[-1] // 3
    assert kept[-1] == node.cost.femtojoules


@pytest.mark.parametrize("mode", ["portable", "compiled"])
@pytest.mark.parametrize("form", ["mix", "where"])
def test_dropped_channels_are_those_of_the_input_and_are_not_charged(form: str, mode: Mode) -> None:
    spec_block = seeded(Given(form)).eval()
    bundle = lower(one_block(spec_block, CHANNELS, (CHANNELS, SIDE, SIDE), CHANNELS))
    x = images(3, CHANNELS, SIDE, SIDE)
    masks = np.array([[1] * 8, [0] * 8, [1, 0, 0.5, 0.49, 2, -1, 1, 0]], np.float32)
    given = run_model(bundle.models["block"], {"x": x, "mask": masks}, place="block")["y"]
    np.testing.assert_allclose(given[1], x[1], atol=1e-6)
    np.testing.assert_allclose(given[2][[1, 3, 5, 7]], x[2][[1, 3, 5, 7]], atol=1e-6)
    with torch.no_grad():
        want = spec_block(torch.from_numpy(x), torch.from_numpy(masks)).numpy()
    np.testing.assert_allclose(given, want, atol=1e-5)
    network = dynrt.runtime.load(bundle, mode=mode)
    head = CHANNELS * 5
    for sample, mask, kept in zip(x, masks, (8, 0, 4), strict=True):
        result = network.run({"x": sample, "keep": mask})
        assert result.macs == CONV_MACS + kept * CONV_MACS // 8 + head
        functions = {n: partial(_run, m) for n, m in bundle.models.items()}
        inputs = {"x": sample[None], "keep": mask[None]}
        by_hand = interpret(bundle.graph, functions, inputs)
        assert by_hand.macs == result.macs
        np.testing.assert_allclose(by_hand.answer[0], result.answer, atol=1e-5)


def _run(model: bytes, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    return run_model(model, dict(inputs), place="a node")


def test_a_quantised_node_keeps_its_mask() -> None:
    small = quantise(lowered("mix"), [images(16, CHANNELS, SIDE, SIDE)])
    assert small.layers is not None
    rows = [r for r in small.layers["block"] if isinstance(r, ConvLayer)]
    assert [(r.dtype, r.masked) for r in rows] == [("int8", None), ("int8", "filters")]
    node = masked(small)
    assert node.mask is not None
    assert node.mask.group_macs == CONV_MACS // CHANNELS


def test_a_node_without_a_mask_has_no_mark() -> None:
    bundle = lowered("mix")
    node = masked(bundle)
    proto = onnx.load_model_from_string(bundle.models["block"])
    facts = facts_of(proto, place="block")
    assert output_mark(proto, facts, node, place="block") is not None
    bare = ComputeNode(name="block", inputs=node.inputs, outputs=node.outputs, cost=node.cost)
    assert output_mark(proto, facts, bare, place="block") is None
