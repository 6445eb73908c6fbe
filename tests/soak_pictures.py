"""Compares the modes on real pictures: same paths, same answers within rounding.

``python -m tests.soak pictures --data cifar10:DIR`` runs every test picture through the packaged
network under several budgets, alone and in batches.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import numpy as np

import dynrt
from dynrt.calibrate.datasets import load_dataset
from dynrt.calibrate.pictures import prepare
from dynrt.ir.reference import interpret
from dynrt.runtime import Result
from dynrt.runtime.ort import OrtBackend

BUDGETS = (None, "41M", "74M", "100M", "144M", "170M")
#: Answers of two modes differ at most by this, relative to the largest logit.
TOLERANCE = 1e-4
#: The reference interpreter is slow: every so many pictures.
REFERENCE_EVERY = 20


@dataclass(slots=True)
class Tally:
    """What was compared."""

    runs: int = 0
    references: int = 0
    near_ties: int = 0
    worst: float = 0.0
    findings: list[str] = field(default_factory=list)

    def compare(self, where: str, got: Result, want: Result) -> None:
        """Note how two modes differ; a path may, where a near tie was counted."""
        self.runs += 1
        if got.path != want.path or got.exit != want.exit:
            if not got.near_ties:
                self.findings.append(f"{where}: {got.exit}, not {want.exit}")
            return
        scale = max(1.0, float(np.abs(want.answer).max()))
        error = float(np.abs(got.answer - want.answer).max()) / scale
        self.worst = max(self.worst, error)
        if error > TOLERANCE:
            self.findings.append(f"{where}: answers differ by {error:.2g}")


def main(data: str, count: int, *, name: str = "resnet38-ddi") -> Tally:
    """Run ``count`` test pictures."""
    compiled, portable = dynrt.load(name), dynrt.load(name, mode="portable")
    if compiled.mode != "compiled" or compiled.bundle is None:
        raise SystemExit("the bundle cannot be compiled on this device")
    bundle = compiled.bundle
    if bundle.preprocessing is None:
        raise SystemExit(f"{name} takes no pictures")
    models = OrtBackend(bundle.models)
    functions = {n: (lambda inputs, n=n: models.call(n, inputs)) for n in bundle.models}
    only = compiled.graph.inputs()[0].name
    tally, done = Tally(), 0
    for pictures, _ in load_dataset(data, split="test").first(count).batches(250):
        x = prepare(pictures, bundle.preprocessing)
        for budget in BUDGETS:
            together = compiled.run_batch(x, budget=budget)
            for i in range(len(x)):
                where = f"picture {done + i}, budget {budget}"
                want = portable.run(x[i], budget=budget)
                got = compiled.run(x[i], budget=budget)
                tally.near_ties += got.near_ties
                tally.compare(where, got, want)
                tally.compare(f"{where}, in a batch", together[i], want)
                if (done + i) % REFERENCE_EVERY == 0:
                    tally.references += 1
                    came = interpret(
                        bundle.graph, functions, {only: x[i : i + 1]}, budget=want.budget
                    )
                    if came.path != want.path:
                        tally.findings.append(f"{where}: the reference goes another way")
        done += len(x)
        if sys.stderr.isatty():
            print(f"\rpictures: {done}/{count}", end="", file=sys.stderr)
    return tally
