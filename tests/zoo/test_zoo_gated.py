"""Gated networks: equation 3 against a loop over single pictures, gradients, parts, refusals."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from dynrt.errors import DynrtError
from dynrt.zoo import DenseNet, GatedNetwork, ResNet
from dynrt.zoo.chain import Backbone
from dynrt.zoo.decisions import choose, hard
from dynrt.zoo.gated_building import ChannelKind
from dynrt.zoo.masked import MaskedBlock


def backbone(kind: str) -> ResNet | DenseNet:
    torch.manual_seed(3)
    return ResNet(20, width=8) if kind == "resnet" else DenseNet(22, growth=4)


def gated(
    kind: str, channel: ChannelKind = "none", *, layer: bool = True, branches: bool = False
) -> GatedNetwork:
    """A small network whose gates decide this way and that."""
    size = 4 if channel == "inner" else 1
    net = GatedNetwork(
        backbone(kind), layer=layer, channel=channel, group_channels=size, branches=branches
    )
    torch.manual_seed(4)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
        if net.layer_gates is not None:
            net.layer_gates.score.weight.mul_(40)
            for projection in net.layer_gates.projections:
                nn.init.normal_(projection.weight, std=2.0)  # type: ignore[arg-type]
        for gate in net.channel_gates or ():
            nn.init.normal_(gate.linear.weight, std=3.0)  # type: ignore[arg-type, union-attr]
            nn.init.zeros_(gate.linear.bias)  # type: ignore[arg-type, union-attr]
        net.eval()
        if net.layer_gates is not None:  # about half of the scores on either side
            for _ in range(3):
                scores = net(pictures()).layer_scores.clamp(1e-6, 1 - 1e-6).logit()
                middle = (
                    scores.flatten().sort().values[scores.numel() // 4 : -(scores.numel() // 4)]
                )
                widest = int(middle.diff().argmax())
                net.layer_gates.score.bias.sub_((middle[widest] + middle[widest + 1]) / 2)
    return net


def pictures(count: int = 12) -> Tensor:
    """Of different contrast and brightness, so that pooled features differ."""
    x = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    at = torch.linspace(-1, 1, count)[:, None, None, None]
    return x * (1.5 + at) + torch.cat([2 * at, at.flip(0), 3 * at * at], 1)


def by_parts(net: GatedNetwork, x: Tensor) -> tuple[list[Tensor], list[int], list[list[int]]]:
    """One picture through ``export_parts``, really skipping: logits, decisions, masks."""
    cut = net.export_parts()
    state = [torch.zeros(1, size) for size in cut.state.values()]
    exits: dict[str, list[Tensor]] = {}
    runs, masks = list[int](), list[list[int]]()
    new = x
    for part in cut.parts:
        keep = True
        if part.layer_gate is not None:
            score, *state = part.layer_gate(x, *state)
            keep = float(score) >= 0.5
            runs.append(int(keep))
        before = x
        if keep:
            extra = [new] if part.previous else []
            if part.channel_gate is not None:
                mask = part.channel_gate(x)
                masks.append([int(v >= 0.5) for v in mask[0].tolist()])
                extra.append(mask)
            made = part.module(x, *extra)
        else:
            made = new if part.dense else x
            if part.channel_gate is not None:
                masks.append([])
        new = made
        x = torch.cat([before, made], 1) if part.dense else made
        for exit_ in cut.exits:
            if exit_.after == part.name and exit_.classifier is not None:
                exits.setdefault(exit_.name, []).append(exit_.classifier(exit_.pooled(x)))
    return [exits[exit_.name][0] for exit_ in cut.exits], runs, masks


@pytest.mark.parametrize("kind", ["resnet", "densenet"])
@pytest.mark.parametrize(
    ("channel", "layer"),
    [
        *(("none", True), ("output", True), ("inner", True)),
        *(("output", False), ("inner", False)),
    ],
)
def test_a_batch_is_what_single_pictures_are_with_work_skipped(
    kind: str, channel: ChannelKind, layer: bool
) -> None:
    net = gated(kind, channel, layer=layer, branches=True)
    with torch.no_grad():
        out = net(pictures())
        assert float((out.layer_scores - 0.5).abs().min() if layer else 1) > 1e-5
        for i, x in enumerate(pictures()):
            logits, runs, masks = by_parts(net, x[None])
            assert out.layer[i].tolist() == runs
            for mask, wanted in zip(out.channel, masks, strict=True):
                assert mask[i].tolist() == (wanted or [0] * mask.shape[1])
            for mine, theirs in zip(out.logits, logits, strict=True):
                torch.testing.assert_close(mine[i], theirs[0], atol=2e-4, rtol=1e-4)
    if layer:  # the gates do decide both ways
        assert 0.05 < float(out.layer.mean()) < 0.95
    if channel != "none":
        assert 0.05 < float(torch.cat(out.channel, 1).mean()) < 0.95


@pytest.mark.parametrize("kind", ["resnet", "densenet"])
@pytest.mark.parametrize("channel", ["none", "output", "inner"])
def test_kept_open_it_is_the_backbone(kind: str, channel: ChannelKind) -> None:
    plain = backbone(kind).eval()
    net = GatedNetwork(copy.deepcopy(plain), channel=channel, group_channels=4).eval()
    net.set_layer("all")
    for gate in net.channel_gates or ():
        nn.init.zeros_(gate.linear.weight)  # type: ignore[arg-type, union-attr]
    with torch.no_grad():
        out = net(pictures(3))
        assert torch.equal(out.logits[-1], plain(pictures(3)))
    assert bool((out.layer == 1).all())
    assert bool((out.layer_scores != 1).any())
    net.set_layer("gates")
    out = net(pictures(3))
    assert torch.equal(out.layer, (out.layer_scores >= 0.5).float())


def test_names_say_what_is_gated() -> None:
    net = gated("resnet", "output", branches=True)
    assert net.unit_names == tuple(f"block{i}" for i in range(1, 10))
    assert (
        net.gated == net.channelled == ("block2", "block3", "block5", "block6", "block8", "block9")
    )
    assert net.exit_names == ("exit1", "exit2", "exit3", "exit4", "exit5", "exit6", "final")
    assert list(net.exit_after.values()) == [
        *("block1", "block2", "block4", "block5", "block7", "block8", "block9"),
    ]
    dense = gated("densenet", branches=True)
    assert dense.gated == ("dense2", "dense3", "dense5", "dense6", "dense8", "dense9")
    assert dense.exit_after["exit4"] == "dense5"


@pytest.mark.parametrize("kind", ["resnet", "densenet"])
@pytest.mark.parametrize("channel", ["none", "output", "inner"])
def test_everything_learns(kind: str, channel: ChannelKind) -> None:
    net = gated(kind, channel, branches=True).train()
    out = net(pictures())
    loss = sum(logits.square().mean() for logits in out.logits)
    assert isinstance(loss, Tensor)
    loss.backward()
    still = {n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    # a unit that no picture ran learns nothing: neither its weights nor its channel gate
    shut = {name for name, at in zip(net.gated, out.layer.T, strict=True) if not at.any()}
    assert len(shut) < len(net.gated)
    for unit in net.chain.units:
        if unit.name in shut:
            still = {n for n in still if not n.startswith(f"backbone.{unit.path}.")}
            at = net.gated.index(unit.name)
            still = {n for n in still if not n.startswith(f"channel_gates.{at}.")}
    assert not still


def test_no_two_weights_are_one(tmp_path: object) -> None:
    keys = gated("resnet", "output").state_dict()
    assert len({t.data_ptr() for t in keys.values() if t.numel()}) == len(keys)
    assert [k for k in keys if ".cell." in k] == [
        f"layer_gates.cell.{w}_{g}" for w in ("weight", "bias") for g in ("ih", "hh")
    ]


@pytest.mark.parametrize("columns", [1, 3])
def test_a_choice_is_exact_and_its_gradient_is_the_sums(columns: int) -> None:
    torch.manual_seed(0)
    y, x = (torch.randn(4, 3, 2, 2, requires_grad=True) for _ in range(2))
    score = torch.rand(4, columns, requires_grad=True)
    keep = hard(score)
    assert torch.equal(keep.detach(), (score >= 0.5).float())
    out = choose(y, x, keep[:, :, None, None])
    wanted = torch.where((score >= 0.5)[:, :, None, None], y, x)
    assert torch.equal(out, wanted)
    direction = torch.randn_like(out)
    mine = torch.autograd.grad((out * direction).sum(), (y, x, score))
    free = keep.detach().requires_grad_()
    mix = free[:, :, None, None] * y + (1 - free[:, :, None, None]) * x
    theirs = torch.autograd.grad((mix * direction).sum(), (y, x, free))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_a_frozen_backbone_keeps_weights_and_averages() -> None:
    net = gated("resnet", "output")
    net.freeze_backbone()
    before = {k: t.clone() for k, t in net.state_dict().items()}
    net.train()
    assert not net.backbone.training
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    sum(m.sum() for m in net(pictures()).channel).backward()
    optimiser.step()
    changed = {k for k, t in net.state_dict().items() if not torch.equal(t, before[k])}
    assert changed
    assert not any(k.startswith("backbone.") for k in changed)


def test_inner_masks_keep_the_backbones_weights() -> None:
    plain = backbone("resnet")
    keys = {k: t.clone() for k, t in plain.state_dict().items()}
    net = GatedNetwork(plain, layer=False, channel="inner", group_channels=4)
    assert isinstance(net.backbone.get_submodule("layer2.1"), MaskedBlock)
    assert all(torch.equal(t, keys[k]) for k, t in plain.state_dict().items())
    assert net.groups == {
        "block2": 2,
        "block3": 2,
        "block5": 4,
        "block6": 4,
        "block8": 8,
        "block9": 8,
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GatedNetwork(ResNet(8)), "a ResNet so small has no unit to skip"),
        (
            lambda: GatedNetwork(ResNet(14, width=6), channel="inner", group_channels=4),
            "block2: 6 channels are no whole groups of 4",
        ),
        (
            lambda: GatedNetwork(DenseNet(13, bottleneck=False), channel="inner", group_channels=4),
            "dense2: there are no two convolutions",
        ),
        (lambda: gated("resnet").branch(0), "no branches"),
    ],
)
def test_what_cannot_be_gated_is_refused(make: object, message: str) -> None:
    with pytest.raises(DynrtError, match=message):
        make()  # type: ignore[operator]


def test_a_backbone_is_a_module() -> None:
    class Chained:
        def chain(self) -> object:
            return ResNet(14).chain()

    with pytest.raises(DynrtError, match="a backbone is a torch module, not Chained"):
        GatedNetwork(Chained())  # type: ignore[arg-type]


def test_pooled_features_are_those_that_the_branches_classify() -> None:
    net = gated("densenet", branches=True)
    with torch.no_grad():
        out, vectors = net(pictures()), net.pooled(pictures())
        for i, vector in enumerate(vectors):
            torch.testing.assert_close(net.branch(i).classifier(vector), out.logits[i])


def test_the_protocol_is_what_the_zoo_offers() -> None:
    nets: list[Backbone] = [backbone("resnet"), backbone("densenet")]
    assert [len(net.chain().units) for net in nets] == [9, 11]
