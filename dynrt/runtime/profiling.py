"""Where the time of a compiled network goes: per part, per path, and against the unsplit graph."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dynrt.errors import BackendError, CompileError
from dynrt.ir.graph import Array, ComputeNode, Exit, Graph, NodeId
from dynrt.runtime.machine import Event, Machine, Parts, part_times_ns, run_events
from dynrt.runtime.network import Network

_WARM_UPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Percentiles of some durations, in nanoseconds."""

    median_ns: float
    p90_ns: float
    p99_ns: float

    @classmethod
    def of(cls, taken_ns: Sequence[float]) -> Times:
        """Of at least one duration."""
        median, p90, p99 = np.percentile(np.asarray(taken_ns, np.float64), (50, 90, 99))
        return cls(median_ns=float(median), p90_ns=float(p90), p99_ns=float(p99))


@dataclass(frozen=True, slots=True, kw_only=True)
class PartProfile:
    """A segment or small gate by itself.

    Attributes:
        nodes: that it runs.
        kind: ``segment`` or ``gate``.
        macs: of its nodes.
        times: of one call.
    """

    nodes: tuple[NodeId, ...]
    kind: str
    macs: int
    times: Times


@dataclass(frozen=True, slots=True, kw_only=True)
class PathProfile:
    """Runs that went one way.

    Attributes:
        exit: where they ended.
        path: nodes that ran.
        runs: how many of the profiled runs went this way.
        macs: of the path.
        times: of a whole :meth:`Network.run`, without a trace.
        compute_ns, decisions_ns: medians of what segments, and gates with their decisions, took.
        unsplit_ns: median of the whole network as one static graph, every block and head run; or
            ``None`` if it was not measured.
    """

    exit: NodeId
    path: tuple[NodeId, ...]
    runs: int
    macs: int
    times: Times
    compute_ns: float
    decisions_ns: float
    unsplit_ns: float | None

    @property
    def dispatch_ns(self) -> float:
        """What is neither compute nor decisions: calls, bookkeeping, input and result."""
        return max(0.0, self.times.median_ns - self.compute_ns - self.decisions_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where the time of a network goes.

    Attributes:
        parts: each by itself, slowest first.
        paths: those that the inputs took, in the order of their exits.
        traces: one run of each path.
    """

    parts: list[PartProfile]
    paths: list[PathProfile]
    traces: list[list[Event]]


def profile_parts(graph: Graph, parts: Parts, *, rounds: int) -> list[PartProfile]:
    """Every part by itself, slowest first."""
    gates = {g.node for g in parts.compiled.gates}
    out = []
    for nodes, taken in part_times_ns(parts, rounds).items():
        costs = [graph.by_name[n] for n in nodes]
        out.append(
            PartProfile(
                nodes=nodes,
                kind="gate" if nodes[0] in gates else "segment",
                macs=sum(c.cost.macs for c in costs if isinstance(c, ComputeNode | Exit)),
                times=Times.of(taken),
            )
        )
    return sorted(out, key=lambda p: -p.times.median_ns)


def shares_ns(events: Sequence[Event]) -> tuple[int, int]:
    """Nanoseconds of compute, and of decisions with their gates."""
    compute = sum(e.duration_ns for e in events if e.kind in ("segment", "node"))
    decisions = sum(e.duration_ns for e in events if e.kind in ("gate", "decision"))
    return compute, decisions


def trace_events(events: Sequence[Event]) -> list[dict[str, object]]:
    """Events in the Trace Event Format (JSON array), which Perfetto and chrome://tracing open."""
    if not events:
        return []
    first = events[0].start_ns
    tracks = {"segment": 1, "node": 1, "gate": 2, "decision": 3}
    names = {1: "segments (onnxruntime)", 2: "gates (kernels)", 3: "decisions"}
    out: list[dict[str, object]] = [
        {"ph": "M", "pid": 1, "tid": t, "name": "thread_name", "args": {"name": n}}
        for t, n in names.items()
    ]
    out += [
        {
            "ph": "X",
            "pid": 1,
            "tid": tracks[e.kind],
            "name": e.name,
            "cat": e.kind,
            "ts": (e.start_ns - first) / 1e3,
            "dur": e.duration_ns / 1e3,
        }
        for e in events
    ]
    return out


@dataclass(slots=True)
class _Way:
    """What was measured of one path."""

    macs: int
    runs: int = 0
    whole_ns: list[int] = field(default_factory=list)
    compute_ns: list[int] = field(default_factory=list)
    decisions_ns: list[int] = field(default_factory=list)
    unsplit_ns: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def profile_network(
    network: Network,
    samples: Sequence[Mapping[str, Array]],
    *,
    rounds: int,
    threads: int = 1,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Profile:
    """Measure a network on this device, under its policy.

    The whole network, the network with clocks inside, and the unsplit graph take turns.

    Args:
        network: compiled.
        samples: one input each, as :meth:`Network.run` takes them.
        rounds: measurements of each sample and each part.
        threads: that the network was loaded with.
        tell: told how many of how many samples are done.

    Raises:
        BackendError: the network runs in the portable mode, or a time cap is in force.
        BudgetRefusedError, InputError: as :meth:`Network.run`.
    """
    parts = network.parts
    if parts is None:
        raise BackendError("only a compiled network can be profiled; this one runs node by node")
    if network.policy.budget.seconds is not None:
        raise BackendError("a path under a time cap depends on the clock: profile without one")
    unsplit = _unsplit(network, threads)
    machine = Machine(parts)
    ways: dict[tuple[NodeId, ...], _Way] = {}
    exits: dict[tuple[NodeId, ...], NodeId] = {}
    for done, sample in enumerate(samples):
        result = network.run(sample)
        exits[result.path] = result.exit
        way = ways.setdefault(result.path, _Way(macs=result.macs))
        way.runs += 1
        for i in range(rounds + _WARM_UPS):
            start = time.perf_counter_ns()
            network.run(sample)
            taken = time.perf_counter_ns() - start
            events = _events(network, machine, sample)
            static = None if unsplit is None else _timed(unsplit, sample)
            if i < _WARM_UPS:
                continue
            compute, decisions = shares_ns(events)
            way.whole_ns.append(taken)
            way.compute_ns.append(compute)
            way.decisions_ns.append(decisions)
            way.events = events
            if static is not None:
                way.unsplit_ns.append(static)
        tell(done + 1, len(samples))
    order = sorted(ways, key=lambda p: (network.graph.exits.index(exits[p]), len(p), p))
    return Profile(
        parts=profile_parts(network.graph, parts, rounds=rounds),
        paths=[_path_profile(exits[p], p, ways[p]) for p in order],
        traces=[ways[p].events for p in order],
    )


def _path_profile(exit_name: NodeId, path: tuple[NodeId, ...], way: _Way) -> PathProfile:
    return PathProfile(
        exit=exit_name,
        path=path,
        runs=way.runs,
        macs=way.macs,
        times=Times.of(way.whole_ns),
        compute_ns=float(np.median(way.compute_ns)),
        decisions_ns=float(np.median(way.decisions_ns)),
        unsplit_ns=float(np.median(way.unsplit_ns)) if way.unsplit_ns else None,
    )


def _events(network: Network, machine: Machine, sample: Mapping[str, Array]) -> list[Event]:
    task = network.prepare(machine, sample)
    events, _ = run_events(machine, task)
    return events


def _timed(unsplit: Callable[[Mapping[str, Array]], object], sample: Mapping[str, Array]) -> int:
    inputs = {name: np.ascontiguousarray(value)[None] for name, value in sample.items()}
    start = time.perf_counter_ns()
    unsplit(inputs)
    return time.perf_counter_ns() - start


def _unsplit(network: Network, threads: int) -> Callable[[Mapping[str, Array]], object] | None:
    """The network as one static graph, or ``None`` where its nodes cannot be joined."""
    from dynrt.runtime.compile.unsplit import unsplit_model  # loads onnx
    from dynrt.runtime.ort import OrtBackend

    if network.bundle is None:
        return None
    try:
        model = unsplit_model(network.bundle)
    except CompileError:
        return None
    backend = OrtBackend({"unsplit": model}, threads=threads)
    wanted = backend.inputs("unsplit")
    return lambda inputs: backend.call("unsplit", {n: inputs[n] for n in wanted})
