"""The papers' tables with ours beside them: every figure is what running the bundle gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dynrt.bundle import build_bundle
from dynrt.calibrate.evaluate import evaluate
from dynrt.calibrate.scores import ScoreTable
from dynrt.calibrate.simulate import simulate
from dynrt.errors import CalibrationError, DataError
from dynrt.ir.cost import Budget
from dynrt.report.ddi_table import DDI_TABLE_II, ddi_table_2
from dynrt.report.paper_tables import iadi_table
from dynrt.report.paper_tables_dgates import (
    TABLE_1_PUBLISHED,
    chosen_sets,
    dgate_figure_4,
    dgate_figure_5,
    dgate_figure_7,
    dgate_table_1,
    gate_names,
)
from dynrt.report.skipping import easy_hard, exits_used, record_of_exits, skipping_table
from dynrt.report.tables_figures import How
from dynrt.runtime import load
from dynrt.units import FLOPS_PER_MAC
from tests.calibrate.made import plausible_table, random_table
from tests.calibrate.spreading import colour_data
from tests.cli.colours import BLOCK_MACS, CHEAPEST, HEAD_MACS, STEM_MACS, colour_bundle
from tests.report.networks import gated, noise

QUICK = How(timed=6, rounds=2, batch=40)
UNTIMED = How(timed=0)
PLAIN = FLOPS_PER_MAC * (STEM_MACS + BLOCK_MACS + HEAD_MACS)


def test_ddi_rows_are_runs_under_the_budget_alone_and_with_early_exits() -> None:
    bundle, data = colour_bundle(), colour_data(100)
    static = replace(bundle, name="other")
    caps = [1000, CHEAPEST, CHEAPEST + 100, PLAIN]
    table = ddi_table_2([bundle], data, statics=[static], budgets=caps, how=QUICK)
    refused, least, more, whole = table.rows
    assert refused == {
        "budget_flops": 1000,
        "paper_accuracy": None,
        "paper_static_accuracy": None,
    }
    assert any("Refused: 0.001 MFLOPs are below the cheapest answer" in n for n in table.notes)
    assert least["accuracy"] == more["accuracy"] < whole["accuracy"]
    assert [r["max_flops"] for r in (least, more, whole)] == [CHEAPEST, CHEAPEST, PLAIN]
    assert all(r["over_budget"] == 0 for r in (least, more, whole))
    assert whole["flops_saved"] == 0
    with load(bundle) as network:
        budget = Budget(macs=PLAIN // 2)
        (gates,) = evaluate(network, data, budgets=[budget]).points
    assert (whole["gated_accuracy"], whole["gated_mean_flops"]) == (
        gates.accuracy,
        gates.mean_flops,
    )
    assert whole["gated_mean_flops"] < whole["mean_flops"]
    assert whole["static"] == "other"
    assert whole["above_static"] == pytest.approx(whole["accuracy"] - whole["static_accuracy"])
    assert least["seconds"] > 0
    assert least["timed_inputs"] == 6
    assert table.bundles == {"colours": bundle.sha256, "other": static.sha256}


def test_ddi_rows_stand_beside_the_paper_and_the_nearest_static_net() -> None:
    # every published budget is far above this network's cost
    table = ddi_table_2([colour_bundle()], colour_data(30), paper="densenet100", how=UNTIMED)
    published = DDI_TABLE_II["densenet100"].budgets
    assert [r["budget_flops"] for r in table.rows] == list(published)
    for row in table.rows:
        theirs, static = published[row["budget_flops"]]
        assert (row["paper_accuracy"], row["paper_static_accuracy"]) == (theirs, static)
        assert row["below_paper"] == pytest.approx(row["accuracy"] - theirs)
        assert "static" not in row
        assert "seconds" not in row
    assert "Time was not measured." in table.notes
    with pytest.raises(
        DataError, match="'resnet1' is not in DDI's table II: resnet74, densenet100"
    ):
        ddi_table_2([colour_bundle()], colour_data(3), paper="resnet1")


def test_each_budget_goes_to_the_network_that_is_best_on_other_pictures() -> None:
    whole = colour_bundle()
    # the same network with its poor first head at its end as well
    models = {**whole.models, "final": whole.models["exit1"]}
    blind = build_bundle(
        name="blind",
        graph=whole.graph,
        models=models,
        labels=whole.labels,
        preprocessing=whole.preprocessing,
    )
    held, data = colour_data(60), colour_data(40)
    table = ddi_table_2(
        [blind, whole], data, chosen_on=held, budgets=[CHEAPEST, PLAIN], how=UNTIMED
    )
    least, most = table.rows
    assert least["network"] == "blind"  # equal there: the first
    assert most["network"] == whole.name
    assert most["accuracy"] > 0.8
    tried = {(t["network"], t["budget_flops"]): t["accuracy"] for t in table.details["chosen_by"]}
    assert tried["blind", PLAIN] < tried[whole.name, PLAIN]
    assert any("chosen by accuracy on 60 pictures" in note for note in table.notes)
    with pytest.raises(DataError, match="2 networks, and no pictures to choose"):
        ddi_table_2([blind, whole], data, how=UNTIMED)
    with pytest.raises(DataError, match="no bundle"):
        ddi_table_2([], data, how=UNTIMED)


def test_skipping_networks_beside_their_base() -> None:
    bundle, data = gated(), noise(40)
    table = iadi_table([bundle], data, how=QUICK)
    (row,) = table.rows
    assert row["channels_left_out"] == row["channels_saved"] > 0
    assert row["time_over_flops"] is not None
    assert (row["energy_saved"], row.get("energy_over_flops")) == (None, None)
    base = replace(colour_bundle(energy=True), name="base")
    ours = colour_bundle(energy=True)
    static, row = iadi_table([ours], colour_data(40), base=base, how=UNTIMED).rows
    assert static["network"] == "base (static)"
    assert static["mean_flops"] == PLAIN
    assert row["above_base"] == pytest.approx(row["accuracy"] - static["accuracy"])
    assert row["channels_left_out"] is None
    assert row["flops_saved"] == pytest.approx(1 - row["mean_flops"] / PLAIN)
    # each MAC takes a picojoule in this network
    assert row["energy_over_flops"] == pytest.approx(1)
    with pytest.raises(DataError, match="no bundle"):
        iadi_table([], data)


def test_energy_is_held_against_a_base_only_where_both_are_modelled_alike() -> None:
    base = colour_bundle(energy=False)
    _, row = iadi_table([colour_bundle(energy=True)], colour_data(40), base=base, how=UNTIMED).rows
    assert row["energy_saved"] is not None


def test_threshold_sets_with_the_full_network_and_the_paper() -> None:
    bundle, data = colour_bundle(), colour_data(80)
    sets = [("given", {"exit1": 0.8}), ("given", {"exit1": float("inf")})]
    table = dgate_table_1(bundle, data, sets, how=QUICK)
    some, never, full, *paper = table.rows
    assert (some["thresholds"], never["thresholds"]) == ("0.80", "never")
    with load(bundle) as network:
        wanted = evaluate(network, data).uncapped
    assert (some["accuracy"], some["mean_flops"]) == (wanted.accuracy, wanted.mean_flops)
    assert never["accuracy"] == full["accuracy"]
    assert never["loss"] == 0.0
    assert some["loss"] == pytest.approx(some["accuracy"] - full["accuracy"])
    assert never["mean_flops"] == full["mean_flops"] == PLAIN
    assert full["seconds"] == some["full_seconds"]
    assert len(paper) == len(TABLE_1_PUBLISHED) + 1
    assert paper[0]["thresholds"] == "1, 0.6, 1.5"
    # the paper's own ratios of time saved over FLOPs saved
    assert all(0.98 < row["time_over_flops"] < 1.03 for row in paper[:-1])
    with pytest.raises(DataError, match="no thresholds"):
        dgate_table_1(bundle, data, [])


def test_sets_are_found_on_validation() -> None:
    validation = plausible_table(600, exits=3)
    sets = chosen_sets(validation, (0.0, 0.05))
    costs = [simulate(validation, bounds) for _, bounds in sets]
    assert costs[0].accuracy >= validation.full_accuracy
    assert costs[1].accuracy >= validation.full_accuracy - 0.05
    assert costs[1].mean_macs < costs[0].mean_macs
    assert sets[0][0].endswith(", not corrected for luck")  # so small a loss could not be kept
    assert sets[1][0] == "loss <= 5 points on "
    with pytest.raises(CalibrationError, match="no exit with a threshold"):
        chosen_sets(random_table(np.random.default_rng(0), n=4, exits=1))
    assert gate_names(colour_bundle().graph) == ("exit1",)


def _worse(table: ScoreTable) -> ScoreTable:
    """The same network with scores that say less."""
    rng = np.random.default_rng(1)
    return replace(table, scores=table.scores + rng.normal(0, 1.5, table.scores.shape))


def test_better_scores_win_at_equal_cost() -> None:
    validation, test = plausible_table(800, exits=4), plausible_table(800, exits=4, seed=1)
    kinds = [("hinge", validation, test), ("noisy", _worse(validation), _worse(test))]
    table = dgate_figure_4(kinds, points=6)
    assert len(table.rows) == 6
    compared = [row["above_noisy"] for row in table.rows if row["above_noisy"] is not None]
    assert len(compared) >= 3
    assert max(compared) > 0.01
    for row in table.rows:
        # what was allowed on validation is about what it comes to on test
        assert row["hinge_mean_flops"] < 1.1 * row["budget_flops"]
    for kinds_, points in ((kinds[:1], 5), (kinds, 1)):
        with pytest.raises(DataError, match="two of each are needed"):
            dgate_figure_4(kinds_, points=points)


def test_the_sweep_of_two_thresholds_is_what_the_runs_come_to() -> None:
    table = plausible_table(500, exits=4)
    found = dgate_figure_5(table, low=0.0, high=1.0, steps=3)
    assert [(r["t1"], r["t2"]) for r in found.rows[:4]] == [(0, 0), (0, 0.5), (0, 1), (0.5, 0)]
    row = found.rows[4]
    outcome = simulate(table, {"exit1": 0.5, "exit2": 0.5, "exit3": float("inf"), "exit4": 2.0})
    assert row["accuracy"] == outcome.accuracy
    assert row["mean_flops"] == FLOPS_PER_MAC * outcome.mean_macs
    # a higher threshold never makes it cheaper
    for one, other in zip(found.rows, found.rows[3:], strict=False):
        assert one["mean_flops"] <= other["mean_flops"]
    for low, high, steps in ((1.0, 0.0, 3), (0.0, 1.0, 1)):
        with pytest.raises(DataError, match="two gates and two thresholds are needed"):
            dgate_figure_5(table, low=low, high=high, steps=steps)


def test_classes_that_exits_tell_apart_are_counted() -> None:
    scores = plausible_table(400, exits=3)
    table = dgate_figure_7(scores, [str(i) for i in range(10)], least=0.7)
    assert [row["class"] for row in table.rows] == [str(i) for i in range(10)]
    assert sum(row["pictures"] for row in table.rows) == 400
    for at, name in enumerate(("exit1", "exit2")):
        for label, row in enumerate(table.rows):
            sure = (scores.labels == label) & scores.correct[:, at] & (scores.scores[:, at] >= 0.7)
            assert row[name] == sure.sum()
    assert dgate_figure_7(scores, list("abcdefghij")).notes[0].endswith("exit1 0.9, exit2 0.9.")
    with pytest.raises(DataError, match="3 names for 10 classes"):
        dgate_figure_7(scores, ["a", "b", "c"])


def test_skipping_is_of_the_inputs_that_reach_a_block() -> None:
    bundle, data = gated(), noise(60)
    table = skipping_table(bundle, data, how=UNTIMED)
    rows = {row["unit"]: row for row in table.rows}
    assert list(rows) == ["stem", "b0", "b1", "b2"]
    with load(bundle) as network:
        evaluation = evaluate(network, data).uncapped
    left = evaluation.exits["early"]
    assert rows["b0"]["reached"] == 60
    assert rows["b1"]["reached"] == rows["b2"]["reached"] == 60 - left
    assert 0 < rows["b1"]["layer_skipped"] < 1
    assert rows["b0"]["layer_skipped"] is None  # it always runs: that is no ratio of zero
    assert rows["stem"]["channels_skipped"] is None
    assert all(0 < rows[b]["channels_skipped"] < 1 for b in ("b0", "b1", "b2"))
    assert table.details["accuracy"] == pytest.approx(evaluation.accuracy)
    with pytest.raises(DataError, match="neither layer gates nor channel masks"):
        skipping_table(colour_bundle(), colour_data(5))


def test_easy_pictures_skip_more_than_hard_ones() -> None:
    table = easy_hard(gated(), noise(60), count=4, how=UNTIMED)
    easy = [row for row in table.rows if row["group"] == "easy"]
    hard = [row for row in table.rows if row["group"] == "hard"]
    assert len(easy) == len(hard) == 4
    assert min(r["skipped"] for r in easy) > 0.6 > 0.4 > max(r["skipped"] for r in hard)
    assert table.details["easy"] + table.details["hard"] == 60  # one gated block: all or nothing
    exits_only = easy_hard(colour_bundle(), colour_data(40), how=UNTIMED)
    assert exits_only.details["measure"] == "of the MACs"
    with pytest.raises(DataError, match="0 pictures"):
        easy_hard(gated(), noise(5), count=0)


def test_exits_used_are_those_of_the_runs() -> None:
    bundle, data = colour_bundle(), colour_data(50)
    budget = Budget(macs=CHEAPEST // 2)
    table = exits_used(bundle, data, budgets=[budget], how=UNTIMED)
    with load(bundle) as network:
        found = evaluate(network, data, budgets=[budget])
    record = record_of_exits(table)
    assert record.uncapped.exits == found.uncapped.exits
    assert [dict(p.exits) for p in record.points] == [{"exit1": 50, "final": 0}]
    assert record.points[0].budget_flops == budget.flops
    assert [row["at_exit1"] for row in table.rows] == [found.uncapped.exits["exit1"] / 50, 1.0]
    for rows, details in (((), table.details), (table.rows, {})):
        with pytest.raises(DataError, match="the record lacks"):
            record_of_exits(replace(table, rows=rows, details=details))
