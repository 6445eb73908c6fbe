"""Policies: what is done about the known faults of the simulator's counts. Every result names one.

``docs/energy-model.md`` has the arithmetic; the choice of where partial sums stay decides a weight-
or input-stationary result more than any table does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from dynrt.errors import EnergyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How raw counts become access counts.

    Attributes:
        name: as results name it.
        corrected: padding zeros are no reads, an output-stationary array writes each output once,
            main memory gets the outputs exactly, dilation is exact, and operators that only go
            over their tensors are streamed. Otherwise all is as the simulator reports it, and such
            operators are listed as not modelled.
        partial_sums: of a weight- or input-stationary array that needs several row folds:
            ``simulator`` writes each fold's to main memory and reads none back; ``buffer`` keeps a
            column fold's in the output buffer where they fit, and otherwise takes them through
            main memory and back; ``dram`` always takes them there and back.
        meaning: one line for people.
    """

    name: str
    corrected: bool
    partial_sums: Literal["simulator", "buffer", "dram"]
    meaning: str


POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        policy.name: policy
        for policy in (
            Policy(
                name="corrected",
                corrected=True,
                partial_sums="buffer",
                meaning="known faults mended; partial sums stay in the output buffer where they fit",
            ),
            Policy(
                name="corrected-dram",
                corrected=True,
                partial_sums="dram",
                meaning="known faults mended; partial sums go to main memory and come back",
            ),
            Policy(
                name="scalesim",
                corrected=False,
                partial_sums="simulator",
                meaning="raw: as SCALE-Sim 3.0.0 reports them, its faults included",
            ),
        )
    }
)

DEFAULT_POLICY = "corrected"


def policy_named(name: str) -> Policy:
    """The policy of a name.

    Raises:
        EnergyError: there is none; the message lists them.
    """
    try:
        return POLICIES[name]
    except KeyError:
        raise EnergyError(
            f"policy {name[:64]!r} is not there; there are: {', '.join(POLICIES)}"
        ) from None
