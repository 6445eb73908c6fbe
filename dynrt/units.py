"""The only powers of ten: amounts as people write them, and the numbers that dynrt computes with.

Inside dynrt MACs are ``int``, energy is ``int`` femtojoules, or thousandths of a MAC-equivalent
where a table is normalised (sums are exact), and time is ``int`` nanoseconds; joules, seconds and FLOPs appear where people or JSON see them. One MAC is two FLOPs,
as the DDI and d-gate papers count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from dynrt.errors import QuantityError

FLOPS_PER_MAC = 2
FEMTO_PER_UNIT = 10**15
NANO_PER_UNIT = 10**9

MILLI_PER_UNIT = 10**3

Unit = Literal["FLOP", "MAC", "MACeq", "J", "s"]

_TEXT = re.compile(
    r"\s*(?P<sign>[+-]?)(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d{1,3})?|\.\d+)"
    r"\s*(?P<prefix>[KkMGTumµn]?)(?P<unit>FLOPs?|MACeq|MACs?|J|s|)\s*"
)
_LARGE = {"": 1, "K": 10**3, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SMALL = {"n": 10**9, "u": 10**6, "µ": 10**6, "m": 10**3}


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact amount: ``value`` in ``unit``, no prefix."""

    value: Fraction
    unit: Unit


def parse_quantity(text: str) -> Quantity:
    """Read ``100M`` (FLOPs), ``50MMAC``, ``2mJ``, ``300MMACeq`` or ``5ms`` as an exact amount.

    Raises:
        QuantityError: the text is no such amount, or is zero or negative.
    """
    match = _TEXT.fullmatch(text)
    if match is None or len(text) > 64:
        raise QuantityError(f"{text[:64]!r} is no amount: write 100M (FLOPs), 50MMAC, 2mJ or 5ms")
    prefix, name = match["prefix"], match["unit"]
    unit: Unit
    if name in ("J", "s"):
        unit = "J" if name == "J" else "s"
    else:
        unit = "MACeq" if name == "MACeq" else "MAC" if name.startswith("MAC") else "FLOP"
        if prefix in _SMALL:
            raise QuantityError(
                f"{text!r}: {prefix!r} goes with J or s, not with {unit}s (use K, M, G)"
            )
    factor = Fraction(1, _SMALL[prefix]) if prefix in _SMALL else Fraction(_LARGE[prefix])
    value = Fraction(match["number"]) * factor
    if match["sign"] == "-" or value == 0:
        raise QuantityError(f"{text!r}: an amount must be above zero")
    return Quantity(value=value, unit=unit)


def flops_to_macs(flops: Fraction | int) -> int:
    """The most whole MACs that fit into ``flops``."""
    return int(Fraction(flops) // FLOPS_PER_MAC)


def macs_to_flops(macs: int) -> int:
    """FLOPs of ``macs`` multiply-accumulates."""
    return macs * FLOPS_PER_MAC


def _exact(amount: Fraction | float) -> Fraction:
    """A float as the decimal that people read it as: 21e-12 is 21000 femto, not 20999.99."""
    return amount if isinstance(amount, Fraction) else Fraction(repr(float(amount)))


def j_to_fj(joules: Fraction | float) -> int:
    """The most whole femtojoules in ``joules``."""
    return int(_exact(joules) * FEMTO_PER_UNIT // 1)


def fj_to_j(femtojoules: int) -> float:
    """Joules of ``femtojoules``."""
    return femtojoules / FEMTO_PER_UNIT


def mac_equivalents_to_milli(amount: Fraction | float) -> int:
    """The most whole thousandths of a MAC-equivalent in ``amount`` MAC-equivalents."""
    return int(_exact(amount) * MILLI_PER_UNIT // 1)


def milli_to_mac_equivalents(milli: int) -> float:
    """MAC-equivalents of ``milli`` thousandths."""
    return milli / MILLI_PER_UNIT


def s_to_ns(seconds: Fraction | float) -> int:
    """The most whole nanoseconds in ``seconds``."""
    return int(_exact(seconds) * NANO_PER_UNIT // 1)


def ns_to_s(nanoseconds: int) -> float:
    """Seconds of ``nanoseconds``."""
    return nanoseconds / NANO_PER_UNIT


def format_flops(flops: int) -> str:
    """``flops`` for people: ``38.6M``."""
    for factor, letter in ((10**9, "G"), (10**6, "M"), (10**3, "K")):
        if flops >= factor:
            return (
                f"{flops / factor:.3g}{letter}"
                if flops < 100 * factor
                else f"{flops / factor:.0f}{letter}"
            )
    return str(flops)
