"""The quicker way for batches of a size."""

from __future__ import annotations

from dynrt.runtime.machine import Choice
from dynrt.runtime.machine.choice import RETRY_EVERY, TRIALS


def test_every_way_is_tried_and_the_quickest_stays() -> None:
    choice = Choice(("a", "b"))
    seconds = {"a": 2.0, "b": 1.0}
    picked = []
    for _ in range(RETRY_EVERY - 1):
        way = choice.pick(8)
        choice.took(8, way, seconds[way])
        picked.append(way)
    assert picked[: 2 * TRIALS] == ["a", "b"] * TRIALS
    assert set(picked[2 * TRIALS :]) == {"b"}
    assert choice.pick(8) == "a"  # now and then the slower one, in case that things have changed


def test_a_way_that_became_slow_is_left() -> None:
    choice = Choice(("a", "b"))
    for _ in range(2 * TRIALS):
        choice.took(8, choice.pick(8), 1.0)
    for _ in range(10):
        choice.took(8, "a", 9.0)
    assert choice.pick(8) == "b"


def test_sizes_are_apart_and_the_first_measurement_binds() -> None:
    choice = Choice(("a", "b"))
    for way, first in (("a", 50.0), ("b", 3.0)):  # the first of a way explores
        assert choice.pick(8) == way
        choice.took(8, way, first)
    for _ in range(2 * TRIALS - 2):
        way = choice.pick(8)
        choice.took(8, way, {"a": 1.0, "b": 3.0}[way])
    assert choice.pick(8) == "a"
    assert choice.pick(64) == "a"
    assert choice.pick(64) == "b"


def test_what_was_never_measured_breaks_nothing() -> None:
    choice = Choice(("a", "b"))
    for _ in range(2 * TRIALS):
        choice.pick(8)  # six threads at once, or runs that failed
    assert choice.pick(8) == "a"
    choice.took(8, "a", 1.0)
    assert choice.pick(8) == "b"
