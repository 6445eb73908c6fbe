"""What a session sets out to do: its first event, and all that a replay needs besides bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dynrt.errors import SessionError
from dynrt.fpga.rules import METHOD, Rules

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to run the network: as it decides, or with decisions forced.

    Attributes:
        name: of the case; ``as it decides`` where nothing is forced.
        force: by name of control node or exit: bits of the active actions, or 0 and 1.
        skipping: the skipping ratio that was aimed at; ``None`` where it was none.
    """

    name: str
    force: Mapping[str, int] = field(default_factory=dict)
    skipping: float | None = None


#: The network as it is.
FREE = Case(name="as it decides")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A session's plan.

    Attributes:
        bundle: the network's name.
        sha256: its hash.
        bundle_path: where it was read; a packaged name or a path.
        inputs: names of the pictures.
        given: names of the inputs as a person gave them; empty if they gave none.
        data: the data set as a person gave it.
        cases: in the order in which they take turns.
        meter: kind of the meter.
        meter_settings: as plain JSON values.
        rules: of the estimate.
        dynrt: version.
        created: UTC, ISO 8601.
        decisions: names behind the board's decision indices.
    """

    bundle: str
    sha256: str
    bundle_path: str
    inputs: tuple[str, ...]
    cases: tuple[Case, ...]
    meter: str
    meter_settings: Mapping[str, object]
    dynrt: str
    created: str
    decisions: tuple[str, ...]
    given: tuple[str, ...] = ()
    data: str | None = None
    rules: Rules = METHOD

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "format": FORMAT,
            "bundle": {"name": self.bundle, "sha256": self.sha256, "path": self.bundle_path},
            "inputs": list(self.inputs),
            "given": list(self.given),
            "data": self.data,
            "cases": [
                {"name": c.name, "force": dict(c.force), "skipping": c.skipping} for c in self.cases
            ],
            "meter": {"name": self.meter, "settings": dict(self.meter_settings)},
            "rules": self.rules.to_json(),
            "dynrt": self.dynrt,
            "created": self.created,
            "decisions": list(self.decisions),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Manifest:
        """The plan that :meth:`to_json` gave.

        Raises:
            SessionError: it is of another format, or lacks something.
        """
        if value.get("format") != FORMAT:
            raise SessionError(
                f"a session of format {value.get('format')!r}; this dynrt reads {FORMAT}"
            )
        try:
            return cls(
                bundle=str(value["bundle"]["name"]),
                sha256=str(value["bundle"]["sha256"]),
                bundle_path=str(value["bundle"]["path"]),
                inputs=tuple(map(str, value["inputs"])),
                given=tuple(map(str, value["given"])),
                data=None if value["data"] is None else str(value["data"]),
                cases=tuple(
                    Case(
                        name=str(c["name"]),
                        force={str(k): int(v) for k, v in c["force"].items()},
                        skipping=None if c["skipping"] is None else float(c["skipping"]),
                    )
                    for c in value["cases"]
                ),
                meter=str(value["meter"]["name"]),
                meter_settings=dict(value["meter"]["settings"]),
                rules=Rules.from_json(value["rules"]),
                dynrt=str(value["dynrt"]),
                created=str(value["created"]),
                decisions=tuple(map(str, value["decisions"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise SessionError(f"the plan of a session lacks or mistypes {exc}") from exc
