"""Random networks of real ONNX, compiled; ``python -m tests.soak compiled`` runs 10,000."""

from __future__ import annotations

import pytest

from tests.soak_compiled import compare_compiled

#: 5937: a port's default was made by the very segment that would have taken it.
SEEDS = [*range(120), 5937]


@pytest.mark.parametrize("seed", SEEDS)
def test_compiled_is_the_reference(seed: int) -> None:
    found = compare_compiled(seed)
    assert found.runs
    assert found.findings == []
