"""Counts times table: every term by hand, exact sums, what is missing or left out."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.energy.hardware import Hardware, load_hardware
from dynrt.energy.model import Amount, EnergyReport, price
from dynrt.energy.tables import EnergyTable, Entry, load_table
from dynrt.errors import EnergyError, EnergyTableError, HardwareError
from dynrt.ir.counts import (
    COUNT_NAMES,
    AccessCounts,
    CountTable,
    EnergySource,
    Gap,
    NodeCounts,
    TypedCounts,
)

EYERISS = load_hardware("eyeriss")
NORMALISED = load_table("eyeriss-normalised")
HOROWITZ = load_table("horowitz-45nm")


def node(*, dtype: str = "int8", **counts: int) -> NodeCounts:
    return NodeCounts(typed=(TypedCounts(dtype=dtype, counts=AccessCounts(**counts)),))


def table_of(nodes: dict[str, NodeCounts], hardware: Hardware = EYERISS) -> CountTable:
    return CountTable(
        hardware=hardware.to_json(), policy="corrected", backend="analytic 1", nodes=nodes
    )


def priced(table: EnergyTable, *, hops: bool = False, **nodes: NodeCounts) -> EnergyReport:
    return price(table_of(nodes), table, hops=hops)


def entry_table(**values: str) -> EnergyTable:
    """A normalised table with one row per level."""
    return EnergyTable(
        name="t",
        unit="MACeq",
        technology="t",
        summary="t",
        entries=tuple(
            Entry(
                level=level,  # type: ignore[arg-type]  # names of levels
                value=Fraction(value),
                low=Fraction(value) / 2,
                high=Fraction(value) * 2,
                basis="assumed",
                source="t",
            )
            for level, value in values.items()
        ),
    )


class TestEveryTermByHand:
    """Normalised table: MAC 1, register file 1, hop 2, buffer 6, DRAM 200; in thousandths."""

    def test_a_multiply_accumulate_and_its_registers(self) -> None:
        # 10 MACs: 10 * 1, and 3 reads and 1 write of a register each: 10 * 4 * 1. Together 50.
        report = priced(NORMALISED, n=node(macs=10))
        assert report.node("n").amount.value == 50_000
        assert {k: v.value for k, v in report.node("n").by_level.items()} == {
            "mac": 10_000,
            "register_file": 40_000,
        }
        registers = [p for p in report.node("n").parts if p.level == "register_file"]
        assert [(p.operand, p.access, p.count) for p in registers] == [
            ("ifmap", "read", 10),
            ("filter", "read", 10),
            ("ofmap", "read", 10),
            ("ofmap", "write", 10),
        ]

    @pytest.mark.parametrize(
        ("count", "level", "operand", "access", "each"),
        [
            ("sram_ifmap_reads", "buffer", "ifmap", "read", 6),
            ("sram_filter_reads", "buffer", "filter", "read", 6),
            ("sram_ofmap_reads", "buffer", "ofmap", "read", 6),
            ("sram_ofmap_writes", "buffer", "ofmap", "write", 6),
            ("dram_ifmap_reads", "dram", "ifmap", "read", 200),
            ("dram_filter_reads", "dram", "filter", "read", 200),
            ("dram_ofmap_reads", "dram", "ofmap", "read", 200),
            ("dram_ofmap_writes", "dram", "ofmap", "write", 200),
        ],
    )
    def test_each_access(
        self, count: str, level: str, operand: str, access: str, each: int
    ) -> None:
        counts = AccessCounts(**{count: 7})
        typed = (TypedCounts(dtype="int8", counts=counts),)
        report = priced(NORMALISED, n=NodeCounts(typed=typed))
        (part,) = report.node("n").parts
        assert (part.level, part.operand, part.access, part.count) == (level, operand, access, 7)
        assert part.amount.value == 7 * each * 1000

    def test_bounds_are_all_low_and_all_high(self) -> None:
        # 1 MAC, 1 DRAM read: low 1 + 4 * 0.25 + 144 = 146; high 1 + 4 * 1.4 + 733 = 739.6.
        report = priced(NORMALISED, n=node(macs=1, dram_ifmap_reads=1))
        assert report.total == Amount(value=205_000, low=146_000, high=739_600)

    def test_operations(self) -> None:
        # 5 additions at 0.2 (0.06 to 0.27).
        report = priced(NORMALISED, n=node(operations=5))
        assert report.total == Amount(value=1000, low=300, high=1350)

    def test_hops_are_optional(self) -> None:
        # 3 + 4 + 5 hops at 2.
        counts = node(macs=1, hops_ifmap=3, hops_filter=4, hops_ofmap=5)
        without, with_ = priced(NORMALISED, n=counts), priced(NORMALISED, hops=True, n=counts)
        assert without.total.value == 5000
        assert without.left_out == ("hop",)
        assert with_.total.value == 5000 + 24_000
        assert with_.left_out == ()
        assert [(p.operand, p.count) for p in with_.node("n").parts if p.level == "hop"] == [
            ("ifmap", 3),
            ("filter", 4),
            ("ofmap", 5),
        ]
        assert (without.source.table, with_.source.table) == (
            "eyeriss-normalised",
            "eyeriss-normalised+hops",
        )

    def test_picojoules_by_width(self) -> None:
        # zedboard: DDR3 at 70 pJ/bit. 1 float32 MAC 4.6 pJ; registers 4 * 2.5 / 64 * 32 = 5 pJ;
        # one DRAM word 32 * 70 = 2240 pJ: 2249.6 pJ. The same counts of int8 words: MAC 300 fJ,
        # registers 4 * 312.5 fJ, each rounded half up to 313, DRAM 560 pJ: 561,552 fJ.
        board = load_hardware("zedboard")
        for dtype, fj in (("float32", 2_249_600), ("int8", 561_552)):
            counts = table_of({"n": node(dtype=dtype, macs=1, dram_filter_reads=1)}, board)
            assert price(counts, HOROWITZ).total.value == fj

    def test_two_formats_in_a_node_are_rounded_together(self) -> None:
        # A register takes 0.0004 MACeq: 0.4 thousandths. One int8 and one float32 MAC: each operand
        # 2 * 0.4 = 0.8, rounded to 1; four operands 4, and the MACs 2000. Apart they would round to 0.
        table = entry_table(mac="1", register_file="0.0004")
        both = NodeCounts(
            typed=(
                TypedCounts(dtype="float32", counts=AccessCounts(macs=1)),
                TypedCounts(dtype="int8", counts=AccessCounts(macs=1)),
            )
        )
        assert priced(table, n=both).total.value == 2004
        assert priced(table, n=node(macs=1)).total.value == 1000

    def test_rounding_is_half_up(self) -> None:
        # 0.0005 MACeq is half a thousandth: 1; 0.00049: 0; three of 0.0005, 1.5: 2.
        for each, count, expected in (("0.0005", 1, 1), ("0.00049", 1, 0), ("0.0005", 3, 2)):
            report = priced(entry_table(mac="1", dram=each), n=node(dram_ifmap_reads=count))
            assert report.total.value == expected


class TestMissing:
    def test_a_level_without_a_row_is_named_and_not_zero(self) -> None:
        table = entry_table(mac="1", buffer="6")
        report = priced(table, n=node(macs=2, sram_ifmap_reads=1, dram_ifmap_reads=1, operations=1))
        assert report.missing == ("register_file", "dram", "operation")
        assert set(report.node("n").by_level) == {"mac", "buffer"}
        assert report.total.value == 2000 + 6000

    def test_a_level_that_nothing_uses_is_not_missed(self) -> None:
        assert priced(entry_table(mac="1", register_file="1"), n=node(macs=2)).missing == ()

    def test_a_direction_without_a_row_is_named(self) -> None:
        table = entry_table(mac="1")
        only_reads = Entry(
            level="dram",
            value=Fraction(5),
            low=Fraction(5),
            high=Fraction(5),
            basis="assumed",
            source="t",
            access="read",
        )
        table = EnergyTable(
            name="t",
            unit="MACeq",
            technology="t",
            summary="t",
            entries=(*table.entries, only_reads),
        )
        report = priced(table, n=node(dram_ifmap_reads=1, dram_ofmap_writes=1))
        assert report.total.value == 5000
        assert report.missing == ("dram write",)

    def test_hops_that_a_table_has_not_are_missing_when_asked_for(self) -> None:
        assert priced(HOROWITZ, hops=True, n=node(hops_ifmap=1)).missing == ("hop",)
        assert priced(HOROWITZ, n=node(hops_ifmap=1)).missing == ()

    def test_gaps_stay(self) -> None:
        gap = Gap(op="Loop", count=1, macs=3, bytes_moved=None, reason="no model")
        report = priced(NORMALISED, n=NodeCounts(typed=(), gaps=(gap,)), m=node(macs=1))
        assert report.node("n").gaps == (gap,)
        assert report.of_path(["m", "n"]).gaps == (gap,)
        assert report.node("n").amount == Amount()

    def test_a_format_that_the_table_has_not(self) -> None:
        table = EnergyTable(
            name="t",
            unit="pJ",
            technology="t",
            summary="t",
            entries=(
                Entry(
                    level="mac",
                    value=Fraction(1),
                    low=Fraction(1),
                    high=Fraction(1),
                    basis="assumed",
                    source="t",
                    dtype="int8",
                ),
            ),
        )
        with pytest.raises(EnergyTableError, match="table t: no mac of float32; it has int8"):
            priced(table, n=node(dtype="float32", macs=1))
        # A format that only moves words needs no price of a multiplication.
        assert priced(table, n=node(dtype="float32", dram_ifmap_reads=1)).missing == ("dram",)

    def test_counts_of_no_hardware(self) -> None:
        counts = CountTable(hardware={}, policy="p", backend="b", nodes={})
        with pytest.raises(HardwareError, match="counts: hardware: field name is missing"):
            price(counts, NORMALISED)


class TestReport:
    def test_it_names_what_it_rests_on(self) -> None:
        report = priced(NORMALISED, n=node(macs=1, dram_ifmap_reads=1))
        assert report.source == EnergySource(
            table="eyeriss-normalised",
            hardware="eyeriss",
            policy="corrected",
            backend="analytic 1",
            unit="MACeq",
        )
        assert report.basis["dram ifmap read int8"].basis == "published"
        assert "ISCA 2016" in report.basis["dram ifmap read int8"].sources[0]
        assert set(report.basis) == {
            "mac int8",
            "register_file ifmap read int8",
            "register_file filter read int8",
            "register_file ofmap read int8",
            "register_file ofmap write int8",
            "dram ifmap read int8",
        }

    def test_units(self) -> None:
        assert priced(NORMALISED, n=node(macs=1)).in_unit(5000) == 5.0
        joules = priced(HOROWITZ, n=node(macs=1))
        assert joules.unit == "J"
        assert joules.in_unit(2 * 10**12) == 0.002

    def test_masked_nodes_have_an_energy_per_kept_group(self) -> None:
        # 0, 1 and 2 groups kept: 0, 4 and 8 MACs at 5 MACeq each.
        whole = node(macs=8)
        masked = NodeCounts(typed=whole.typed, kept=((), node(macs=4).typed, whole.typed))
        report = priced(NORMALISED, n=masked).node("n")
        assert [kept.value for kept in report.kept] == [0, 20_000, 40_000]
        assert report.kept[-1] == report.amount

    def test_no_such_node(self) -> None:
        report = priced(NORMALISED, n=node(macs=1))
        with pytest.raises(EnergyError, match="no node 'm' in the counts of modelled:eyeriss-norm"):
            report.node("m")
        with pytest.raises(EnergyError, match="no node 'm'"):
            report.of_path(["n", "m"])

    def test_a_node_twice_on_a_path(self) -> None:
        with pytest.raises(EnergyError, match="node 'n' is on the path twice"):
            priced(NORMALISED, n=node(macs=1)).of_path(["n", "n"])


COUNTS = st.builds(AccessCounts, **{name: st.integers(0, 10**12) for name in COUNT_NAMES})
NODES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.lists(st.sampled_from(["int8", "float32", "float16"]), unique=True, max_size=3).flatmap(
        lambda formats: st.tuples(
            *(st.builds(TypedCounts, dtype=st.just(f), counts=COUNTS) for f in sorted(formats))
        ).map(lambda typed: NodeCounts(typed=typed))
    ),
    min_size=1,
    max_size=4,
)


class TestSums:
    @given(nodes=NODES, hops=st.booleans(), table=st.sampled_from([NORMALISED, HOROWITZ]))
    def test_parts_make_nodes_and_nodes_make_paths(
        self, nodes: dict[str, NodeCounts], hops: bool, table: EnergyTable
    ) -> None:
        report = price(table_of(nodes), table, hops=hops)
        for one in report.nodes.values():
            assert one.amount == sum((p.amount for p in one.parts), start=Amount())
            assert one.amount == sum(one.by_level.values(), start=Amount())
            for part in one.parts:
                assert 0 <= part.amount.low <= part.amount.value <= part.amount.high
        path = report.of_path(report.nodes)
        assert path.amount == report.total
        assert path.amount == sum(path.by_level.values(), start=Amount())

    @given(nodes=NODES)
    def test_skipping_a_node_takes_away_exactly_what_it_costs(
        self, nodes: dict[str, NodeCounts]
    ) -> None:
        report = price(table_of(nodes), HOROWITZ)
        whole = report.of_path(nodes).amount
        for skipped in nodes:
            rest = report.of_path(name for name in nodes if name != skipped).amount
            assert rest + report.node(skipped).amount == whole

    @given(counts=COUNTS, times=st.integers(1, 1000))
    def test_a_sum_is_within_half_a_thousandth_per_part_of_the_exact_one(
        self, counts: AccessCounts, times: int
    ) -> None:
        one = NodeCounts(typed=(TypedCounts(dtype="int8", counts=counts),))
        many = NodeCounts(typed=(TypedCounts(dtype="int8", counts=counts.times(times)),))
        report = price(table_of({"one": one, "many": many}), HOROWITZ)
        parts = len(report.node("many").parts)
        difference = report.node("many").amount.value - times * report.node("one").amount.value
        assert abs(2 * difference) <= parts * (times + 1)
