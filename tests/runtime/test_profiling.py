"""Where the time goes: parts, paths, shares, and the trace that Perfetto opens."""

from __future__ import annotations

import numpy as np
import pytest

import dynrt
from dynrt.errors import BackendError
from dynrt.ir.graph import Array, ComputeNode, Exit
from dynrt.runtime import Network
from dynrt.runtime.profiling import Times, profile_network, trace_events
from tests.runtime.compiling import gated_chain


@pytest.fixture
def network() -> Network:
    return dynrt.load(gated_chain(3, 16))


def samples(count: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(0)
    return [{"image": rng.standard_normal((3, 8, 8)).astype(np.float32)} for _ in range(count)]


def test_every_path_and_part_is_there(network: Network) -> None:
    given = samples(6)
    paths = {network.run(s).path for s in given}
    told: list[tuple[int, int]] = []
    profile = profile_network(
        network, given, rounds=5, tell=lambda done, total: told.append((done, total))
    )
    assert {p.path for p in profile.paths} == paths
    assert sum(p.runs for p in profile.paths) == 6
    assert told == [(i + 1, 6) for i in range(6)]
    ran = {name for part in profile.parts for name in part.nodes}
    assert {"stem", "b0", "b1", "b2", "g0", "final"} <= ran
    for path in profile.paths:
        assert path.times.median_ns <= path.times.p90_ns <= path.times.p99_ns
        assert path.compute_ns > 0
        assert path.decisions_ns > 0
        assert path.dispatch_ns >= 0
        assert path.unsplit_ns is not None
        nodes = [network.graph.by_name[n] for n in path.path]
        assert path.macs == sum(n.cost.macs for n in nodes if isinstance(n, ComputeNode | Exit))


def test_a_budget_is_in_force(network: Network) -> None:
    cheapest = dynrt.Budget(macs=network._plan.completion(("macs",)).front(0, 0)[0][0])
    network.set(thresholds={f"g{i}_control": -1e9 for i in range(3)}, budget=cheapest)
    (path,) = profile_network(network, samples(2), rounds=5).paths
    assert not {"b0", "b1", "b2"} & set(path.path)


def test_the_trace_opens_in_perfetto(network: Network) -> None:
    profile = profile_network(network, samples(1), rounds=5)
    events = trace_events(profile.traces[0])
    complete = [e for e in events if e["ph"] == "X"]
    assert {e["cat"] for e in complete} == {"segment", "gate", "decision"}
    assert all(e["ts"] >= 0 and e["dur"] >= 0 for e in complete)  # type: ignore[operator]
    starts = [e["ts"] for e in complete]
    assert starts == sorted(starts)  # type: ignore[type-var]
    assert trace_events([]) == []


def test_what_cannot_be_profiled_is_refused(network: Network) -> None:
    portable = dynrt.load(gated_chain(3, 16), mode="portable")
    with pytest.raises(BackendError, match="node by node"):
        profile_network(portable, samples(1), rounds=5)
    network.set(budget="5ms")
    with pytest.raises(BackendError, match="time cap"):
        profile_network(network, samples(1), rounds=5)


def test_a_time_cap_looks_ahead_by_the_parts_times(network: Network) -> None:
    ample = network.run(samples(1)[0], budget="1s")
    assert not ample.forced
    assert not ample.late
    least = network.cheapest(dynrt.Budget(seconds=1.0)).seconds
    assert least is not None
    with pytest.raises(dynrt.DynrtError, match="below the cheapest"):
        network.run(samples(1)[0], budget=dynrt.Budget(seconds=least / 2))


def test_percentiles() -> None:
    times = Times.of(range(1, 101))
    assert times.median_ns == 50.5
    assert times.p90_ns == pytest.approx(90.1)
