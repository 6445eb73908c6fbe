"""Ours beside what others publish: the networks are the published ones, the figures follow."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynrt.energy.hardware import DATAFLOWS
from dynrt.energy.published import Comparison, Row, published_comparisons
from dynrt.energy.published_networks import alexnet_conv, alexnet_fc, resnet50_blocks
from dynrt.errors import EnergyError
from dynrt.ir.layers import ConvLayer, LayerTable, weight_words


def macs(layers: LayerTable) -> int:
    return sum(layer.macs for of_node in layers.values() for layer in of_node)


class TestNetworks:
    def test_alexnet_has_the_published_multiply_accumulates(self) -> None:
        # JSSC 2017, table V: 2.66 GMACs for 4 pictures; ISSCC 2016: 666 million for one.
        assert round(4 * macs(alexnet_conv()) / 1e9, 2) == 2.66
        assert round(macs(alexnet_conv()) / 1e6) == 666
        # ISSCC 2016: 2.3 million weights in the convolutions.
        weights = sum(weight_words(layer) for own in alexnet_conv().values() for layer in own)
        assert round(weights / 1e6, 1) == 2.3

    def test_fully_connected_layers_have_a_mac_per_weight_and_picture(self) -> None:
        # 9216 * 4096 + 4096 * 4096 + 4096 * 1000 = 58.6 million.
        assert macs(alexnet_fc(batch=1)) == 9216 * 4096 + 4096 * 4096 + 4096 * 1000
        assert macs(alexnet_fc(batch=16)) == 16 * macs(alexnet_fc(batch=1))

    def test_resnet50_has_sixteen_blocks_of_3_97_gmacs(self) -> None:
        # 4.09 GMACs in all: the first convolution takes 118 million and the classifier 2 million.
        blocks = resnet50_blocks()
        assert len(blocks) == 16
        assert macs(blocks) == 4_089_184_256 - 118_013_952 - 2_048_000
        # A block without a shortcut: 56 * 56 * (256 * 64 + 9 * 64 * 64 + 64 * 256), at every stage.
        equal = {macs({"b": own}) for name, own in blocks.items() if not name.endswith("_block1")}
        assert equal == {56 * 56 * (256 * 64 + 9 * 64 * 64 + 64 * 256)}

    @pytest.mark.parametrize("layers", [alexnet_conv(), resnet50_blocks()])
    def test_outputs_follow_from_inputs(self, layers: LayerTable) -> None:
        for of_node in layers.values():
            for layer in of_node:
                assert isinstance(layer, ConvLayer)
                reach = layer.in_h + layer.pad_top + layer.pad_bottom - layer.kernel_h
                assert layer.out_h == reach // layer.stride_h + 1
                assert layer.channels % layer.groups == layer.filters % layer.groups == 0


def test_the_authors_figure_for_blocks_of_equal_macs_follows_from_their_log() -> None:
    # SkipNet_energy, run.txt, in the order 1 x 1, 3 x 3, 1 x 1: L1 reads, L1 writes, L2 reads, L2
    # writes of the blocks without shortcut at 56 x 56 (256, 64, 64 channels) and at 7 x 7 (2048, 512).
    early = (
        (17432576, 17432576, 125698560, 1736704),
        (115605504, 80510976, 108036736, 2301952),
        (17432576, 17432576, 125698560, 1134592),
    )
    late = (
        (139460608, 139460608, 1005584896, 8488960),
        (308281344, 214695936, 288096896, 7889408),
        (139460608, 139460608, 1005584896, 8413696),
    )
    block_macs = 56 * 56 * (256 * 64 + 9 * 64 * 64 + 64 * 256)
    energies = [
        block_macs + sum(a + b + 6 * (c + d) for a, b, c, d in block) for block in (early, late)
    ]
    assert round(energies[1] / energies[0], 1) == 5.7


@pytest.fixture(scope="module")
def compared() -> tuple[Comparison, ...]:
    return published_comparisons()


def row(compared: tuple[Comparison, ...], quantity: str) -> Row:
    (found,) = (r for c in compared for r in c.rows if r.quantity == quantity)
    return found


def test_every_figure_has_a_source_and_all_dataflows(compared: tuple[Comparison, ...]) -> None:
    for comparison in compared:
        assert comparison.source
        assert "hardware eyeriss, table eyeriss-normalised, policy corrected" in comparison.basis
        assert comparison.differences
        for one in comparison.rows:
            assert set(one.ours) == set(DATAFLOWS)
            assert one.unit in ("x", "%", "accesses/MAC")


def test_blocks_energy_spreads_more_than_their_macs_once_dram_counts(
    compared: tuple[Comparison, ...],
) -> None:
    multiply = row(compared, "multiply-accumulates, all blocks").ours["ws"]
    # 372.6 / 218.4 million: the second stage's first block over a block without shortcut.
    assert round(multiply, 3) == round(372_506_624 / 218_365_952, 3)
    for dataflow in DATAFLOWS:
        assert row(compared, "equation (6) with DRAM, all blocks").ours[dataflow] > 1.5 * multiply
        equal = row(compared, "equation (6) with DRAM, blocks of equal MACs").ours[dataflow]
        assert equal > 1.3
        # Without DRAM a systolic array takes nearly the same for each: theirs is the mapping's.
        assert row(compared, "their formula, blocks of equal MACs").ours[dataflow] < 1.02


def test_on_chip_the_order_is_the_published_one(compared: tuple[Comparison, ...]) -> None:
    registers = row(compared, "convolutions, on chip: register files").ours
    assert all(share > 50 for share in registers.values())


def test_fully_connected_layers_are_dram_as_published(compared: tuple[Comparison, ...]) -> None:
    for quantity in ("fully connected, one picture: DRAM", "fully connected, 16 pictures: DRAM"):
        assert all(share > 50 for share in row(compared, quantity).ours.values())


def test_a_word_is_read_once_at_least(compared: tuple[Comparison, ...]) -> None:
    least = row(compared, "DRAM, every word once").ours
    # 0.35 M inputs in pictures, 2.3 M weights, 0.65 M outputs over 666 M MACs.
    assert all(0.004 < value < 0.006 for value in least.values())
    for dataflow, value in row(compared, "DRAM").ours.items():
        assert value > least[dataflow]


def test_the_page_shows_these_figures(compared: tuple[Comparison, ...]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "energy-model.md").read_text(encoding="utf-8")
    digits = {"accesses/MAC": ".2g", "x": ".2f", "%": ".0f"}
    for one in (r for c in compared for r in c.rows):
        published = one.words or ("" if one.published is None else f"{one.published:g}")
        ours = " | ".join(f"{value:{digits[one.unit]}}" for value in one.ours.values())
        assert f"| {one.quantity} | {published} | {ours} |" in page


def test_no_such_policy() -> None:
    with pytest.raises(EnergyError, match="policy 'best' is not there"):
        published_comparisons(policy="best")
