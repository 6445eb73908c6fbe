"""What a node costs, and what a run may spend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from dynrt.errors import BudgetError
from dynrt.units import (
    Unit,
    fj_to_j,
    flops_to_macs,
    j_to_fj,
    mac_equivalents_to_milli,
    macs_to_flops,
    milli_to_mac_equivalents,
    ns_to_s,
    parse_quantity,
    s_to_ns,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one execution of a node costs at batch 1.

    Attributes:
        macs: multiply-accumulates; exact.
        femtojoules: modelled energy, or ``None`` where no table in joules was applied.
        nanoseconds: time from a profile of this device, or ``None`` where there is none.
        milli_mac_equivalents: modelled energy in thousandths of that of one multiply-accumulate,
            or ``None`` where no normalised table was applied.
    """

    macs: int
    femtojoules: int | None = None
    nanoseconds: int | None = None
    milli_mac_equivalents: int | None = None

    def __add__(self, other: Cost) -> Cost:
        """Sum; an unknown part stays unknown."""
        return Cost(
            macs=self.macs + other.macs,
            femtojoules=_add(self.femtojoules, other.femtojoules),
            nanoseconds=_add(self.nanoseconds, other.nanoseconds),
            milli_mac_equivalents=_add(self.milli_mac_equivalents, other.milli_mac_equivalents),
        )

    def __sub__(self, other: Cost) -> Cost:
        """Difference; an unknown part stays unknown."""
        return Cost(
            macs=self.macs - other.macs,
            femtojoules=_less(self.femtojoules, other.femtojoules),
            nanoseconds=_less(self.nanoseconds, other.nanoseconds),
            milli_mac_equivalents=_less(self.milli_mac_equivalents, other.milli_mac_equivalents),
        )

    @property
    def flops(self) -> int:
        """FLOPs (2 per MAC)."""
        return macs_to_flops(self.macs)


ZERO_COST = Cost(macs=0, femtojoules=0, nanoseconds=0, milli_mac_equivalents=0)


def _add(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b


def _less(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a - b


_CAPS: Mapping[Unit, str] = {
    "FLOP": "macs",
    "MAC": "macs",
    "MACeq": "mac_equivalents",
    "J": "joules",
    "s": "seconds",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A hard cap on what one input may spend; a part that is ``None`` is not capped.

    Attributes:
        macs: at most so many multiply-accumulates.
        joules: at most so much modelled energy, in joules.
        mac_equivalents: at most so much modelled energy, in that of one multiply-accumulate; for
            networks that carry a normalised table.
        seconds: at most so much time; kept by a profile and the clock, its misses are counted.
    """

    macs: int | None = None
    joules: float | None = None
    seconds: float | None = None
    mac_equivalents: float | None = None

    def __post_init__(self) -> None:
        for name in ("macs", "joules", "seconds", "mac_equivalents"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise BudgetError(f"budget {name}={value!r} is not a number")
            if not 0 < value < float("inf"):
                raise BudgetError(f"budget {name}={value!r} must be above zero and finite")
        if self.macs is not None and not isinstance(self.macs, int):
            raise BudgetError(f"budget macs={self.macs!r} must be a whole number")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``100M`` (FLOPs), ``50MMAC``, ``2mJ``, ``300MMACeq``, ``5ms``, or several by commas.

        Raises:
            QuantityError: a part is no amount.
            BudgetError: two parts cap the same thing, or a part is below one MAC.
        """
        parts: dict[str, Fraction] = {}
        for piece in text.split(","):
            amount = parse_quantity(piece)
            name = _CAPS[amount.unit]
            if name in parts:
                raise BudgetError(f"budget {text!r} caps {name} twice")
            parts[name] = (
                Fraction(flops_to_macs(amount.value)) if amount.unit == "FLOP" else amount.value
            )
        macs = int(parts["macs"]) if "macs" in parts else None
        if macs == 0:
            raise BudgetError(f"budget {text!r} is below one MAC (2 FLOPs)")
        return cls(
            macs=macs,
            joules=float(parts["joules"]) if "joules" in parts else None,
            seconds=float(parts["seconds"]) if "seconds" in parts else None,
            mac_equivalents=float(parts["mac_equivalents"]) if "mac_equivalents" in parts else None,
        )

    @property
    def capped(self) -> bool:
        """Whether anything is capped at all."""
        return any(getattr(self, name) is not None for name in _CAPS.values())

    @property
    def flops(self) -> int | None:
        """The MAC cap in FLOPs."""
        return None if self.macs is None else macs_to_flops(self.macs)

    def limits(self) -> dict[str, int]:
        """The caps by resource in the integers of :class:`Cost` (``macs``, ``femtojoules``, ...)."""
        out: dict[str, int] = {}
        if self.macs is not None:
            out["macs"] = self.macs
        if self.joules is not None:
            out["femtojoules"] = j_to_fj(self.joules)
        if self.seconds is not None:
            out["nanoseconds"] = s_to_ns(self.seconds)
        if self.mac_equivalents is not None:
            out["milli_mac_equivalents"] = mac_equivalents_to_milli(self.mac_equivalents)
        return out

    def to_json(self) -> dict[str, int | float | None]:
        """The object of the JSON contract: ``flops``, ``joules``, ``seconds``.

        ``mac_equivalents`` is there only where they are capped.
        """
        out: dict[str, int | float | None] = {
            "flops": self.flops,
            "joules": self.joules,
            "seconds": self.seconds,
        }
        if self.mac_equivalents is not None:
            out["mac_equivalents"] = self.mac_equivalents
        return out

    def __str__(self) -> str:
        parts = []
        if self.macs is not None:
            parts.append(f"{macs_to_flops(self.macs)} FLOPs")
        if self.joules is not None:
            parts.append(f"{self.joules:g} J")
        if self.seconds is not None:
            parts.append(f"{self.seconds:g} s")
        if self.mac_equivalents is not None:
            parts.append(f"{self.mac_equivalents:g} MACeq")
        return ", ".join(parts) or "no cap"


def describe_cost(resource: str, amount: int) -> str:
    """``amount`` of a resource of :class:`Cost` in the unit that people give budgets in."""
    if resource == "macs":
        return f"{macs_to_flops(amount)} FLOPs ({amount} MACs)"
    if resource == "femtojoules":
        return f"{fj_to_j(amount):.6g} J"
    if resource == "milli_mac_equivalents":
        return f"{milli_to_mac_equivalents(amount):.6g} MACeq"
    return f"{ns_to_s(amount):.6g} s"
