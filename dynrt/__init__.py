"""dynrt: dynamic neural networks on edge devices, under a hard budget and with a known energy bill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynrt.bundle import Bundle, read_bundle
    from dynrt.errors import DynrtError
    from dynrt.ir.cost import Budget
    from dynrt.runtime import AverageBudget, FixedBudget, Network, Result, ScheduleBudget, load

__version__ = "0.1.0"

_WHERE = {
    "AverageBudget": "dynrt.runtime",
    "Budget": "dynrt.ir.cost",
    "Bundle": "dynrt.bundle",
    "DynrtError": "dynrt.errors",
    "FixedBudget": "dynrt.runtime",
    "Network": "dynrt.runtime",
    "Result": "dynrt.runtime",
    "ScheduleBudget": "dynrt.runtime",
    "load": "dynrt.runtime",
    "read_bundle": "dynrt.bundle",
}

__all__ = [
    "AverageBudget",
    "Budget",
    "Bundle",
    "DynrtError",
    "FixedBudget",
    "Network",
    "Result",
    "ScheduleBudget",
    "__version__",
    "load",
    "read_bundle",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _WHERE:
        raise AttributeError(f"module 'dynrt' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
