"""A stored session again: the same figures from the same bytes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dynrt.errors import SessionError
from dynrt.fpga.digest import Digest, Keep
from dynrt.fpga.estimate import Estimate, Interval, estimate
from dynrt.fpga.journal import Source
from dynrt.fpga.store import read_parts

Status = Literal["done", "invalid", "interrupted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseOutcome:
    """One case's figures.

    Attributes:
        name: of the case.
        skipping: the ratio that was aimed at; ``None`` where it was none.
        paths: of each input, the compute nodes and exits that ran.
        exits: of each input.
        macs: mean per inference.
        estimate: the energies.
    """

    name: str
    skipping: float | None
    paths: tuple[tuple[str, ...], ...]
    exits: tuple[str, ...]
    macs: float
    estimate: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A session's figures.

    Attributes:
        source: emulated or hardware.
        status: how it ended; ``interrupted`` sessions can be resumed.
        bundle, sha256, bundle_path: the network.
        inputs: names of the pictures.
        decisions_equal: on the board and by onnxruntime; ``None`` before it was verified.
        max_abs_error: of all answers.
        cases: those that ran.
        reasons: why the session is not valid, or what its figures lack.
        parts: how many processes worked on it.
        temperature_c: least and most that the board said; ``None`` where it does not say.
        created: UTC.
    """

    source: Source
    status: Status
    bundle: str
    sha256: str
    bundle_path: str
    inputs: tuple[str, ...]
    decisions_equal: bool | None
    max_abs_error: float | None
    cases: tuple[CaseOutcome, ...]
    reasons: tuple[str, ...]
    parts: int
    temperature_c: tuple[float, float] | None
    created: str

    @property
    def valid(self) -> bool:
        """Whether the session ended as the method wants it and all its figures hold."""
        held = all(case.estimate.verdict in ("resolved", "wide") for case in self.cases)
        return self.status == "done" and bool(self.cases) and held

    def to_json(self, session: str) -> dict[str, Any]:
        """The JSON of ``dynrt measure run --json``; the figures are those of the first case."""
        first = self.cases[0] if self.cases else None
        own = None if first is None else _figures(first.estimate, self.source)
        return {
            "source": self.source,
            "bundle": {"name": self.bundle, "sha256": self.sha256},
            "inputs": len(self.inputs),
            "decisions_equal": self.decisions_equal,
            "max_abs_error": self.max_abs_error,
            "runs": 0 if first is None else first.estimate.runs,
            **(own or dict.fromkeys(("gross_j", "idle_w", "dynamic_j", "clock_ratio"))),
            "valid": self.valid,
            "reasons": list(self.reasons),
            "session": session,
            "status": self.status,
            "per": "inference",
            "cases": [_case(case, self.source) for case in self.cases],
            "parts": self.parts,
            "temperature_c": None if self.temperature_c is None else list(self.temperature_c),
            "created": self.created,
        }


def _case(case: CaseOutcome, source: Source) -> dict[str, Any]:
    own = case.estimate
    return {
        "name": case.name,
        "source": source,
        "skipping": case.skipping,
        "exits": dict(Counter(case.exits)),
        "macs": case.macs,
        "inferences": own.inferences,
        "runs": own.runs,
        "invalid_runs": own.invalid_runs,
        "seconds": own.seconds,
        **_figures(own, source),
        "verdict": own.verdict,
        "reasons": list(own.reasons),
    }


def _figures(own: Estimate, source: Source) -> dict[str, Any]:
    def shown(interval: Interval | None) -> dict[str, Any] | None:
        return None if interval is None else {**interval.to_json(), "source": source}

    return {
        "gross_j": shown(own.gross_j),
        "idle_w": shown(own.idle_w),
        "dynamic_j": shown(own.dynamic_j),
        "clock_ratio": shown(own.clock_ratio),
    }


def read_session(folder: Path, *, keep: Keep | None = None) -> Digest:
    """All of a stored session.

    Args:
        folder: of the session.
        keep: told of each window's samples.

    Raises:
        SessionError: there is none, or it is damaged.
    """
    digest = Digest(keep=keep)
    for records in read_parts(folder):
        digest.begin_part()
        for record in records:
            digest.feed(record)
    return digest


def replay(folder: Path) -> Outcome:
    """The figures of a stored session, from its raw bytes.

    Raises:
        SessionError: there is none, it is damaged, or was killed before it had a plan.
    """
    return outcome(read_session(folder))


def outcome(digest: Digest) -> Outcome:
    """The figures of what a digest has taken.

    Raises:
        SessionError: it has no plan.
    """
    plan = digest.plan
    if digest.source is None:
        raise SessionError("the session has no records")
    cases = []
    for index, case in enumerate(plan.cases):
        seen, inferences = digest.verified.get(index), digest.planned.get(index)
        if seen is None or inferences is None:
            continue
        macs = [int(m) for m in seen["macs"]]
        cases.append(
            CaseOutcome(
                name=case.name,
                skipping=case.skipping,
                paths=tuple(tuple(map(str, path)) for path in seen["paths"]),
                exits=tuple(map(str, seen["exits"])),
                macs=sum(macs) / len(macs),
                estimate=estimate(digest.runs_of(index), inferences=inferences, rules=digest.rules),
            )
        )
    status, reasons = _ended(digest)
    for own in cases:
        reasons += [f"{own.name}: {reason}" for reason in own.estimate.reasons]
    checks = list(digest.verified.values())
    errors = [c["max_abs_error"] for c in checks]
    worst = None if None in errors or not errors else max(map(float, errors))
    heat = digest.temperatures_c
    return Outcome(
        source=digest.source,
        status=status,
        bundle=plan.bundle,
        sha256=plan.sha256,
        bundle_path=plan.bundle_path,
        inputs=plan.inputs,
        decisions_equal=all(bool(c["decisions_equal"]) for c in checks) if checks else None,
        max_abs_error=worst if worst is None or math.isfinite(worst) else None,
        cases=tuple(cases),
        reasons=tuple(dict.fromkeys(reasons)),
        parts=len(digest.parts),
        temperature_c=(min(heat), max(heat)) if heat else None,
        created=plan.created,
    )


def _ended(digest: Digest) -> tuple[Status, list[str]]:
    if digest.end is None:
        told = digest.faults[-1:] or ["the session was broken off"]
        return "interrupted", [*told, "not finished: dynrt measure run --resume goes on with it"]
    status: Status = "done" if digest.end.get("status") == "done" else "invalid"
    return status, [str(reason) for reason in digest.end.get("reasons", ())]
