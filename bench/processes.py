"""Load time, memory and two threads: each sample is a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.blocks import NETWORK, mean_of
from bench.files import ROOT, bundle_of, path_of
from bench.forced import loaded
from bench.row import Measurement, MissingError, Request, Row, derived_row, ratio_row, row_of
from bench.static import static_model

#: Fresh processes for each figure at most: they cost a second each.
_MOST_PROCESSES = 15


def run_child(*arguments: str) -> Any:
    """What ``python -m bench.child`` with these arguments reports."""
    command = [sys.executable, "-m", "bench.child", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@contextmanager
def _files() -> Iterator[tuple[str, str]]:
    """The bundle, compiled and in the cache, and the static graph as a file."""
    loaded(path_of(NETWORK)).close()
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "static.onnx"
        model.write_bytes(static_model(bundle_of(NETWORK)))
        yield str(path_of(NETWORK)), str(model)


def _start_rows(request: Request) -> list[Row]:
    if not Path("/proc/self/status").exists():
        raise MissingError("no /proc here to read memory from")
    ours: dict[str, list[float]] = {"load": [], "now": [], "peak": []}
    static: dict[str, list[float]] = {"load": [], "now": [], "peak": []}
    with _files() as (bundle, model):
        for _ in range(min(request.rounds, _MOST_PROCESSES)):
            for found, load, rss, place in (
                (ours, "load", "rss", bundle),
                (static, "static_load", "static_rss", model),
            ):
                start = run_child(load, place)
                found["load"].append(1e3 * start["seconds"])
                memory = run_child(rss, place)
                found["now"].append(memory["now"])
                found["peak"].append(memory["peak"])
    whole_ms = np.median(static["load"])
    note = f"resident after 20 runs, above onnxruntime's {np.median(static['now']):.0f} MB"
    return [
        row_of(
            "load_ms",
            ours["load"],
            "ms",
            "dynrt.load of a bundle that this device knows, from a warm cache; onnxruntime loads "
            f"the unsplit graph in {whole_ms:.0f} ms",
        ),
        derived_row(
            "extra_rss_mb",
            lambda a, b: a - b,
            np.asarray(ours["now"]),
            np.asarray(static["now"]),
            unit="MB",
            note=note,
        ),
        derived_row(
            "extra_peak_rss_mb",
            lambda a, b: a - b,
            np.asarray(ours["peak"]),
            np.asarray(static["peak"]),
            unit="MB",
            note="the same of the most that was ever resident",
        ),
    ]


def _thread_rows(request: Request) -> list[Row]:
    """Both on dynrt's shared pool, in turns; the static graph also as it runs by itself."""
    rounds = str(request.rounds)
    with _files() as (bundle, model):
        found = {
            name: np.asarray(seconds)
            for name, seconds in run_child("threads", "2", bundle, model, rounds).items()
        }
        own, one = (
            np.asarray(run_child("static_threads", count, model, rounds)["static"])
            for count in ("2", "1")
        )
    shared_ms, own_ms, one_ms = (1e3 * float(np.median(t)) for t in (found["static"], own, one))
    require_gain(min(shared_ms, own_ms), one_ms)
    note = (
        f"half skipped, two threads, against the faster of the unsplit graph on the same pool "
        f"({shared_ms:.3g} ms) and on its own ({own_ms:.3g} ms); with one thread {one_ms:.3g} ms"
    )
    static = found["static"] if shared_ms <= own_ms else own
    return [ratio_row("two_threads_half", mean_of(found, "half"), static, note)]


def require_gain(two_ms: float, one_ms: float) -> None:
    """Check that the second thread is of use to the static graph.

    Raises:
        MissingError: it is not; a stalled baseline would only flatter what is held against it.
    """
    if two_ms >= one_ms:
        raise MissingError(
            f"two threads are no faster than one here ({two_ms:.3g} and {one_ms:.3g} ms for the "
            "unsplit graph): the second core is busy, or there is none"
        )


MEASUREMENTS = (
    Measurement(names=("load_ms", "extra_rss_mb", "extra_peak_rss_mb"), rows=_start_rows),
    Measurement(names=("two_threads_half",), rows=_thread_rows),
)
