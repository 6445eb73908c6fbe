"""Results and traces as the objects of the JSON contract."""

from __future__ import annotations

from typing import Any

from dynrt.bundle import Bundle
from dynrt.cli.energies import energy_of, energy_source
from dynrt.ir.cost import Budget
from dynrt.ir.trace import Step, Trace
from dynrt.runtime import Result
from dynrt.units import ns_to_s


def run_head(bundle: Bundle, *, mode: str, budget: Budget) -> dict[str, Any]:
    """What stands before the results of ``run --json``."""
    return {
        "bundle": {"name": bundle.name, "sha256": bundle.sha256},
        "mode": mode,
        "budget": budget.to_json(),
    }


def result_record(name: str, result: Result, bundle: Bundle) -> dict[str, Any]:
    """One entry of ``results`` of ``run --json``; energy that is not known is null."""
    energy = energy_of(result)
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
        "energy": None if energy is None else energy.amount,
        "energy_unit": "J" if energy is None else energy.unit,
        "energy_source": None if energy is None else energy_source(bundle),
        "seconds": result.seconds,
        "path": list(result.path),
        "skipped": list(result.skipped),
        "output": result.answer,
    }


def trace_record(name: str, result: Result, trace: Trace) -> dict[str, Any]:
    """One line of a trace file."""
    return {
        "input": name,
        "exit": result.exit,
        "macs": trace.macs,
        "energy_source": None if energy_of(result) is None else result.energy_source,
        "budget": result.budget.to_json(),
        "steps": [_step(step) for step in trace.steps],
    }


def _step(step: Step) -> dict[str, Any]:
    cost = step.cost
    energy = energy_of(cost)
    return {
        "node": step.node,
        "kind": step.kind,
        "ran": step.ran,
        "reason": step.reason,
        "macs": cost.macs,
        "energy": None if energy is None else energy.amount,
        "scores": step.scores,
        "thresholds": step.thresholds,
        "actions": step.actions,
        "accepted": step.accepted,
        "forced": step.forced,
        "seconds": None if step.nanoseconds is None else ns_to_s(step.nanoseconds),
    }
