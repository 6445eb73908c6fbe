"""The board against onnxruntime on this machine: outputs, every decision, every exit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dynrt.bundle import Bundle
from dynrt.errors import SessionError
from dynrt.fpga.manifest import Case
from dynrt.fpga.records import SampleRecord
from dynrt.ir.graph import Argmax, Array, ControlNode, Exit, Graph, NodeId, PortRef
from dynrt.ir.rules import can_accept
from dynrt.ir.trace import Step
from dynrt.runtime import Network, Result
from dynrt.runtime.backends import Backend
from dynrt.runtime.ort import OrtBackend

#: How far an element of an answer may be from onnxruntime's: float sums are free in their order.
TOLERANCE = 1e-4
#: Beyond every score, and finite: an exit with it as threshold never accepts, yet its head runs.
_BEYOND = 1e300
#: The same of scores that are at most 1: above that the runtime leaves the head out, which the board
#: does not. A softmax that is 1 to the last bit would accept here, and be told as a difference.
_TOP = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What onnxruntime makes of one input.

    Attributes:
        answer: one sample.
        exit: where the run ended.
        decisions: bits of a control node's active actions, 1 or 0 of a scored exit; ``None`` where
            it was not reached or is not scored.
        path: compute nodes and exits that ran.
        macs: of all that ran.
    """

    answer: Array
    exit: NodeId
    decisions: Mapping[NodeId, int | None]
    path: tuple[NodeId, ...]
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """How the board compares.

    Attributes:
        inputs: compared.
        decisions_equal: every decision and exit of every input is the same.
        max_abs_error: of all elements of all answers.
        differences: the first few, one line each.
    """

    inputs: int
    decisions_equal: bool
    max_abs_error: float
    differences: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the board computes the same network."""
        return self.decisions_equal and self.max_abs_error <= TOLERANCE


class _Forcing:
    """A backend that overrules the scores of argmax control nodes.

    Raises:
        SessionError: such scores are data for other nodes too.
    """

    def __init__(self, graph: Graph, backend: Backend, force: Mapping[str, int]) -> None:
        self._backend = backend
        self._scores: dict[NodeId, dict[str, tuple[int, int]]] = {}
        for name, bits in force.items():
            node = graph.by_name.get(name)
            if not isinstance(node, ControlNode) or not isinstance(node.rule, Argmax):
                continue
            source = graph.edge_into[PortRef(name, "scores")].source
            if len(graph.edges_naming[source]) > 1:
                raise SessionError(f"gate {name!r} cannot be forced: its scores are data too")
            if bits.bit_count() != 1:
                raise SessionError(f"gate {name!r} takes one action, not bits {bits:#b}")
            ports = self._scores.setdefault(source.node, {})
            ports[source.port] = (bits.bit_length() - 1, node.actions)

    def call(self, node: NodeId, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """As the backend, the scores replaced."""
        out = dict(self._backend.call(node, inputs))
        for port, (action, actions) in self._scores.get(node, {}).items():
            own = np.zeros((len(out[port]), actions), out[port].dtype)
            own[:, action] = 1
            out[port] = own
        return out

    def close(self) -> None:
        """Let go of the backend."""
        self._backend.close()


def expected(
    bundle: Bundle, case: Case, inputs: Sequence[Mapping[str, Array]]
) -> tuple[Expected, ...]:
    """What onnxruntime makes of the inputs under a case's decisions, node by node.

    The board runs the head of every exit that it passes, also where no score can reach the
    threshold, so that this run does, too.

    Raises:
        SessionError: a decision cannot be forced.
        InputError, BackendError: an input is not what the network takes, or fails.
    """
    graph = bundle.graph
    exits = [n for n in graph.nodes if isinstance(n, Exit) and n.accept.scored]
    bounds: dict[NodeId, float | tuple[float, ...]] = {
        n.name: _refuses(n) for n in exits if not can_accept(n.accept, n.accept.threshold)
    }
    for name, value in case.force.items():
        forced = graph.by_name.get(name)
        if isinstance(forced, Exit) and forced.accept.scored:
            bounds[name] = -_BEYOND if value else _refuses(forced)
        elif isinstance(forced, ControlNode):
            if not isinstance(forced.rule, Argmax):
                own = tuple(-_BEYOND if value >> a & 1 else _BEYOND for a in range(forced.actions))
                bounds[name] = own if len(own) > 1 else own[0]
        else:
            raise SessionError(f"{name!r} takes no decision that can be forced")
    backend = _Forcing(graph, OrtBackend(bundle.models), case.force)
    with Network(graph, backend, bundle=bundle) as network:
        network.set(thresholds=bounds)
        return tuple(_expected(graph, network.run(each, trace=True)) for each in inputs)


def _refuses(node: Exit) -> float:
    """A threshold at which the exit never accepts, and its head runs."""
    return _BEYOND if node.accept.kind == "hinge" else _TOP


def _expected(graph: Graph, result: Result) -> Expected:
    steps = () if result.trace is None else result.trace.steps
    return Expected(
        answer=result.answer,
        exit=result.exit,
        decisions={
            step.node: _decision(graph, step) for step in steps if step.kind in ("control", "exit")
        },
        path=result.path,
        macs=result.macs,
    )


def _decision(graph: Graph, step: Step) -> int | None:
    if not step.ran:
        return None
    if step.kind == "control":
        return sum(1 << action for action in step.actions)
    node = graph.by_name[step.node]
    scored = isinstance(node, Exit) and node.accept.scored
    return int(bool(step.accepted)) if scored else None


def compare(
    graph: Graph,
    names: Sequence[NodeId],
    wanted: Sequence[Expected],
    got: Sequence[SampleRecord],
) -> Verified:
    """The board's records against what was expected, input by input.

    Args:
        graph: of the network.
        names: of the decisions, by the board's index.
        wanted: of each input.
        got: of each input.
    """
    worst, found = 0.0, list[str]()
    if len(wanted) != len(got):
        found.append(f"{len(got)} records of {len(wanted)} inputs")
    for i, (want, have) in enumerate(zip(wanted, got, strict=False)):
        found += [f"input {i}: {text}" for text in _differences(graph, names, want, have)]
        answer = want.answer.reshape(-1).astype(np.float64)
        if answer.shape != have.answer.shape:
            found.append(f"input {i}: {have.answer.size} answers instead of {answer.size}")
            continue
        error = float(np.abs(answer - have.answer).max(initial=0.0))
        worst = max(worst, error) if np.isfinite(error) else float("inf")
    return Verified(
        inputs=len(got),
        decisions_equal=not found,
        max_abs_error=worst,
        differences=tuple(found[:10]),
    )


def _differences(
    graph: Graph, names: Sequence[NodeId], want: Expected, have: SampleRecord
) -> list[str]:
    out = []
    if graph.combine.kind == "first":
        ended = None if have.exit is None else names[have.exit]
        if ended != want.exit:
            out.append(f"the board ends at {ended}, onnxruntime at {want.exit}")
    for name, decision in zip(names, have.decisions, strict=True):
        expected_ = want.decisions.get(name)
        node = graph.by_name[name]
        if isinstance(node, Exit) and not node.accept.scored:
            continue
        if decision != expected_:
            out.append(f"{name} decides {decision} on the board, {expected_} by onnxruntime")
    return out
