"""Hypothesis profiles, and a cache of compiled networks that is the tests' own.

Profiles: ``dev`` by default, ``ci`` (more examples, the same ones every time) under CI.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Deadlines measure the machine, not the code.
settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile(
    "ci",
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session", autouse=True)
def _own_cache() -> Iterator[None]:
    """No test reads or fills the user's cache."""
    with tempfile.TemporaryDirectory(prefix="dynrt-test-cache-") as folder:
        os.environ["DYNRT_CACHE"] = folder
        yield
