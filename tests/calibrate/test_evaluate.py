from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.calibrate.evaluate import evaluate, sweep, write_csv
from dynrt.calibrate.scores import collect
from dynrt.calibrate.simulate import simulate
from dynrt.errors import BudgetError, BudgetRefusedError, CalibrationError, OutputExistsError
from dynrt.ir.cost import Budget
from dynrt.ir.graph import ComputeNode, Exit
from dynrt.runtime import CallableBackend, Network
from tests.calibrate.chains import Case, cases
from tests.calibrate.made import bundle_of, chain, functions, pixels
from tests.calibrate.test_simulate import thresholds_of, two_exits


def network_of(case: Case) -> Network:
    run = CallableBackend(functions(case.graph, case.values))
    return Network(case.graph, run, bundle=bundle_of(case.graph))


@given(case=cases(), extra=st.lists(st.integers(0, 50), max_size=3))
def test_the_real_runs_equal_the_simulated_ones(case: Case, extra: list[int]) -> None:
    network, data = network_of(case), pixels(case.labels)
    assert network.bundle is not None
    cheapest = max(1, network.bundle.certificate.cheapest_macs)
    budgets = [Budget(macs=cheapest + e) for e in extra]
    found = evaluate(network, data, budgets=[*budgets, None], batch=4)
    run = CallableBackend(functions(case.graph, case.values))
    table = collect(network.bundle, data, run.call)
    caps = [None, *(b.macs for b in budgets), None]
    for cap, point in zip(caps, (found.uncapped, *found.points), strict=True):
        outcome = simulate(table, thresholds_of(case.graph), cap)
        assert point.exits == outcome.exits
        assert point.accuracy == pytest.approx(outcome.accuracy)
        assert point.mean_flops == pytest.approx(2 * outcome.mean_macs)
        assert point.max_flops == 2 * outcome.max_macs
        assert point.n == len(table)


def test_json_is_the_contract() -> None:
    network = network_of(two_exits())
    told: list[tuple[int, int]] = []
    found = evaluate(
        network,
        pixels(np.array([1, 0])),
        budgets=[Budget(macs=39), Budget.parse("80")],
        batch=1,
        progress=lambda done, of: told.append((done, of)),
    )
    value = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert value["n"] == 2
    assert value["accuracy"] == 0.5
    assert value["mean_flops"] == 26 / 2 + 80 / 2
    assert value["max_flops"] == 80
    assert value["exits"] == {"exit1": 1, "exit2": 1}
    assert value["full_flops"] == 80
    first = value["points"][0]
    assert first["budget"] == {"flops": 78, "joules": None, "seconds": None}
    assert (first["max_flops"], first["stopped"], first["forced"]) == (26, 1, 1)
    assert first["exits"] == {"exit1": 2, "exit2": 0}
    assert (first["mean_energy"], first["energy_unit"]) == (None, None)
    assert value["points"][1]["stopped"] == 0
    assert told == [(i, 6) for i in range(1, 7)]


def test_energy_is_summed_where_it_is_known() -> None:
    case = two_exits()
    nodes = tuple(
        replace(n, cost=replace(n.cost, femtojoules=1000 * n.cost.macs))
        if isinstance(n, ComputeNode | Exit)
        else n
        for n in case.graph.nodes
    )
    case = replace(case, graph=replace(case.graph, nodes=nodes))
    point = evaluate(network_of(case), pixels(np.array([1, 0]))).uncapped
    assert point.max_energy == pytest.approx(40e-12)
    assert point.mean_energy == pytest.approx((13e-12 + 40e-12) / 2)


def test_csv_has_a_row_per_budget_and_empty_cells_for_what_is_unknown(tmp_path: Path) -> None:
    found = evaluate(
        network_of(two_exits()), pixels(np.array([1, 0])), budgets=[Budget(macs=20), None]
    )
    path = tmp_path / "eval.csv"
    write_csv(path, found)
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    assert [r["budget_flops"] for r in rows] == ["", "40"]
    assert [r["max_flops"] for r in rows] == ["80", "26"]
    assert rows[1]["mean_energy"] == ""
    assert (rows[1]["exit_exit1"], rows[1]["exit_exit2"]) == ("2", "0")
    with pytest.raises(OutputExistsError):
        write_csv(path, found)


def test_a_budget_below_the_cheapest_answer_is_refused() -> None:
    with pytest.raises(BudgetRefusedError):
        evaluate(network_of(two_exits()), pixels(np.array([1])), budgets=[Budget(macs=12)])


def test_networks_that_take_no_pictures_or_know_too_few_classes_are_refused() -> None:
    case = two_exits()
    run = CallableBackend(functions(case.graph, case.values))
    blind = replace(bundle_of(case.graph), preprocessing=None)
    for network in (Network(case.graph, run), Network(case.graph, run, bundle=blind)):
        with pytest.raises(CalibrationError, match="takes no pictures"):
            evaluate(network, pixels(np.array([1])))
    few = Network(case.graph, run, bundle=bundle_of(case.graph, labels=("a", "b")))
    with pytest.raises(CalibrationError, match="knows 2 classes; pixels test has 3"):
        evaluate(few, pixels(np.array([1])))


def test_sweep_runs_from_the_cheapest_answer_to_the_dearest_path() -> None:
    certificate = bundle_of(two_exits().graph).certificate
    budgets = sweep(certificate, 4)
    assert [b.macs for b in budgets] == [13, 22, 31, 40]
    for count in (1, 29):
        with pytest.raises(BudgetError, match="2 to 28"):
            sweep(certificate, count)
    one = chain(kinds=("always",), thresholds=(0.0,), segments=((5,),), heads=(1,))
    with pytest.raises(BudgetError):
        sweep(bundle_of(one).certificate, 2)
