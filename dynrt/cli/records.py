"""Results and traces as the objects of the JSON contract."""

from __future__ import annotations

from typing import Any

from dynrt.bundle import Bundle
from dynrt.ir.cost import Budget
from dynrt.ir.trace import Step, Trace
from dynrt.runtime import Result
from dynrt.units import fj_to_j, ns_to_s


def run_head(bundle: Bundle, *, mode: str, budget: Budget) -> dict[str, Any]:
    """What stands before the results of ``run --json``."""
    return {
        "bundle": {"name": bundle.name, "sha256": bundle.sha256},
        "mode": mode,
        "budget": budget.to_json(),
    }


def result_record(name: str, result: Result, bundle: Bundle) -> dict[str, Any]:
    """One entry of ``results`` of ``run --json``; energy that is not known is null."""
    joules = None if result.femtojoules is None else fj_to_j(result.femtojoules)
    return {
        "input": name,
        "label": result.label,
        "index": result.index,
        "score": result.score,
        "exit": result.exit,
        "accepted": result.accepted,
        "forced": result.forced,
        "flops": result.flops,
        "macs": result.macs,
        "energy": joules,
        "energy_unit": "J",
        "energy_source": None if joules is None else energy_source(bundle),
        "seconds": result.seconds,
        "path": list(result.path),
        "skipped": list(result.skipped),
        "output": result.answer,
    }


def energy_source(bundle: Bundle) -> str:
    """Where the bundle's joules come from."""
    return f"modelled:{bundle.provenance.get('energy_table', bundle.name)}"


def trace_record(name: str, result: Result, trace: Trace) -> dict[str, Any]:
    """One line of a trace file."""
    return {
        "input": name,
        "exit": result.exit,
        "macs": trace.macs,
        "budget": result.budget.to_json(),
        "steps": [_step(step) for step in trace.steps],
    }


def _step(step: Step) -> dict[str, Any]:
    cost = step.cost
    return {
        "node": step.node,
        "kind": step.kind,
        "ran": step.ran,
        "reason": step.reason,
        "macs": cost.macs,
        "energy": None if cost.femtojoules is None else fj_to_j(cost.femtojoules),
        "scores": step.scores,
        "thresholds": step.thresholds,
        "actions": step.actions,
        "accepted": step.accepted,
        "forced": step.forced,
        "seconds": None if step.nanoseconds is None else ns_to_s(step.nanoseconds),
    }
