"""Every hostile kind is refused by its own error, in time, in one line, and without a traceback."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from dynrt.bundle import read_bundle
from dynrt.errors import BundleError, GraphError
from tests.bundle.hostile import Hostile, hostile_bundles

KINDS = hostile_bundles()
#: Of process time; measuring coverage slows everything down.
CASE_S = 2 if sys.gettrace() is None else 20


def read_all(path: Path) -> None:
    """Read a bundle, and decode the tables that it keeps for later."""
    bundle = read_bundle(path)
    _ = bundle.layers, bundle.counts


@pytest.mark.parametrize("hostile", KINDS, ids=[h.kind.replace(" ", "-") for h in KINDS])
def test_hostile_bundle_is_refused(hostile: Hostile, tmp_path: Path) -> None:
    path = hostile.build(tmp_path)
    start_s, start_wall_s = time.process_time(), time.perf_counter()
    with pytest.raises((BundleError, GraphError)) as caught:
        read_all(path)
    assert time.process_time() - start_s < CASE_S
    assert (
        time.perf_counter() - start_wall_s < 20
    )  # a pipe that is waited for takes no process time
    message = str(caught.value)
    assert type(caught.value) is hostile.error, message
    assert hostile.text in message
    assert message.startswith(str(path))
    inside = message.removeprefix(str(path))
    assert inside.isprintable()
    assert len(inside) < 500
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_catalogue_is_large_and_names_differ() -> None:
    names = [h.kind for h in KINDS]
    assert len(set(names)) == len(names)
    assert len({n.removesuffix(" (file)").removesuffix(" (folder)") for n in names}) >= 100
