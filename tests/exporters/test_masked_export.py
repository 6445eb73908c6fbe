"""Masked blocks as bundles: what one group costs, and that the ONNX leaves out what torch does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynrt.errors import ExportError, GraphError
from dynrt.exporters import NetworkBuilder, lower
from dynrt.exporters.mask_macs import count_group_macs
from dynrt.exporters.plain import Weights
from dynrt.exporters.session import run_model
from dynrt.ir.graph import ComputeNode
from dynrt.ir.reference import interpret
from dynrt.zoo import MaskedBlock
from tests.exporters.masked_networks import gated, one_block
from tests.exporters.networks import images, operators, seeded


@pytest.mark.parametrize("weights", ["float32", "float16"])
def test_a_group_costs_its_share_of_both_convolutions(weights: Weights) -> None:
    block = seeded(MaskedBlock(8, 16, 2, groups=4))
    bundle = lower(one_block(block, 4, (8, 8, 8), 16), weights=weights)
    node = bundle.graph.by_name["block"]
    assert isinstance(node, ComputeNode)
    assert node.mask is not None
    first, second = 16 * 8 * 9 * 4 * 4, 16 * 16 * 9 * 4 * 4  # filters, taps, pixels
    assert node.cost.macs == first + second
    assert (node.mask.port, node.mask.groups) == ("mask", 4)
    assert node.mask.group_macs == (first + second) // 4


def test_what_the_reference_charges_is_what_the_mask_drops() -> None:
    spec = one_block(seeded(MaskedBlock(8, 8, groups=2)), 2, (8, 8, 8), 8)
    graph = lower(spec).graph
    inputs = {"x": images(1, 8, 8, 8)}
    charged = [
        interpret(graph, spec.functions(), {**inputs, "keep": np.array([m], np.float32)}).macs
        for m in ([1, 1], [0, 1], [0, 0])
    ]
    both = 2 * 8 * 8 * 9 * 64
    assert charged == [both + 40, both // 2 + 40, 40]


def test_the_onnx_drops_what_torch_drops() -> None:
    block = seeded(MaskedBlock(8, 8, groups=4)).eval()
    model = lower(one_block(block, 4, (8, 8, 8), 8)).models["block"]
    assert "Conv" in operators(model)
    x = images(5, 8, 8, 8)
    masks = np.array(
        [[1, 1, 1, 1], [0, 0, 0, 0], [0.5, 0.4999, np.nan, 2], [1, 0, 0, 1], [-1, 1, 0, 0]],
        np.float32,
    )
    got = run_model(model, {"x": x, "mask": masks}, place="block")["y"]
    with torch.no_grad():
        want = block(torch.from_numpy(x), torch.from_numpy(masks)).numpy()
        plain = super(MaskedBlock, block).forward(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, want, atol=1e-4)
    np.testing.assert_allclose(got[0], plain[0], atol=1e-4)
    assert not np.allclose(got[1:], plain[1:], atol=1e-2)


def test_a_mask_may_come_from_a_gate() -> None:
    spec = gated()
    graph = lower(spec).graph
    node = graph.by_name["block"]
    assert isinstance(node, ComputeNode)
    assert node.mask is not None
    full = sum(getattr(n, "cost").macs for n in graph.nodes if hasattr(n, "cost"))  # noqa: B009
    spent = {
        interpret(graph, spec.functions(), {"x": x[None] * scale}).macs
        for x in images(6, 3, 8, 8)
        for scale in (1, 4)
    }
    assert len(spent) > 1
    assert all((full - macs) % node.mask.group_macs == 0 for macs in spent)


class Masked(nn.Module):
    """Two convolutions, and the mask in one of several wrong places."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first = nn.Conv2d(8, 8, 3, 1, 1, groups=8 if how == "depthwise" else 1)
        self.second = nn.Conv2d(8, 8, 3, 1, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        kept = mask if self.how == "soft" else (mask >= 0.5).float()
        spelt = kept[:, :, None].expand(-1, -1, 4).reshape(-1, 8, 1, 1)
        if self.how == "interleaved":
            spelt = kept[:, None, :].expand(-1, 4, -1).reshape(-1, 8, 1, 1)
        y = self.first(x)
        if self.how == "added":
            return self.second(y + spelt)  # type: ignore[no-any-return]
        if self.how == "read twice":
            return self.second(y * spelt) + y  # type: ignore[no-any-return]
        if self.how == "unused":
            return self.second(y) + 0 * kept[:, :1, None, None]  # type: ignore[no-any-return]
        return self.second(y * spelt)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "how",
    ["soft", "interleaved", "added", "read twice", "unused", "depthwise"],
)
def test_a_mask_that_stands_elsewhere_is_an_error(how: str) -> None:
    with pytest.raises(ExportError, match="node 'block': mask 'mask' does not multiply"):
        lower(one_block(Masked(how), 2, (8, 8, 8), 8))


def test_the_same_module_with_the_mask_in_its_place_is_none() -> None:
    node = lower(one_block(Masked("right"), 2, (8, 8, 8), 8)).graph.by_name["block"]
    assert isinstance(node, ComputeNode)
    assert node.mask is not None
    assert node.mask.group_macs * 2 == node.cost.macs


def test_a_mask_port_must_be_there_and_a_vector() -> None:
    net = NetworkBuilder("wrong")
    x = net.input("x", (8, 8, 8))
    keep = net.param("keep", np.ones(2, np.float32))
    block = MaskedBlock(8, 8, groups=2)
    y = net.compute("block", block, {"x": x, "mask": keep}, mask="masks")
    net.exit("final", nn.Flatten(), {"x": y})
    with pytest.raises(GraphError, match="unknown-mask"):
        lower(net.build())


def test_counting_needs_a_mask() -> None:
    bundle = lower(one_block(MaskedBlock(8, 8, groups=2), 2, (8, 8, 8), 8))
    node = bundle.graph.by_name["block"]
    assert isinstance(node, ComputeNode)
    bare = ComputeNode(name="block", inputs=node.inputs, outputs=node.outputs, cost=node.cost)
    with pytest.raises(ExportError, match="has no channel mask"):
        count_group_macs(bundle.models["block"], bare)
