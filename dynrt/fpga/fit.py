"""An energy table's values from measured paths: non-negative least squares, with intervals.

Each case of a session is one equation: counts of its path times the table's values is its measured
dynamic energy. Values that the cases cannot tell apart are not invented: a count that moves with
another in all cases is named and left to it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynrt.energy.hardware import Hardware
from dynrt.energy.tables import same_width_format
from dynrt.errors import MissingExtraError, SessionError
from dynrt.fpga.estimate import t_quantile
from dynrt.fpga.journal import Source
from dynrt.fpga.samples import F64

_PICO = 1e12
#: The least value that a table takes, in pJ; stands for a value that the fit puts at zero.
LEAST_PJ = 1e-12
_DRAWS = 2000
_SEED = 0
#: Columns whose part outside of the others is smaller than this share of them are not told apart.
_APART = 1e-3
_ORDER = ("mac", "dram", "buffer", "operation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """One measured path.

    Attributes:
        name: of the case.
        words: counts of one inference, as ``path_words`` gives them.
        joules: its dynamic energy.
        error_j: standard error of it.
    """

    name: str
    words: Mapping[str, float]
    joules: float
    error_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One fitted value.

    Attributes:
        what: ``mac float32``, ``operation float32``, ``buffer`` or ``dram`` (of 32 bits).
        pj: in picojoules.
        low_pj, high_pj: 95 % interval.
    """

    what: str
    pj: float
    low_pj: float
    high_pj: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What the sessions say of a table.

    Attributes:
        source: emulated or hardware, as all the sessions.
        values: fitted.
        merged: counts that move with those of ``values`` and have no value of their own.
        residuals: by case, measured minus fitted, in joules.
        measured: by case, in joules.
        condition: of the scaled equations; large means that values may be traded for each other.
        sessions: how many.
    """

    source: Source
    values: tuple[Value, ...]
    merged: tuple[str, ...]
    residuals: Mapping[str, float]
    measured: Mapping[str, float]
    condition: float
    sessions: int

    @property
    def r_squared(self) -> float:
        """Share of the scatter of the measured energies that the values explain."""
        own = np.array(list(self.measured.values()))
        left = np.array(list(self.residuals.values()))
        scatter = float(((own - own.mean()) ** 2).sum())
        return 1 - float((left**2).sum()) / scatter if scatter > 0 else math.nan

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "source": self.source,
            "sessions": self.sessions,
            "values": [
                {"what": v.what, "pj": v.pj, "low_pj": v.low_pj, "high_pj": v.high_pj}
                for v in self.values
            ],
            "merged": list(self.merged),
            "residuals": [
                {"case": name, "measured_j": self.measured[name], "residual_j": left}
                for name, left in self.residuals.items()
            ],
            "r_squared": None if math.isnan(self.r_squared) else self.r_squared,
            "condition": self.condition,
        }


def fit(equations: Sequence[Equation], *, source: Source, sessions: int = 1) -> Fit:
    """Fit values to equations.

    Args:
        equations: of one or more sessions of one source.
        source: of all of them.
        sessions: how many there were.

    Raises:
        SessionError: fewer than two cases, or no counts at all.
        MissingExtraError: scipy is not installed.
    """
    try:
        from scipy.optimize import nnls
    except ModuleNotFoundError as exc:
        raise MissingExtraError("scipy", "fpga") from exc
    if len(equations) < 2:
        raise SessionError(
            f"{len(equations)} case with an energy; a fit takes 2 (dynrt measure run --paths)"
        )
    kept, merged = _told_apart(equations)
    counts: F64 = np.array([[e.words.get(key, 0.0) for key in kept] for e in equations])
    joules: F64 = np.array([e.joules for e in equations])
    least = 1e-9 * float(np.abs(joules).max())
    errors: F64 = np.array([max(e.error_j, least) for e in equations])
    scale: F64 = np.linalg.norm(counts, axis=0)
    rows = counts / scale / errors[:, None]
    found, _ = nnls(rows, joules / errors)
    left = joules - counts / scale @ found
    spare = len(equations) - len(kept)
    # Where the values explain less than the errors allow, the errors are taken to be so much larger.
    strain = math.sqrt(float(((left / errors) ** 2).sum()) / spare) if spare > 0 else 1.0
    spread = errors * max(1.0, strain)
    rng = np.random.default_rng(_SEED)
    wide = t_quantile(spare) / t_quantile(10**9) if spare > 0 else 1.0
    draws = []
    for _ in range(_DRAWS):
        shaken = joules + wide * spread * rng.standard_normal(len(joules))
        draws.append(nnls(rows, shaken / errors)[0])
    low, high = np.percentile(np.array(draws), [2.5, 97.5], axis=0)
    values = tuple(
        Value(
            what=key,
            pj=float(found[i] / scale[i]) * _PICO,
            low_pj=float(min(low[i], found[i]) / scale[i]) * _PICO,
            high_pj=float(max(high[i], found[i]) / scale[i]) * _PICO,
        )
        for i, key in enumerate(kept)
    )
    names = _unique([e.name for e in equations])
    return Fit(
        source=source,
        values=values,
        merged=merged,
        residuals=dict(zip(names, map(float, left), strict=True)),
        measured=dict(zip(names, map(float, joules), strict=True)),
        condition=float(np.linalg.cond(counts / scale)),
        sessions=sessions,
    )


def _told_apart(equations: Sequence[Equation]) -> tuple[list[str], tuple[str, ...]]:
    """Counts that the cases tell apart, the more telling first, and those that they do not."""
    keys = {key for e in equations for key, amount in e.words.items() if amount}
    ordered = sorted(keys, key=lambda k: (_ORDER.index(k.split()[0]), k))
    if not ordered:
        raise SessionError("the paths have no counts: nothing to fit")
    kept, merged = list[str](), list[str]()
    basis: list[F64] = []
    for key in ordered:
        column: F64 = np.array([e.words.get(key, 0.0) for e in equations])
        unit = column / np.linalg.norm(column)
        outside = unit.copy()
        for other in basis:
            outside = outside - other * float(other @ outside)
        size = float(np.linalg.norm(outside))
        if len(basis) < len(equations) and size > _APART:
            basis.append(outside / size)
            kept.append(key)
        else:
            merged.append(key)
    return kept, tuple(merged)


def _unique(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return out


def table_text(fitted: Fit, *, name: str, hardware: Hardware, network: str, sessions: str) -> str:
    """The fit as an energy table that ``dynrt energy --table FILE`` reads.

    Args:
        fitted: the values.
        name: of the table; results name it.
        hardware: whose counts were fitted.
        network: name of the bundle.
        sessions: where the sessions are, for the source.
    """
    origin = (
        f"fit to {fitted.sessions} session(s) of {network}, source: {fitted.source} ({sessions})"
    )
    merged = "; ".join(fitted.merged)
    told = (
        f"Values by non-negative least squares from dynamic energies ({fitted.source}) against "
        f"counts on {hardware.name}. low and high are 95 % intervals. "
        + (f"Not told apart from the others, and left to them: {merged}. " if merged else "")
        + "Register files are part of mac. "
        + ("Emulated: these are no measured energies." if fitted.source == "emulated" else "")
    )
    lines = [
        "format = 1",
        f"name = {json.dumps(name)}",
        'unit = "pJ"',
        f"technology = {json.dumps(f'{fitted.source} board, fitted')}",
        f"summary = {json.dumps(told.strip())}",
    ]
    order = {"mac": 0, "buffer": 1, "dram": 2, "operation": 3}
    for value in sorted(fitted.values, key=lambda v: (order[v.what.split()[0]], v.what)):
        level, _, dtype = value.what.partition(" ")
        zero = value.pj < LEAST_PJ
        lines += ["", f"[[{level}]]"]
        if dtype:
            lines.append(f"dtype = {json.dumps(same_width_format(dtype))}")
        else:
            lines.append("bits = 32")
        if level == "buffer":
            lines.append(f"bytes = {hardware.sram_bytes('ifmap')}")
        for key, amount in (("value", value.pj), ("low", value.low_pj), ("high", value.high_pj)):
            lines.append(f"{key} = {max(amount, LEAST_PJ)!r}")
        lines.append('basis = "derived"')
        lines.append(f"source = {json.dumps(origin)}")
        if zero:
            lines.append('note = "The fit puts it at zero; this is the least that a table takes."')
    return "\n".join(lines) + "\n"
