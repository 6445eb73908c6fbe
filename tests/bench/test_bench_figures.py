"""How samples become rows: turns, ratios, spreads, bars, records."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench import __main__ as command
from bench import dispatch, energy, peers, startup
from bench.bars import BARS, Bar, verdict
from bench.blocks import mean_of, saving
from bench.plot import plot_rows
from bench.processes import require_gain
from bench.row import (
    Measurement,
    MissingError,
    Request,
    Row,
    UnfairError,
    derived_row,
    ratio_row,
    require,
    row_of,
)
from bench.timing import Alternative, interleaved

#: Names that the command line's contract promises.
DISPATCH = [
    "half_skip_saving",
    "all_keep",
    "all_skip",
    "exit2",
    "exit4",
    "exit6",
    "if_graph",
    "batch32_half",
    "mask64_half",
    "mask256_half",
    "int8_half",
    "load_ms",
    "extra_rss_mb",
    "two_threads_half",
    "nodes_2000_over_100",
]
ENERGY = [
    "resnet74_speedup",
    "imagenet_layer_speedup",
    "resnet74_cold_s",
    "resnet50_cold_s",
]
PEERS = ["openvino_static", "ort_static", "torch_eager", "torch_compile", "ncnn"]


def row(name: str = "all_keep", value: float = 1.0, unit: str = "ratio") -> Row:
    return Row(name=name, value=value, low=value - 0.1, high=value + 0.1, unit=unit, note="n")


class Clock:
    """Time passes only in calls."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def costing(self, name: str, seconds: float) -> Alternative:
        def call() -> None:
            self.log.append(name)
            self.now += seconds

        def prepare() -> None:
            self.log.append(f"prepare {name}")
            self.now += 100.0

        return Alternative(call=call, prepare=prepare)


def test_turns_alternate_and_preparing_is_not_timed() -> None:
    clock = Clock()
    found = interleaved(
        {"a": clock.costing("a", 0.5), "b": clock.costing("b", 2.0)},
        3,
        block_s=1.0,
        clock=lambda: clock.now,
    )
    assert found["a"].tolist() == [0.5] * 3
    assert found["b"].tolist() == [2.0] * 3
    blocks = " ".join(clock.log).split("prepare ")[1:]
    assert [b.split()[0] for b in blocks] == ["a", "b", *"ab", *"ba", *"ab"]
    assert [len(b.split()) - 1 for b in blocks[2:4]] == [4, 3]  # two to warm up, then a block


def test_a_ratio_is_one_of_medians_and_its_spread_one_of_rounds() -> None:
    above, below = np.array([2.0, 4.0, 6.0, 50.0]), np.array([1.0, 2.0, 2.0, 2.0])
    made = ratio_row("r", above, below, "n")
    assert made.value == 5.0 / 2.0
    assert (made.low, made.high) == tuple(np.percentile([2, 2, 3, 25], (25, 75)))
    assert made.unit == "ratio"


def test_a_derived_row_takes_series_in_order() -> None:
    made = derived_row(
        "d", lambda a, b, c: a - b * c, *map(np.array, ([9.0], [2.0], [3.0])), note="n"
    )
    assert (made.value, made.low, made.high) == (3.0, 3.0, 3.0)


def test_a_plain_row_is_the_median_with_quartiles() -> None:
    made = row_of("m", [1.0, 2.0, 3.0, 4.0, 100.0], "ms", "n")
    assert (made.low, made.value, made.high) == (2.0, 3.0, 4.0)


def test_saving_is_one_where_time_goes_as_the_multiplications() -> None:
    assert saving(0.5, 1.0, share=0.5) == 1.0
    assert saving(0.6, 1.0, share=0.5) == pytest.approx(0.8)
    assert saving(1.1, 1.0, share=0.5) < 0


def test_patterns_are_averaged_within_a_round() -> None:
    times = {"half0": np.array([1.0, 2.0]), "half1": np.array([3.0, 6.0]), "halfway": np.ones(2)}
    assert mean_of(times, "half").tolist() == [2.0, 4.0]


