"""Modelled energy as people and JSON see it: an amount, its unit, and where it comes from."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import click

from dynrt.bundle import Bundle
from dynrt.units import fj_to_j, milli_to_mac_equivalents

_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f"))
_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K"))

table_option = click.option(
    "--table",
    "table_name",
    metavar="NAME",
    help="Price the bundle's access counts with this energy table (a packaged name or a TOML "
    "file) instead of the one that it was written with.",
)


class Energy(NamedTuple):
    """An amount of modelled energy, in joules (``J``) or MAC-equivalents (``MACeq``)."""

    amount: float
    unit: str

    def __str__(self) -> str:
        if self.unit == "J":
            return f"{_scaled(self.amount)}J"
        for factor, prefix in _LARGE:
            if self.amount >= factor:
                return f"{self.amount / factor:.3g} {prefix}MACeq"
        return f"{self.amount:.3g} MACeq"


class Spent(Protocol):
    """Anything with an energy cost: a result, a node's cost."""

    @property
    def femtojoules(self) -> int | None:
        """Energy, or ``None`` where it is not modelled in joules."""
        ...

    @property
    def milli_mac_equivalents(self) -> int | None:
        """Energy, or ``None`` where it is not modelled in MAC-equivalents."""
        ...


def energy_of(spent: Spent) -> Energy | None:
    """What was spent, or ``None`` where it is not modelled."""
    return as_energy(spent.femtojoules, spent.milli_mac_equivalents)


def as_energy(femtojoules: int | None, milli_mac_equivalents: int | None) -> Energy | None:
    """The one that is known, or ``None``."""
    if femtojoules is not None:
        return Energy(fj_to_j(femtojoules), "J")
    if milli_mac_equivalents is not None:
        return Energy(milli_to_mac_equivalents(milli_mac_equivalents), "MACeq")
    return None


def energy_unit(bundle: Bundle) -> str | None:
    """The unit of the bundle's energies; ``None`` where they are not modelled."""
    certificate = bundle.certificate
    full = as_energy(certificate.full_femtojoules, certificate.full_milli_mac_equivalents)
    return None if full is None else full.unit


def energy_source(bundle: Bundle) -> str:
    """Where the bundle's energies come from."""
    return "modelled:unnamed table" if bundle.energy is None else str(bundle.energy)


def with_table(bundle: Bundle, table: str | None) -> Bundle:
    """The bundle, priced with another table if one is named.

    Raises:
        EnergyError: there is no such table, or the bundle carries no access counts.
    """
    if table is None:
        return bundle
    from dynrt.energy.costing import repriced
    from dynrt.energy.tables import load_table

    return repriced(bundle, load_table(table))


def _scaled(joules: float) -> str:
    for factor, prefix in _PREFIXES:
        if joules >= factor:
            return f"{joules / factor:.3g} {prefix}"
    return f"{joules:.3g} "
