"""The loop over hops: Python and native behave alike."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernel_programs import back_ends, lstm_gate, native_kernels

BACK_ENDS = back_ends()


def outcome(value: int) -> Callable[[], int]:
    return lambda: value


def chain(kernels: ModuleType, length: int, **fields: Any) -> list[Any]:
    hops = [kernels.Hop() for _ in range(length)]
    for hop, ahead in itertools.pairwise(hops):
        hop.decide, hop.next = outcome(1), [None, ahead]
        for name, value in fields.items():
            setattr(hop, name, value)
    return hops


@pytest.mark.parametrize("kernels", BACK_ENDS)
def test_new_hop_ends_at_once(kernels: ModuleType) -> None:
    hop = kernels.Hop()
    assert (hop.runs, hop.kernels, hop.decide, hop.next) == ((), (), None, [])
    assert (hop.macs, hop.need_macs) == (0, 0)
    trail: list[Any] = []
    assert kernels.follow(hop, 0, trail) == (0, hop, 0)
    assert trail == [hop]
    assert hash(hop) == hash(hop)
    assert hop != kernels.Hop()


@pytest.mark.parametrize("kernels", BACK_ENDS)
def test_order_of_calls(kernels: ModuleType) -> None:
    seen: list[str] = []

    def decide() -> int:
        seen.append("decide")
        return 0

    first, last = kernels.Hop(), kernels.Hop()
    first.runs = ((seen.append, "a"), (seen.append, "b"))
    first.kernels = (lambda: seen.append("c"), lambda: seen.append("d"))
    first.decide, first.next = decide, [last]
    last.runs = ((seen.append, "e"),)
    trail: list[Any] = []
    assert kernels.follow(first, 1 << 100, trail) == (0, last, 0)
    assert seen == ["a", "b", "c", "d", "decide", "e"]
    assert trail == [first, last]


@pytest.mark.parametrize("kernels", BACK_ENDS)
def test_stops(kernels: ModuleType) -> None:
    hops = chain(kernels, 4, macs=10, need_macs=10)
    hops[-1].need_macs = 5
    trail: list[Any] = []
    assert kernels.follow(hops[0], 35, trail) == (0, hops[3], 0)
    assert kernels.follow(hops[0], 34, trail) == (1, hops[3], 0)
    assert kernels.follow(hops[0], 9, trail) == (1, hops[0], 0)
    assert trail == [*hops, *hops[:3]]
    hops[1].decide = outcome(0)
    assert kernels.follow(hops[0], 99, trail)[:2] == (2, hops[1])
    hops[1].decide = outcome(2)
    assert kernels.follow(hops[0], 99, trail) == (2, hops[1], 2)
    hops[1].decide = outcome(1 << 80)
    assert kernels.follow(hops[0], 99, trail) == (2, hops[1], 1 << 80)
    for negative in (-1, -2, -(1 << 80)):
        hops[1].decide = outcome(negative)
        assert kernels.follow(hops[0], 99, trail) == (3, hops[1], negative)
    hops[0].decide = None
    assert kernels.follow(hops[0], 99, trail) == (0, hops[0], 0)
    assert kernels.follow(hops[0], -(1 << 80), trail) == (1, hops[0], 0)


@pytest.mark.parametrize("kernels", BACK_ENDS)
@pytest.mark.parametrize("where", ["runs", "kernels", "decide"])
def test_exceptions_are_passed_on(kernels: ModuleType, where: str) -> None:
    def fail(*_: object) -> int:
        raise LookupError("mine")

    hops = chain(kernels, 3)
    fields = {"runs": ((fail, 1),), "kernels": (fail,), "decide": fail}
    setattr(hops[1], where, fields[where])
    trail: list[Any] = []
    with pytest.raises(LookupError, match="mine"):
        kernels.follow(hops[0], 9, trail)
    assert trail == hops[: 2 if where == "decide" else 1]


@pytest.mark.parametrize("kernels", BACK_ENDS)
def test_a_call_may_change_its_hop(kernels: ModuleType) -> None:
    hops = chain(kernels, 2)
    seen: list[int] = []

    def replace(argument: int) -> None:
        seen.append(argument)
        hops[0].runs = ()
        gc.collect()

    hops[0].runs = ((replace, 1), (replace, 2))
    kernels.follow(hops[0], 0, [])
    kernels.follow(hops[0], 0, [])
    assert seen == [1, 2]


@given(data=st.data())
@settings(deadline=None, max_examples=100)
def test_native_follows_like_plain(data: st.DataObject) -> None:
    native_kernels()
    count = data.draw(st.integers(1, 8))
    small = st.integers(0, 6)
    told = [
        (data.draw(small), data.draw(small), data.draw(st.none() | st.integers(-3, 4)),
         data.draw(st.lists(st.none() | st.integers(0, count - 1), max_size=4)))
        for _ in range(count)
    ]  # fmt: skip
    left = data.draw(st.integers(-2, 40))
    results = []
    for kernels in BACK_ENDS:
        hops = [kernels.Hop() for _ in range(count)]
        ran: list[int] = []
        for i, (hop, (macs, need, decides, ahead)) in enumerate(zip(hops, told, strict=True)):
            hop.runs = ((ran.append, i),)
            hop.macs, hop.need_macs = macs + 1, need
            hop.decide = None if decides is None else outcome(decides)
            hop.next = [None if a is None else hops[a] for a in ahead]
        trail: list[Any] = []
        why, at, said = kernels.follow(hops[0], left, trail)
        results.append((why, hops.index(at), said, ran, [hops.index(h) for h in trail]))
    assert results[0] == results[-1]


def test_kernels_of_the_other_back_end_run_too() -> None:
    native = native_kernels()
    x, h, c = (np.ones(n, np.float32) for n in (16, 10, 10))
    score = np.zeros(1, np.float32)
    programs = [
        k.bind_program(lstm_gate(), {"x": x, "h": h, "c": c}, {"h2": h, "c2": c, "score": score})
        for k in BACK_ENDS
    ]
    hops = chain(native, 3)
    hops[0].kernels = hops[1].kernels = tuple(programs)
    hops[0].decide = native.bind_threshold(score, (-np.inf,), 0.0)
    hops[1].decide = BACK_ENDS[0].bind_threshold(score, (-np.inf,), 0.0)
    assert native.follow(hops[0], 0, []) == (0, hops[2], 0)


@pytest.mark.parametrize("kernels", BACK_ENDS)
def test_cycles_are_collected(kernels: ModuleType) -> None:
    class Owner:
        hops: list[Any]

        def decide(self) -> int:
            return len(self.hops)

    def cycles() -> list[weakref.ref[Any]]:
        owner = Owner()
        first, second = kernels.Hop(), kernels.Hop()
        first.next, second.next = [second], [first]
        first.runs = ((print, owner),)
        second.decide = owner.decide
        owner.hops = [first, second]
        return [weakref.ref(owner), weakref.ref(first), weakref.ref(second)]

    gone = cycles()
    gc.collect()
    assert [ref() for ref in gone] == [None, None, None]


def test_a_long_chain_is_freed_without_recursion() -> None:
    for kernels in BACK_ENDS:
        hop: Any = None
        for _ in range(200_000):
            ahead, hop = hop, kernels.Hop()
            hop.next = [ahead]
            del ahead
        del hop
        gc.collect()


def test_native_refuses_what_is_no_hop() -> None:
    native = native_kernels()
    hop = native.Hop()
    for name, value in (
        ("runs", []), ("runs", (1,)), ("runs", ((1, 2, 3),)), ("kernels", []), ("next", ()),
        ("macs", "1"), ("need_macs", None),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            setattr(hop, name, value)
    with pytest.raises(OverflowError):
        hop.macs = 1 << 63
    for name in ("runs", "kernels", "decide", "next"):
        with pytest.raises(TypeError):
            delattr(hop, name)
    with pytest.raises(AttributeError):
        hop.more = 1
    with pytest.raises(TypeError):
        native.Hop(1)
    wrong: list[tuple[Any, ...]] = [(), (hop, 1), (None, 1, []), (hop, 1.0, []), (hop, 1, ())]
    for arguments in wrong:
        with pytest.raises(TypeError):
            native.follow(*arguments)
    hop.decide, hop.next = outcome(0), ["hop"]
    with pytest.raises(TypeError):
        native.follow(hop, 1, [])
    hop.decide = lambda: "0"
    with pytest.raises(TypeError):
        native.follow(hop, 1, [])
    hop.runs = ((None, 1),)
    with pytest.raises(TypeError):
        native.follow(hop, 1, [])
    bound = native.bind_argmax(np.zeros(2, np.float32), 0.0)
    with pytest.raises(TypeError):
        bound(1)
