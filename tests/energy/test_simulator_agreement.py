"""The two backends say the same, field by field, on some hundred small layers; and the comparison
itself notices when they do not. ``python -m tests.soak energy`` is the same on thousands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynrt.energy import analytic
from dynrt.energy.array import Dataflow, SimCounts, SimLayer, SystolicArray
from dynrt.energy.simulator import simulate
from dynrt.errors import EnergyError, SimulatorError
from tests import soak_energy
from tests.energy_cases import ARRAYS, DATAFLOWS, KINDS, differences, draw, require_simulator, work

require_simulator()

#: Of one case: some hundredths of a second of the simulator.
MOST_WORK = 40_000
CHUNK = 40
ARRAY = SystolicArray(
    rows=4, cols=4, dataflow="ws", ifmap_words=128, filter_words=128, ofmap_words=128
)
LAYER = SimLayer(height=6, width=6, kernel_h=3, kernel_w=3, channels=2, filters=5)


@pytest.mark.parametrize("start", range(0, 320, CHUNK))
def test_random_layers(start: int) -> None:
    overflows = 0
    for seed in range(start, start + CHUNK):
        pair = draw(seed, most_work=MOST_WORK)
        counts = simulate(*pair)
        assert differences(pair, counts) == [], (seed, pair)
        overflows += counts.ifmap_dram_reads > pair[1].ifmap_words // 2
    assert overflows, "no case of these overflows a buffer"


def test_the_cases_are_of_every_kind() -> None:
    pairs = [draw(seed, most_work=MOST_WORK) for seed in range(320)]
    assert len(set(pairs)) > 300
    assert {(array.rows, array.cols) for _, array in pairs} == set(ARRAYS)
    assert {array.dataflow for _, array in pairs} == {"ws", "os", "is"}
    assert {seed % len(KINDS) for seed in range(320)} == set(range(len(KINDS)))
    assert all(work(*pair) <= MOST_WORK for pair in pairs)
    assert pairs[7] == draw(7, most_work=MOST_WORK)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("sizes", [{"ifmap_words": 99}, {"filter_words": 7}, {"ofmap_words": 1}])
def test_what_the_simulator_crashes_on_has_no_closed_form(
    dataflow: Dataflow, sizes: dict[str, int]
) -> None:
    array = dataclasses.replace(ARRAY, **sizes, dataflow=dataflow)
    with pytest.raises(SimulatorError) as caught:
        simulate(LAYER, array)
    assert differences((LAYER, array), caught.value) == []


def test_a_difference_in_any_field_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = simulate(LAYER, ARRAY)
    for field in dataclasses.fields(SimCounts):
        value = getattr(counts, field.name)
        wrong = dataclasses.replace(counts, **{field.name: value + 1})
        (found,) = differences((LAYER, ARRAY), wrong)
        assert found == f"{field.name}: simulator {value + 1!r}, analytic {value!r}"
    no_int: Any = float(counts.macs)
    monkeypatch.setattr(analytic, "simulate", lambda *_: dataclasses.replace(counts, macs=no_int))
    assert differences((LAYER, ARRAY), counts), "a count that is no int"


def test_a_refusal_must_be_met_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = SimulatorError("no")
    assert differences((LAYER, ARRAY), refused) == [
        f"simulator {refused!r}, analytic {analytic.simulate(LAYER, ARRAY)!r}"
    ]
    counts = simulate(LAYER, ARRAY)
    monkeypatch.setattr(analytic, "simulate", _refuse)
    assert "EnergyError" in differences((LAYER, ARRAY), counts)[0]
    assert differences((LAYER, ARRAY), refused) == []


def _refuse(layer: SimLayer, array: SystolicArray) -> SimCounts:
    raise EnergyError("no")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table of one quick layer, twice, and one that takes long."""
    monkeypatch.setenv("DYNRT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "net.csv").write_text(
        "Layer,M,N,K,\nquick,9,8,7,\nlong,3000,300,300,\nagain,9,8,7,\nlonger,30000,3000,300,\n"
    )
    return folder


def test_the_soak_compares(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert soak_energy.run(["--count", "5", "--workers", "1"]) == 0
    text = capsys.readouterr().out
    assert "random: 5 distinct layers, seeds 0..4, 10 array shapes, 7 kinds, 5 compared" in text
    assert "0 refused by both, 0 omitted" in text
    assert "0 mismatches" in text


def test_the_soak_lists_what_it_left_out(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--count", "0", "--workers", "2", "--topologies", str(table)]
    assert soak_energy.run([*arguments, "--per-layer-s", "1.5"]) == 0
    text = capsys.readouterr().out
    assert "tables: 4 layers x 3 dataflows on 32x32, 9 distinct, 3 compared" in text
    assert "0 refused by both, 6 omitted; no overflow; 0 mismatches" in text
    assert "omitted: net/long/ws: layer 3000x300x1 kernel 1x300 filters 300" in text
    assert "not done after 1.5 s, and ended" in text
    assert "omitted: net/longer/os: not tried: 4 times the work of one not done in 1.5 s" in text


def test_the_soak_stops_when_its_time_is_up(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--count", "0", "--topologies", str(table), "--total-s", "0"]
    assert soak_energy.run(arguments) == 0
    text = capsys.readouterr().out
    assert "0 compared, 0 refused by both, 9 omitted" in text
    assert "net/quick/ws, net/again/ws: the time for all was up" in text


def test_the_soak_fails_on_a_mismatch(
    table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    true: Callable[[SimLayer, SystolicArray], SimCounts] = analytic.simulate

    def wrong(layer: SimLayer, array: SystolicArray) -> SimCounts:
        counts = true(layer, array)
        return dataclasses.replace(counts, cycles=counts.cycles + 1)

    monkeypatch.setattr(analytic, "simulate", wrong)
    assert soak_energy.run(["--count", "2", "--workers", "1"]) == 1
    told = capsys.readouterr()
    assert "2 mismatches" in told.out
    assert "MISMATCH seed 0: layer" in told.err
