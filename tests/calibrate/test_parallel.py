"""What is found does not depend on where: one process, several, or a batch at a time."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.bundle import Preprocessing
from dynrt.calibrate import parallel
from dynrt.calibrate.datasets import Pictures
from dynrt.calibrate.evaluate import evaluate
from dynrt.calibrate.observe import Setting, observe
from dynrt.calibrate.parallel import Batch, Station, in_order, packed, unpacked
from dynrt.calibrate.parallel_scores import collect_scores, join_tables
from dynrt.calibrate.pictures import prepare
from dynrt.errors import BudgetRefusedError, CalibrationError
from dynrt.ir.cost import Budget
from dynrt.ir.graph import Array
from dynrt.runtime import CallableBackend, Network, load
from dynrt.workers import Failure, Spread
from tests.calibrate.made import bundle_of, functions, pixels, random_table
from tests.calibrate.spreading import colour_data, same_evaluation, same_observed, same_scores
from tests.calibrate.test_simulate import two_exits
from tests.cli.colours import CHEAPEST, colour_bundle

TWO = Spread(workers=2)
_NONE: Pictures = np.zeros(0, np.uint8)


def test_an_evaluation_in_processes_is_the_same() -> None:
    data = colour_data(150)
    budgets = [Budget(macs=CHEAPEST // 2), None, Budget(macs=5000)]
    with load(colour_bundle(energy=True)) as network:
        network.set(thresholds={"exit1": 0.7})  # what is in force goes along
        told: list[tuple[int, int]] = []
        there = evaluate(
            network,
            data,
            budgets=budgets,
            batch=40,
            spread=TWO,
            progress=lambda *p: told.append(p),
        )
        here = evaluate(network, data, budgets=budgets, batch=40)
        assert same_evaluation(there, here)
        assert told[-1] == (450, 450)
        assert [done for done, _ in told] == sorted({done for done, _ in told})
        network.set(thresholds={"exit1": 0.95})
        assert not same_evaluation(there, evaluate(network, data, budgets=budgets, batch=40))


def test_observations_and_scores_in_processes_are_the_same() -> None:
    data, bundle = colour_data(70), colour_bundle()
    settings = [
        Setting(name="as it is"),
        Setting(name="closed", thresholds={"exit1": float("inf")}),
        Setting(name="cheap", budget=Budget(macs=CHEAPEST // 2)),
    ]
    with load(bundle, mode="portable") as network:
        there = observe(network, data, settings, batch=20, spread=TWO)
        here = observe(network, data, settings, batch=20)
    assert all(map(same_observed, there, here))
    assert here[1].used == {"exit1": 0, "final": 70}
    scores = collect_scores(bundle, data, batch=20, spread=TWO)
    assert same_scores(scores, collect_scores(bundle, data, batch=20))


def test_errors_of_workers_are_those_of_this_process() -> None:
    data = colour_data(10)
    with load(colour_bundle(), mode="portable") as network:
        for spread in (Spread(), TWO):
            with pytest.raises(BudgetRefusedError, match="below the cheapest answer"):
                evaluate(network, data, budgets=[Budget(macs=1)], spread=spread)


def test_a_network_of_functions_and_a_clock_stay_here() -> None:
    case = two_exits()
    run = CallableBackend(functions(case.graph, case.values))
    network = Network(case.graph, run, bundle=bundle_of(case.graph))
    data = pixels(np.array([1, 0]))
    with pytest.raises(CalibrationError, match="tiny holds no models: it runs in this process"):
        evaluate(network, data, spread=TWO)
    with pytest.raises(CalibrationError, match="holds no models"):
        collect_scores(bundle_of(case.graph), data, spread=TWO)
    with pytest.raises(CalibrationError, match="a budget of seconds is kept by the clock of one"):
        evaluate(network, data, budgets=[Budget(seconds=1.0)], spread=TWO)


def test_a_bundle_travels_whole_and_keeps_its_hash() -> None:
    bundle = replace(colour_bundle(energy=True), sha256="cd" * 32)
    again = unpacked(packed(bundle), bundle.sha256)
    assert (again.sha256, again.graph, again.models) == (bundle.sha256, bundle.graph, bundle.models)
    assert (again.labels, again.preprocessing) == (bundle.labels, bundle.preprocessing)


@given(order=st.permutations(range(7)))
def test_results_are_put_in_order_as_soon_as_they_can_be(order: list[int]) -> None:
    sizes = [3, 1, 2, 5, 1, 4, 2]
    told: list[tuple[int, int]] = []

    def batch(number: int) -> Batch[None]:
        labels = np.zeros(sizes[number], np.int64)
        return Batch(number=number, part=0, pictures=_NONE, labels=labels, asked=None)

    running = ((batch(n), n) for n in order)
    found = in_order(running, sum(sizes), lambda *p: told.append(p))
    assert [value for _, value in found] == list(range(7))
    assert [done for done, _ in told] == np.cumsum([sizes[n] for n in order]).tolist()


def test_a_failure_ends_the_rest() -> None:
    closed: list[bool] = []

    def running():  # type: ignore[no-untyped-def]
        try:
            labels = np.zeros(1, np.int64)
            for number in range(2):
                item = Batch(number=number, part=0, pictures=_NONE, labels=labels, asked=None)
                yield item, Failure(kind="DataError", text="lost") if number else 5
        finally:
            closed.append(True)

    found = in_order(running(), 2, None)
    assert next(found)[1] == 5
    with pytest.raises(Exception, match="lost") as caught:
        next(found)
    assert type(caught.value).__name__ == "DataError"
    assert closed == [True]


def test_pictures_are_prepared_once_for_all_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[int] = []

    def noted(pictures: Pictures, rule: Preprocessing) -> Array:
        prepared.append(len(pictures))
        return prepare(pictures, rule)

    monkeypatch.setattr(parallel, "prepare", noted)
    with load(colour_bundle(), mode="portable") as network:
        evaluate(network, colour_data(50), budgets=[Budget(macs=4000), Budget(macs=5000)], batch=20)
        assert prepared == [20, 20, 10]
        blind = Station(network=Network(network.graph, CallableBackend({})))
        with pytest.raises(CalibrationError, match="takes no pictures"):
            blind.inputs(
                Batch(number=0, part=0, pictures=_NONE, labels=np.zeros(1, np.int64), asked=None)
            )


@given(cuts=st.lists(st.integers(1, 29), max_size=4, unique=True))
def test_tables_join_to_what_they_were_cut_from(cuts: list[int]) -> None:
    whole = random_table(np.random.default_rng(2), n=30, exits=3)
    edges = [0, *sorted(cuts), 30]
    parts = [whole.rows(np.arange(a, b)) for a, b in itertools.pairwise(edges)]
    assert same_scores(join_tables(parts), whole)


def test_tables_of_different_networks_do_not_join() -> None:
    rng = np.random.default_rng(2)
    one, other = random_table(rng, n=3, exits=3), random_table(rng, n=3, exits=2)
    with pytest.raises(CalibrationError, match="score tables of made and made cannot be joined"):
        join_tables([one, other])
    with pytest.raises(CalibrationError, match="no score tables"):
        join_tables([])
