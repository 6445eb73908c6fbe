"""The simulator backend, for everybody else: one layer, or many at a time."""

from dynrt.energy.simulator_driver import VERSION, UnfinishedError, installed_version, simulate
from dynrt.energy.simulator_pool import Outcome, Pair, simulate_each, simulate_many

__all__ = [
    "VERSION",
    "Outcome",
    "Pair",
    "UnfinishedError",
    "installed_version",
    "simulate",
    "simulate_each",
    "simulate_many",
]
