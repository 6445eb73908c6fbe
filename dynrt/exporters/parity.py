"""Proves that a bundle computes what its modules compute: three executions, path by path.

The reference interpreter over the torch modules, the same over the bundle's ONNX (onnxruntime, one
session per node), and :mod:`dynrt.runtime`. Each input runs under the network's own thresholds;
decisions are also forced, so that every exit is reached and every gate comes to both its values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from dynrt.bundle import Bundle
from dynrt.errors import ParityError
from dynrt.exporters.compare import (
    FORCED_FLOAT16,
    TOLERANCES,
    Execution,
    Tolerance,
    difference,
    tie_gap,
)
from dynrt.exporters.mask_ties import Settler, mask_ports
from dynrt.exporters.paths import Case, Goal, coverage_cases, goals, reached
from dynrt.exporters.spec import NetworkSpec
from dynrt.ir.graph import Array, Graph, NodeId
from dynrt.ir.reference import Function, interpret
from dynrt.runtime import Network
from dynrt.runtime.backends import Backend
from dynrt.runtime.ort import OrtBackend

Inputs = Mapping[str, Array]

#: How many inputs run under each forced case, in turn.
FORCED_INPUTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """What was proven.

    Attributes:
        inputs: how many inputs.
        runs: how many (input, case) pairs were compared, each in three executions.
        paths: different paths that were taken.
        covered: exits at which a run ended, and gate values that were taken.
        max_abs_error: largest difference of any output of any node.
        max_error_node: where it was.
        tolerance: what was allowed.
        forced_tolerance: what was allowed on forced paths.
        near_ties: runs with a decision so near its threshold that rounding may turn it.
        turned: near-ties that rounding did turn; only what came before was compared in these.
        settled: values of channel masks that rounding turned; the runs went on as the modules'.
    """

    inputs: int
    runs: int
    paths: int
    covered: tuple[str, ...]
    max_abs_error: float
    max_error_node: NodeId
    tolerance: Tolerance
    forced_tolerance: Tolerance
    near_ties: int
    turned: int
    settled: int = 0

    def __str__(self) -> str:
        return (
            f"{self.inputs} inputs, {self.runs} runs over {self.paths} paths, "
            f"{len(self.covered)} exits and gate values; largest difference "
            f"{self.max_abs_error:.3g} at {self.max_error_node or 'none'} "
            f"(allowed {self.tolerance}{self._forced()}); {self.near_ties} near-ties, {self.turned} turned"
            + (f"; {self.settled} mask values settled" if self.settled else "")
        )

    def _forced(self) -> str:
        same = self.forced_tolerance == self.tolerance
        return "" if same else f"; on forced paths {self.forced_tolerance}"


@dataclass(slots=True, kw_only=True)
class _Tally:
    runs: int = 0
    paths: set[tuple[NodeId, ...]] = field(default_factory=set)
    met: set[Goal] = field(default_factory=set)
    error: float = 0.0
    error_node: NodeId = ""
    near_ties: int = 0
    turned: int = 0
    settled: int = 0


def prove(
    spec: NetworkSpec | Mapping[NodeId, Function],
    bundle: Bundle,
    inputs: Sequence[Inputs],
    *,
    tolerance: Tolerance | None = None,
    forced_inputs: int = FORCED_INPUTS,
) -> ParityReport:
    """Compare ``bundle`` with ``spec`` on real inputs.

    Args:
        spec: the modules, or any functions by node.
        bundle: what was made from them.
        inputs: samples without batch axis, by input name; all run under the own thresholds.
        tolerance: by default that of the weights' type, as the bundle's provenance says; float16
            weights have a wider one on forced paths (:data:`FORCED_FLOAT16`).
        forced_inputs: how many inputs run under each forced case; cases take them in turn.

    Raises:
        ParityError: an output differs by more than the tolerance, a decision differs that is no
            near-tie, or an exit or gate value cannot be reached; names node, input and figures.
    """
    if not inputs:
        raise ParityError(f"bundle {bundle.name!r}: no inputs to prove parity on")
    functions = spec.functions() if isinstance(spec, NetworkSpec) else spec
    half = bundle.provenance.get("weights") == "float16"
    limit = tolerance or TOLERANCES["float16" if half else "float32"]
    backend = OrtBackend(bundle.models)
    forced = limit.times(FORCED_FLOAT16) if half and tolerance is None else limit
    prover = _Prover(functions=functions, backend=backend, natural=limit, forced=forced)
    tally = prover.tally
    turn = 0
    try:
        for case in coverage_cases(bundle.graph):
            if not case.aims:
                chosen = list(range(len(inputs)))
            elif case.spare and case.aims <= tally.met:
                continue
            else:
                count = min(forced_inputs, len(inputs))
                chosen = sorted({(turn + i) % len(inputs) for i in range(count)})
                turn += count
            prover.run(case, {index: inputs[index] for index in chosen})
    finally:
        backend.close()
    if missing := sorted(goals(bundle.graph) - tally.met):
        raise ParityError(
            f"bundle {bundle.name!r}: could not be made to reach {', '.join(map(str, missing[:5]))}"
        )
    return ParityReport(
        inputs=len(inputs),
        runs=tally.runs,
        paths=len(tally.paths),
        covered=tuple(map(str, sorted(tally.met & goals(bundle.graph)))),
        max_abs_error=tally.error,
        max_error_node=tally.error_node,
        tolerance=limit,
        forced_tolerance=forced,
        near_ties=tally.near_ties,
        turned=tally.turned,
        settled=tally.settled,
    )


class _Recorder:
    """A backend that notes what each node gave, turned mask values settled."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.gave: dict[NodeId, Mapping[str, Array]] = {}
        self.settle: Settler | None = None

    def call(self, node: NodeId, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run one node, and keep a copy of its outputs."""
        given = self.backend.call(node, inputs)
        given = given if self.settle is None else self.settle(node, given)
        self.gave[node] = {k: np.array(v) for k, v in given.items()}
        return given

    def close(self) -> None:
        """Nothing: the backend is shared."""


@dataclass(slots=True, kw_only=True)
class _Prover:
    """Runs cases in three executions each and keeps the tally."""

    functions: Mapping[NodeId, Function]
    backend: Backend
    natural: Tolerance
    forced: Tolerance
    tally: _Tally = field(default_factory=_Tally)

    def run(self, case: Case, samples: Mapping[int, Inputs]) -> None:
        """Compare the executions of ``samples`` (by index) under one case."""
        recorder = _Recorder(self.backend)
        network = Network(case.graph, recorder)
        for index, sample in samples.items():
            self._compare(case, f"input {index}, {case.name}", sample, network, recorder)

    def _compare(
        self, case: Case, place: str, sample: Inputs, network: Network, recorder: _Recorder
    ) -> None:
        graph, tally = case.graph, self.tally
        limit = self.forced if case.aims else self.natural
        by_modules = _interpreted("modules", graph, self.functions, sample)
        ports = mask_ports(graph)
        settle = Settler(ports=ports, limit=limit, reference=by_modules.gave)
        nodes: dict[NodeId, Function] = {
            n: partial(_settled, settle, self.backend, n) for n in self.functions
        }
        by_onnx = _interpreted("ONNX", graph, nodes, sample)
        recorder.settle = Settler(ports=ports, limit=limit, reference=by_onnx.gave)
        by_runtime = _ran(network, recorder, sample)
        tally.runs += 1
        tally.paths.add(by_modules.path)
        tally.met |= reached(graph, by_modules.decisions, by_modules.path, by_modules.exit)
        gaps = [tie_gap(graph, name, by_modules, limit) for name in graph.order]
        tally.near_ties += any(gap is not None and gap <= 0 for gap in gaps)
        turned = False
        for reference, other in ((by_modules, by_onnx), (by_onnx, by_runtime)):
            found = difference(graph, reference, other, limit, place=place)
            turned = turned or found.turned is not None
            if found.max_abs_error > tally.error:
                tally.error, tally.error_node = found.max_abs_error, found.node
        tally.turned += turned
        tally.settled += settle.settled


def _settled(settle: Settler, backend: Backend, name: NodeId, inputs: Inputs) -> Inputs:
    return settle(name, backend.call(name, inputs))


def _interpreted(
    who: str, graph: Graph, functions: Mapping[NodeId, Function], sample: Inputs
) -> Execution:
    gave: dict[NodeId, Mapping[str, Array]] = {}

    def noted(name: NodeId, function: Function) -> Function:
        def call(inputs: Inputs) -> Inputs:
            gave[name] = function(inputs)
            return gave[name]

        return call

    wrapped = {name: noted(name, function) for name, function in functions.items()}
    result = interpret(graph, wrapped, {k: np.asarray(v)[None] for k, v in sample.items()})
    return Execution(
        who=who,
        gave=gave,
        decisions=result.decisions,
        exit=result.exit,
        answer=result.answer,
        macs=result.macs,
        path=result.path,
    )


def _ran(network: Network, recorder: _Recorder, sample: Inputs) -> Execution:
    recorder.gave = {}
    result = network.run(sample, trace=True)
    steps = result.trace.steps if result.trace is not None else ()
    return Execution(
        who="runtime",
        gave=recorder.gave,
        decisions={s.node: s.actions for s in steps if s.kind == "control" and s.ran},
        exit=result.exit,
        answer=result.answer[None],
        macs=result.macs,
        path=result.path,
    )
