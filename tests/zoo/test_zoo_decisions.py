"""Batches computed in part: the same features, the same gradients of the unit, honest ones for gates."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dynrt.zoo import DenseNet, GatedNetwork, GatedOutput, ResNet, gated
from dynrt.zoo.decisions import ROWS_MULTIPLE, choose, choose_rows, rows_to_compute, take_rows
from dynrt.zoo.gated_building import ChannelKind


def _runs(kept: list[bool]) -> Tensor:
    return torch.tensor(kept, dtype=torch.float32)[:, None]


@given(st.lists(st.booleans(), min_size=1, max_size=80), st.floats(0, 1))
def test_whoever_runs_is_computed_and_a_share_of_the_others(
    kept: list[bool], explored: float
) -> None:
    rows, running = rows_to_compute(_runs(kept), explored)
    chosen = rows.tolist()
    assert running == sum(kept)
    assert chosen[:running] == [i for i, runs in enumerate(kept) if runs]
    others = [i for i, runs in enumerate(kept) if not runs]
    assert chosen[running:] == others[: len(chosen) - running]
    assert len(chosen) == len(kept) or len(chosen) % ROWS_MULTIPLE == 0
    assert len(chosen) - running >= explored * len(others)
    assert len(chosen) < running + explored * len(others) + 1 + ROWS_MULTIPLE


def _gradients(partly: bool, kept: list[bool], explored: float, shift: int = 0) -> list[Tensor]:
    """The output, then gradients of x, weight, bias and decisions; the batch rolled by ``shift``."""
    torch.manual_seed(3)
    unit = nn.Conv2d(2, 2, 3, padding=1).double()
    x = torch.randn(len(kept), 2, 4, 4, dtype=torch.float64).roll(shift, 0).requires_grad_()
    runs = _runs(kept).double().requires_grad_()
    if partly:
        out = choose_rows(lambda rows: unit(take_rows(x, rows)), x, runs, explored)
    else:
        out = choose(unit(x), x, runs[:, :, None, None])
    out.square().sum().backward()
    found = [out.detach()]
    for tensor in (x, unit.weight, unit.bias, runs):
        assert tensor is not None
        assert tensor.grad is not None
        found.append(tensor.grad)
    return found


@pytest.mark.parametrize("explored", [0.0, 0.4, 1.0])
def test_features_and_the_units_gradients_are_those_of_the_whole_batch(explored: float) -> None:
    kept = [i % 3 == 0 for i in range(48)]
    whole, part = _gradients(False, kept, 1.0), _gradients(True, kept, explored)
    for expected, found in zip(whole[:-1], part[:-1], strict=True):
        torch.testing.assert_close(found, expected)
    # Of the decisions: exact for those that run; the explored stand for all that skip.
    runs = torch.tensor(kept)
    torch.testing.assert_close(part[-1][runs], whole[-1][runs])
    rows, running = rows_to_compute(_runs(kept), explored)
    seen = rows[running:]
    unseen = torch.tensor([i for i in range(48) if not kept[i] and i not in seen.tolist()])
    if len(unseen):
        assert not part[-1][unseen].any()
    if len(seen):
        torch.testing.assert_close(part[-1][seen], whole[-1][seen] * 32 / len(seen))


def test_the_gradient_of_a_skip_is_right_on_average() -> None:
    """Batches that differ in which third is explored: their mean gradient is the whole batch's."""
    skipped = [False] * (3 * ROWS_MULTIPLE)
    whole = _gradients(False, skipped, 1.0)[-1].sum()
    parts = [_gradients(True, skipped, 1 / 3, k * ROWS_MULTIPLE)[-1] for k in range(3)]
    assert all(int((part != 0).sum()) == ROWS_MULTIPLE for part in parts)
    torch.testing.assert_close(torch.stack([part.sum() for part in parts]).mean(), whole)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_batch_in_part_keeps_its_memory_layout(layout: torch.memory_format) -> None:
    kept = [i % 5 == 0 for i in range(40)]
    leaf = torch.randn(40, 3, 4, 6).contiguous(memory_format=layout).requires_grad_()
    seen: list[Tensor] = []
    out = choose_rows(lambda rows: 2 * take_rows(leaf, rows), leaf, _runs(kept), 0.0)
    leaf.register_hook(seen.append)
    out.backward(torch.ones_like(out))
    assert out.is_contiguous(memory_format=layout)
    assert seen[-1].is_contiguous(memory_format=layout)
    # 2 where it runs, 1 where it is passed on.
    torch.testing.assert_close(seen[-1][:, 0, 0, 0], 1.0 + _runs(kept)[:, 0])


def test_a_network_in_channels_last_has_every_gradient_so() -> None:
    net = GatedNetwork(ResNet(14), branches=True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.explore(0.0)
    layouts: list[bool] = []
    for unit in net.chain.units:
        unit.module.register_full_backward_hook(
            lambda _m, _in, out: layouts.append(
                out[0].is_contiguous(memory_format=torch.channels_last)
            )
        )
    x = torch.randn(32, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    out: GatedOutput = net(x)
    torch.stack([logits.square().sum() for logits in (*out.logits, out.layer)]).sum().backward()
    assert layouts
    assert all(layouts)


def test_all_skipped_and_none_explored_is_passed_on() -> None:
    x = torch.randn(4, 1, 2, 2)

    def fails(rows: Tensor) -> Tensor:
        raise AssertionError(rows)

    assert choose_rows(fails, x, _runs([False] * 4), 0.0) is x


@pytest.mark.parametrize("channel", ["none", "output", "inner"])
@pytest.mark.parametrize("dense", [False, True])
def test_a_network_computed_in_part_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, channel: ChannelKind, dense: bool
) -> None:
    torch.manual_seed(5)
    backbone = DenseNet(16, growth=4, bottleneck=True, compression=0.5) if dense else ResNet(14)
    net = GatedNetwork(backbone, channel=channel, group_channels=2, branches=True)
    computed: list[int] = []
    net.freeze_backbone()  # batch norm as in use: batches differ
    for module in net.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _m, args, _o: computed.append(len(args[0])))
    scores = torch.rand(64, len(net.gated)).unbind(1)

    def run() -> GatedOutput:
        at = iter(scores)
        monkeypatch.setattr(gated, "_step", lambda _gate, _x, h, c: (next(at)[:, None], h, c))
        out: GatedOutput = net(x)
        return out

    x = torch.randn(64, 3, 32, 32)
    whole = run()
    before, computed[:] = sum(computed), []
    net.explore(0.0)
    part = run()
    assert sum(computed) < before
    for a, b in zip(whole.logits, part.logits, strict=True):
        torch.testing.assert_close(a, b)
    assert torch.equal(whole.layer, part.layer)
    net.eval()
    computed.clear()
    run()
    assert sum(computed) == before, "evaluation computes everything"
