"""Energy budgets on the packaged network: random hardware, policy, table, budgets and inputs.

No run spends more than its budget; what a run is charged is the sum of what its nodes cost; and a
budget below the cheapest answer is refused with that figure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np

import dynrt
from dynrt.bundle import Bundle, read_bundle, resolve
from dynrt.energy.costing import count_bundle, priced
from dynrt.energy.hardware import load_hardware, packaged_hardware
from dynrt.energy.model import price
from dynrt.energy.policy import POLICIES
from dynrt.energy.tables import load_table, packaged_tables
from dynrt.errors import BudgetRefusedError
from dynrt.ir.cost import Budget
from dynrt.runtime import Network, Result

#: Inputs for each (network, budget).
BATCH = 8


@dataclass(slots=True)
class Tally:
    """What the runs came to."""

    runs: int = 0
    refused: int = 0
    exits: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


@cache
def _packaged() -> Bundle:
    return read_bundle(resolve("resnet38-ddi"))


def random_prices(rng: np.random.Generator) -> tuple[Bundle, dict[str, int]]:
    """The packaged bundle, priced at random, and what each node costs by the report itself."""
    hardware = load_hardware(str(rng.choice(packaged_hardware()))).with_(
        dataflow=str(rng.choice(["ws", "os", "is"])), sram_bytes=int(rng.integers(4, 257)) * 1024
    )
    bundle = _packaged()
    counts = count_bundle(bundle, hardware, policy=str(rng.choice(list(POLICIES))))
    table = load_table(str(rng.choice(packaged_tables())))
    report = price(counts, table)
    return priced(bundle, counts, table), {n: r.amount.value for n, r in report.nodes.items()}


def run_priced(network: Network, bundle: Bundle, prices: dict[str, int], seed: int) -> Tally:
    """Random budgets on one priced network."""
    rng = np.random.default_rng(seed)
    tally = Tally()
    certificate = bundle.certificate
    in_joules = certificate.full_femtojoules is not None
    name = "femtojoules" if in_joules else "milli_mac_equivalents"
    low, high = getattr(certificate, f"cheapest_{name}"), getattr(certificate, f"full_{name}")
    kind = bundle.graph.inputs()[0].type
    for _ in range(10):
        limit = int(rng.integers(low - low // 20, high + high // 20))
        if rng.random() < 0.2:
            limit = low + int(rng.integers(-1, 2))
        budget = Budget(joules=limit / 1e15) if in_joules else Budget(mac_equivalents=limit / 1e3)
        cap = budget.limits()[name]
        noise = rng.normal(scale=rng.uniform(0.2, 3), size=(BATCH, *kind.shape))
        inputs = noise.astype(np.float32)
        network.set(thresholds={e: float(rng.normal(scale=2)) for e in bundle.graph.exits[:-1]})
        try:
            results = network.run_batch(inputs, budget=budget)
            results.append(network.run(inputs[0], budget=budget))
        except BudgetRefusedError as exc:
            tally.runs, tally.refused = tally.runs + 1, tally.refused + 1
            if cap >= low:
                tally.findings.append(f"seed {seed}: {cap} refused, the cheapest is {low}: {exc}")
            continue
        for result in results:
            tally.runs += 1
            tally.exits[result.exit] = tally.exits.get(result.exit, 0) + 1
            tally.findings += [f"seed {seed}: {w}" for w in _wrong(result, name, cap, prices)]
        if cap < low:
            tally.findings.append(f"seed {seed}: {cap} answered, the cheapest is {low}")
    return tally


def _wrong(result: Result, name: str, cap: int, prices: dict[str, int]) -> list[str]:
    spent = getattr(result, name)
    summed = sum(prices[node] for node in result.path)
    out = []
    if spent > cap:
        out.append(f"{spent} {name} spent of {cap}")
    if spent != summed:
        out.append(f"{spent} {name} charged, and its nodes cost {summed}")
    if result.energy_source is None or not result.energy_source.startswith("modelled:"):
        out.append(f"energy from {result.energy_source}")
    return out


def main(count: int, seed: int) -> Tally:
    """At least ``count`` runs."""
    total = Tally()
    while total.runs < count:
        bundle, prices = random_prices(np.random.default_rng(seed))
        with dynrt.load(bundle) as network:
            for part in range(20):
                own = run_priced(network, bundle, prices, 1_000 * seed + part)
                total.runs += own.runs
                total.refused += own.refused
                total.findings += own.findings
                for exit_, times in own.exits.items():
                    total.exits[exit_] = total.exits.get(exit_, 0) + times
        seed += 1
    return total
