"""The rules of a measurement: what a window must be, how often it is repeated, what spoils it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from dynrt.errors import SessionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the estimator goes by; stored with every session, so that a replay goes by the same.

    Attributes:
        window_s: the least duration of a window, by the board's clock.
        window_samples: the fewest samples inside a window once its edges are cut off.
        lag_s: by how much the meter's readings trail its marker (its averaging time).
        edge_s: by how much a marker edge may be misplaced.
        host_edge_s: the same for meters without a marker, whose windows are placed by host time.
        missing: the largest share of samples that may be missing.
        clock: the largest deviation from 1 of meter clock over board clock.
        aim: the half-width of the 95 % interval that is aimed at, as a share of the mean.
        first_runs: runs of the first stage, whose scatter decides how many there are in all.
        most_runs: runs at most.
    """

    window_s: float = 10.0
    window_samples: int = 200
    lag_s: float = 0.0
    edge_s: float = 0.005
    host_edge_s: float = 0.3
    missing: float = 0.001
    clock: float = 0.02
    aim: float = 0.01
    first_runs: int = 5
    most_runs: int = 30

    def __post_init__(self) -> None:
        for name in ("window_s", "lag_s", "edge_s", "host_edge_s", "missing", "clock", "aim"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise SessionError(f"rule {name} is {value}: it must be a number from 0 on")
        if not 2 <= self.first_runs <= self.most_runs:
            raise SessionError(
                f"{self.first_runs} first and {self.most_runs} most runs: at least 2 first runs, "
                "and no more of them than in all"
            )

    def to_json(self) -> dict[str, float | int]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Rules:
        """The rules that :meth:`to_json` gave.

        Raises:
            SessionError: a rule is missing, unknown, or no number.
        """
        names = {f.name for f in fields(cls)}
        if odd := sorted(names ^ value.keys()):
            raise SessionError(f"rules of a session: {odd[0]!r} is missing or unknown")
        whole = ("window_samples", "first_runs", "most_runs")
        own: dict[str, float | int] = {}
        for name, given in value.items():
            if not isinstance(given, int | float) or isinstance(given, bool):
                raise SessionError(f"rules of a session: {name} is {given!r}, no number")
            own[name] = int(given) if name in whole else float(given)
        return cls(**own)  # type: ignore[arg-type]


#: The method of the board note.
METHOD = Rules()
