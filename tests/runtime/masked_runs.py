"""Runs of masked networks, with what onnxruntime is called for counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dynrt.bundle import Bundle
from dynrt.ir.cost import Budget
from dynrt.ir.graph import Array
from dynrt.ir.reference import ReferenceResult, interpret
from dynrt.runtime import Network, Result
from dynrt.runtime.compiled import Compiled, Segment
from dynrt.runtime.ort import OrtBackend, OrtSegments

TOLERANCE = 1e-4


class CountingSegments(OrtSegments):
    """Counts what is run, by the segment's first node."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        super().__init__(segments)
        self._names = [s.nodes[0] for s in segments]
        self.dense: Counter[str] = Counter()
        self.sparse: Counter[tuple[str, tuple[int, ...]]] = Counter()

    def bind(
        self, segment: int, takes: Sequence[Any], gives: Sequence[Any]
    ) -> tuple[Callable[[Any], Any], Any]:
        call, argument = super().bind(segment, takes, gives)

        def run(_: object) -> None:
            self.dense[self._names[segment]] += 1
            call(argument)

        return run, None

    def bind_kept(
        self, segment: int, takes: Sequence[Any], gives: Sequence[Any], kept: Any
    ) -> tuple[Callable[[Any], Any], Any]:
        call, argument = super().bind_kept(segment, takes, gives, kept)

        def run(_: object) -> None:
            self.sparse[self._names[segment], tuple(kept.numpy().tolist())] += 1
            call(argument)

        return run, None


def network_of(bundle: Bundle, compiled: Compiled | None) -> tuple[Network, CountingSegments]:
    network = Network(bundle.graph, OrtBackend(bundle.models), bundle=bundle)
    engine = CountingSegments(compiled.segments if compiled is not None else ())
    if compiled is not None:
        network.compile(compiled, engine)
    return network, engine


def reference(
    bundle: Bundle, inputs: Mapping[str, Array], budget: Budget | None = None
) -> ReferenceResult:
    models = OrtBackend(bundle.models)
    functions = {n: (lambda v, n=n: models.call(n, v)) for n in bundle.models}
    rows = {n: v[None] for n, v in inputs.items()}
    return interpret(bundle.graph, functions, rows, budget=budget)


def assert_same(got: Result, want: ReferenceResult | Result, where: object = "") -> None:
    for name in ("exit", "accepted", "forced", "macs", "path"):
        assert getattr(got, name) == getattr(want, name), (name, where)
    answer = want.answer if isinstance(want, Result) else want.answer[0]
    scale = max(1.0, float(np.abs(answer).max()))
    assert float(np.abs(got.answer - answer).max()) <= TOLERANCE * scale, where


def gathered_nodes(compiled: Compiled) -> dict[str, int]:
    return {s.nodes[0]: s.gathered.groups for s in compiled.segments if s.gathered is not None}
