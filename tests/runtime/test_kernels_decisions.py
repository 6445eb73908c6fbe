"""Decisions, copies and answers: both back ends do what the rules in ``dynrt.ir`` do."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynrt.errors import BackendError
from dynrt.ir.graph import Array, ScoreKind
from dynrt.ir.rules import accept_score, argmax, softmax, threshold_actions
from dynrt.runtime.kernels import plain
from tests.kernel_programs import back_ends

KINDS: tuple[ScoreKind, ...] = ("hinge", "max_softmax", "margin", "entropy")
BACK_ENDS = back_ends()
floats = st.floats(width=32, min_value=-50, max_value=50)
values = st.lists(st.one_of(floats, st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=12)
anything = st.floats(width=32, allow_nan=True, allow_infinity=True)
bounds = st.one_of(floats, st.sampled_from([math.inf, -math.inf, 0.5]))
ties = st.sampled_from([0.0, 1e-5, 0.1, 3.0])


@pytest.mark.parametrize("kernels", BACK_ENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64"])
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_threshold_is_the_rule(kernels: ModuleType, dtype: str, data: st.DataObject) -> None:
    scores = np.array(data.draw(values)).astype(dtype)
    limits = tuple(data.draw(st.lists(bounds, max_size=len(scores))))
    tie = data.draw(ties)
    got = kernels.bind_threshold(scores, limits, tie)()
    wide = scores.astype(np.float64).tolist()
    near = any(
        tie > 0 and math.isfinite(b) and abs(s - b) <= tie
        for s, b in zip(wide, limits, strict=False)
    )
    want = sum(1 << a for a in threshold_actions(wide, limits))
    assert got == (-1 if near else want)


@pytest.mark.parametrize("kernels", BACK_ENDS)
@given(data=st.data())
@settings(deadline=None, max_examples=100)
def test_argmax_is_the_rule(kernels: ModuleType, data: st.DataObject) -> None:
    scores = np.array(data.draw(values), np.float32)
    tie = data.draw(ties)
    got = kernels.bind_argmax(scores, tie)()
    ranked = sorted(scores.astype(np.float64).tolist())
    near = tie > 0 and len(ranked) > 1 and ranked[-1] - ranked[-2] <= tie
    assert got == (-1 if near else argmax(scores))


@pytest.mark.parametrize("kernels", BACK_ENDS)
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(deadline=None, max_examples=100)
def test_accept_is_the_rule(kernels: ModuleType, kind: ScoreKind, data: st.DataObject) -> None:
    given_ = np.array(data.draw(values), np.float32)
    score = accept_score(kind, given_)
    off = st.sampled_from([0.0, 1e-16, -1e-16, 1e-9, -1e-9, 0.2, -0.2, math.inf, -math.inf])
    bound = score + data.draw(off)
    tie = data.draw(ties)
    got = kernels.bind_accept(kind, given_, bound, tie)()
    near = tie > 0 and math.isfinite(bound) and abs(score - bound) <= tie
    assert got == (-1 if near else int(score >= bound))


@pytest.mark.parametrize("kernels", BACK_ENDS)
@given(st.lists(anything, min_size=1, max_size=8), ties)
@settings(deadline=None, max_examples=100)
def test_back_ends_agree_on_anything(kernels: ModuleType, given_: list[float], tie: float) -> None:
    scores = np.array(given_, np.float32)
    limits = (0.5,) * min(2, len(scores))
    for kind in KINDS:
        want = plain.bind_accept(kind, scores, 0.5, tie)()
        assert kernels.bind_accept(kind, scores, 0.5, tie)() == want
    assert kernels.bind_argmax(scores, tie)() == plain.bind_argmax(scores, tie)()
    want = plain.bind_threshold(scores, limits, tie)()
    assert kernels.bind_threshold(scores, limits, tie)() == want
    if np.isnan(scores).any():
        assert want == -2


@pytest.mark.parametrize("kernels", BACK_ENDS)
def test_edges_of_decisions(kernels: ModuleType) -> None:
    scores = np.array([0.5, math.nan], np.float32)
    assert kernels.bind_threshold(scores, (0.5,), 0.0)() == -2  # although no bound reads the NaN
    assert kernels.bind_argmax(scores, 0.0)() == -2
    assert kernels.bind_accept("hinge", scores, 0.0, 0.0)() == -2
    infinite = np.array([math.inf, 0.0], np.float32)
    assert kernels.bind_accept("hinge", infinite, 0.0, 1.0)() == 1
    assert kernels.bind_accept("hinge", infinite, math.inf, 1.0)() == 1
    assert kernels.bind_accept("margin", infinite, 0.0, 0.0)() == -2
    assert kernels.bind_threshold(infinite, (math.inf, -math.inf), 1.0)() == 0b11
    same = np.array([math.inf, math.inf], np.float32)
    assert kernels.bind_argmax(same, 0.0)() == 0
    assert kernels.bind_argmax(same, 1e-9)() == -1
    assert kernels.bind_argmax(np.array([3.0], np.float32), 1e9)() == 0
    scores[:] = 0.25, 0.75  # bound to the memory, not to what it held
    decide = kernels.bind_threshold(scores, (0.5, 0.5), 0.0)
    assert decide() == 0b10
    scores[:] = 0.75, 0.25
    assert decide() == 0b01
    many = np.arange(100, dtype=np.float32)
    assert kernels.bind_threshold(many, (50.0,) * 100, 0.0)() == sum(1 << i for i in range(50, 100))


@pytest.mark.parametrize("kernels", BACK_ENDS)
@pytest.mark.parametrize(
    ("bind", "arguments"),
    [
        ("bind_threshold", (np.zeros(1, np.float32), (0.0, 0.0), 0.0)),
        ("bind_threshold", (np.zeros(1, np.float32), (math.nan,), 0.0)),
        ("bind_threshold", (np.zeros(1, np.float32), (0.0,), -1.0)),
        ("bind_threshold", (np.zeros(1, np.float32), (0.0,), math.nan)),
        ("bind_argmax", (np.zeros(0, np.float32), 0.0)),
        ("bind_argmax", (np.zeros(1, np.float32), math.inf)),
        ("bind_accept", ("hinge", np.zeros(0, np.float32), 0.0, 0.0)),
        ("bind_accept", ("hinge", np.zeros(1, np.float32), math.nan, 0.0)),
        ("bind_accept", ("always", np.zeros(1, np.float32), 0.0, 0.0)),
    ],
)
def test_decisions_that_cannot_be(
    kernels: ModuleType, bind: str, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(BackendError):
        getattr(kernels, bind)(*arguments)


@pytest.mark.parametrize("kernels", BACK_ENDS)
@given(st.lists(floats, min_size=1, max_size=20))
@settings(deadline=None, max_examples=60)
def test_answer(kernels: ModuleType, given_: list[float]) -> None:
    for dtype in (np.float32, np.float64, np.float16):
        answer = np.array(given_, dtype)
        index, score = kernels.answer_of(answer.reshape(1, -1))
        assert index == int(answer.argmax())
        assert score == pytest.approx(float(softmax(answer)[index]), rel=1e-12)


@pytest.mark.parametrize("kernels", BACK_ENDS)
def test_answer_of_odd_values(kernels: ModuleType) -> None:
    for odd in ([math.nan], [1.0, math.nan, 2.0], []):
        index, score = kernels.answer_of(np.array(odd, np.float32))
        assert index == -1
        assert math.isnan(score)
    index, score = kernels.answer_of(np.array([0, math.inf], np.float32))
    assert index == 1
    assert math.isnan(score)
    assert kernels.answer_of(np.array([-math.inf, 3], np.float32)) == (1, 1.0)
    assert kernels.answer_of(np.arange(9, dtype=np.float32)[::4])[0] == 2


@pytest.mark.parametrize("kernels", BACK_ENDS)
@pytest.mark.parametrize("shape", [(1,), (3, 5), (1, 3, 32, 32), (2, 17)])
def test_finite_copy(kernels: ModuleType, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(size=shape).astype(np.float32)
    out = np.zeros(source.size, np.float32)
    copy = kernels.bind_finite_copy(shape, out)
    assert copy(source) is True
    np.testing.assert_array_equal(out, source.reshape(-1))
    for odd in (math.nan, math.inf, -math.inf):
        for at in {0, source.size // 2, source.size - 1}:
            spoilt = source.copy()
            spoilt.reshape(-1)[at] = odd
            assert copy(spoilt) is False
    largest = np.full(shape, np.finfo(np.float32).max)
    assert copy(largest) is True


@pytest.mark.parametrize("kernels", BACK_ENDS)
def test_copies_that_do_not_fit(kernels: ModuleType) -> None:
    out = np.zeros((2, 3), np.float32)
    copy = kernels.bind_finite_copy((2, 3), out)
    wrong: list[Array] = [
        np.zeros((3, 2), np.float32), np.zeros(6, np.float32), np.zeros((2, 3)),
        np.zeros((2, 6), np.float32)[:, ::2], np.zeros((1, 2, 3), np.float32),
    ]  # fmt: skip
    for source in wrong:
        with pytest.raises(BackendError):
            copy(source)
    for target in (np.zeros(5, np.float32), np.zeros(6), np.frombuffer(bytes(24), np.float32)):
        with pytest.raises(BackendError):
            kernels.bind_finite_copy((2, 3), target)
