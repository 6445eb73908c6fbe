"""Channel masks: what is kept, what is charged, and what no mask may say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.errors import BudgetRefusedError
from dynrt.ir.certificate import certify
from dynrt.ir.check import check
from dynrt.ir.cost import Budget, Cost
from dynrt.ir.graph import (
    Accept,
    Array,
    ChannelMask,
    ComputeNode,
    Constant,
    Graph,
    InputNode,
    Port,
    TensorType,
)
from dynrt.ir.masks import charged, kept_groups
from dynrt.ir.reference import ReferenceResult, interpret
from tests.ir.test_check import V, compute, edge, exit_node

GROUPS = TensorType(dtype="float32", shape=(4,))
MASK = ChannelMask(port="m", groups=4, group_macs=20)


def thin(mask: ChannelMask = MASK, kind: TensorType = GROUPS) -> ComputeNode:
    """100 MACs, 80 of them behind the mask."""
    return replace(
        compute("thin", "x", macs=100),
        inputs=(Port(name="x", type=V), Port(name="m", type=kind)),
        cost=Cost(macs=100, femtojoules=7, nanoseconds=9),
        mask=mask,
    )


def network(node: ComputeNode | None = None) -> Graph:
    """A masked block, an exit, one more block of 60 MACs, the last exit."""
    ones = Constant(np.ones(4, np.float32))
    return Graph(
        nodes=(
            InputNode(name="x", type=V),
            InputNode(name="mask", type=GROUPS, param=ones),
            node or thin(),
            exit_node("early", Accept(kind="never")),
            compute("more", "a", macs=60),
            exit_node("last", Accept(kind="always")),
        ),
        data=(
            edge("x.x", "thin.x"),
            edge("mask.mask", "thin.m"),
            edge("thin.y", "early.a"),
            edge("thin.y", "more.a"),
            edge("more.y", "last.a"),
        ),
        exits=("early", "last"),
    )


def run(mask: list[float] | None, macs: int | None = None) -> ReferenceResult:
    def one(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": next(iter(inputs.values())) + 1}

    inputs = {"x": np.zeros((1, 4), np.float32)}
    if mask is not None:
        inputs["mask"] = np.array([mask], np.float32)
    functions = dict.fromkeys(("thin", "early", "more", "last"), one)
    budget = Budget(macs=macs) if macs else None
    return interpret(network(), functions, inputs, budget=budget)


@pytest.mark.parametrize(
    ("mask", "macs"),
    [
        (None, 161),
        ([1, 1, 1, 1], 161),
        ([1, 0, 1, 0], 121),
        ([0, 0, 0, 0], 81),
        ([0.5, 0.49999997, float("nan"), float("inf")], 121),
    ],
)
def test_a_run_is_charged_what_its_mask_keeps(mask: list[float] | None, macs: int) -> None:
    assert run(mask).macs == macs


def test_a_node_starts_only_if_all_its_channels_fit() -> None:
    with pytest.raises(BudgetRefusedError):
        run([0, 0, 0, 0], macs=100)
    assert run([0, 0, 0, 0], macs=101).exit == "last"


def test_what_a_mask_saves_is_left_for_later_nodes() -> None:
    everything = run([1, 1, 1, 1], macs=160)
    assert (everything.exit, everything.macs) == ("early", 101)
    thinner = run([1, 1, 1, 0], macs=160)
    assert (thinner.exit, thinner.macs) == ("last", 141)


def test_the_certificate_counts_every_group() -> None:
    assert certify(network()) == certify(network(replace(thin(), mask=None)))


def test_energy_and_time_stay_those_of_all_groups() -> None:
    cost = charged(thin(), {"m": np.array([[0, 1, 1, 0]], np.float32)})
    assert cost == Cost(macs=60, femtojoules=7, nanoseconds=9)
    assert charged(exit_node("e", Accept(kind="always")), {}).macs == 1


@given(st.lists(st.floats(width=32, allow_nan=True), min_size=4, max_size=4))
def test_kept_and_charged_agree(values: list[float]) -> None:
    mask = np.array(values, np.float32)
    kept = kept_groups(mask)
    assert list(kept) == [i for i, v in enumerate(values) if v >= 0.5]
    assert charged(thin(), {"m": mask}).macs == 100 - 20 * (4 - len(kept))


@pytest.mark.parametrize(
    ("node", "code", "text"),
    [
        (thin(replace(MASK, port="y")), "unknown-mask", "none of its inputs ['m', 'x']"),
        (thin(replace(MASK, groups=3)), "mask-type", "float32[4], not float32[3]"),
        (thin(kind=replace(GROUPS, dtype="float64")), "mask-type", "float64[4]"),
        (thin(kind=replace(GROUPS, shape=(4, 1))), "mask-type", "float32[4x1]"),
        (thin(replace(MASK, groups=0)), "bad-mask", "0 groups"),
        (thin(replace(MASK, group_macs=26)), "bad-mask", "4 groups of 26 MACs in a node of 100"),
        (thin(replace(MASK, group_macs=-1)), "bad-mask", "4 groups of -1 MACs"),
    ],
)
def test_each_wrong_mask_is_named(node: ComputeNode, code: str, text: str) -> None:
    found = {v.code: v for v in check(network(node))}
    assert text in found[code].message
    assert found[code].place.startswith("thin.")


def test_a_mask_may_hold_all_of_a_node() -> None:
    assert check(network(thin(replace(MASK, group_macs=25)))) == []
