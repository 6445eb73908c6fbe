"""Runs a bundle: plan, policy, budgets, exits. Loads onnxruntime only when a bundle is loaded."""

from dynrt.runtime.backends import Backend, CallableBackend
from dynrt.runtime.loading import load
from dynrt.runtime.network import Network
from dynrt.runtime.policy import Policy
from dynrt.runtime.priced import PricedBudget
from dynrt.runtime.result import Result
from dynrt.runtime.sources import AverageBudget, BudgetSource, FixedBudget, ScheduleBudget

__all__ = [
    "AverageBudget",
    "Backend",
    "BudgetSource",
    "CallableBackend",
    "FixedBudget",
    "Network",
    "Policy",
    "PricedBudget",
    "Result",
    "ScheduleBudget",
    "load",
]
