"""A made-up evaluation record, in the form that ``dynrt eval --json`` prints."""

from __future__ import annotations

from typing import Any


def evaluation(*, name: str = "tiny") -> dict[str, Any]:
    def point(
        flops: int | None, accuracy: float, mean: float, most: int, first: int
    ) -> dict[str, Any]:
        return {
            "budget": {"flops": flops, "joules": None, "seconds": None},
            "n": 100,
            "accuracy": accuracy,
            "mean_flops": mean,
            "max_flops": most,
            "exits": {"exit1": first, "exit2": 100 - first},
        }

    return {
        "bundle": {"name": name, "sha256": "ab"},
        "data": "pixels test",
        "full_flops": 100_000_000,
        **{k: v for k, v in point(None, 0.9, 70e6, 99_000_000, 30).items() if k != "budget"},
        "points": [
            point(50_000_000, 0.8, 40e6, 50_000_000, 60),
            point(80_000_000, 0.87, 60.5e6, 79_000_000, 40),
            point(None, 0.9, 70e6, 99_000_000, 30),
        ],
    }
