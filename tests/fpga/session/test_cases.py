from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from dynrt.bundle import read_bundle, replace_parts, resolve
from dynrt.errors import SessionError
from dynrt.fpga.cases import forced_units, gated_units, path_cases, skipping_cases
from dynrt.fpga.manifest import FREE, Case
from dynrt.fpga.records import SampleRecord
from dynrt.fpga.verify import Expected, compare, expected
from dynrt.ir.graph import Exit
from tests.bundle.samples import skip_bundle
from tests.cli.colours import IMAGE, colour_bundle, gated_bundle

PICTURE = {"image": np.random.default_rng(0).random(IMAGE.shape, np.float32)}


def test_each_exit_is_a_case_that_ends_there() -> None:
    bundle = colour_bundle()
    cases = path_cases(bundle.graph)
    assert [case.name for case in cases] == ["to exit1", "to final"]
    for case, exit_ in zip(cases, bundle.graph.exits, strict=True):
        (found,) = expected(bundle, case, [PICTURE])
        assert found.exit == exit_
    # a head that is passed runs on the board, so it is counted here too
    assert expected(bundle, cases[1], [PICTURE])[0].path == ("stem", "exit1", "block1", "final")


def test_forced_decisions_do_not_change_what_is_computed() -> None:
    bundle = colour_bundle()
    free = expected(bundle, FREE, [PICTURE])[0]
    forced = expected(bundle, Case(name="x", force={"exit1": 0}), [PICTURE])[0]
    if free.exit == forced.exit:
        np.testing.assert_array_equal(free.answer, forced.answer)
    early = expected(bundle, Case(name="x", force={"exit1": 1}), [PICTURE])[0]
    assert early.decisions == {"exit1": 1, "final": None}


@pytest.mark.parametrize("kind", ["max_softmax", "hinge"])
def test_the_head_of_an_exit_that_cannot_accept_runs_on_both(
    kind: Literal["max_softmax", "hinge"],
) -> None:
    bundle = colour_bundle()
    nodes = tuple(
        replace(n, accept=replace(n.accept, kind=kind, threshold=math.inf))
        if isinstance(n, Exit) and n.name == "exit1"
        else n
        for n in bundle.graph.nodes
    )
    bundle = replace_parts(bundle, graph=replace(bundle.graph, nodes=nodes))
    (found,) = expected(bundle, FREE, [PICTURE])
    assert found.path == ("stem", "exit1", "block1", "final")
    assert found.decisions == {"exit1": 0, "final": None}
    (early,) = expected(bundle, Case(name="x", force={"exit1": 1}), [PICTURE])
    assert early.exit == "exit1"


def test_skipping_by_exits_takes_the_nearest() -> None:
    graph = read_bundle(resolve("resnet38-ddi")).graph
    cases = skipping_cases(graph)
    ends = [next((e for e, v in case.force.items() if v), "final") for case in cases]
    assert ends == ["final", "exit5", "exit4", "exit3", "exit2"]
    assert [case.skipping for case in cases] == [0.0, 0.2, 0.4, 0.6, 0.8]


def test_skipping_by_gates() -> None:
    graph = gated_bundle().graph
    assert list(gated_units(graph)) == ["block1"]
    assert forced_units(graph, ["block1"]) == {"keep": 0}
    assert forced_units(graph, []) == {"keep": 1}
    none, all_ = skipping_cases(graph, (0.0, 1.0))
    assert none.force == {"keep": 1}
    assert all_.force == {"keep": 0}
    vector = {"v": np.array([1.0, 2.0], np.float32)}
    (kept,) = expected(gated_bundle(), none, [vector])
    (skipped,) = expected(gated_bundle(), all_, [vector])
    assert kept.answer.tolist() == [2.0, 4.0]
    assert skipped.answer.tolist() == [1.0, 2.0]
    assert "block1" in kept.path
    assert "block1" not in skipped.path


def test_an_argmax_gate_is_forced_by_its_scores() -> None:
    bundle = skip_bundle()
    image = {"image": np.zeros((2, 3), np.float32)}
    for action, ran in ((1, "dummy"), (2, "block")):
        case = Case(name="x", force={"choose": action, "exit1": 0})
        (found,) = expected(bundle, case, [image])
        assert found.decisions["choose"] == action
        assert ran in found.path
    with pytest.raises(SessionError, match="one action"):
        expected(bundle, Case(name="x", force={"choose": 3}), [image])


def test_what_cannot_be_forced_is_refused() -> None:
    with pytest.raises(SessionError, match="takes no decision"):
        expected(colour_bundle(), Case(name="x", force={"stem": 1}), [PICTURE])
    with pytest.raises(SessionError, match="from 0 to 1"):
        skipping_cases(colour_bundle().graph, (1.5,))


def record(wanted: Expected, *, exit_: int, decisions: tuple[int | None, ...]) -> SampleRecord:
    answer = wanted.answer.reshape(-1).astype(np.float32)
    return SampleRecord(input=0, exit=exit_, decisions=decisions, ticks=1, answer=answer)


def test_every_difference_is_told() -> None:
    bundle = colour_bundle()
    names = ("exit1", "final")
    (wanted,) = expected(bundle, Case(name="x", force={"exit1": 0}), [PICTURE])
    same = record(wanted, exit_=1, decisions=(0, 1))
    assert compare(bundle.graph, names, [wanted], [same]).holds
    other = compare(bundle.graph, names, [wanted], [record(wanted, exit_=0, decisions=(1, None))])
    assert not other.decisions_equal
    assert "ends at exit1, onnxruntime at final" in other.differences[0]
    assert "exit1 decides 1 on the board, 0" in other.differences[1]
    far = SampleRecord(
        input=0, exit=1, decisions=(0, 1), ticks=1, answer=same.answer + np.float32(2e-4)
    )
    found = compare(bundle.graph, names, [wanted], [far])
    assert found.decisions_equal
    assert not found.holds
    assert found.max_abs_error == pytest.approx(2e-4, rel=0.01)
    short = SampleRecord(input=0, exit=1, decisions=(0, 1), ticks=1, answer=same.answer[:1])
    assert (
        "1 answers instead of 3" in compare(bundle.graph, names, [wanted], [short]).differences[0]
    )
    assert not compare(bundle.graph, names, [wanted], []).decisions_equal
    nan = SampleRecord(
        input=0, exit=1, decisions=(0, 1), ticks=1, answer=same.answer * np.float32("nan")
    )
    assert not compare(bundle.graph, names, [wanted], [nan]).holds
