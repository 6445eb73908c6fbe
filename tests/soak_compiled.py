"""Random networks of real ONNX: compiled by onnxruntime, against the reference interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dynrt.errors import BudgetRefusedError
from dynrt.ir.cost import Budget
from dynrt.ir.graph import Array
from dynrt.ir.reference import ReferenceResult, interpret
from dynrt.runtime import Network, Result
from dynrt.runtime.compile import compile_bundle
from dynrt.runtime.ort import OrtBackend, OrtSegments
from tests.oracle import over_budget, random_budget
from tests.runtime.compiling import random_bundle

#: Answers of two modes differ at most by this, relative to the largest element.
TOLERANCE = 1e-4
SAMPLES = 4


@dataclass(slots=True)
class Comparison:
    """What was compared; decisions and near ties are those of the runs with a trace."""

    runs: int = 0
    decisions: int = 0
    near_ties: int = 0
    findings: list[str] = field(default_factory=list)


def compare_compiled(seed: int) -> Comparison:
    """One random network: alone, in a batch, with and without a budget, and with a trace."""
    bundle = random_bundle(seed)
    rng = np.random.default_rng(seed + 7)
    models = OrtBackend(bundle.models)
    functions = {n: (lambda inputs, n=n: models.call(n, inputs)) for n in bundle.models}
    compiled = compile_bundle(bundle)
    network = Network(bundle.graph, OrtBackend(bundle.models, lazy=True), bundle=bundle)
    network.compile(compiled, OrtSegments(compiled.segments))
    thresholds = {
        name: tuple(float(v) for v in rng.uniform(-1, 1, len(bounds)))
        for name, bounds in network.policy.thresholds.items()
    }
    network.set(thresholds=thresholds)
    x = rng.standard_normal((SAMPLES, 3)).astype(np.float32) * 2
    out = Comparison()
    for budget in (None, random_budget(bundle.graph, rng)):
        where = f"seed {seed}, {budget}"
        wanted = _expected(network, functions, x, budget, thresholds)
        try:
            batches = [network.run_batch({"x": x}, budget=budget) for _ in range(2)]
        except BudgetRefusedError:
            if wanted:
                out.findings.append(f"{where}: refused where the reference answers")
            continue
        for i, want in enumerate(wanted):
            sample = {"x": x[i]}
            for got in (
                network.run(sample, budget=budget),
                network.run(sample, budget=budget, trace=True),
                *(batch[i] for batch in batches),
            ):
                out.runs += 1
                if got.trace is not None:
                    out.decisions += sum(bool(step.scores) for step in got.trace.steps)
                    out.near_ties += got.near_ties
                found = [*_differences(got, want), *over_budget(got, budget)]
                out.findings += [f"{where}, sample {i}: {line}" for line in found]
    return out


def _expected(
    network: Network,
    functions: Mapping[str, object],
    x: Array,
    budget: Budget | None,
    thresholds: Mapping[str, tuple[float, ...]],
) -> list[ReferenceResult]:
    try:
        return [
            interpret(
                network.graph,
                functions,  # type: ignore[arg-type]
                {"x": x[i : i + 1]},
                budget=budget,
                thresholds=thresholds,
            )
            for i in range(len(x))
        ]
    except BudgetRefusedError:
        return []


def _differences(got: Result, want: ReferenceResult) -> list[str]:
    """What differs; everything may where a near tie was counted."""
    if got.near_ties:
        return []
    out = [
        f"{name}: {getattr(got, name)!r}, not {getattr(want, name)!r}"
        for name in ("exit", "accepted", "forced", "macs", "path")
        if getattr(got, name) != getattr(want, name)
    ]
    if not out:
        scale = max(1.0, float(np.abs(want.answer).max()))
        error = float(np.abs(got.answer - want.answer[0]).max()) / scale
        if not error <= TOLERANCE:
            out.append(f"answers differ by {error:.2g}")
    return out
