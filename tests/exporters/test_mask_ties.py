"""Mask values on the edge: settled when rounding turned them, an error when it was something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dynrt.errors import ParityError
from dynrt.exporters import NetworkBuilder, NetworkSpec, Tolerance, lower, prove
from dynrt.exporters.mask_ties import Settler, mask_ports
from dynrt.ir.graph import Array, PortRef
from dynrt.ir.masks import KEPT_FROM
from dynrt.zoo import MaskedBlock
from tests.exporters.networks import images, pooled_head, seeded

LIMIT = Tolerance(absolute=1e-3, relative=0.0)
PORT = PortRef("gate", "kept")


class Edge(nn.Module):
    """A mask whose values are the limit itself plus ``by``, whatever the input."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :4, 0, 0]) + KEPT_FROM + self.by


def network(by: float) -> NetworkSpec:
    torch.manual_seed(0)  # of biases
    net = NetworkBuilder("edge")
    x = net.input("x", (8, 8, 8))
    mask = net.compute("gate", Edge(by), {"x": x}, ("kept",))
    block = seeded(MaskedBlock(8, 8, groups=4), 1).eval()
    y = net.compute("block", block, {"x": x, "mask": mask}, mask="mask")
    net.exit("final", seeded(pooled_head(8)), {"x": y})
    return net.build()


def test_values_that_rounding_turned_are_settled_and_all_is_compared() -> None:
    bundle = lower(network(by=-1e-5))
    samples = [{"x": x} for x in images(3, 8, 8, 8)]
    report = prove(network(by=1e-5), bundle, samples)
    assert report.settled == report.runs * 4
    assert report.turned == 0
    assert f"{report.settled} mask values settled" in str(report)
    # what comes behind the mask was compared: a wrong block is found
    wrong: Mapping[str, Callable[[Mapping[str, Array]], Mapping[str, Array]]] = {
        **network(by=1e-5).functions(),
        "block": lambda inputs: {"y": inputs["x"]},
    }
    with pytest.raises(ParityError, match="node 'block'"):
        prove(wrong, bundle, samples)


def test_values_that_differ_by_more_are_an_error() -> None:
    bundle = lower(network(by=-0.1))
    with pytest.raises(ParityError, match="node 'gate', output 'kept'"):
        prove(network(by=0.1), bundle, [{"x": images(1, 8, 8, 8)[0]}])


def test_nothing_is_said_of_settled_values_where_there_are_none() -> None:
    report = prove(network(by=0.2), lower(network(by=0.2)), [{"x": images(1, 8, 8, 8)[0]}])
    assert report.settled == 0
    assert "settled" not in str(report)


def test_which_ports_give_masks() -> None:
    assert mask_ports(lower(network(by=0.2)).graph) == {PORT}


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8),
    st.lists(st.floats(-0.0078125, 0.0078125, width=32), min_size=8, max_size=8),
)
def test_only_turned_values_within_rounding_change(start: list[float], noise: list[float]) -> None:
    want = np.array([start], np.float32)
    value = (want + np.array([noise[: len(start)]], np.float32)).astype(np.float32)
    settle = Settler(ports=frozenset([PORT]), limit=LIMIT, reference={"gate": {"kept": want}})
    got = settle("gate", {"kept": value})["kept"]
    near = np.abs(value - want) <= LIMIT.absolute
    turned = (value >= KEPT_FROM) != (want >= KEPT_FROM)
    np.testing.assert_array_equal(got, np.where(near & turned, want, value))
    assert settle.settled == np.count_nonzero(near & turned)
    assert got.dtype == value.dtype


def test_other_nodes_and_ports_are_left_alone() -> None:
    low, high = np.array([[0.4999]], np.float32), np.array([[0.5001]], np.float32)
    settle = Settler(ports=frozenset([PORT]), limit=LIMIT, reference={"gate": {"kept": high}})
    assert settle("other", {"kept": low})["kept"] is low
    two = Settler(ports=frozenset([PORT]), limit=LIMIT, reference={"gate": {"scores": high}})
    assert two("gate", {"scores": low})["scores"] is low
    odd = Settler(ports=frozenset([PORT]), limit=LIMIT, reference={"gate": {"kept": high[0]}})
    assert odd("gate", {"kept": low})["kept"] is low
