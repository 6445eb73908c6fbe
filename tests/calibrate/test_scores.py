from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from dynrt.calibrate.scores import ScoreTable, collect
from dynrt.errors import (
    BackendError,
    CalibrationError,
    DataError,
    OutputExistsError,
)
from dynrt.ir.check import require_valid
from dynrt.ir.cost import Cost
from dynrt.ir.graph import (
    Combine,
    ComputeNode,
    Constant,
    DataEdge,
    Exit,
    InputNode,
    Port,
    PortRef,
    TensorType,
)
from dynrt.ir.rules import accept_score
from dynrt.runtime import CallableBackend
from tests.calibrate.chains import Case, cases
from tests.calibrate.made import bundle_of, chain, functions, pixels, random_table
from tests.calibrate.test_simulate import table_of, two_exits


def made_table() -> ScoreTable:
    return random_table(np.random.default_rng(3), n=5, exits=3)


@given(case=cases())
def test_collected_scores_are_the_accept_scores_of_every_exit(case: Case) -> None:
    table = table_of(case)
    for column, name in enumerate(case.graph.exits):
        head = case.graph.by_name[name]
        assert isinstance(head, Exit)
        for row in range(len(table)):
            logits, distances = case.values[row, column]
            assert table.predicted[row, column] == logits.argmax()
            if head.accept.scored:
                values = distances if head.accept.kind == "hinge" else logits
                assert table.scores[row, column] == accept_score(head.accept.kind, values)
            else:
                assert np.isnan(table.scores[row, column])
    assert table.step_macs.sum() == sum(
        n.cost.macs for n in case.graph.nodes if isinstance(n, ComputeNode | Exit)
    )
    assert (table.correct == (table.predicted == case.labels[:, None])).all()


def test_progress_tells_every_batch_and_the_record_says_where_it_came_from() -> None:
    case, told = two_exits(), list[tuple[int, int]]()
    run = CallableBackend(functions(case.graph, case.values))
    table = collect(
        bundle_of(case.graph),
        pixels(case.labels),
        run.call,
        batch=1,
        progress=lambda done, of: told.append((done, of)),
    )
    assert told == [(1, 2), (2, 2)]
    assert (table.bundle, table.bundle_sha256, table.data) == ("tiny", "ab" * 32, "pixels test")
    assert table.kinds == ("hinge", "always")


def test_parameters_and_nodes_without_inputs_stand_for_every_sample() -> None:
    case = two_exits()
    pixel = TensorType(dtype="float32", shape=(1, 1, 1))
    add = ComputeNode(
        name="add",
        inputs=(
            Port(name="p", type=pixel),
            Port(name="d", type=pixel),
            Port(name="x_", type=pixel),
        ),
        outputs=(Port(name="b", type=pixel),),
        cost=Cost(macs=1),
    )
    dummy = ComputeNode(
        name="dummy", inputs=(), outputs=(Port(name="b", type=pixel),), cost=Cost(macs=0)
    )
    param = InputNode(name="k", type=pixel, param=Constant(np.zeros((1, 1, 1), np.float32)))
    edges = [e for e in case.graph.data if e.source != PortRef("x", "x")]
    edges += [
        DataEdge(source=PortRef("x", "x"), target=PortRef("add", "x_")),
        DataEdge(source=PortRef("k", "k"), target=PortRef("add", "p")),
        DataEdge(source=PortRef("dummy", "b"), target=PortRef("add", "d")),
        DataEdge(source=PortRef("add", "b"), target=PortRef("block1_0", "a")),
    ]
    graph = replace(case.graph, nodes=(*case.graph.nodes, add, dummy, param), data=tuple(edges))
    require_valid(graph)
    run = functions(graph, case.values)
    run["dummy"] = lambda _: {"b": np.zeros((1, 1, 1, 1), np.float32)}
    run["add"] = lambda i: {"b": np.stack(list(i.values())).sum(axis=0)}
    table = collect(bundle_of(graph), pixels(case.labels), CallableBackend(run).call)
    assert (table.scores[:, 0] == table_of(case).scores[:, 0]).all()
    assert table.full_macs == table_of(case).full_macs + 1


