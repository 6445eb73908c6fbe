"""DDI's branches and the exit heads: where they stand, what they cost, what they compute."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dynrt.errors import DynrtError
from dynrt.zoo import (
    BranchedResNet,
    DecisionGate,
    ExitGates,
    ExitHead,
    branch_positions,
    exit_heads,
    segments,
)


def _gates(net: BranchedResNet, *, baseline: bool = False) -> ExitGates:
    sizes = [net.branch(i).feature_size for i in range(len(net.branches))]
    return ExitGates(sizes, net.backbone.classes, baseline=baseline)


def _head_macs(net: BranchedResNet) -> dict[str, int]:
    """Multiply-accumulates of every head on the map it is given, by exit."""
    maps, last = net.eval().at_branches(torch.zeros(1, 3, 32, 32))
    out = {}
    for (name, _, head), seen in zip(exit_heads(net, _gates(net)), [*maps, last], strict=True):
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            head.eval()(seen)
        out[name] = counter.get_total_flops() // 2
    return out


def test_heads_of_resnet38_leave_room_for_the_budgets() -> None:
    macs = _head_macs(BranchedResNet(38))
    # 3x3 convolutions on 8x8 and 4x4 maps, 1x1 on 4x4, and two linear layers on each vector
    assert macs == {
        "exit1": 9 * 16 * 32 * 64 + 2 * 320,
        "exit2": 9 * 16 * 48 * 64 + 9 * 48 * 64 * 16 + 2 * 640,
        "exit3": 9 * 32 * 64 * 16 + 2 * 640,
        "exit4": 9 * 32 * 64 * 16 + 2 * 640,
        "exit5": 64 * 64 * 16 + 2 * 640,
        "exit6": 64 * 64 * 16 + 2 * 640,
        "final": 640,
    }
    stem, block = 442_368, 4_718_592
    # 41 MFLOPs reach exit 2 with both heads; 170 MFLOPs cover the network with all of them.
    assert stem + 4 * block + macs["exit1"] + macs["exit2"] <= 41_000_000 // 2
    assert macs["exit1"] + macs["exit2"] <= 1_183_264
    assert sum(macs.values()) - macs["final"] <= 1_981_632
    assert 83_018_368 + sum(macs.values()) - macs["final"] <= 170_000_000 // 2


@pytest.mark.parametrize(
    ("blocks", "positions"),
    [
        (6, (1, 4, 7, 10, 13, 16)),  # DDI's ResNet-38
        (12, (3, 9, 15, 21, 27, 33)),  # DDI's ResNet-74
        (8, (2, 6, 10, 14, 18, 22)),  # the example in DDI's figure 5
        (1, (1, 2, 3)),
    ],
)
def test_branches_stand_at_a_quarter_and_three_quarters(
    blocks: int, positions: tuple[int, ...]
) -> None:
    assert branch_positions(blocks) == positions


@given(st.integers(1, 200))
def test_branch_positions_rise_and_fit(blocks: int) -> None:
    at = branch_positions(blocks)
    assert list(at) == sorted(set(at))
    assert at[0] >= 1
    assert at[-1] <= 3 * blocks
    assert len(at) == (6 if blocks > 2 else 3)


def test_no_blocks_no_branches() -> None:
    with pytest.raises(DynrtError, match="not 0"):
        branch_positions(0)


def test_state_dict_keys_of_branches() -> None:
    keys = set(BranchedResNet(38).state_dict())
    assert {
        "backbone.conv1.weight",
        "branches.0.features.1.0.weight",
        "branches.1.features.2.1.running_var",
        "branches.5.features.1.1.bias",
        "branches.5.classifier.weight",
    } <= keys
    assert {key.split(".")[0] for key in keys} == {"backbone", "branches"}
    gates = _gates(BranchedResNet(8), baseline=True)
    assert {"gates.0.weight", "gates.2.bias", "softmax_gates.2.weight"} <= set(gates.state_dict())


def test_early_branches_pool_more_and_first() -> None:
    net = BranchedResNet(38)
    for i in range(6):
        first = net.branch(i).features[0]
        assert isinstance(first, nn.MaxPool2d)
        assert first.kernel_size == (4 if i == 0 else 2)


def test_segments_and_heads_are_the_branched_network() -> None:
    torch.manual_seed(3)
    net = BranchedResNet(14, width=4, classes=3).eval()
    gates = _gates(net)
    for gate in gates.layers()[0]:
        nn.init.normal_(gate.weight)
    x = torch.randn(2, 3, 16, 16)
    heads = exit_heads(net, gates)
    assert [(name, at) for name, at, _ in heads] == [
        ("exit1", "block1"),
        ("exit2", "block3"),
        ("exit3", "block5"),
        ("final", "block6"),
    ]
    with torch.no_grad():
        wanted, vectors, seen = net(x), net.pooled(x), {}
        distances, _ = gates(vectors)
        for name, module in segments(net.backbone):
            x = seen[name] = module(x)
        for i, (_, at, head) in enumerate(heads[:-1]):
            logits, distance = head.eval()(seen[at])
            assert torch.equal(logits, wanted[i])
            assert torch.equal(distance, distances[i])
        assert torch.equal(heads[-1][2](seen["block6"]), wanted[-1])


def test_a_decision_gate_starts_undecided_and_is_linear() -> None:
    gate = DecisionGate(2, 3)
    assert not gate(torch.ones(1, 2)).any()
    with torch.no_grad():
        gate.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0], [-1.0, 0.0]]))
        gate.bias.fill_(-0.5)  # b = 0.5
        assert gate(torch.tensor([[3.0, 1.0]])).tolist() == [[4.5, 0.5, -3.5]]


def test_baseline_gates_are_optional() -> None:
    net = BranchedResNet(8, width=2)
    vectors = net.eval().pooled(torch.zeros(1, 3, 8, 8))
    assert len(_gates(net)(vectors)[1]) == 0
    assert len(_gates(net, baseline=True)(vectors)[1]) == 3


def test_as_many_gates_as_branches() -> None:
    net = BranchedResNet(8, width=2)
    with pytest.raises(DynrtError, match="1 d-gates for 3 branches"):
        exit_heads(net, ExitGates([4], 10, baseline=False))


def test_an_exit_head_shares_its_weights() -> None:
    net = BranchedResNet(8, width=2)
    _, _, head = exit_heads(net, _gates(net))[0]
    assert isinstance(head, ExitHead)
    assert head.branch is net.branch(0)
