from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.calibrate.average import cheapest_answer, dearest_path, for_average
from dynrt.calibrate.average_file import average_json, read_average, write_average
from dynrt.calibrate.scores import ScoreTable
from dynrt.calibrate.stream import answer_stream
from dynrt.errors import DataError, OutputExistsError
from dynrt.ir.graph import InputNode
from dynrt.runtime import CallableBackend, Network
from tests.calibrate.chains import Case, cases
from tests.calibrate.gated_chains import GatedCase, gated_cases
from tests.calibrate.made import functions, plausible_table
from tests.calibrate.test_paths import table_of as gated_table_of
from tests.calibrate.test_simulate import table_of

POLICY = for_average(plausible_table(500, exits=4), 25_000_000, 35_000_000)


def test_a_policy_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "average.json"
    write_average(path, POLICY)
    assert read_average(path) == POLICY
    with pytest.raises(OutputExistsError):
        write_average(path, POLICY)
    write_average(path, POLICY, force=True)


Change = Callable[[dict[str, Any]], None]


def put(*place: Any) -> Change:
    *way, last, value = place

    def change(record: Any) -> None:
        for step in way:
            record = record[step]
        record[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("format", "dynrt-policy"), "dynrt-average-policy 1 is read here"),
        (put("version", 2), "version 2"),
        (put("resource", "watts"), "'watts'"),
        (put("extra", 1), "missing or unknown: extra"),
        (put("average", 0), "above 0"),
        (put("average", 1.5), "whole number"),
        (put("burst", 0), "above 0"),
        (put("dearest", 0), "above 0"),
        (put("cap", 3), "not below the average"),
        (put("levels", []), "list of levels"),
        (put("levels", {}), "list of levels"),
        (put("levels", 1, "mean_cost", 0), r"levels\[1\] is not dearer"),
        (put("levels", 1, "thresholds", {}), "for the same exits"),
        (put("levels", 0, "thresholds", []), r"levels\[0\].thresholds is not an object"),
        (put("levels", 0, "thresholds", "exit1", "maybe"), "'never' or 'always'"),
        (put("levels", 0, "accuracy", 1.5), "0 to 1"),
        (put("levels", 0, "price", -1), "price is -1"),
        (put("figures", "accuracy", None), "figures.accuracy"),
        (put("data", "n", -1), "data.n"),
        (put("bundle", "name", 1), "bundle.name"),
    ],
)
def test_a_damaged_policy_is_refused(change: Change, says: str, tmp_path: Path) -> None:
    record = json.loads(json.dumps(average_json(POLICY)))
    change(record)
    path = tmp_path / "average.json"
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match=says):
        read_average(path)
    path.write_text("{")
    with pytest.raises(DataError, match="no average policy"):
        read_average(path)


def check_same(
    table: ScoreTable, network: Network, share: float, cap_share: float | None, burst: int
) -> None:
    """A network answers a stream as cached scores say it does: exits, costs, levels."""
    least, most = max(1, cheapest_answer(table)), max(1, dearest_path(table))
    average = int(least + share * (most - least))
    cap = None if cap_share is None else int(average + cap_share * (most - average))
    policy = for_average(table, average, cap, burst=burst)
    order = np.arange(40) * 7 % len(table)
    told = answer_stream(table, policy, order=order)
    source = policy.source(lambda thresholds: network.set(thresholds=thresholds))
    name = next(n.name for n in network.graph.nodes if isinstance(n, InputNode))
    stream = ({name: np.full((1, 1, 1), row / 255, np.float32)} for row in order.tolist())
    for i, result in enumerate(network.stream(stream, budget=source)):
        assert network.graph.exits.index(result.exit) == told.exit_index[i]
        assert result.macs == told.costs[i]
        for exit_name, bound in policy.levels[told.levels[i]].thresholds.items():
            assert result.thresholds[exit_name] == (bound,)


SHARES = {
    "share": st.floats(0, 1),
    "cap_share": st.none() | st.floats(0, 1),
    "burst": st.integers(1, 20),
}


@given(case=cases(), **SHARES)
def test_a_chain_answers_a_stream_as_cached_scores_say(
    case: Case, share: float, cap_share: float | None, burst: int
) -> None:
    network = Network(case.graph, CallableBackend(functions(case.graph, case.values)))
    check_same(table_of(case), network, share, cap_share, burst)


@given(case=gated_cases(), **SHARES)
def test_a_network_with_gates_answers_a_stream_as_cached_scores_say(
    case: GatedCase, share: float, cap_share: float | None, burst: int
) -> None:
    network = Network(case.graph, CallableBackend(case.functions))
    check_same(gated_table_of(case), network, share, cap_share, burst)