def test_what_cannot_be_calibrated_is_named() -> None:
    case = two_exits()
    run = CallableBackend(functions(case.graph, case.values)).call
    data, bundle = pixels(case.labels), bundle_of(case.graph)
    for graph, says in (
        (replace(case.graph, combine=Combine(kind="sum")), r"joins several answers \(sum\)"),
        (
            replace(
                case.graph,
                nodes=(
                    *case.graph.nodes,
                    InputNode(name="z", type=TensorType(dtype="float32", shape=())),
                ),
            ),
            "one input",
        ),
    ):
        with pytest.raises(CalibrationError, match=says):
            collect(replace(bundle, graph=graph), data, run)
    with pytest.raises(CalibrationError, match="takes no pictures"):
        collect(replace(bundle, preprocessing=None), data, run)
    with pytest.raises(CalibrationError, match="knows 1 classes; pixels test has 3"):
        collect(replace(bundle, labels=("a",)), data, run)


def test_a_node_that_answers_nan_is_an_error() -> None:
    case = two_exits()
    values = case.values.copy()
    values[1, 1, 0, 0] = np.nan
    run = CallableBackend(functions(case.graph, values)).call
    with pytest.raises(BackendError, match="'exit2'"):
        collect(bundle_of(case.graph), pixels(case.labels), run)


def same(a: ScoreTable, b: ScoreTable) -> bool:
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name), equal_nan=f.name == "scores")
        for f in fields(a)
    )


def test_a_saved_table_is_the_same_when_loaded(tmp_path: Path) -> None:
    table, path = made_table(), tmp_path / "scores.npz"
    table.save(path)
    assert same(ScoreTable.load(path), table)
    with pytest.raises(OutputExistsError, match=r"scores\.npz"):
        table.save(path)
    table.rows(np.array([0, 2])).save(path, force=True)
    assert len(ScoreTable.load(path)) == 2
    with pytest.raises(DataError, match="cannot be written"):
        table.save(tmp_path / "nowhere" / "scores.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scores.npz"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": np.int64(1)}, "version 1"),
        ({"version": np.array("x")}, "version x"),
        ({"labels": None}, "missing or unknown: labels"),
        ({"extra": np.zeros(1)}, "missing or unknown: extra"),
        ({"exits": np.zeros(3)}, "exits is float64"),
        ({"bundle": np.array(["a"])}, "bundle is"),
        ({"labels": np.int64(3)}, "at least one axis"),
        ({"labels": np.zeros(5)}, "labels is float64"),
        ({"labels": np.zeros(4, np.int64)}, "scores is float64"),
        ({"labels": np.zeros(0, np.int64)}, "is empty"),
        ({"predicted": np.zeros((5, 2), np.int64)}, "predicted is int64"),
        ({"exits": np.array(["a", "a", "b"])}, "differ"),
        ({"kinds": np.array(["hinge", "always"])}, "differ"),
        ({"kinds": np.array(["hinge", "wild", "always"])}, "no such accept rule: wild"),
        ({"kinds": np.array(["hinge", "always", "always"])}, "before the last always accepts"),
        ({"kinds": np.array(["hinge", "hinge", "hinge"])}, "a score is NaN"),
        ({"step_exit": np.array([-1, 0, -1, 2, -1, 1])}, "does not pass each exit once"),
        ({"step_exit": np.array([-1, 0, 1, 2, -1, -1])}, "does not pass each exit once"),
        ({"step_exit": np.array([-2, 0, -1, 1, -1, 2])}, "belongs to no exit"),
        ({"step_macs": np.array([1, -1, 1, 1, 1, 1])}, "negative MACs"),
    ],
)
def test_a_damaged_table_is_refused(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    made_table().save(path)
    with np.load(path, allow_pickle=False) as stored:
        arrays = {k: stored[k] for k in stored.files} | change
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(DataError, match=says):
        ScoreTable.load(path)


def test_a_table_of_a_network_with_unscored_exits_has_their_figures() -> None:
    graph = chain(
        kinds=("never", "hinge", "always"),
        thresholds=(0.0, 1.0, 0.0),
        segments=((10,), (5, 5), (1,)),
        heads=(3, 2, 4),
    )
    values = np.zeros((2, 3, 2, 3), np.float32)
    table = table_of(Case(graph=graph, values=values, labels=np.array([0, 1])))
    assert table.reach_macs.tolist() == [10, 20, 21]
    assert table.head_macs.tolist() == [3, 2, 4]
    assert table.macs.tolist() == [13, 22, 27]
    assert table.can_accept({"exit2": 1.0}).tolist() == [False, True, False]
    assert table.full_accuracy == 0.5
