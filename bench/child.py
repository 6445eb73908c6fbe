"""What needs a process of its own: ``python -m bench.child WHAT ARGUMENT...``, one line of JSON.

``load BUNDLE`` and ``rss BUNDLE`` load dynrt and nothing else; ``static_load MODEL`` and
``static_rss MODEL`` only onnxruntime; ``threads COUNT BUNDLE MODEL ROUNDS`` holds both, and
``static_threads COUNT MODEL ROUNDS`` the static graph on a pool of its own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_RUNS = 20


def resident_mb() -> dict[str, float]:
    """Memory of this process, now and at most, in MB (1e6 bytes)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        name: int(lines[key].split()[0]) * 1024 / 1e6
        for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))
    }


def _picture() -> Any:
    return np.random.default_rng(1).standard_normal((3, 32, 32)).astype(np.float32)


def _session(model: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def load(bundle: str) -> dict[str, float]:
    """Seconds to load a bundle from a warm cache, as a program does; modules are imported before."""
    import dynrt
    import dynrt.runtime.cache
    import dynrt.runtime.loading
    import dynrt.runtime.ort

    began = time.perf_counter()
    network = dynrt.load(bundle)
    seconds = time.perf_counter() - began
    if network.mode != "compiled":
        raise SystemExit("this device does not compile")
    network.close()
    return {"seconds": seconds}


def rss(bundle: str) -> dict[str, float]:
    """Memory after some runs of the compiled network."""
    import dynrt

    network = dynrt.load(bundle)
    _require_compiled(network.mode)
    picture = _picture()
    for _ in range(_RUNS):
        network.run(picture)
    return resident_mb()


def static_load(model: str) -> dict[str, float]:
    """Seconds to load the static graph."""
    import onnxruntime  # noqa: F401  # not part of the time

    began = time.perf_counter()
    _session(Path(model))
    return {"seconds": time.perf_counter() - began}


def static_rss(model: str) -> dict[str, float]:
    """Memory after some runs of the static graph."""
    session = _session(Path(model))
    feeds = {session.get_inputs()[0].name: _picture()[None]}
    for _ in range(_RUNS):
        session.run(None, feeds)
    return resident_mb()


def threads(count: str, bundle: str, model: str, rounds: str) -> dict[str, list[float]]:
    """Half skipped and the static graph in turns, both on the process's one pool."""
    from bench.forced import forced_run, half_patterns, loaded
    from bench.static import caller, session_of
    from bench.timing import Alternative, interleaved

    network = loaded(Path(bundle), threads=int(count))
    picture = _picture()
    session = session_of(Path(model).read_bytes(), threads=int(count), global_pool=True)
    alternatives = {"static": Alternative(call=caller(session, picture[None]))}
    for i, pattern in enumerate(half_patterns(network.graph)):
        alternatives[f"half{i}"], _ = forced_run(network, picture, pattern)
    times = interleaved(alternatives, int(rounds))
    return {name: seconds.tolist() for name, seconds in times.items()}


def static_threads(count: str, model: str, rounds: str) -> dict[str, list[float]]:
    """The static graph as it is run by itself: its session owns its threads."""
    from bench.static import caller, session_of
    from bench.timing import Alternative, interleaved

    session = session_of(Path(model).read_bytes(), threads=int(count))
    call = caller(session, _picture()[None])
    times = interleaved({"static": Alternative(call=call)}, int(rounds))
    return {name: seconds.tolist() for name, seconds in times.items()}


def _require_compiled(mode: str) -> None:
    if mode != "compiled":
        raise RuntimeError("this device cannot compile the bundle")


_WHAT: dict[str, Callable[..., object]] = {
    "load": load,
    "rss": rss,
    "static_load": static_load,
    "static_rss": static_rss,
    "static_threads": static_threads,
    "threads": threads,
}

if __name__ == "__main__":
    print(json.dumps(_WHAT[sys.argv[1]](*sys.argv[2:])))
