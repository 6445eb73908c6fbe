from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.energy.hardware import load_hardware
from dynrt.energy.tables import load_table
from dynrt.errors import SessionError
from dynrt.fpga.fit import LEAST_PJ, Equation, fit, table_text

TRUTH_PJ = {"mac float32": 4.0, "dram": 600.0, "buffer": 9.0}


def equations(
    truth: dict[str, float] = TRUTH_PJ, *, n: int = 6, error: float = 0.0, seed: int = 0
) -> list[Equation]:
    """Cases whose counts do not move together."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        words = {
            "mac float32": float(rng.uniform(1e6, 1e7)),
            "dram": float(rng.uniform(1e4, 1e5)),
            "buffer": float(rng.uniform(1e5, 1e7)),
        }
        joules = sum(words[key] * truth.get(key, 0.0) for key in words) / 1e12
        shaken = joules * (1 + error * float(rng.standard_normal()))
        out.append(Equation(name=f"case {i}", words=words, joules=shaken, error_j=error * joules))
    return out


@given(st.fixed_dictionaries({key: st.floats(0.5, 1000) for key in TRUTH_PJ}), st.integers(0, 100))
def test_exact_energies_give_the_values_back(truth: dict[str, float], seed: int) -> None:
    found = fit(equations(truth, seed=seed), source="emulated")
    for value in found.values:
        assert value.pj == pytest.approx(truth[value.what], rel=1e-4)
        assert value.low_pj <= value.pj <= value.high_pj
    assert found.merged == ()
    assert found.r_squared == pytest.approx(1)


def test_intervals_hold_the_values_and_residuals_add_up() -> None:
    held = 0
    for seed in range(40):
        rows = equations(n=12, error=0.01, seed=seed)
        found = fit(rows, source="hardware")
        held += sum(v.low_pj <= TRUTH_PJ[v.what] <= v.high_pj for v in found.values)
        for row, left in zip(rows, found.residuals.values(), strict=True):
            fitted = sum(row.words[v.what] * v.pj for v in found.values) / 1e12
            assert row.joules - fitted == pytest.approx(left, abs=1e-15)
    assert held / 120 > 0.85


def test_no_value_is_below_zero() -> None:
    truth = {"mac float32": 4.0, "dram": -50.0, "buffer": 9.0}
    found = fit(equations(truth), source="emulated")
    assert all(v.pj >= 0 and v.low_pj >= 0 for v in found.values)
    assert next(v.pj for v in found.values if v.what == "dram") == 0


def test_counts_that_move_together_are_named() -> None:
    rows = [
        Equation(
            name=str(i),
            words={"mac float32": 1e6 * i, "operation float32": 3e4 * i, "dram": 1e3 * i**2},
            joules=1e-6 * i,
            error_j=0.0,
        )
        for i in range(1, 5)
    ]
    found = fit(rows, source="emulated")
    assert [v.what for v in found.values] == ["mac float32", "dram"]
    assert found.merged == ("operation float32",)


def test_two_sessions_of_one_case_keep_their_residuals_apart() -> None:
    rows = equations(n=4)
    found = fit([*rows, *rows], source="emulated", sessions=2)
    assert len(found.residuals) == 8
    assert "case 0 #2" in found.residuals


def test_a_fit_takes_two_cases() -> None:
    with pytest.raises(SessionError, match="a fit takes 2"):
        fit(equations(n=1), source="emulated")
    empty = [Equation(name=n, words={}, joules=1.0, error_j=0.1) for n in "ab"]
    with pytest.raises(SessionError, match="nothing to fit"):
        fit(empty, source="emulated")


@pytest.mark.parametrize("source", ["emulated", "hardware"])
def test_the_table_is_read_by_the_energy_model(tmp_path: Path, source: str) -> None:
    truth = {"mac float32": 4.0, "dram": -50.0, "buffer": 9.0}
    found = fit(equations(truth), source="emulated" if source == "emulated" else "hardware")
    hardware = load_hardware("zedboard")
    text = table_text(found, name="fitted", hardware=hardware, network='a "net"', sessions="here")
    (tmp_path / "t.toml").write_text(text)
    table = load_table(tmp_path / "t.toml")
    assert f"source: {source}" in table.entries[0].source
    assert ("no measured energies" in table.summary) == (source == "emulated")
    by_level = {entry.level: entry for entry in table.entries}
    values = {v.what: v.pj for v in found.values}
    assert float(by_level["mac"].value) == pytest.approx(values["mac float32"])
    assert float(by_level["dram"].value) == LEAST_PJ
    assert "puts it at zero" in by_level["dram"].note
    # 32 bits of the fit are one float32 word of the model, in femtojoules
    action = table.action(
        "buffer", dtype="float32", hardware=hardware, operand="ifmap", access="read"
    )
    assert action is not None
    assert float(action.value) == pytest.approx(1000 * values["buffer"])
    assert not math.isnan(found.r_squared)
