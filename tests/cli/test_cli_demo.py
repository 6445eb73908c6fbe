"""The demo pictures: enough of them, all different, the same every time, from what is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dynrt.cli import demo
from dynrt.errors import DataError, MissingExtraError


def test_enough_pictures_of_two_subjects_at_rising_difficulty() -> None:
    shown = dict(demo.pictures())
    assert len(shown) == 2 * len(demo.CHANGES) >= 12
    assert {name.split(",")[0] for name in shown} == {"cat", "horse"}
    for pixels in shown.values():
        assert pixels.shape == (32, 32, 3)
        assert pixels.dtype == np.uint8
    assert len({pixels.tobytes() for pixels in shown.values()}) == len(shown)


def test_they_are_the_same_every_time() -> None:
    first, again = (list(demo.pictures()) for _ in range(2))
    for (name, pixels), (other, same) in zip(first, again, strict=True):
        assert name == other
        assert np.array_equal(pixels, same)


def _detail(pixels: np.ndarray) -> float:
    """Mean difference of neighbours."""
    return float(np.abs(np.diff(pixels.astype(float), axis=1)).mean())


def test_each_change_does_what_it_says() -> None:
    x = dict(demo.pictures())["cat"].astype(np.float32)
    assert _detail(demo.small(8)(x)) < _detail(demo.small(16)(x)) < _detail(x)
    assert _detail(demo.blurred(2.0)(x)) < _detail(demo.blurred(1.0)(x)) < _detail(x)
    # a blur keeps the mean away from the edges
    assert demo.blurred(1.0)(x).mean() == pytest.approx(x.mean(), rel=0.02)
    noise = demo.noisy(20.0)(x) - x
    assert noise.std() == pytest.approx(20, rel=0.05)
    half = demo.covered(0.5)(x)
    assert np.array_equal(half[:16], x[:16])
    assert (half[16:] == 127.5).all()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "_folder", lambda: tmp_path)
    with pytest.raises(DataError, match=r"chelsea\.png"):
        next(demo.pictures())
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"dynrt\[demo\]"):
        next(demo.pictures())
