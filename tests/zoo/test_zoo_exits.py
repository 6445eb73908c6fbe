"""Where d-gates stand on any backbone, what they see there, and that the backbone stays whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dynrt.errors import DynrtError
from dynrt.zoo import DecisionGate, DenseNet, ResNet
from dynrt.zoo.chain import Backbone, Chain
from dynrt.zoo.exits import ExitNetwork, VectorHead, exit_points, main_block_ends
from dynrt.zoo.parts import MeanPool

PICTURES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def resnet() -> ResNet:
    torch.manual_seed(1)
    return ResNet(20, width=4).eval()


def densenet() -> DenseNet:
    torch.manual_seed(1)
    return DenseNet(22, growth=4).eval()


def test_points_stand_behind_every_main_block_but_the_last() -> None:
    points = exit_points(resnet())
    assert [(p.after, p.size) for p in points] == [("block3", 4), ("block6", 8)]
    points = exit_points(densenet())
    # three layers of 4 new channels a block; a transition halves them
    assert [(p.after, p.size) for p in points] == [("dense3", 8 + 12), ("dense6", 10 + 12)]
    assert main_block_ends(densenet().chain()) == ("dense3", "dense6")


def test_points_may_stand_behind_any_unit_in_the_order_of_the_network() -> None:
    points = exit_points(resnet(), ["block7", "block2"])
    assert [p.after for p in points] == ["block2", "block7"]
    sizes = [p.size for p in exit_points(densenet(), ["dense1", "transition1"])]
    assert sizes == [8 + 4, 10]


@pytest.mark.parametrize("make", [resnet, densenet])
def test_features_may_be_averaged_over_fields_of_a_grid(
    make: type[ResNet] | type[DenseNet],
) -> None:
    whole = ExitNetwork(make()).eval()  # type: ignore[call-arg]
    fields = ExitNetwork(make(), grid=2).eval()  # type: ignore[call-arg]
    assert fields.feature_sizes == tuple(4 * n for n in whole.feature_sizes)
    with torch.no_grad():
        for one, four in zip(whole.pooled(PICTURES), fields.pooled(PICTURES), strict=True):
            torch.testing.assert_close(four.view(3, -1, 4).mean(2), one)
            assert float(four.view(3, -1, 4).std(2).max()) > 0.01


def test_a_grid_has_fields() -> None:
    with pytest.raises(DynrtError, match="at least one field a side, not 0"):
        exit_points(resnet(), grid=0)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (["block10"], "no unit 'block10'; there are block1 to block9"),
        (["block2", "block2"], "two exit points after 'block2'"),
        (["block9"], "after 'block9' stands the network's own classifier"),
        ([], "no exit points"),
    ],
)
def test_wrong_points_are_named(after: list[str], message: str) -> None:
    with pytest.raises(DynrtError, match=message):
        exit_points(resnet(), after)


class OneStage(nn.Module):
    """A backbone whose units are all of one stage."""

    def __init__(self, backbone: Backbone, units: int) -> None:
        super().__init__()
        chain = backbone.chain()
        self._chain = Chain(
            stem=chain.stem,
            units=chain.units[:units],
            pool=chain.pool,
            classifier=chain.classifier,
        )

    def chain(self) -> Chain:
        return self._chain


def test_a_network_of_one_main_block_needs_names() -> None:
    with pytest.raises(DynrtError, match="one main block; name units"):
        exit_points(OneStage(resnet(), 3))
    assert [p.after for p in exit_points(OneStage(resnet(), 3), ["block1"])] == ["block1"]


def test_a_resnet_s_vectors_are_means_of_its_blocks() -> None:
    net = ExitNetwork(resnet()).eval()
    backbone = net.backbone
    assert isinstance(backbone, ResNet)
    with torch.no_grad():
        x = backbone.layer1(backbone.stem(PICTURES))
        want = [x.mean((2, 3)), backbone.layer2(x).mean((2, 3))]
        vectors, logits = net(PICTURES)
        assert torch.equal(logits, backbone(PICTURES))
        for got, again, right in zip(vectors, net.pooled(PICTURES), want, strict=True):
            torch.testing.assert_close(got, right)
            assert torch.equal(got, again)
    assert net.exit_names == ("exit1", "exit2", "final")
    assert (net.feature_sizes, net.classes) == ((4, 8), 10)


def test_dense_features_are_activated_before_they_are_pooled() -> None:
    net = ExitNetwork(densenet(), ["dense3", "dense4"]).eval()
    backbone = net.backbone
    assert isinstance(backbone, DenseNet)
    with torch.no_grad():
        x = backbone.get_submodule("block1")(backbone.conv1(PICTURES))
        first = torch.relu(backbone.get_submodule("trans1.bn1")(x)).mean((2, 3))
        layers = list(backbone.get_submodule("block2.layer").children())
        x = backbone.get_submodule("trans1")(x)
        x = torch.cat([x, layers[0](x)], 1)
        second = torch.relu(layers[1].get_submodule("bn1")(x)).mean((2, 3))
        vectors, logits = net(PICTURES)
        assert torch.equal(logits, backbone(PICTURES))
    torch.testing.assert_close(vectors[0], first)
    torch.testing.assert_close(vectors[1], second)


def test_the_weights_are_the_backbone_s_and_nothing_else() -> None:
    net = ExitNetwork(densenet())
    assert set(net.state_dict()) == {f"backbone.{k}" for k in net.backbone.state_dict()}


@pytest.mark.parametrize("make", [resnet, densenet])
def test_the_parts_of_a_backbone_are_the_backbone(make: type[ResNet] | type[DenseNet]) -> None:
    net = ExitNetwork(make()).eval()  # type: ignore[call-arg]
    parts = net.export_parts()
    assert [e.after for e in parts.exits] == [p.name for p in parts.parts]
    assert [e.classifier is None for e in parts.exits] == [True, True, False]
    x = PICTURES
    with torch.no_grad():
        for part, exit_, vector in zip(
            parts.parts, parts.exits, [*net.pooled(PICTURES), None], strict=True
        ):
            x = part.module(x)
            if vector is not None:
                assert torch.equal(exit_.pooled(x), vector)
        assert parts.exits[-1].classifier is not None
        head = VectorHead(parts.exits[-1].pooled, parts.exits[-1].classifier)
        assert torch.equal(head(x)[0], net.backbone(PICTURES))
    assert parts.state == {}


def test_a_unit_that_a_dense_layer_cannot_be_pooled_before_is_named() -> None:
    chain = densenet().chain()
    units = (chain.units[0], chain.units[5])
    broken = OneStage(densenet(), 2)
    broken._chain = Chain(
        stem=chain.stem, units=units, pool=chain.pool, classifier=chain.classifier
    )
    with pytest.raises(DynrtError, match="'dense5' does not begin with a batch norm"):
        exit_points(broken, ["dense1"])


def test_something_else_than_a_module_is_refused() -> None:
    class Bare:
        def chain(self) -> Chain:
            return resnet().chain()

    with pytest.raises(DynrtError, match="a torch module, not Bare"):
        ExitNetwork(Bare())


def test_layers_of_one_head_share_the_vector() -> None:
    gate = DecisionGate(4)
    nn.init.ones_(gate.weight)
    linear = nn.Linear(4, 10)
    x = torch.randn(2, 4, 3, 3)
    logits, distances = VectorHead(MeanPool(), linear, gate)(x)
    torch.testing.assert_close(logits, linear(x.mean((2, 3))))
    torch.testing.assert_close(distances, x.mean((2, 3)).sum(1, keepdim=True).expand(-1, 10))
