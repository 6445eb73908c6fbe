"""Blocks of samples."""

from __future__ import annotations

import numpy as np
import pytest

from dynrt.fpga.samples import COLUMNS, Flag, Samples


def block(n: int, first: int = 0) -> Samples:
    return Samples.of(
        host_s=[i + 0.5 for i in range(n)],
        volts=[12.0] * n,
        amperes=[i / 10 for i in range(n)],
        sequence=np.arange(first, first + n),
        flags=[int(Flag.GAP_BEFORE)] * n,
    )


def test_what_is_left_out_is_missing_never_zero() -> None:
    got = Samples.of(host_s=[1.0, 2.0])
    assert len(got) == 2
    for name in ("meter_s", "volts", "amperes", "watts"):
        assert np.isnan(getattr(got, name)).all()
    assert list(got.marker) == [-1, -1]
    assert list(got.sequence) == [-1, -1]
    assert len(Samples.empty()) == 0


def test_watts_are_the_product_unless_metered() -> None:
    assert list(block(3).watts) == [0.0, 12.0 * 0.1, 12.0 * 0.2]
    assert list(Samples.of(host_s=[0.0], volts=[2.0], amperes=[3.0], watts=[5.9]).watts) == [5.9]


def test_join_take_and_flags() -> None:
    joined = Samples.join([block(3), Samples.empty(), block(2, first=3)])
    assert list(joined.sequence) == [0, 1, 2, 3, 4]
    assert list(joined.take(slice(1, 3)).sequence) == [1, 2]
    assert joined.flagged(Flag.GAP_BEFORE | Flag.RESET).all()
    assert not joined.flagged(Flag.RESET).any()
    assert len(Samples.join([])) == 0
    one = block(2)
    assert Samples.join([one]) is one
    assert {getattr(joined, name).dtype.kind for name in COLUMNS} == {"f", "i", "u"}


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"differ in shape: .*volts \(1,\)"):
        Samples.of(host_s=[0.0, 1.0], volts=[1.0], amperes=[1.0])
