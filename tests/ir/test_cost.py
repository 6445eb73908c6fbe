"""Costs, budgets and the amounts that people write."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt import units
from dynrt.errors import BudgetError, DynrtError, QuantityError
from dynrt.ir.cost import ZERO_COST, Budget, Cost, describe_cost


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("100M", 100_000_000, "FLOP"),
        ("100", 100, "FLOP"),
        ("1.5k", 1500, "FLOP"),
        ("2e3", 2000, "FLOP"),
        ("50MMAC", 50_000_000, "MAC"),
        ("3GFLOPs", 3_000_000_000, "FLOP"),
        ("2mJ", Fraction(2, 1000), "J"),
        ("7uJ", Fraction(7, 10**6), "J"),
        ("5ms", Fraction(5, 1000), "s"),
        (" 1 s ", 1, "s"),
    ],
)
def test_amounts(text: str, value: Fraction, unit: str) -> None:
    amount = units.parse_quantity(text)
    assert (amount.value, amount.unit) == (value, unit)


@pytest.mark.parametrize(
    "text",
    ["abc", "", "-5M", "0", "5m", "nan", "inf", "1e9999", "10X", "1,5M", "M", "9" * 99, "0x10"],
)
def test_no_amounts(text: str) -> None:
    with pytest.raises(QuantityError):
        units.parse_quantity(text)


def test_budget_of_text() -> None:
    assert Budget.parse("101") == Budget(macs=50)
    assert Budget.parse("100M,2mJ,5ms") == Budget(macs=50_000_000, joules=0.002, seconds=0.005)
    assert Budget.parse("100M").to_json() == {"flops": 100_000_000, "joules": None, "seconds": None}
    assert Budget(joules=0.002).limits() == {"femtojoules": 2 * 10**12}
    assert str(Budget(macs=1, joules=0.5, seconds=2)) == "2 FLOPs, 0.5 J, 2 s"
    assert str(Budget()) == "no cap"
    assert not Budget().capped
    assert Budget(seconds=1).capped


@pytest.mark.parametrize("text", ["1", "100M,50MMAC"])
def test_no_budget_of_text(text: str) -> None:
    with pytest.raises(BudgetError):
        Budget.parse(text)


@pytest.mark.parametrize(
    "fields",
    [
        {"macs": 0},
        {"macs": -1},
        {"macs": 1.5},
        {"macs": True},
        {"joules": float("nan")},
        {"joules": float("inf")},
        {"seconds": "5"},
    ],
)
def test_no_budget(fields: dict[str, float]) -> None:
    with pytest.raises(BudgetError):
        Budget(**fields)  # type: ignore[arg-type]


def test_unknown_stays_unknown_in_a_sum() -> None:
    assert Cost(macs=1, femtojoules=2) + Cost(macs=3) == Cost(macs=4)
    assert ZERO_COST + Cost(macs=3, femtojoules=5, nanoseconds=7) == Cost(
        macs=3, femtojoules=5, nanoseconds=7
    )
    assert Cost(macs=3).flops == 6


@given(st.integers(1, 10**15))
def test_whole_flops_survive_text(flops: int) -> None:
    assert units.parse_quantity(str(flops)).value == flops
    assert units.flops_to_macs(flops) == flops // 2
    assert units.macs_to_flops(units.flops_to_macs(flops)) in (flops, flops - 1)


@given(st.integers(0, 2**50))
def test_femtojoules_are_exact(femtojoules: int) -> None:
    assert units.j_to_fj(Fraction(femtojoules, 10**15)) == femtojoules
    assert units.fj_to_j(femtojoules) == pytest.approx(femtojoules * 1e-15)
    assert units.s_to_ns(Fraction(femtojoules, 10**9)) == femtojoules
    assert units.ns_to_s(10**9) == 1.0


def test_amounts_for_people() -> None:
    assert [units.format_flops(n) for n in (5, 1500, 38_633_472, 166_000_000, 3 * 10**9)] == [
        "5",
        "1.5K",
        "38.6M",
        "166M",
        "3G",
    ]
    assert describe_cost("macs", 5) == "10 FLOPs (5 MACs)"
    assert describe_cost("femtojoules", 10**12) == "0.001 J"
    assert describe_cost("nanoseconds", 10**6) == "0.001 s"


def test_every_error_is_ours() -> None:
    from dynrt import errors

    classes = [
        c for c in vars(errors).values() if isinstance(c, type) and c.__module__ == errors.__name__
    ]
    named = {c.__name__ for c in classes if not c.__name__.startswith("_")}
    assert all(issubclass(c, DynrtError) for c in classes if not c.__name__.startswith("_"))
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in named)