def test_what_is_not_fair_stops_the_measurement() -> None:
    require(True, "nothing")
    with pytest.raises(UnfairError, match="MACs differ"):
        require(False, "MACs differ")


def test_two_threads_that_gain_nothing_are_no_baseline() -> None:
    require_gain(1.9, 2.0)
    with pytest.raises(MissingError, match="no faster than one"):
        require_gain(2.0, 2.0)


@pytest.mark.parametrize(
    ("at_least", "value", "met"),
    [(True, 0.9, True), (True, 0.89, False), (False, 0.9, True), (False, 0.91, False)],
)
def test_a_bar_holds_in_its_direction(at_least: bool, value: float, met: bool) -> None:
    assert Bar(bar=0.9, aim=0.9, at_least=at_least).met(value) is met


def test_a_verdict_names_the_bar() -> None:
    assert verdict(row(value=1.09)) == "reached <= 1.1"
    assert verdict(row(value=1.11)) == "MISSED <= 1.1"
    assert verdict(row("ort_static")) == ""


def names(module: SimpleNamespace | object) -> list[str]:
    return [n for m in getattr(module, "MEASUREMENTS") for n in m.names]  # noqa: B009  # any module


def test_suites_have_the_promised_rows_once_each() -> None:
    for module, promised in ((dispatch, DISPATCH), (peers, PEERS), (energy, ENERGY)):
        assert set(promised) <= set(names(module))
        assert len(names(module)) == len(set(names(module)))
    assert set(BARS) <= {*names(dispatch), *names(peers), *names(energy)}
    assert "import_ms" in names(startup)


def _raising(error: Exception) -> Callable[[Request], list[Row]]:
    def rows(_: Request) -> list[Row]:
        raise error

    return rows


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """A suite of four kinds of rows in place of ``startup``; the requests that it gets."""
    asked: list[Request] = []

    def good(request: Request) -> list[Row]:
        asked.append(request)
        return [row(), row("load_ms", 50.0, "ms")]

    fake = (
        Measurement(names=("gone",), rows=_raising(MissingError("no ncnn"))),
        Measurement(names=("odd",), rows=_raising(UnfairError("answers differ"))),
        Measurement(names=("all_keep", "load_ms"), rows=good),
    )
    monkeypatch.setattr(startup, "MEASUREMENTS", fake)
    return asked


def test_what_is_missing_or_unfair_is_said_and_never_a_number(
    suite: list[Request], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    status = command.main(["startup", "--rounds", "7", "--data", "npz:f", "--json", str(out)])
    assert status == 1  # because of the unfair one
    assert suite == [Request(rounds=7, data="npz:f")]
    record = json.loads(out.read_text())
    assert record["missing"] == {"gone": "no ncnn"}
    assert record["unfair"] == {"odd": "answers differ"}
    assert [r["name"] for r in record["rows"]] == ["all_keep", "load_ms"]
    assert set(record["rows"][0]) == {"name", "value", "low", "high", "unit", "note"}
    assert record["machine"]["cores"] >= 1
    assert "onnxruntime" in record["versions"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["gone", "missing:", "no", "ncnn"]
    assert "UNFAIR: answers differ" in printed[1]
    assert "MISSED <= 30" in printed[3]


def test_one_row_can_be_asked_for(suite: list[Request]) -> None:
    assert command.main(["startup", "--only", "load_ms"]) == 0
    assert len(suite) == 1
    with pytest.raises(SystemExit, match="2"):
        command.main(["startup", "--only", "nothing"])
    with pytest.raises(SystemExit, match="2"):
        command.main(["startup", "--rounds", "1"])


@pytest.mark.usefixtures("suite")
def test_the_plot_is_drawn_with_the_record(tmp_path: Path) -> None:
    assert command.main(["startup", "--only", "all_keep", "--plot", str(tmp_path / "p.svg")]) == 0
    text = (tmp_path / "p.svg").read_text()
    assert text.startswith("<?xml")


def test_a_plot_without_rows_still_names_what_is_missing(tmp_path: Path) -> None:
    plot_rows([], {"ncnn": "not installed"}, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
