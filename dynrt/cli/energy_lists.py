"""``dynrt energy --list`` and ``--published``: what there is to choose from, and how it compares."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from dynrt.cli.energy_page import digits
from dynrt.cli.text import WIDTH, table
from dynrt.energy.hardware import load_hardware, packaged_hardware
from dynrt.energy.policy import DEFAULT_POLICY, POLICIES
from dynrt.energy.published import published_comparisons
from dynrt.energy.tables import load_table, packaged_tables

Record = Mapping[str, Any]


def listed() -> dict[str, Any]:
    """The object of ``energy --list --json``."""
    tables = [load_table(name) for name in packaged_tables()]
    return {
        "hardware": [load_hardware(name).to_json() for name in packaged_hardware()],
        "tables": [
            {
                "name": t.name,
                "unit": t.unit,
                "technology": t.technology,
                "levels": list(t.levels),
                "missing": list(t.missing),
                "summary": t.summary,
            }
            for t in tables
        ],
        "policies": [
            {"name": p.name, "default": p.name == DEFAULT_POLICY, "meaning": p.meaning}
            for p in POLICIES.values()
        ],
    }


def list_page(lists: Record) -> str:
    """The same for people."""
    hardware = [
        [
            h["name"],
            f"{h['rows']}x{h['cols']}",
            h["dataflow"],
            "/".join(f"{h[f'{o}_sram_bytes'] / 1024:g}" for o in ("ifmap", "filter", "ofmap")),
            h["dram"] or "any",
            h["source"],
        ]
        for h in lists["hardware"]
    ]
    tables = [
        [t["name"], t["unit"], " ".join(t["missing"]) or "-", t["technology"]]
        for t in lists["tables"]
    ]
    policies = [
        [p["name"] + (" (default)" if p["default"] else ""), p["meaning"]]
        for p in lists["policies"]
    ]
    titles = ["hardware", "array", "flow", "buffers kB", "DRAM", "source"]
    return "\n".join(
        [
            table(titles, hardware, elastic=5),
            "",
            table(["table", "unit", "not modelled", "technology"], tables, elastic=3),
            "",
            table(["policy", "meaning"], policies, elastic=1),
        ]
    )


def published(policy: str | None) -> dict[str, Any]:
    """The object of ``energy --published --json``.

    Raises:
        EnergyError: no such policy.
    """
    compared = published_comparisons(policy=policy or DEFAULT_POLICY)
    return {
        "policy": policy or DEFAULT_POLICY,
        "comparisons": [
            {
                "title": c.title,
                "source": c.source,
                "basis": c.basis,
                "rows": [
                    {
                        "quantity": r.quantity,
                        "unit": r.unit,
                        "published": r.published,
                        "words": r.words,
                        "ours": dict(r.ours),
                    }
                    for r in c.rows
                ],
                "differences": list(c.differences),
            }
            for c in compared
        ],
    }


def published_page(found: Record) -> str:
    """The same for people: a table for each source, and why figures differ."""
    parts: list[str] = []
    for compared in found["comparisons"]:
        flows = list(dict.fromkeys(flow for row in compared["rows"] for flow in row["ours"]))
        rows = [
            [
                row["quantity"],
                row["unit"],
                row["words"] or ("-" if row["published"] is None else digits(row["published"])),
                *(digits(row["ours"][flow]) if flow in row["ours"] else "-" for flow in flows),
            ]
            for row in compared["rows"]
        ]
        titles = ["", "unit", "published", *(f"ours {flow}" for flow in flows)]
        parts += [
            compared["title"],
            *_wrapped(f"published: {compared['source']}"),
            *_wrapped(f"ours: {compared['basis']}"),
            "",
            table(titles, rows, right=range(2, len(titles)), width=120),
            "",
            *(line for text in compared["differences"] for line in _wrapped(f"- {text}")),
            "",
        ]
    return "\n".join(parts[:-1])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
