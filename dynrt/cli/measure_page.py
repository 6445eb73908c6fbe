"""A session for people: its figures, and the model beside them. Every joule says its source."""

from __future__ import annotations

from collections.abc import Sequence

from dynrt.cli.text import short_path, table
from dynrt.fpga.estimate import Interval
from dynrt.fpga.modelled import Compared
from dynrt.fpga.replay import Outcome

_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"))


def page(found: Outcome, folder: str) -> str:
    """The figures of a session."""
    lines = [
        f"{found.source} session of {found.bundle} on {len(found.inputs)} inputs: {_ended(found)}"
    ]
    if found.decisions_equal is not None:
        lines.append(_verified(found))
    if found.cases:
        lines.append(_table(found))
    lines += [f"  {reason}" for reason in found.reasons]
    if found.temperature_c is not None:
        low, high = found.temperature_c
        lines.append(f"board temperature {low:.1f} to {high:.1f} C")
    lines.append(
        "per inference; +- is half of the 95 % interval; dynamic is gross less idle. The meter's own "
        "accuracy comes on top."
    )
    if found.source == "emulated":
        lines.append("emulated: ticks are instructions and power is a model; nothing was measured")
    lines.append(f"stored in {folder}")
    return "\n".join(lines)


def _ended(found: Outcome) -> str:
    if found.valid:
        return "valid"
    return found.status if found.status != "done" else "not valid"


def _verified(found: Outcome) -> str:
    equal = "every decision and exit equal" if found.decisions_equal else "DECISIONS DIFFER"
    worst = "?" if found.max_abs_error is None else f"{found.max_abs_error:.2g}"
    return f"against onnxruntime: outputs within {worst}, {equal}"


def _table(found: Outcome) -> str:
    unit, factor = _unit([c.estimate.gross_j for c in found.cases])
    titles = [
        "case",
        "exits",
        "runs",
        "ms",
        f"gross {unit}J, {found.source}",
        "idle W",
        f"dynamic {unit}J, {found.source}",
        "verdict",
    ]
    rows = []
    for case in found.cases:
        own = case.estimate
        spoiled = f" (+{own.invalid_runs} invalid)" if own.invalid_runs else ""
        rows.append(
            [
                case.name,
                short_path(case.exits),
                f"{own.runs}{spoiled}",
                "-" if own.seconds is None else f"{own.seconds * 1e3:.4g}",
                _shown(own.gross_j, factor),
                _shown(own.idle_w, 1.0),
                _shown(own.dynamic_j, factor),
                own.verdict,
            ]
        )
    return table(titles, rows, right=(3, 4, 5, 6), width=140)


def _shown(own: Interval | None, factor: float) -> str:
    if own is None:
        return "-"
    return f"{own.mean / factor:.4g} +-{own.half_width / factor:.2g}"


def _unit(values: Sequence[Interval | None]) -> tuple[str, float]:
    most = max((abs(v.mean) for v in values if v is not None), default=1.0)
    return next(((name, f) for f, name in _PREFIXES if most >= f), ("n", 1e-9))


def compared_page(rows: Sequence[Compared], found: Outcome, model: str, unit: str) -> str:
    """The model beside the session, in the form of DDI's table I."""
    name, factor = _unit([row.measured_j for row in rows])
    scale = 1.0 if unit != "J" else min((r.modelled for r in rows if r.modelled), default=1.0)
    model_name, model_factor = next(((n, f) for f, n in _PREFIXES if scale >= f), ("n", 1e-9))
    if unit != "J":
        model_name, model_factor = "M", 1e6
    titles = [
        "case",
        "asked",
        "MACs saved",
        "modelled saved",
        f"{found.source} saved",
        "of gross",
        f"modelled {model_name}{unit}",
        f"dynamic {name}J, {found.source}",
    ]
    cells = [
        [
            row.name,
            "" if row.skipping is None else f"{row.skipping:.0%}",
            f"{row.macs_saved:.2%}",
            f"{row.modelled_saved:.2%}",
            _share(row.measured_saved),
            _share(row.gross_saved),
            f"{row.modelled / model_factor:.4g}",
            _shown(row.measured_j, factor),
        ]
        for row in rows
    ]
    head = f"modelled ({model}) against {found.source}; savings are against the dearest case"
    return f"{head}\n" + table(titles, cells, right=tuple(range(1, 8)), width=140)


def _share(own: Interval | None) -> str:
    return "-" if own is None else f"{100 * own.mean:.2f} +-{100 * own.half_width:.2f} %"
